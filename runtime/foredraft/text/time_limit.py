"""Work of somebody else's making, with an end: Python code that takes too long is stopped."""

import ctypes
import threading
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")

_STOPPING_S: Final = 1.0


class OutOfTimeError(Exception):
    """Raised within the work when its time is over, and to whoever asked for it."""


def within(limit_s: float, work: Callable[[], _T]) -> _T:
    """What ``work`` returns or raises; it runs in a thread of its own.

    Raises OutOfTimeError after ``limit_s``: the same is raised between two steps of the work's Python code, so a loop
    ends. What hangs in a library's own code is left behind.
    """
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="limited", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(OutOfTimeError))
        thread.join(_STOPPING_S)
    if done:
        return done[0]
    if failed and not isinstance(failed[0], OutOfTimeError):
        raise failed[0]
    raise OutOfTimeError(f"not over after {limit_s:g} s")
