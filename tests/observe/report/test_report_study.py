"""A study of ``foredraft tune`` on the report's page: all of its trials, the front, and the held-out scores."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.observe.report import read_sources, report_page
from observe.report.test_report_page import Page, foredraft, page_of, session
from sim.scenario.scenario_files import workload, write

UNITS = {"p50-tpot": "s", "cost": "USD per million tokens"}


def scored(policy: str, tpot_s: float, cost: float, held_out: tuple[float, float] | None = None) -> dict[str, Any]:
    there = None if held_out is None else dict(zip(UNITS, held_out, strict=True))
    return {"policy": policy, "metrics": {"p50-tpot": tpot_s, "cost": cost}, "held_out": there}


FRONT = [scored("seed:gamma=6", 0.25, 300.0, (0.26, 310.0)), scored("sync:gamma=2", 0.4, 200.0)]
DEFAULTS = [scored("sync:gamma=4", 0.5, 320.0, (0.49, 700.0))]
OTHERS = [scored("seed:gamma=9", 0.3, 350.0), scored("own:Policy:least=1", 0.6, 900.0)]


def study(**other: Any) -> dict[str, Any]:
    """What ``tune --json`` prints: two on the front, one of five trials over the limit, and one failure."""
    tried = [{"number": at, **one, "failure": ""} for at, one in enumerate((*FRONT, *DEFAULTS, *OTHERS))]
    tried.append({"number": 5, "policy": "both", "metrics": {}, "failure": "no draft model"})
    said: dict[str, Any] = {
        "scenario": "/somewhere/robot.toml",
        "title": "A robot & its cloud",
        "study": "robot",
        "objectives": ["p50-tpot", "cost"],
        "limits": {"cost": 500.0},
        "units": UNITS,
        "seeds": [1, 2],
        "held_out_seeds": [3],
        "front": FRONT,
        "defaults": DEFAULTS,
        "candidates": tried,
        "failed": 1,
        "lost": 2,
    }
    return said | other


def shown(folder: Path, said: dict[str, Any]) -> tuple[str, Page]:
    file = folder / "study.json"
    file.write_text(json.dumps(said))
    return page_of(file)


def dots(text: str, kind: str) -> list[str]:
    """The titles of the dots of a class."""
    return re.findall(rf'<g class="{kind}"><title>([^<]*)</title><circle', text)


def test_the_tables_figures_are_the_studys_on_both_kinds_of_seeds(tmp_path: Path) -> None:
    text, page = shown(tmp_path, study())
    assert [[value for _, value in row] for row in page.rows] == [
        [None] * 5,
        [None, 0.25, 0.26, 300.0, 310.0],
        [None, 0.4, None, 200.0, None],
        [None, 0.5, 0.49, 320.0, 700.0],
    ]
    assert [row[0][0] for row in page.rows] == ["policy", "1seed", "2sync", "sync as it comes"]
    assert page.rows[2][2][0] == "failed"  # it could not be run to its end on the held-out seeds
    assert page.rows[3][4][0] == "700 (over)"
    assert "<ol><li>seed:gamma=6</li><li>sync:gamma=2</li></ol>" in text


def test_every_trial_is_a_dot_and_those_over_a_limit_are_rings(tmp_path: Path) -> None:
    text, _ = shown(tmp_path, study())
    every, front = text.split("the front, and held out</h3>")
    assert dots(every, "over") == ["own:Policy:least=1: p50-tpot 600 ms, cost 900"]
    assert dots(every, r"s\d thin") == [
        "sync:gamma=4: p50-tpot 500 ms, cost 320",
        "seed:gamma=9: p50-tpot 300 ms, cost 350",
    ]
    assert dots(every, r"s\d") == ["seed:gamma=6: p50-tpot 250 ms, cost 300", "sync:gamma=2: p50-tpot 400 ms, cost 200"]
    assert dots(front, r"s\d") == dots(every, r"s\d")
    assert dots(front, r"s\d ring") == ["held out: seed:gamma=6: p50-tpot 260 ms, cost 310"]
    assert every.count('<g class="way">') == front.count('<g class="way">') == 1
    assert "both" not in text.partition("<h2>")[2]


def test_latency_lies_below_and_price_beside_it_whatever_comes_first(tmp_path: Path) -> None:
    text, _ = shown(tmp_path, study(objectives=["cost", "p50-tpot"]))
    assert "<h3>Cost against p50-tpot: every trial</h3>" in text
    assert 'aria-label="cost (USD per million tokens) against p50-tpot (ms)"' in text


def test_with_one_objective_its_course_is_shown_and_the_price_where_it_is_known(tmp_path: Path) -> None:
    text, _ = shown(tmp_path, study(objectives=["p50-tpot"], limits={}, front=FRONT[:1]))
    assert "<h3>Cost against p50-tpot: every trial</h3>" in text
    assert "<h3>p50-tpot, trial by trial</h3>" in text
    assert "the front, and held out" not in text
    bare = json.loads(json.dumps(study(objectives=["p50-tpot"], limits={}, front=FRONT[:1])))
    for one in (*bare["front"], *bare["defaults"], *bare["candidates"]):
        one["metrics"].pop("cost", None)
    text, _ = shown(tmp_path, bare)
    assert "every trial" not in text
    assert "<h3>p50-tpot, trial by trial</h3>" in text


def test_what_was_asked_and_what_went_wrong_is_said(tmp_path: Path) -> None:
    text, page = shown(tmp_path, study())
    for said in (
        "<h1>Foredraft: tuning of robot.toml</h1>",
        "A robot &amp; its cloud",
        "minimised: p50-tpot (s), cost (USD per million tokens)",
        "limit: cost (USD per million tokens) at most 500",
        "6 trials on seeds 1, 2",
        "held out: seeds 3",
        "1 trials could not be run to their end, such as both: no draft model",
        "2 trials ended with their process",
    ):
        assert said in text
    assert "/somewhere" not in text
    assert page.addresses == []
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}


def test_names_of_policies_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = scored("<script>alert(1)</script>", 0.2, 100.0)
    _, page = shown(tmp_path, study(front=[evil], candidates=[{"number": 0, **evil}], title="<img src=x>"))
    assert not page.tags & {"script", "img"}


def test_a_study_and_sessions_share_a_page(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(study()))
    (tmp_path / "run.json").write_text(json.dumps(session()))
    text, page = page_of(tmp_path / "study.json", tmp_path / "run.json")
    assert page.figures()["Async"]["per token"] == 0.1
    assert "<h2>Tuning of robot.toml</h2>" in text
    assert "<h1>Foredraft: sync, tuning of robot.toml</h1>" in text


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (study(front=[]), "front"),
        (study(candidates=[]), "candidates"),
        (study(objectives=[]), "objectives"),
        (study(objectives=["p99-e2e"]), "p99-e2e: a number is missing"),
        (study(limits={"energy": 2.0}), "energy: a number is missing"),
        (study(front=[scored("seed", float("nan"), 1.0)]), "seed: p50-tpot: a number is missing"),
        (study(front=[scored("seed", 1.0, 1.0, (float("inf"), 1.0))]), "seed, held out: p50-tpot: a number is missing"),
        (study(candidates=[{"number": 0, "policy": "seed", "metrics": {}}]), "seed: p50-tpot: a number is missing"),
        (study(candidates=7), "candidates"),
    ],
)
def test_a_study_that_is_not_whole_is_one_error_and_nothing_is_written(
    tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    file = tmp_path / "study.json"
    file.write_text(json.dumps(said))
    done = foredraft("report", file, "--out", tmp_path / "page.html")
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert str(file) in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_what_tune_prints_is_what_report_reads(tmp_path: Path) -> None:
    scenario, out = write(tmp_path, workload(prompt_tokens=8, new_tokens=16)), tmp_path / "out"
    options = ("--policy", "sync", "--objective", "p50-e2e", "--objective", "cost", "--trials", "5", "--seeds", "1")
    command = ["tune", str(scenario), *options, "--workers", "1", "--out", str(out), "--json"]
    tuned = CliRunner().invoke(app, command)
    assert tuned.exit_code == 0, tuned.output
    file = tmp_path / "study.json"
    file.write_text(tuned.stdout)
    done = foredraft("report", file, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "0 policies and 5 trials of 1 files" in done.stdout
    page = Page((tmp_path / "page.html").read_text())
    best = json.loads(tuned.stdout)["front"][0]
    row = [best["metrics"]["p50-e2e"], best["held_out"]["p50-e2e"], best["metrics"]["cost"], best["held_out"]["cost"]]
    assert [value for _, value in page.rows[1]] == [None, *row]


def test_how_exact_the_texts_are_is_said_on_the_page(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    for exact, words in ((True, "texts exact to the bit"), (False, "texts exact up to ties of the target")):
        file.write_text(json.dumps(session(exact=exact)))
        assert words in report_page(read_sources([file]))


def test_that_a_policy_was_the_servers_is_said_on_the_page(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(session(policy_from="server")))
    assert "sync: recommended by the server" in report_page(read_sources([file]))
    file.write_text(json.dumps(session(policy_from="edge")))
    assert "recommended" not in report_page(read_sources([file]))
