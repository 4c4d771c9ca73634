"""The benchmark on the wall clock: its processes, and what it makes of what they say. No model is loaded."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from foredraft.bench import real
from foredraft.bench.child import Child, child, cores
from foredraft.bench.result import Figure
from foredraft.errors import ForedraftError
from foredraft.profiles import load_profile, seconds


@pytest.fixture(autouse=True)
def _children_find_their_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))


@pytest.mark.skipif(not cores(), reason="this system has no affinity")
def test_a_child_and_its_threads_run_on_its_core() -> None:
    with child(cores()[-1], "answering_child") as process:
        assert process.ask({"want": "affinity"}) == {"process": [cores()[-1]], "thread": [cores()[-1]]}


def test_a_child_that_ends_is_an_error_and_no_hang() -> None:
    with child(None, "answering_child") as process:
        assert process.ask({"want": "echo"}) == {"echo": {"want": "echo"}}
        with pytest.raises(ForedraftError, match="answering_child has ended"):
            process.ask({"want": "end"})


def test_where_edge_and_cloud_share_a_core_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "cores", lambda: [3, 5])
    assert real.places() == (5, 3, "edge pinned to core 5, cloud to core 3")
    monkeypatch.setattr(real, "cores", lambda: [3])
    assert "SHARE core 3" in real.places()[2]
    monkeypatch.setattr(real, "cores", list)
    assert real.places()[:2] == (None, None)
    assert "NOT PINNED" in real.places()[2]


def test_its_profiles_are_what_it_promises() -> None:
    target, draft = load_profile(real.TARGET, "target"), load_profile(real.DRAFT, "draft")
    assert {seconds(target.target_pass, tokens, 500) for tokens in (1, 5, 32)} == {0.06}
    assert seconds(draft.draft_step, 8, 500) == pytest.approx(0.006)


@dataclass
class Scripted:
    """A child that answers from a list of times, by policy, and remembers what was asked."""

    times_s: dict[str, float]
    liar: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(question)
        way = question.get("policy") or question["assistant"]
        tokens = [question["seed"]] * question["max_new_tokens"]
        if way == self.liar:
            tokens[-1] += 1
        new_tokens = len(tokens)
        e2e_s = self.times_s.get(way, 0.03) * new_tokens * question["seed"]
        told = {"e2e_s": e2e_s, "new_tokens": new_tokens, "tokens": tokens}
        return told | {"tokens_per_pass": 2.0, "target_s": 6.0, "passes": 100}


def taken(turns: int, **changed: Any) -> tuple[dict[str, list[real.Ran]], Scripted]:
    scripted = Scripted({"cloud": 0.06, "auto": 0.03, "default": 0.05}, **changed)
    processes = cast(Child, scripted)
    return real._take_turns(processes, processes, turns, 16), scripted


def test_all_ways_meet_the_same_prompts_and_seeds_and_take_turns_to_be_first() -> None:
    _, scripted = taken(3)
    counted = scripted.asked[len(real.POLICIES) + len(real.ASSISTED) :]
    ways = len(real.POLICIES) + len(real.ASSISTED)
    turns = [counted[turn * ways : (turn + 1) * ways] for turn in range(3)]
    assert [{(one["prompt"], one["seed"]) for one in turn} for turn in turns] == [
        {(real.PROMPTS[turn], turn + 1)} for turn in range(3)
    ]
    assert [turn[0]["policy"] for turn in turns] == list(real.POLICIES[:3])


def test_each_way_is_set_against_cloud_in_the_same_turn() -> None:
    ran, _ = taken(3)
    figures = {figure.name: figure for figure in real._figures(ran, real.MOST_OF_CLOUD)}
    assert figures["auto of cloud"] == Figure("auto of cloud", 0.5, "x", 0.60, span=(0.5, 0.5))
    assert figures["assisted of cloud"].value == pytest.approx(50 / 60)
    assert figures["seed of cloud"].bound is None
    assert figures["a target pass took"].value == pytest.approx(60.0)
    assert "[60 to 180]" in str(figures["cloud, per token"])


def test_a_text_that_differs_between_policies_ends_it() -> None:
    with pytest.raises(ForedraftError, match="texts differ in turn 0"):
        taken(1, liar="auto")
