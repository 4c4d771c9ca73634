"""``foredraft tune`` as a user runs it."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from foredraft.cli.main import app
from foredraft.errors import ConfigError
from foredraft.policies import policy_names
from foredraft.policies.policy_file import read_policy_file
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import read_scenario
from foredraft_sim.tune.command import best_so_far, search_of
from foredraft_sim.tune.metrics import check_known_here, metrics_of
from foredraft_sim.tune.search import Candidate
from sim.scenario.scenario_files import scenario, write
from sim.tune.tuning import SHORT, search

pytestmark = pytest.mark.timeout(180)


def tune(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


def test_the_best_is_a_policy_file_with_its_figures_on_other_seeds(tmp_path: Path) -> None:
    file, out = write(tmp_path, SHORT), tmp_path / "out"
    done = tune(file, "--policy", "sync", "--trials", "16", "--seeds", "2", "--held-out", "3", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert len(said["candidates"]) == 16
    assert said["seeds"] == [1, 2]
    assert said["held_out_seeds"] == [3, 4, 5]
    (best,) = said["front"]
    assert best["metrics"]["p50-tpot"] == min(one["metrics"]["p50-tpot"] for one in said["candidates"])
    policy = read_policy_file(out / "policy.toml")
    assert policy.spec == best["policy"]
    assert policy.provenance is not None
    assert policy.provenance.trials == 16
    here = read_scenario(file)
    again = metrics_of(here, [replicate(here, policy.spec, seed) for seed in (3, 4, 5)])
    assert best["held_out"] == again
    assert policy.provenance.held_out["p50-tpot"] == pytest.approx(again["p50-tpot"], rel=1e-5)
    used = CliRunner().invoke(app, ["simulate", str(file), "--policy", str(out / "policy.toml"), "--json"])
    assert [one["policy"] for one in json.loads(used.stdout)["policies"]] == [policy.spec]


def test_two_objectives_give_a_numbered_front_as_table_files_and_picture(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--policy", "cloud", "--policy", "sync", "--objective", "p50-e2e", "--objective", "cost")
    done = tune(
        write(tmp_path, SHORT), *options, "--trials", "17", "--seeds", "1", "--out", out, "--limit", "p99-e2e=20"
    )
    assert done.exit_code == 0, done.output
    listed = re.findall(r"^ +(\d+)  (\S+)$", done.stdout, re.MULTILINE)
    assert len(listed) >= 2
    for number, spec in listed:
        assert read_policy_file(out / ("policy.toml" if number == "1" else f"policy-{number}.toml")).spec == spec
    assert "17 candidates, which are all there are" in done.stdout
    picture = (out / "front.svg").read_text()
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert all(f"{number}: {spec}" in picture for number, spec in listed)
    assert picture.count("<circle") == 17


def test_the_same_command_again_goes_on_and_does_not_begin_anew(tmp_path: Path) -> None:
    command = (write(tmp_path, SHORT), "--policy", "seed", "--seeds", "1", "--out", tmp_path / "out", "--json")
    first = json.loads(tune(*command, "--trials", "4").stdout)["candidates"]
    assert json.loads(tune(*command, "--trials", "6").stdout)["candidates"][:4] == first


def test_where_nothing_keeps_the_limit_the_nearest_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = tune(write(tmp_path, SHORT), "--policy", "sync", "--trials", "16", "--limit", "p99-e2e=0.5", "--out", out)
    assert done.exit_code == 2
    assert "none of 16 candidates keeps p99-e2e <= 0.5; the nearest is sync:gamma=" in done.stderr
    assert "Raise the limit" in done.stderr
    assert not (out / "policy.toml").exists()


def test_where_no_candidate_can_be_run_the_reason_is_said(tmp_path: Path) -> None:
    gone = ("[pair]", "[link.override]\noutages = [{ start_s = 3.0, duration_s = 1e6, cuts = true }]\n[pair]")
    done = tune(write(tmp_path, SHORT, gone), "--policy", "cloud", "--trials", "1", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "none of 1 candidates could be run to its end; the first:" in done.stderr
    assert "request 0 of seed 1 failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "sinc"], "did you mean 'sync'?"),
        (["--policy", "sync", "--policy", "sync"], "--policy sync is there twice"),
        (["--policy", "sync:gama=2"], "did you mean 'gamma'?"),
        (
            ["--policy", "sync", "--policy", "both:width=2"],
            "has no draft model in the cloud to tune it with: give it one",
        ),
        (["--objective", "p50-tpto"], "unknown metric 'p50-tpto': did you mean 'p50-tpot'?"),
        (["--limit", "p99-tpot"], "write METRIC=MOST"),
        (["--limit", "p99-tpot=-1"], "write METRIC=MOST"),
        (["--limit", "p99-topt=1"], "did you mean 'p99-tpot'?"),
        (["--limit", "cost=1", "--limit", "cost=2"], "--limit cost is there twice"),
        (["--seeds", "1,1"], "write a count (5: seeds 1 to 5) or different seeds"),
        (["--seeds", "0"], "write a count"),
        (["--seeds", "one"], "write a count"),
        (["--storage", "none/study.db"], "there is no folder none"),
        (["--storage", "postgres://x/y"], "no driver for 'postgres'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = tune(write(tmp_path, SHORT), "--trials", "2", *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stdout == ""


def test_by_default_all_policies_are_tuned_that_the_scenario_can_run(tmp_path: Path) -> None:
    assert search_of(write(tmp_path), [], [], [], "").policies == ("ahead", "auto", "cloud", "seed", "sync")
    drafting = ('profile = "a100-qwen2-vl-7b"', 'profile = "a100-qwen2-vl-7b"\ndraft = "orin-go2-qwen2-vl-2b"')
    assert search_of(write(tmp_path, drafting), [], [], [], "").policies == tuple(policy_names())


def test_cost_and_energy_need_a_price_and_watts(tmp_path: Path) -> None:
    known = scenario(tmp_path, SHORT)
    bare = replace(
        known,
        draft=msgspec.structs.replace(known.draft, cost=type(known.draft.cost)()),
        target=msgspec.structs.replace(known.target, cost=type(known.target.cost)()),
    )
    check_known_here(known, ("cost", "energy"))
    with pytest.raises(ConfigError, match=r"the price of 'a100-qwen2-vl-7b' is unknown; say it in .*: \[cloud"):
        check_known_here(bare, ("p50-tpot", "cost"))
    with pytest.raises(ConfigError, match=r"the watts of 'orin-go2-qwen2-vl-2b' are unknown; .* cost\.active_w"):
        check_known_here(bare, ("energy",))
    price = ("[pair]", "[cloud.override]\ncost.price_usd_per_hour = 2.5\n[pair]")
    check_known_here(scenario(tmp_path, SHORT, price), ("cost",))


def test_the_bar_says_the_best_so_far(tmp_path: Path) -> None:
    asked = search(tmp_path, objectives=("p50-tpot",), limits={"cost": 2.0})
    found = [
        Candidate(number, f"sync:gamma={number}", {"p50-tpot": tpot_s, "cost": cost})
        for number, (tpot_s, cost) in enumerate([(0.3, 3.0), (0.25, 1.0), (0.5, 1.0)])
    ]
    assert best_so_far(asked, []) == ""
    assert best_so_far(asked, found[:1]) == "none within the limits yet"
    assert best_so_far(asked, found) == "best p50-tpot 0.25: sync:gamma=1"
