"""What a validation says of sessions: fitted corrections, the page, the targets, and its exit code."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.errors import ConfigError
from foredraft.profiles import (
    Direction,
    DraftProfile,
    Grid,
    Line,
    Range,
    Setup,
    TargetProfile,
    load_profile,
    parse_profile,
    render_profile,
    seconds,
)
from foredraft.profiles.compute import call_curve
from foredraft_sim.scenario.scenario_file import ModelPair
from foredraft_sim.validate import run as running
from foredraft_sim.validate.calibrate import LEAST, Correction, corrected, longer
from foredraft_sim.validate.page import cell_rows, error_rows, page, ranking_rows, summary_lines, text_lines
from foredraft_sim.validate.pictures import pictures
from foredraft_sim.validate.plan import FIT_PROMPTS, REPORT_PROMPTS, Plan, plan_of
from foredraft_sim.validate.repeats import by_session, fastest_of, settled
from foredraft_sim.validate.run import Validation, fit, fitted_to, quietest, real_sessions, simulated_sessions
from foredraft_sim.validate.sessions import Cores, Profiles, Session, scenario_of, simulate
from foredraft_sim.validate.verdict import verdict_of

REACH = Range(new_tokens=(1, 33), context=(0, 512))
QUICK = plan_of(quick=True, paced=False)
PLAN = replace(QUICK, fit_prompts=QUICK.fit_prompts[:1], report_prompts=QUICK.report_prompts[:2], new_tokens=12)


def profiles(plan: Plan) -> Profiles:
    """Emulated devices at a tenth of a second per pass: a machine that nobody has to measure."""
    link = load_profile("robot-5", "link")
    return Profiles(
        load_profile("bench-60ms-target", "target"),
        load_profile("bench-6ms-draft", "draft"),
        dict.fromkeys(plan.ways, link),
    )


def session(way: str, policy: str, prompt: int, token_s: float, tokens: int = 10) -> Session:
    e2e_s = 0.1 + token_s * (tokens - 1)
    return Session(way, policy, prompt, 0.1, token_s, e2e_s, tokens, tuple(range(tokens)))


def sessions(plan: Plan, off: float = 0.0, swap: bool = False) -> list[Session]:
    """Each policy a tenth slower than the one before it; ``off``: by which share all are slower."""
    policies = list(reversed(plan.policies)) if swap else list(plan.policies)
    return [
        session(way, policy, prompt, 0.02 * (1.0 + 0.1 * policies.index(policy) + 0.01 * prompt) * (1.0 + off))
        for way in plan.ways
        for policy in plan.policies
        for prompt in range(len(plan.report_prompts))
    ]


def validation(off: float = 0.0, swap: bool = False) -> Validation:
    real, simulated = sessions(PLAN), sessions(PLAN, off, swap)
    correction = Correction(1e-4, -2e-4, 1e-5, 0.003)
    real_again, simulated_again = (list(zip(real, sessions(PLAN, by), strict=True)) for by in (0.01, 0.02))
    found = verdict_of(real, simulated, correction, real_again, simulated_again, real_again)
    return Validation(PLAN, Cores(1, 0, "pinned"), profiles(PLAN), tuple(real), tuple(simulated), found, 3, "idle")


def test_another_pair_is_simulated_and_named() -> None:
    plan = plan_of(quick=True, paced=False, model="/models/big", draft="/models/small.gguf")
    of = scenario_of(plan, profiles(plan), next(iter(plan.ways)), plan.report_prompts)
    assert of.pair == of.file.pair == ModelPair("/models/big", "/models/small.gguf")
    assert "target big with draft small.gguf, as fast as" in "".join(summary_lines(replace(validation(), plan=plan)))
    assert "the bundled pair, as fast as" in "".join(summary_lines(validation()))


def test_a_simulation_that_is_right_misses_nothing() -> None:
    found = validation(off=0.03)
    assert found.verdict.missed() == []
    assert found.verdict.errors["tpot_s"].p50 == pytest.approx(0.03)
    assert found.verdict.errors["tpot_s"].bias == pytest.approx(0.03)
    assert "Every target is met" in summary_lines(found)[0]


def test_each_target_that_is_missed_is_named_with_its_figure() -> None:
    said = validation(off=0.2).verdict.missed()
    assert "time per output token: median error 20.0%, more than 5%" in said
    assert "time per output token: p99 error 20.0%, more than 10%" in said
    assert any(line.startswith("end to end: median error") for line in said)


def test_rankings_that_are_swapped_are_named() -> None:
    said = validation(swap=True).verdict.missed()
    assert any("really cloud is faster than ahead, simulated it is not" in line for line in said)


def test_texts_that_differ_are_a_miss_whatever_the_times() -> None:
    real, simulated = sessions(PLAN), sessions(PLAN)
    simulated[0] = replace(simulated[0], tokens=(9, 9, 9))
    said = verdict_of(real, simulated, Correction()).missed()
    assert said == [f"1 of {len(real)} simulated texts differ from the real ones"]


def test_where_runs_of_one_session_differ_by_more_than_the_p99_that_of_replays_is_judged() -> None:
    real = sessions(PLAN)
    last = real[-1]  # one of many, so that medians and rankings stay right
    simulated = [*real[:-1], replace(last, tpot_s=last.tpot_s * 1.2, e2e_s=last.e2e_s * 1.2)]
    little, much, more = (list(zip(real, sessions(PLAN, by), strict=True)) for by in (0.01, 0.5, 0.6))
    calm = verdict_of(real, simulated, Correction(), little, (), little)
    assert [line for line in calm.missed() if "p99" in line]
    assert not calm.unsteady()
    restless = verdict_of(real, simulated, Correction(), much, little, little)
    assert not restless.missed()
    assert restless.unsteady().keys() == {"tpot_s", "e2e_s"}
    lines = summary_lines(replace(validation(), verdict=restless))
    assert any(line.startswith("NOT AN IDLE MACHINE: end to end: p99 error") for line in lines)
    assert any("(replayed), are off by: time per output token 1.0%" in line for line in lines)
    wrong = verdict_of(real, simulated, Correction(), much, little, more)
    assert [line for line in wrong.missed() if "p99 error 60.0% of replayed sessions, more than 10%" in line]
    by_chance = verdict_of(real, simulated, Correction(), much, much, little)
    assert by_chance.missed() == calm.missed()  # the machine is no excuse where the simulation varies as much
    untold = verdict_of(real, simulated, Correction(), much, little)
    assert untold.missed() == calm.missed()  # nor where nothing was replayed


def test_a_p99_within_the_target_is_met_however_much_runs_differ() -> None:
    real = sessions(PLAN)
    much = list(zip(real, sessions(PLAN, 0.5), strict=True))
    found = verdict_of(real, sessions(PLAN, 0.03), Correction(), much, (), much)
    assert not found.unsteady()
    assert not found.missed()


def test_how_far_the_next_run_is_from_the_one_that_counts_is_said() -> None:
    found = validation()
    assert found.verdict.repeated["tpot_s"].p50 == pytest.approx(0.01)
    assert found.verdict.chance["tpot_s"].p50 == pytest.approx(0.02)
    [said] = [line for line in summary_lines(found) if "The next differs from it" in line]
    assert "(3 never were)" in said
    assert "differs from it by: time per output token 1.0%" in said
    assert "simulated by: time per output token 2.0%" in said


def test_of_several_runs_the_fastest_counts_and_the_next_is_compared_with_it() -> None:
    runs = [replace(one, e2e_s=one.e2e_s * factor) for factor in (1.1, 1.0, 7.0) for one in sessions(PLAN)]
    chosen, repeats = fastest_of(by_session(runs))
    assert chosen == sessions(PLAN)
    assert {round(following.e2e_s / counts.e2e_s, 3) for counts, following in repeats} == {1.1}


def test_runs_of_different_sessions_do_not_mix() -> None:
    chosen, repeats = fastest_of(by_session(sessions(PLAN)))
    assert chosen == sessions(PLAN)
    assert not repeats


def test_a_session_is_settled_when_its_two_fastest_runs_agree_end_to_end() -> None:
    one = session("12 ms", "ahead", 3, 0.02)
    near, far = (replace(one, e2e_s=one.e2e_s * by) for by in (1.008, 1.03))
    assert not settled([one])
    assert not settled([one, far])
    assert settled([one, near, far])


def test_of_two_measurements_of_a_device_or_a_link_the_faster_one_counts() -> None:
    calm = profiles(PLAN)
    [(way, link), (other, _)] = calm.links.items()
    later = msgspec.structs.replace(link, up=msgspec.structs.replace(link.up, jitter_s=link.up.jitter_s + 0.002))
    slow = msgspec.structs.replace(calm.target, target_pass=longer(calm.target.target_pass, 0.001))
    slower = msgspec.structs.replace(calm.draft, draft_step=longer(calm.draft.draft_step, 0.001))
    first = Profiles(slow, calm.draft, {way: later, other: link})
    assert quietest(first, Profiles(calm.target, slower, {way: link, other: later})) == calm


def test_a_session_is_simulated_again_with_other_luck_and_the_same_tokens() -> None:
    way = list(PLAN.ways)[1]
    known = profiles(PLAN)
    lossy = msgspec.structs.replace(known.links[way], up=Direction(delay_s=0.02, jitter_s=0.005))
    ones, others = (
        simulate(PLAN, replace(known, links={way: lossy}), way, "ahead", PLAN.report_prompts, luck=luck)
        for luck in (0, 1)
    )
    assert [one.tokens for one in ones] == [other.tokens for other in others]
    assert [one.e2e_s for one in ones] != [other.e2e_s for other in others]


def test_a_session_without_a_twin_is_an_error() -> None:
    with pytest.raises(ValueError, match="no session to compare with"):
        verdict_of(sessions(PLAN), sessions(PLAN)[1:], Correction())


def test_a_planted_correction_is_found_again_on_simulated_reality() -> None:
    """Reality is played by the simulation with a correction that the fit does not know, on a machine like this one."""
    planted = Correction(pass_s=0.0004, step_s=0.0002, message_s=0.0001, opening_s=0.02)
    plan, slow = replace(PLAN, new_tokens=32, fit_prompts=FIT_PROMPTS[:2]), profiles(PLAN)
    fast = replace(
        slow,
        target=msgspec.structs.replace(slow.target, target_pass=Line(base_s=0.0025, range=REACH)),
        draft=msgspec.structs.replace(slow.draft, draft_step=Line(base_s=0.0004, range=REACH)),
    )
    real = [
        one
        for way, policy in fitted_to(plan)
        for one in simulate(plan, corrected(fast, planted), way, policy, plan.fit_prompts)
    ]
    found = fit(plan, fast, real)
    assert found.pass_s == pytest.approx(planted.pass_s, rel=0.1)
    assert found.step_s == pytest.approx(planted.step_s, rel=0.1)
    assert found.message_s == pytest.approx(planted.message_s, rel=0.2)
    assert found.opening_s == pytest.approx(planted.opening_s, rel=0.1)


def test_calls_become_longer_and_shorter_but_never_free() -> None:
    line = Line(base_s=0.010, per_token_s=0.001, host_s=0.001, range=REACH)
    grid = Grid(new_tokens=(1, 8), seconds_s=(((0.010, 0.020),),), range=REACH)
    for curve in (line, grid):
        for by_s in (0.002, -0.002):
            assert seconds(longer(curve, by_s), 4, 0) == pytest.approx(seconds(curve, 4, 0) + by_s)
        assert seconds(longer(curve, -1.0), 1, 0) >= LEAST * 0.010


def test_an_opening_takes_as_much_longer_and_never_less_than_nothing() -> None:
    known = profiles(PLAN)
    before_s = known.target.host.opening_s
    assert corrected(known, Correction(opening_s=0.25)).target.host.opening_s == pytest.approx(before_s + 0.25)
    assert corrected(known, Correction(opening_s=-10.0)).target.host.opening_s == 0.0


def test_a_simulated_session_finds_its_connection_made_as_a_real_one_does() -> None:
    known, way = profiles(PLAN), next(iter(PLAN.ways))
    far = msgspec.structs.replace(known.links[way], setup=Setup(round_trips=9))
    near, later = (
        simulate(PLAN, replace(known, links={way: link}), way, "cloud", PLAN.report_prompts)
        for link in (known.links[way], far)
    )
    assert [one.ttft_s for one in near] == pytest.approx([one.ttft_s for one in later])


def test_no_prompt_is_both_fitted_on_and_reported_on() -> None:
    assert not set(FIT_PROMPTS) & set(REPORT_PROMPTS)
    for quick in (True, False):
        for paced in (True, False):
            plan = plan_of(quick=quick, paced=paced)
            assert not set(plan.fit_prompts) & set(plan.report_prompts)


def test_the_page_has_every_figure_and_refers_to_nothing_outside() -> None:
    found = validation(off=0.2)
    drawn = pictures(found)
    text = page(found, drawn)
    assert text.count("data:image/png;base64,") == len(drawn) == 3
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|https?://|@import|url\(", text.split("What the simulation")[0])
    for row in (*cell_rows(found), *error_rows(found), *ranking_rows(found)):
        for cell in row:
            assert f">{cell.replace('<', '&lt;')}<" in text
    assert "MISSED: time per output token" in text


def test_what_a_page_quotes_is_escaped() -> None:
    found = validation()
    odd = replace(found, cores=Cores(None, None, "<script>alert(1)</script>"))
    assert "<script>" not in page(odd, {"<b>": b""})


def test_tables_line_up() -> None:
    lines = text_lines([("a", "bb"), ("ccc", "d")])
    assert lines == ["a    bb", "ccc   d"]


@pytest.mark.parametrize(("off", "code"), [(0.01, 0), (0.3, 1)])
def test_the_exit_code_says_whether_the_targets_are_met(
    off: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "validate", lambda plan, *, force, tell: validation(off))
    result = CliRunner().invoke(app, ["validate", "--quick", "--only", "sessions", "--out", str(tmp_path)])
    assert result.exit_code == code, result.output
    assert ("MISSED: time per output token" in result.output) == bool(code)
    plain = json.loads((tmp_path / "validation.json").read_text())
    assert bool(plain["missed"]) == bool(code)
    assert len(plain["sessions_real"]) == len(plain["sessions_simulated"]) == 2 * 4 * 2
    assert (tmp_path / "validation.html").is_file()
    assert (tmp_path / "bench-60ms-target.toml").is_file()


def test_json_is_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "validate", lambda plan, *, force, tell: validation())
    result = CliRunner().invoke(app, ["validate", "--quick", "--only", "sessions", "--json", "--out", str(tmp_path)])
    assert json.loads(result.stdout)["errors"]["tpot_s"]["p50"] == pytest.approx(0.0)


def test_a_machine_too_noisy_is_refused_with_exit_code_2_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(plan: Plan, *, force: bool, tell: object) -> Validation:
        assert not force
        raise ConfigError("calls varied by 44%, more than 20%; use --force")

    monkeypatch.setattr(running, "validate", refuse)
    result = CliRunner().invoke(app, ["validate", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "--force" in result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "validate", lambda *_, **__: pytest.fail("ran"))
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["validate", "--out", str(tmp_path / "file" / "folder")])
    assert result.exit_code == 2
    assert "cannot be made a folder: Not a directory" in result.output


def test_results_are_put_into_a_folder_of_their_own_unless_another_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "validate", lambda plan, *, force, tell: validation())
    monkeypatch.chdir(tmp_path)
    named = CliRunner().invoke(app, ["validate", "--quick", "--only", "sessions", "--out", "a/b"])
    result = CliRunner().invoke(app, ["validate", "--quick", "--only", "sessions"])
    assert (named.exit_code, result.exit_code) == (0, 0), result.output
    assert f"wrote {Path('validation', 'validation.html')}" in result.output.splitlines()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "validation"}
    found = {path.name for path in Path("validation").iterdir()}
    assert {"validation.html", "validation.json"} < found == {path.name for path in Path("a/b").iterdir()}


def test_profiles_that_were_fitted_keep_what_was_found_in_their_files() -> None:
    fitted = corrected(profiles(PLAN), Correction(pass_s=0.001, step_s=0.0005, message_s=0.0001))
    for profile in (fitted.target, fitted.draft):
        again = parse_profile(render_profile(profile), Path(f"{profile.name}.toml"))
        assert isinstance(again, TargetProfile | DraftProfile)
        assert again.host.message_s == 0.0001
        assert call_curve(again).host_s == pytest.approx(call_curve(profile).host_s)


class Restless:
    """A stage on which one session takes longer each time, and all others as long as before."""

    def __init__(self, restless: tuple[str, str, int]) -> None:
        self.restless = restless
        self.ran: Counter[tuple[str, str, int]] = Counter()

    def run(self, way: str, policy: str, prompts: Sequence[str], number: int, seed: int) -> Session:
        one = session(way, policy, number, 0.02)
        if seed:  # 0 is for warming up
            self.ran[way, policy, number] += 1
        if (way, policy, number) == self.restless:
            return replace(one, e2e_s=one.e2e_s * (1.0 + 0.1 * self.ran[self.restless]))
        return one


def test_only_what_is_not_settled_runs_more_than_the_least_number_of_times() -> None:
    way = next(iter(PLAN.ways))
    restless = (way, "ahead", len(PLAN.fit_prompts))
    stage = Restless(restless)
    told: list[float] = []
    done = real_sessions(PLAN, stage, profiles(PLAN), lambda what, share: told.append(share))  # type: ignore[arg-type]
    assert stage.ran[restless] == PLAN.most_runs
    assert {often for key, often in stage.ran.items() if key != restless} == {PLAN.least_runs}
    assert len(done) == stage.ran.total()
    assert told == sorted(told)


def test_a_session_is_simulated_as_often_as_it_really_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    lucks: list[int] = []

    def simulated(
        plan: Plan, profiles: Profiles, way: str, policy: str, prompts: Sequence[str], *, first: int, luck: int
    ) -> list[Session]:
        lucks.append(luck)
        return [session(way, policy, first + number, 0.02) for number in range(len(prompts))]

    monkeypatch.setattr("foredraft_sim.validate.run.simulate", simulated)
    first, cells = len(PLAN.fit_prompts), list(product(PLAN.ways, PLAN.policies))
    often = dict.fromkeys([(*cell, number) for cell in cells for number in range(first, len(PLAN.prompts))], 3)
    often[*cells[0], first] = 5
    runs = {key: [session(*key, 0.02)] * count for key, count in often.items()}
    again = Counter(
        (one.way, one.policy, one.prompt)
        for one in simulated_sessions(PLAN, profiles(PLAN), runs, lambda what, share: None)
    )
    assert again == often
    assert Counter(lucks) == {0: len(cells), 1: len(cells), 2: len(cells), 3: 1, 4: 1}
