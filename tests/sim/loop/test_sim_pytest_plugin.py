"""The pytest plugin, as a user's project meets it."""

import pytest

pytest_plugins = "pytester"

SIMULATED = """
import asyncio
import pytest
from foredraft_sim import SimLoop

@pytest.mark.simulated
async def test_simulated() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    await asyncio.sleep(86_400)
    assert loop.time() == 86_400.0
"""

WITH_ASYNCIO = """
import pytest_asyncio

@pytest_asyncio.fixture
async def started():
    await asyncio.sleep(5)
    yield asyncio.get_running_loop()
    await asyncio.sleep(5)

@pytest.mark.simulated
@pytest.mark.asyncio
async def test_fixtures_share_the_loop(started) -> None:
    assert asyncio.get_running_loop() is started
    assert started.time() == 5.0

@pytest.mark.asyncio
async def test_unmarked_stays_on_its_loop() -> None:
    assert not isinstance(asyncio.get_running_loop(), SimLoop)
"""


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(
        "-p", "no:randomly", "-o", "asyncio_default_fixture_loop_scope=function", "--strict-markers", *arguments
    )


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_marker_works_beside_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile(SIMULATED + WITH_ASYNCIO)
    _run(pytester, "--asyncio-mode", mode).assert_outcomes(passed=3)


def test_the_marker_works_without_pytest_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        SIMULATED
        + """
@pytest.mark.simulated
@pytest.mark.parametrize("number", [1, 2])
async def test_with_arguments(number: int, tmp_path) -> None:
    await asyncio.sleep(number)
    assert tmp_path.is_dir()
    assert asyncio.get_running_loop().time() == number
"""
    )
    pytester.runpytest_subprocess("-p", "no:asyncio").assert_outcomes(passed=3)


def test_the_marker_wins_over_a_project_s_own_loop_factories(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
import asyncio
class Own(asyncio.SelectorEventLoop): pass
def pytest_asyncio_loop_factories(config, item):
    return {"own": Own, "usual": asyncio.new_event_loop}
"""
    )
    pytester.makepyfile(
        SIMULATED
        + """
seen = []
async def test_on_both():
    seen.append(type(asyncio.get_running_loop()).__name__)
def test_that_both_ran():
    assert seen[0] == "Own" and len(seen) == 2
"""
    )
    _run(pytester, "--asyncio-mode", "auto").assert_outcomes(passed=4)


def test_the_fixture_runs_a_coroutine_and_takes_the_loop_s_options(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import asyncio

async def order():
    seen = []
    async def contend(name):
        await asyncio.sleep(1)
        seen.append(name)
    await asyncio.gather(*[contend(name) for name in range(20)])
    return seen

def test_simulate(simulate):
    assert simulate(order()) == list(range(20))
    assert simulate(order(), shuffle_seed=1) == simulate(order(), shuffle_seed=1) != list(range(20))
"""
    )
    _run(pytester).assert_outcomes(passed=1)


def test_a_deadlock_fails_the_test_and_names_the_task(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import asyncio
import pytest

@pytest.mark.simulated
async def test_forgotten_event():
    await asyncio.create_task(asyncio.Event().wait(), name="cloud")
"""
    )
    result = _run(pytester, "--asyncio-mode", "auto")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*DeadlockError: nothing is scheduled*", "*cloud waits at*"])


def test_the_plugin_costs_nothing_where_it_is_not_used(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # what other plugins load is not ours
    pytester.makepyfile(
        """
import sys

def test_what_is_loaded():
    modules = {"simpy", "asyncio", "foredraft", "foredraft_sim.loop", "foredraft_sim.pytest_plugin"}
    loaded = modules & set(sys.modules)
    assert loaded == {"foredraft_sim.pytest_plugin"}
"""
    )
    result = pytester.runpytest_subprocess("-p", "foredraft_sim.pytest_plugin")
    result.assert_outcomes(passed=1)
