"""Scenarios by rejection sampling: the same luck as by shared noise, other texts, and more bytes up."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from chance import follows
from foredraft.cli.main import app
from foredraft.edge.session_report import SessionReport
from foredraft.protocol.sampling import NOISE, REJECTION
from foredraft_sim.errors import ScenarioError
from foredraft_sim.fit.published import published_pair
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.results import REJECTION_NOTE, summarise
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import Pair
from sim.scenario.scenario_files import PAIR, scenario, workload, write

RULE = '[sampling]\nacceptance = "rejection"\n'
LONG = workload(requests=4, prompt_tokens=8, new_tokens=200)


def reports(asked: Scenario, policy: str) -> list[SessionReport]:
    return [one.report for one in replicate(asked, policy, 1).finished]


def by_both(folder: Path, policy: str, pair: Pair | None = None) -> tuple[list[SessionReport], list[SessionReport]]:
    found = [scenario(folder, LONG), scenario(folder, LONG, more=RULE)]
    noise, rejection = (reports(one if pair is None else replace(one, pair=pair), policy) for one in found)
    assert {one.acceptance for one in noise} == {NOISE}
    assert {one.acceptance for one in rejection} == {REJECTION}
    return noise, rejection


@pytest.mark.parametrize("pair", [None, published_pair((0.74, 0.54, 0.41), "a test", 32)], ids=["ranks", "fitted"])
@pytest.mark.parametrize("policy", ["sync:gamma=1", "sync:gamma=4", "seed:gamma=4"])
def test_as_many_drafts_of_a_chain_are_accepted_by_either_rule(tmp_path: Path, policy: str, pair: Pair | None) -> None:
    noise, rejection = by_both(tmp_path, policy, pair)
    assert [(one.drafted, one.accepted) for one in rejection] == [(one.drafted, one.accepted) for one in noise]
    assert sum(one.bytes_up for one in rejection) > 1.5 * sum(one.bytes_up for one in noise)


def test_the_first_draft_is_accepted_as_often_as_the_pair_says(tmp_path: Path) -> None:
    _, rejection = by_both(tmp_path, "sync:gamma=1")
    accepted, drafted = sum(one.accepted for one in rejection), sum(one.drafted for one in rejection)
    assert drafted > 400
    assert follows({"": (Counter({True: accepted, False: drafted - accepted}), {True: 0.58, False: 0.42})})


@pytest.mark.parametrize("policy", ["ahead", "auto", "cloud"])
def test_whatever_a_policy_does_its_texts_come_to_their_end(tmp_path: Path, policy: str) -> None:
    noise, rejection = by_both(tmp_path, policy)
    assert [one.new_tokens for one in rejection] == [one.new_tokens for one in noise]


def test_results_say_that_texts_are_not_compared(tmp_path: Path) -> None:
    asked = scenario(tmp_path, more=RULE)
    summary = summarise(asked, [replicate(asked, policy, 1) for policy in ("cloud", "sync:gamma=4")])
    assert summary["same_texts"] is None
    assert REJECTION_NOTE in summary["notes"]
    assert REJECTION_NOTE not in summarise(scenario(tmp_path), [replicate(asked, "cloud", 1)])["notes"]


def test_models_need_a_temperature(tmp_path: Path) -> None:
    models = ((PAIR, 'kind = "models"'), workload(prompts='["def"]', new_tokens=4))
    with pytest.raises(ScenarioError, match="at temperature 0 both rules are one"):
        scenario(tmp_path, *models, more=RULE)
    assert scenario(tmp_path, *models, more=f"{RULE}temperature = 0.8\n").sampling(1, 0).temperature == 0.8


def test_what_was_recorded_cannot_be_drawn_again_and_such_texts_are_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="what was recorded was drawn already"):
        scenario(tmp_path, (PAIR, 'kind = "recorded"\nfile = "x.rec"'), workload(new_tokens=4), more=RULE)
    file = write(tmp_path, more=RULE)
    done = CliRunner().invoke(app, ["simulate", str(file), "--events", str(tmp_path / "events.jsonl")])
    assert done.exit_code == 2
    assert "are not recorded" in done.output


def test_a_rule_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="acceptance"):
        scenario(tmp_path, more=RULE.replace("rejection", "luck"))


def test_the_same_seed_is_the_same_text_and_another_one_than_by_shared_noise(tmp_path: Path) -> None:
    asked = scenario(tmp_path, more=RULE)
    once, again, noise = (replicate(one, "auto", 1) for one in (asked, asked, scenario(tmp_path)))
    assert [one.digest for one in once.finished] == [one.digest for one in again.finished]
    assert {one.digest for one in once.finished}.isdisjoint(one.digest for one in noise.finished)
    assert msgspec.json.encode(once.finished[0].report) == msgspec.json.encode(again.finished[0].report)
