"""For pytest: test code that awaits in simulated time. Installed with the package; nothing to import.

    @pytest.mark.simulated
    async def test_gives_up_after_ten_minutes() -> None:
        started_s = asyncio.get_running_loop().time()
        await my_robot_gives_up()          # takes milliseconds
        assert asyncio.get_running_loop().time() - started_s == 600

The marker runs a coroutine test on a SimLoop and passes its arguments on
(``@pytest.mark.simulated(shuffle_seed=3)``). It works beside pytest-asyncio, where the test's
async fixtures run on the same loop, and without it. Tests that are not marked stay on the loop
that they had.

    @pytest.mark.simulated
    async def test_my_robot_outlives_a_broken_link(simulated_edge) -> None:
        async with simulated_edge("robot.toml", seed=1) as edge:    # the API of foredraft.connect
            edge.world.cut_link(duration_s=5.0)
            await my_robot(edge)

The fixture ``simulate`` does the same from within an ordinary test: ``simulate(coroutine)``
returns the coroutine's result. To run one test body on several loops, give ``foredraft_sim.SimLoop``
as one of the factories of pytest-asyncio's hook ``pytest_asyncio_loop_factories``.
"""

import inspect
from collections.abc import Callable, Coroutine, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

# This module is imported in every project that has the package installed: asyncio and SimPy only where used.
if TYPE_CHECKING:
    import asyncio

    from foredraft_sim.loop.event_loop import SimLoop
    from foredraft_sim.world.connect import SimulatedEdge

_T = TypeVar("_T")
_MARKER = "simulated"


class Simulate(Protocol):
    """What the fixture ``simulate`` is."""

    def __call__(self, main: Coroutine[Any, Any, _T], **options: Any) -> _T:
        """Run ``main`` on a new SimLoop, which ``options`` are passed to; returns its result."""


def _sim_loop(**options: Any) -> "SimLoop":
    from foredraft_sim.loop.event_loop import SimLoop

    return SimLoop(**options)


def _usual_loop() -> "asyncio.AbstractEventLoop":
    import asyncio

    return asyncio.new_event_loop()


def _run(main: Coroutine[Any, Any, _T], **options: Any) -> _T:
    import asyncio

    with asyncio.Runner(loop_factory=partial(_sim_loop, **options)) as runner:
        return runner.run(main)


@pytest.fixture
def simulate() -> Simulate:
    """``simulate(coroutine, **options)`` runs a coroutine in simulated time and returns its result."""
    return _run


class ConnectSimulated(Protocol):
    """What the fixture ``simulated_edge`` is."""

    def __call__(self, scenario: str, *, seed: int = 1, device: int = 0) -> "SimulatedEdge":
        """As ``foredraft_sim.connect``; ``scenario`` is relative to the test's file."""


@pytest.fixture
def simulated_edge(request: pytest.FixtureRequest) -> ConnectSimulated:
    """``simulated_edge("robot.toml")``: an edge in simulated time, for tests marked ``simulated``."""
    from foredraft_sim.world.connect import connect

    def connect_here(scenario: str, *, seed: int = 1, device: int = 0) -> "SimulatedEdge":
        return connect(request.path.parent / scenario, seed=seed, device=device)

    return connect_here


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{_MARKER}(shuffle_seed=None): run this coroutine test in simulated time, on a SimLoop."
    )


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Generator[None, Any, Mapping[str, Callable[[], "asyncio.AbstractEventLoop"]]]:
    """pytest-asyncio's hook: a SimLoop where the marker is, else what others say, else the usual loop."""
    others: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None = yield
    marker = item.get_closest_marker(_MARKER)
    if marker is not None:
        return {_MARKER: partial(_sim_loop, **marker.kwargs)}
    return others or {"asyncio": _usual_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked coroutine test that pytest-asyncio has not made its own."""
    marker = pyfuncitem.get_closest_marker(_MARKER)
    if marker is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _run(pyfuncitem.obj(**arguments), **marker.kwargs)
    return True
