"""``foredraft bench policies``: its settings say what they should, and one part runs from the command line."""

import json

import pytest
import typer
from typer.testing import CliRunner

from foredraft.errors import UnknownNameError
from foredraft_sim.bench.policies.command import Part, policies
from foredraft_sim.bench.policies.setting import (
    Outcome,
    Setting,
    Shipped,
    Times,
    reference_pair,
    scaled_pair,
    try_policy,
)
from foredraft_sim.bench.policies.suites import GAMMAS, best_gammas, grid, suites

app = typer.Typer()
app.command()(policies)
app.command()(lambda: None)  # so that the first is a command of its own name


def test_the_reference_pair_is_the_projects() -> None:
    pair = reference_pair()
    assert pair.ranks == (0.58, 0.12, 0.06, 0.04, 0.03)
    assert pair.exits == ((8, 0.55), (16, 0.80), (24, 0.92))
    assert pair.layers == 32


@pytest.mark.parametrize("acceptance", [0.3, 0.58, 0.9, 1.0])
def test_a_scaled_pair_shares_what_the_first_guess_leaves_as_the_reference_does(acceptance: float) -> None:
    first, *tail = scaled_pair(acceptance).ranks
    assert first == acceptance
    assert tail == pytest.approx([rank * (1.0 - acceptance) / 0.42 for rank in (0.12, 0.06, 0.04, 0.03)])


def test_the_grid_has_at_least_200_cells_and_several_seeds() -> None:
    (grid,) = [suite for suite in suites(quick=False) if suite.name == "grid"]
    places = {trial.where for trial in grid.trials}
    assert len(places) >= 200
    assert all({trial.seed for trial in grid.trials if trial.where == place} == {1, 2, 3} for place in list(places)[:5])


def test_the_gammas_that_are_tried_hold_the_best_one() -> None:
    where = Setting(Times(0.03, 8, 0.003, 0.009), 0.7, new_tokens=96)
    taken_s = {gamma: try_policy(where, f"sync:gamma={gamma}", 1).e2e_s for gamma in GAMMAS}
    tried = min(taken_s[gamma] for gamma in best_gammas(where))
    assert tried <= 1.05 * min(taken_s.values())


def test_shipped_profiles_have_energy_and_cost() -> None:
    outcome = try_policy(Setting(Shipped("jetson-nano-vicuna-68m", "a100-llama2-7b", "lan"), new_tokens=8), "cloud", 1)
    assert outcome.energy_j is not None
    assert outcome.cost_usd is not None
    assert outcome.passes == 1.0


def test_a_part_runs_from_the_command_line_and_says_figures_with_their_bounds() -> None:
    result = CliRunner().invoke(app, ["policies", "--quick", "--only", "drift", "--processes", "1", "--json"])
    said = json.loads(result.stdout)["drift"]
    assert [row["step"] for row in said["rows"]] == ["round trip 20 to 200 ms", "acceptance 0.8 to 0.4"]
    assert all(figure["bound"] == 10.0 for figure in said["figures"])
    assert result.exit_code == (0 if all(figure["holds"] for figure in said["figures"]) else 1)


def test_seeds_are_as_many_as_asked_for_in_every_part() -> None:
    asked = {suite.name: {trial.seed for trial in suite.trials} for suite in suites(quick=False, seeds=4)}
    assert asked.pop("jetson") == {1, 2}
    assert all(seeds == {1, 2, 3, 4} for seeds in asked.values())


def test_rows_that_missed_are_named_with_what_they_missed() -> None:
    rows: list[dict[str, object]] = [{"cell": 1, "ratio": 1.0}, {"cell": 2, "ratio": 1.2}]
    part = Part("grid", "", rows, [], lambda row: "cloud" * (row["ratio"] > 1.02))
    assert part.rows_missed() == [{"cell": 2, "ratio": 1.2, "missed": "cloud"}]
    assert part.plain()["missed"] == part.rows_missed()


def test_a_cell_of_the_grid_says_its_worst_seed_beside_the_mean() -> None:
    suite = grid((1, 2), ((0.3,), (0.6,), (0.1,)))
    taken_s = dict.fromkeys(suite.trials, 1.0)
    for trial in suite.trials:
        if trial.policy == "auto":
            taken_s[trial] = {1: 1.1, 2: 0.9}[trial.seed]
    rows, figures = suite.judge({trial: outcome(e2e_s) for trial, e2e_s in taken_s.items()})
    assert [(row["auto_of_cloud"], row["of_cloud_at_worst"]) for row in rows] == [(pytest.approx(1.0), 1.1)]
    assert suite.missed(rows[0]) == ""
    assert suite.missed(rows[0] | {"auto_of_cloud": 1.03, "auto_of_best": 1.2}) == "cloud, best"
    assert {figure.name: figure.value for figure in figures}["auto of cloud, median"] == pytest.approx(1.0)


def outcome(e2e_s: float) -> Outcome:
    return Outcome(e2e_s, 256, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None, None)


def test_an_unknown_part_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["policies", "--only", "grit"])
    assert isinstance(result.exception, UnknownNameError)
    assert "did you mean 'grid'" in str(result.exception)
