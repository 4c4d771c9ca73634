"""``foredraft exits report``: how good exits are, as tables, as JSON and as a picture."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.demo_models import bundled_pair

EXITS = str(bundled_pair().exits)


def test_the_bundled_exits_are_reported_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, magic in (("exits.png", b"\x89PNG"), ("exits.svg", b"<?xml")):
        done = CliRunner().invoke(app, ["exits", "report", EXITS, "--picture", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).read_bytes().startswith(magic)
    assert "agreement" in done.output
    drawn = (tmp_path / "exits.svg").read_text(encoding="utf-8")
    card = json.loads(CliRunner().invoke(app, ["exits", "report", EXITS, "--json"]).output)
    assert drawn.count('id="axes_') == len({entry["temperature"] for entry in card["report"]})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/nowhere"], "no exit heads in /nowhere"),
        ([EXITS, "--picture", "/nowhere/exits.png"], "cannot write the picture to /nowhere/exits.png"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["exits", "report", *words])
    assert done.exit_code != 0
    assert said in " ".join(done.output.split()) or said in str(done.exception)
