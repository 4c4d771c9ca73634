"""Applications may run on eager tasks (Python 3.12): a session is the same there, on every loop."""

import asyncio
import sys
from collections.abc import Callable

import pytest

from conftest import LOOPS
from sessions.room import collect, room, text

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks come with Python 3.12")


def eager(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    loop = new_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  # not known to the oldest Python
    return loop


UVLOOP = pytest.param(
    "uvloop",
    marks=pytest.mark.skipif(
        (3, 13) <= sys.version_info < (3, 13, 4), reason="uvloop gives eager tasks an argument that this Python lacks"
    ),
)


@pytest.mark.parametrize("name", [*sorted(LOOPS.keys() - {"uvloop"}), UVLOOP])
@pytest.mark.parametrize("policy", ["cloud", "sync", "seed", "ahead", "auto"])
def test_a_session_on_eager_tasks_says_the_same(name: str, policy: str) -> None:
    async def main() -> list[int]:
        here = room()
        said = await collect(here.session(policy, length=40))
        await here.left()
        return said

    with asyncio.Runner(loop_factory=lambda: eager(LOOPS[name])) as runner:
        assert runner.run(main()) == text(40)
