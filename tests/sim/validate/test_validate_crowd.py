"""Edges at once, on one target that batches: the section of the page, what is judged, and the runs themselves."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.profiles import Host, Line, LinkProfile, Model, Range, TargetProfile, load_profile
from foredraft_sim.validate.crowd import MOST_OFF, Compared, Crowd, Found, Ran, simulated, validate_crowd
from foredraft_sim.validate.page import crowd_lines, crowd_rows, page, text_lines
from foredraft_sim.validate.sessions import Cores
from sim.validate.test_validate_command import validation

PASS_S, ROW_S, PREFILL_ROW_S = 0.050, 0.002, 0.001


def target(batch: int = 8) -> TargetProfile:
    reach = Range(new_tokens=(1, 256), context=(0, 8192), batch=(1, batch))
    chunk = Range(new_tokens=(1, 128), context=(0, 8192))
    return TargetProfile(
        name="crowd-target",
        title="a target",
        notes="Prefills beside passes: off by 1%.",
        kind="target",
        model=Model(name="m", layers=8),
        target_pass=Line(base_s=PASS_S, flat_tokens=1, per_token_s=ROW_S, range=reach),
        prefill=Line(base_s=PASS_S, per_token_s=PREFILL_ROW_S, range=chunk),
    )


def found(off: float = 0.0) -> Found:
    runs = (Ran(20.0, 0.2), Ran(22.0, 0.18))
    slower = tuple(Ran(one.tokens_per_s * (1.0 + off), one.ttft_p90_s) for one in runs)
    return Found(Crowd(runs=2), target(), tuple(Compared(edges, runs, slower) for edges in (1, 4, 8)))


def link() -> LinkProfile:
    profile = load_profile("robot-5", "link")
    assert isinstance(profile, LinkProfile)
    return profile


def test_the_section_has_a_row_for_each_number_of_edges_and_each_run() -> None:
    said = text_lines(crowd_rows(found(0.05)))
    assert [line.split()[0] for line in said] == ["edges", "1", "4", "8"]
    assert "22.0" in said[1]
    assert "23.1" in said[1]
    assert "+5.0%" in said[1]
    assert "+0.0%" in said[1]
    lines = crowd_lines(found(0.05))
    assert "within 10%" in lines[0]
    assert "4 edges, tokens/s and ms to the first token, each run: real 20.0/200, 22.0/180" in "\n".join(lines)


def test_the_page_has_the_section_where_there_was_a_crowd() -> None:
    alone = validation()
    assert "Edges at once" not in page(alone, {})
    said = page(replace(alone, crowd=found(0.3)), {})
    assert "<h2>Edges at once, on one target that batches</h2>" in said
    assert '<p class="missed">MISSED: 8 edges at once: tokens per second off by +30.0%' in said
    assert "Prefills beside passes: off by 1%." in said


@pytest.mark.parametrize("off", [MOST_OFF + 0.01, -MOST_OFF - 0.01])
def test_what_is_too_far_off_is_named(off: float) -> None:
    assert len(found(off).missed()) == 3
    assert f"8 edges at once: tokens per second off by {off:+.1%}, more than 10%" in found(off).missed()
    assert crowd_lines(found(off))[0].startswith("MISSED: 1 edges at once")


@pytest.mark.parametrize(("off", "code"), [(0.02, 0), (0.2, 1)])
def test_the_command_prints_writes_and_exits_by_what_is_off(
    off: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foredraft_sim.validate.crowd.validate_crowd", lambda *_, **__: found(off))
    result = CliRunner().invoke(app, ["validate", "--only", "crowd", "--out", str(tmp_path)])
    assert result.exit_code == code, result.output
    plain = json.loads((tmp_path / "validation.json").read_text())["crowd"]
    assert [one["edges"] for one in plain["edges"]] == [1, 4, 8]
    assert plain["bound"] == MOST_OFF
    assert plain["edges"][0]["speed_off"] == pytest.approx(off)
    assert (tmp_path / "crowd-target.toml").is_file()
    assert "real tokens/s" in result.output


def test_a_part_that_there_is_not_is_named() -> None:
    result = CliRunner().invoke(app, ["validate", "--only", "crowds"])
    assert result.exit_code == 2
    assert "crowd" in result.output


def test_a_crowd_shares_the_forwards_of_a_target_that_batches() -> None:
    crowd = Crowd(think_s=0.01)
    alone, together = (simulated(crowd, edges, target(), link(), 0) for edges in (1, 8))
    apart = simulated(crowd, 8, target(batch=1), link(), 0)
    assert together.tokens_per_s > 4.0 * alone.tokens_per_s
    assert together.tokens_per_s > 3.0 * apart.tokens_per_s
    assert together.ttft_p90_s < 0.6 * apart.ttft_p90_s


def test_the_same_crowd_is_simulated_alike_again_and_one_edge_takes_what_the_profile_says() -> None:
    crowd = Crowd(requests=1, prompt_tokens=(21,), new_tokens=(11,), think_s=0.0)
    one = simulated(crowd, 1, target(), link(), 0)
    assert one == simulated(crowd, 1, target(), link(), 0)
    first_s = PASS_S + 20 * PREFILL_ROW_S
    assert one.ttft_p90_s > first_s
    assert one.tokens_per_s == pytest.approx(11 / (one.ttft_p90_s + 10 * PASS_S), rel=0.05)


def test_what_both_ends_take_to_begin_a_text_comes_before_its_first_token() -> None:
    crowd = Crowd(requests=1, prompt_tokens=(21,), new_tokens=(11,), think_s=0.0)
    slower = msgspec.structs.replace(target(), host=Host(opening_s=0.03))
    soon, late = (simulated(crowd, 1, one, link(), 0).ttft_p90_s for one in (target(), slower))
    assert late == pytest.approx(soon + 0.03)


@pytest.mark.timeout(600)
def test_real_edges_and_simulated_ones_write_as_many_tokens() -> None:
    """Processes and sockets on one side; how far the two are off depends on the machine."""
    crowd = Crowd(edges=(1, 2), requests=1, prompt_tokens=(140, 9), new_tokens=(4, 6), think_s=0.01, runs=1, repeats=3)
    told: list[str] = []
    done = validate_crowd(crowd, Cores(None, None, "anywhere"), force=True, tell=lambda what, share: told.append(what))
    assert [one.edges for one in done.compared] == [1, 2]
    assert all(run.tokens_per_s > 0.0 for one in done.compared for run in (*one.real, *one.simulated))
    assert done.target.target_pass.range.batch == (1, 8)
    assert "2 edges, run 1" in told
