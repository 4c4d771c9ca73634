"""Policies written for version 0.1: whoever runs one is told what its names are called now."""

import logging
from pathlib import Path

import pytest

from foredraft.edge.state import EdgeState
from foredraft.errors import ConfigError
from foredraft.policies import make_policy
from foredraft.protocol.sampling import StopRules

OLD = """
class Old:
    name = "old"
    def orders(self, grower): ...
    def step(self, grower): ...
    def ship(self, grower): ...
"""


def module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return name


def test_a_policy_with_the_old_method_is_refused_with_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(tmp_path, "policy_of_old_methods", OLD, monkeypatch)
    with pytest.raises(ConfigError, match=r"'orders' is called 'verify_params' since version 0.2"):
        make_policy(f"{name}:Old")


def test_a_policy_without_a_method_is_refused_and_the_method_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(
        tmp_path, "policy_without_ship", OLD.replace("orders", "verify_params").replace("ship", "s"), monkeypatch
    )
    with pytest.raises(ConfigError, match="has no method 'ship'"):
        make_policy(f"{name}:Old")


def test_an_import_from_where_things_were_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, "policy_of_old_imports", "from foredraft.core.grower import Grower\n", monkeypatch)
    with pytest.raises(ConfigError, match=r"EdgeState \(once Grower\) from foredraft.edge.state"):
        make_policy(f"{name}:Old")


@pytest.mark.parametrize(("old", "new"), [("reaches", "path_probabilities"), ("told", "hinted_steps")])
def test_an_old_attribute_of_the_state_is_answered_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(AttributeError, match=f"it is called '{new}' since version 0.2"):
        getattr(EdgeState((1,), StopRules(1)), old)


def test_an_attribute_that_never_was_is_answered_plainly() -> None:
    with pytest.raises(AttributeError, match=r"^EdgeState has no attribute 'reachez'$"):
        getattr(EdgeState((1,), StopRules(1)), "reachez")  # noqa: B009


def test_an_old_parameter_is_taken_and_its_new_name_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "foredraft.policies"):
        policy = make_policy("ahead:min_reach=0.2")
    assert getattr(policy, "min_probability") == 0.2  # noqa: B009
    assert "min_reach is called min_probability since version 0.2" in caplog.text
