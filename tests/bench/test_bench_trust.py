"""What ``foredraft bench trust`` measures of a real server, on little work: its figures, and what is held to bounds."""

import asyncio
import sys
import tracemalloc

import pytest
from typer.testing import CliRunner

from foredraft.bench import idle_connections, killed_server, steady
from foredraft.bench.result import Figure, Result
from foredraft.bench.server_process import server_process
from foredraft.cli.main import app
from foredraft.errors import ForedraftError, UnknownNameError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
pytest.importorskip("torch", reason="the bundled target runs on it")


def figures(result: Result) -> dict[str, Figure]:
    return {figure.name: figure for figure in result.figures}


async def test_an_honest_edge_gets_in_where_silent_ones_have_all_places() -> None:
    said = figures(await idle_connections.measure(connections=8))
    assert said["honest edges that got in and had their text, of 5"].holds
    assert 3 <= said["of the silent ones still there then"].value <= 7  # one at least gave its place


async def test_texts_whose_server_was_killed_go_on_and_are_timed_from_when_it_is_back() -> None:
    said = figures(await killed_server.measure(sessions=3))
    all_s, half_s = (said[f"until {who}"] for who in ("all go on, from when the server is back", "half of them do"))
    assert all_s.bound == killed_server.MOST_S
    assert all_s.value >= half_s.value > 0.0
    assert said["the server was away"].value > 0.0


async def test_memory_of_both_ends_is_followed_and_a_short_run_says_that_it_is_one() -> None:
    said = figures(await steady.measure(minutes=0.05, sessions=2))
    for end in ("server", "edge"):
        assert said[f"the {end} grows in an hour, EXTRAPOLATED from 0.05 minutes"].bound == steady.MOST_MB_PER_HOUR
        assert said[f"the {end} holds"].value > 10.0
    assert said["texts that were written"].value > 0


def test_what_is_noted_of_memory_takes_none_as_the_process_that_notes_it_is_measured() -> None:
    samples = steady.Samples(3_600)
    tracemalloc.start()
    try:
        for second in range(3_600):
            samples.note(float(second), 400.0 + second, 60.0 + second)
        assert tracemalloc.get_traced_memory()[0] < 1_000
    finally:
        tracemalloc.stop()
    at_s, *held_mb = samples.judged()
    assert (at_s[0], at_s[-1]) == (1_440.0, 3_599.0)  # the first two fifths are for getting warm
    assert [held[-1] for held in held_mb] == [3_999.0, 3_659.0]
    with pytest.raises(IndexError):
        samples.note(3_600.0, 0.0, 0.0)


def test_a_slope_is_told_by_the_hour() -> None:
    assert steady.slope_mb_per_hour([0.0, 1.0, 2.0], [5.0, 5.1, 5.2]) == pytest.approx(360.0)
    assert steady.slope_mb_per_hour([0.0, 1.0, 2.0], [5.0, 5.0, 5.0]) == 0.0


def test_a_measurement_that_is_none_is_said() -> None:
    done = CliRunner().invoke(app, ["bench", "trust", "--only", "idel"])
    assert done.exit_code == UnknownNameError.exit_code
    assert "did you mean 'idle'?" in done.output


async def test_a_server_that_does_not_start_is_an_error() -> None:
    with pytest.raises(ForedraftError, match="ended before it served"):
        async with server_process("--no-such-option"):
            await asyncio.sleep(0)
