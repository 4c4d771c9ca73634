"""The notebook runs from its top to its end, cell by cell, and leaves its figure."""

import json
from pathlib import Path
from typing import Any

import pytest

from paths import EXAMPLES


def test_the_notebook_runs_and_draws_its_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((EXAMPLES / "paper_figure.ipynb").read_text("utf-8"))
    cells = notebook["cells"]
    assert 20 <= len(cells) <= 40
    assert all(not cell.get("outputs") for cell in cells)  # none is stale
    monkeypatch.chdir(EXAMPLES)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    names["plt"].close("all")
    drawn = Path(capsys.readouterr().out.strip().splitlines()[-3])
    assert {"figure.png", "figure.pdf", "runs.pdf", "exits.pdf"} <= {file.name for file in drawn.parent.iterdir()}
    assert names["tpot"]["auto"] < 0.6 * names["tpot"]["cloud"]
    assert all(names["over"]["auto", link] <= 1.05 * names["over"]["cloud", link] for link in names["LINKS"])
