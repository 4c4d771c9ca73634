"""``foredraft models`` says where the bundled models lie, or how to get them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.demo_models import pair

runner = CliRunner()


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files in the places of a pair."""
    for part in ("target", "draft"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(bytes(500_000))
    monkeypatch.setitem(pair.FOLDERS, "demo", tmp_path)
    return tmp_path


def test_json_has_the_three_folders(bundled: Path) -> None:
    said = json.loads(runner.invoke(app, ["models", "--json"]).stdout)
    assert said == {part: str(bundled / part) for part in ("target", "exits", "draft")}


def test_people_are_told_the_folders_and_the_size(bundled: Path) -> None:
    out = runner.invoke(app, ["models"]).stdout
    assert str(bundled / "exits") in out
    assert "1.0 MB in all" in out


def test_an_installation_without_models_says_how_to_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pair.FOLDERS, "demo", tmp_path)
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 1
    assert "make demo-models" in result.stderr
