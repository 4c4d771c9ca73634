"""Lets one world of a plan happen in simulated time, to its end, and tells what was seen."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from foredraft_sim.chaos.edges import EdgeLife
from foredraft_sim.chaos.engines import BUG, FORWARD, MEMORY
from foredraft_sim.chaos.peers import bother
from foredraft_sim.chaos.plan import Fault, Peer, Plan
from foredraft_sim.chaos.seen import Seen
from foredraft_sim.chaos.watch import lines_heard
from foredraft_sim.chaos.world import World
from foredraft_sim.errors import SimulationError
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.scenario.quiet import rare_collections

PATIENCE_S: Final = 400.0
"""So long after the beginning every text has ended, or never will."""
SETTLED_S: Final = 30.0
"""So long after the last text nothing is on its way any more."""
_LIVELOCK: Final = 100_000


def seen_of(plan: Plan) -> Seen:
    """Let it happen. A deadlock, a livelock and whatever the world itself raises is in ``failure``.

    In every other world timers of one instant run in another order than they were set in.
    """
    seen, shuffle_seed = Seen(), plan.number if plan.number % 2 else None
    with lines_heard(), rare_collections():
        try:
            loop_factory = partial(SimLoop, shuffle_seed=shuffle_seed, livelock_callbacks=_LIVELOCK)
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                seen = runner.run(_live(plan))
        except SimulationError as error:
            seen.failure = str(error)
    return seen


async def _live(plan: Plan) -> Seen:
    loop, unheard = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: unheard.append(_unheard(context)))
    async with World(plan) as world:
        world.start_servers()
        edges = [EdgeLife(world, number) for number in range(len(plan.edges))]
        writing = [asyncio.create_task(edge.run(), name=f"device {number}") for number, edge in enumerate(edges)]
        troubles = [_start(world, edges, number, item) for number, item in plan.items if isinstance(item, Fault | Peer)]
        _, late = await asyncio.wait(writing, timeout=PATIENCE_S) if writing else (set(), set())
        world.seen.took_s = loop.time()
        await _stopped([*late, *troubles])
        await asyncio.sleep(SETTLED_S)
        await _end_servers(world)
        world.seen.left += [f"{edge.drafters} drafters of an edge" for edge in edges if edge.drafters]
        world.seen.left += sorted(task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()})
        world.seen.left += unheard
    for task in writing:
        if not task.cancelled() and (error := task.exception()) is not None:
            world.seen.failure = f"{type(error).__name__}: {error}"
    return world.seen


def _unheard(context: dict[str, Any]) -> str:
    """What nobody heard of: an exception in a callback, or in a task that nobody waited for."""
    task = context.get("task") or context.get("future")
    name = f" ({task.get_name()})" if isinstance(task, asyncio.Task) else ""
    return f"{context['message']}{name}: {context.get('exception')!r}"


async def _stopped(tasks: "Sequence[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _end_servers(world: World) -> None:
    for server, life in enumerate(world.lives):
        if life is not None:
            life.note_what_is_left()
            world.take_server(server)
            await life.end()


def _start(world: World, edges: Sequence[EdgeLife], number: int, item: Fault | Peer) -> "asyncio.Task[None]":
    work = bother(world, item, number) if isinstance(item, Peer) else _befall(world, edges, item)
    return asyncio.create_task(work, name=f"{item.kind} {number}")


async def _befall(world: World, edges: Sequence[EdgeLife], fault: Fault) -> None:
    """One fault, at its time."""
    await asyncio.sleep(fault.at_s)
    kind, where, for_s = fault.kind, fault.where, fault.for_s
    if kind == "cut":
        world.cut(f"edge {where}", for_s)
    elif kind == "stall":
        world.stall(f"edge {where}", for_s)
    elif kind == "crash":
        edges[where].crash(for_s)
    elif kind == "quit":
        edges[where].quit(for_s)
    elif kind == "revoke":
        world.revoke(world.plan.keys[where].name)
    elif kind == "clock":
        world.jump(for_s)
    elif kind in (MEMORY, FORWARD, BUG):
        await _trouble(world, where, kind, for_s)
    else:
        await _restart(world, where, kind, for_s)


async def _trouble(world: World, server: int, kind: str, for_s: float) -> None:
    """The forwards of a device fail for a while."""
    life = world.lives[server]
    if life is not None:
        life.target.trouble = kind
        try:
            await asyncio.sleep(for_s)
        finally:
            life.target.trouble = ""


async def _restart(world: World, server: int, kind: str, for_s: float) -> None:
    """A process ends, one way or the other, and another one takes its place."""
    life = world.take_server(server)
    if life is None:
        return
    if kind == "drain":
        world.lives[server] = life  # its door still answers
        await life.end()
        world.take_server(server)
    else:
        await life.kill()
    await asyncio.sleep(for_s)
    world.start_server(server, "birch" if kind == "swap" else life.seen.model)
