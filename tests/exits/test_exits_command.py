"""`foredraft exits train` as a user gives it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from foredraft.cli.exits import app
from foredraft.engines.torch_model import LoadedModel
from foredraft.exits.heads import ExitHeads

SMALL = ["--steps", "3", "--batch", "4", "--window", "64", "--rank", "2"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def usual(tiny_folder: Path, texts: list[Path], tmp_path: Path) -> list[str | Path]:
    return ["--model", tiny_folder, "--text", texts[0].parent, "--out", tmp_path / "out", *SMALL]


def test_it_trains_heads_that_load(usual: list[str | Path], tiny: LoadedModel, tmp_path: Path) -> None:
    result = run(*usual, "--layers", "1,2")
    assert result.exit_code == 0, result.output
    assert "after layer 2" in result.stdout
    assert "agreement" in result.stdout
    assert ExitHeads.load(tmp_path / "out", tiny).layers == (1, 2)


def test_json_is_the_card_and_nothing_else(usual: list[str | Path], tmp_path: Path) -> None:
    result = run(*usual, "--layers", "1", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "card.json").read_text())


def test_a_pattern_that_the_shell_expanded_works(tiny_folder: Path, texts: list[Path], tmp_path: Path) -> None:
    result = run("--model", tiny_folder, "--layers", "1", "--out", tmp_path, "--text", *texts, *SMALL)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("layers", "says"), [("3", "the model has 3 layers"), ("2,1", "ascend"), ("half", "numbers with commas")]
)
def test_wrong_layers_end_with_2(usual: list[str | Path], layers: str, says: str) -> None:
    result = run(*usual, "--layers", layers)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_a_missing_model_ends_with_1(usual: list[str | Path], tmp_path: Path) -> None:
    result = run(*usual, "--layers", "1", "--model", tmp_path)
    assert result.exit_code == 1
    assert "config.json is missing" in " ".join(result.stderr.split())


def test_no_text_ends_with_2(tiny_folder: Path, tmp_path: Path) -> None:
    result = run("--model", tiny_folder, "--text", tmp_path / "none", "--layers", "1", "--out", tmp_path)
    assert result.exit_code == 2
    assert "no text files" in result.stderr
