"""``foredraft chaos``: what it says, and that the command which it prints repeats what it found."""

import json
import shlex

import pytest
import typer
from typer.testing import CliRunner, Result

from foredraft.errors import ConfigError, UnknownNameError
from foredraft_sim.chaos import command
from foredraft_sim.chaos.command import chaos
from paths import ROOT
from sim.chaos.mutations import (
    a_text_goes_on_with_whatever_model_is_served,
    lines_do_not_name_their_key,
    refusals_have_no_line,
    the_last_token_is_taken_back_where_the_link_was_lost,
)
from sim.chaos.worlds_of_tests import SEED

app = typer.Typer()
app.command()(chaos)


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args)


def test_where_nothing_is_broken_it_says_how_much_there_was_and_ends_with_0() -> None:
    result = run("--sessions", "20", "--seed", str(SEED))
    assert result.exit_code == 0
    assert result.stdout.endswith("worlds: nothing was broken\n")
    plain = json.loads(run("--sessions", "20", "--seed", str(SEED), "--json").stdout)
    assert plain["sessions"] >= 20
    assert plain["broken"] == 0


def test_what_is_broken_is_told_with_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        the_last_token_is_taken_back_where_the_link_was_lost(patch)
        result = run("--sessions", "60", "--seed", str(SEED), "--only", "shown")
        assert result.exit_code == 1
        assert "BROKEN shown:" in result.stdout
        repeat = next(line for line in result.stdout.splitlines() if "repeat it:" in line).partition("repeat it: ")[2]
        program, verb, *args = shlex.split(repeat)
        assert (program, verb) == ("foredraft", "chaos")
        again = run(*args)
        assert again.exit_code == 1
        assert again.stdout.splitlines()[1] in result.stdout.splitlines()  # the invariant, in the same words
        assert repeat in again.stdout
    assert run(*args).exit_code == 0  # with the code that is whole


def test_the_example_of_the_page_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "chaos.md").read_text(encoding="utf-8")
    example = [line[4:] for line in page.splitlines() if line.startswith(("    world ", "      "))]
    a_text_goes_on_with_whatever_model_is_served(monkeypatch)
    result = run(*shlex.split(example[-1].partition("foredraft chaos")[2]))
    assert result.stdout.splitlines()[:-1] == example


def test_failures_as_json_name_the_invariant_the_items_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals_have_no_line(monkeypatch)
    result = run("--sessions", "40", "--seed", str(SEED), "--json")
    first, *_, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert {one["invariant"] for one in first["broken"]} == {"log"}
    assert first["repeat"].startswith(f"foredraft chaos --seed {SEED} --world {first['world']} --keep ")
    assert len(first["items"]) == len(first["repeat"].rpartition(" ")[2].split(","))
    assert last["broken"] >= 1


def test_it_ends_where_very_much_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    lines_do_not_name_their_key(monkeypatch)
    monkeypatch.setattr(command, "ENOUGH", 2)
    result = run("--forever", "--sessions", "40", "--seed", str(SEED))
    assert result.exit_code == 1
    assert result.stdout.count("repeat it:") == 2


def test_for_ever_goes_from_seed_to_seed_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    whole = command._Teller.take

    def take(self: command._Teller, seed: int, outcome: object, only: object) -> None:
        if seed not in seeds:
            seeds.append(seed)
        if len(seeds) == 3:
            raise KeyboardInterrupt
        whole(self, seed, outcome, only)  # type: ignore[arg-type]

    monkeypatch.setattr(command._Teller, "take", take)
    result = run("--forever", "--sessions", "4", "--seed", "7")
    assert seeds == [7, 8, 9]
    assert result.exit_code == 0
    assert "nothing was broken" in result.stdout


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (["--only", "cuts"], UnknownNameError, "unknown invariant, fault or peer 'cuts': did you mean 'cut'?"),
        (["--keep", "0,1"], ConfigError, "--keep '0,1' is of one world: name it with --world"),
        (
            ["--world", "2", "--keep", "0;1"],
            ConfigError,
            "--keep '0;1' is no list of items: write numbers",
        ),
        (["--world", "2", "--keep", "0,77"], ConfigError, "world 2 has no item 77"),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_by_name(args: list[str], error: type[Exception], says: str) -> None:
    result = run(*args)
    assert isinstance(result.exception, error)
    assert says in str(result.exception)
