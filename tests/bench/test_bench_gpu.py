"""``foredraft bench gpu``, tried out on a CPU with a tiny shape: which figures it has, and what it bounds."""

import pytest

from foredraft.bench import gpu


@pytest.mark.timeout(120)
async def test_all_figures_are_measured_and_those_with_a_bound_are_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {"_COPIED_BYTES": 1 << 20, "CONTEXT": 32, "SESSIONS": 4}.items():
        monkeypatch.setattr(gpu, name, small)
    result = await gpu.measure("tiny", "float32", "cpu", passes=1)
    figures = {figure.name: figure for figure in result.figures}
    assert figures.keys() >= {"reading the weights once", "a pass of 33 rows", "4 sessions of 5 rows"}
    assert all(figure.value > 0.0 for figure in result.figures)
    assert {figure.unit for figure in result.figures if figure.bound is not None} == {"x"}
    assert "random weights" in result.method
