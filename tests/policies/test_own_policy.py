"""A policy of one's own, by module and class: the same one simulated and for real."""

import pytest

from foredraft.policies import make_policy
from paths import EXAMPLES
from policies.stage import ROBOT, play
from sessions.room import collect, room, text

SPEC = "own_policy:Confident:least=0.2"


@pytest.fixture(autouse=True)
def _example_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_it_runs_in_simulated_time_and_beats_streaming() -> None:
    own, cloud = play(SPEC, ROBOT), play("cloud", ROBOT)
    assert own.report.policy == "confident"
    assert own.report.tokens == cloud.report.tokens
    assert own.report.e2e_s < 0.9 * cloud.report.e2e_s


async def test_it_runs_on_a_real_loop_and_says_the_targets_text() -> None:
    here = room()
    session = here.session(SPEC, 40)
    assert await collect(session) == text(40)
    assert session.report().accepted > 0
    await here.left()


def test_its_parameters_are_its_fields() -> None:
    assert repr(make_policy(SPEC)) == "Confident(least=0.2, name='confident')"


def test_installed_policies_are_looked_up_once_and_not_by_every_session(monkeypatch: pytest.MonkeyPatch) -> None:
    make_policy("sync")
    monkeypatch.setattr("foredraft.policies.entry_points", lambda group: pytest.fail("looked up again"))
    make_policy("seed")
