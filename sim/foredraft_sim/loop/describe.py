"""Words for what an event loop holds: who waits where, and what runs. For error messages."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import simpy


def waiting_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> str:
    """One line per task that is not done: its name and where it waits, ordered by name."""
    # all_tasks() is a set, which iterates by address: sort, numbers by value.
    pending = sorted((task for task in tasks if not task.done()), key=lambda t: (len(t.get_name()), t.get_name()))
    return "\n".join(f"  {task.get_name()} waits at {_where(task)}" for task in pending)


def callback_name(handle: object) -> str:
    """What a handle runs: the task that it steps or wakes, else the function."""
    callback: Any = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"{task.get_name()} at {_where(task)}"
    return str(getattr(callback, "__qualname__", repr(callback)))


def event_name(event: simpy.Event) -> str:
    """What a SimPy event goes on with: its processes, else its kind."""
    owners = [getattr(callback, "__self__", None) for callback in event.callbacks or ()]
    names = [f"SimPy process {owner.name}" for owner in owners if isinstance(owner, simpy.Process)]
    return ", ".join(names) or f"SimPy {type(event).__name__}"


def _where(task: "asyncio.Task[Any]") -> str:
    """The last three frames of the chain of awaits, outermost first, and the task waited for, if any."""
    frames: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            frames.append(f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_qualname}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    waiter = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task):
        frames.append(f"task {waiter.get_name()}")
    return " > ".join(frames[-3:]) or "its start"
