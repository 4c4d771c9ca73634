"""What all tests share: how hard Hypothesis searches, and the loops that coroutines must run on.

`HYPOTHESIS_PROFILE=thorough` searches at random and longer; `ci` (the default) is the same each time.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from foredraft.loop import new_event_loop
from foredraft_sim.loop.event_loop import SimLoop
from lossless.tally import TALLY, hear_worker, tell_controller

_T = TypeVar("_T")

_SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=_SLOW_MACHINE)
settings.register_profile("thorough", deadline=None, max_examples=1000, suppress_health_check=_SLOW_MACHINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": new_event_loop,
    "simulated": SimLoop,
}

Run = Callable[[Coroutine[Any, Any, _T]], _T]


@pytest.fixture(params=sorted(LOOPS))
def run_on_each_loop(request: pytest.FixtureRequest) -> "Run[Any]":
    """Runs a coroutine on asyncio's own loop, on uvloop and in simulated time, one test each."""

    def run(main: Coroutine[Any, Any, _T]) -> _T:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(main)

    return run


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs some of the tests says what it counted."""
    tell_controller(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The process that reports adds it up."""
    hear_worker(node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How often a text could not be compared to its end."""
    if TALLY.compared:
        terminalreporter.write_line(TALLY.line())
