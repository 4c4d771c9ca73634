"""``foredraft bench policies``: its settings say what they should, and one part runs from the command line."""

import json

import pytest
import typer
from typer.testing import CliRunner

from foredraft.errors import UnknownNameError
from foredraft_sim.policy_bench.command import policies
from foredraft_sim.policy_bench.setting import Setting, Shipped, Times, reference_pair, scaled_pair, try_policy
from foredraft_sim.policy_bench.suites import GAMMAS, best_gammas, suites

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


def test_an_unknown_part_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["policies", "--only", "grit"])
    assert isinstance(result.exception, UnknownNameError)
    assert "did you mean 'grid'" in str(result.exception)
