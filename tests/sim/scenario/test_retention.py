"""What a simulation keeps: a thousand devices share one processor's cache, so what is over must be gone."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from foredraft.cloud.session import CloudSession
from foredraft.edge.session import EdgeSession
from foredraft.protocol.tree import DraftTree
from foredraft_sim.network.network import SimLink
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.streams import Streams
from sim.scenario.scenario_files import scenario, workload

FIVE = workload(prompt_tokens=8, new_tokens=12, requests=5)
HELD = (EdgeSession, CloudSession, DraftTree, SimLink)


@contextmanager
def no_collector() -> Iterator[None]:
    """Only what nobody refers to any more is freed; what refers to itself stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def held() -> Counter[str]:
    """How many there are of what a session is made of."""
    return Counter(
        type(one).__name__ for one in gc.get_objects() if issubclass(type(one), HELD)
    )  # isinstance asks torch


@pytest.mark.parametrize("policy", ["cloud", "sync", "seed", "auto"])
def test_a_finished_session_leaves_nothing_for_the_garbage_collector(tmp_path: Path, policy: str) -> None:
    read = scenario(tmp_path, FIVE)
    with no_collector():
        before = held()  # other tests' own
        done = replicate(read, policy, 1)
        assert not held() - before
    assert len(done.finished) == 5


def test_a_session_that_nobody_watches_keeps_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[EdgeSession] = []
    run = EdgeSession.run

    async def remembered(session: EdgeSession) -> None:
        sessions.append(session)
        await run(session)

    monkeypatch.setattr(EdgeSession, "run", remembered)
    replicate(scenario(tmp_path, FIVE), "sync", 1)
    assert [session._fresh for session in sessions] == [None] * 5


def test_a_link_without_luck_makes_no_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Streams, "stream", lambda self, name: pytest.fail(f"made one for {name}"))
    replicate(scenario(tmp_path, FIVE), "sync", 1)
