"""Long work speaks: a bar on a terminal, elsewhere a plain line every ten seconds or so. Both on standard error."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

LINE_EVERY_S: Final = 10.0

Show = Callable[[float, float, str], None]
"""Told how much is done, how much there is, and a few words."""


@contextmanager
def progress(
    what: str, *, count: bool = False, stream: TextIO | None = None, every_s: float = LINE_EVERY_S
) -> Iterator[Show]:
    """Show how far ``what`` is while the context lasts. ``count``: things are counted; else shares are shown."""
    out = sys.stderr if stream is None else stream
    with _bar(what, count, out) if out.isatty() else _lines(what, count, out, every_s) as show:
        yield show


@contextmanager
def _bar(what: str, count: bool, out: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = MofNCompleteColumn() if count else TaskProgressColumn()
    columns = (TextColumn(what), BarColumn(), amount, TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=out), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, words: bar.update(task, completed=done, total=total, description=words)


@contextmanager
def _lines(what: str, count: bool, out: TextIO, every_s: float) -> Iterator[Show]:
    """A thread of its own writes, so that work which says nothing of itself is seen to go on, too."""
    began_s = part_s = time.monotonic()
    at: tuple[float, float, str] = (0.0, 0.0, "")
    over = threading.Event()

    def show(done: float, total: float, words: str) -> None:
        nonlocal at, part_s
        if total != at[1]:  # another part of the work begins
            part_s = time.monotonic()
        at = done, total, words

    def write() -> None:
        while not over.wait(every_s):
            now_s = time.monotonic()
            out.write(line(what, count, *at, now_s - began_s, now_s - part_s) + "\n")
            out.flush()

    writer = threading.Thread(target=write, name="progress", daemon=True)
    writer.start()
    try:
        yield show
    finally:
        over.set()
        writer.join()


def line(what: str, count: bool, done: float, total: float, words: str, elapsed_s: float, part_s: float) -> str:
    """How far it is, in a line; how much longer the present part will take, which began ``part_s`` ago."""
    parts = [f"{elapsed_s:.0f} s"]
    if total > 0.0:
        parts.insert(0, f"{done:.0f} of {total:.0f}" if count else f"{done / total:.0%}")
        if 0.0 < done < total:
            parts.append(f"about {part_s * (total - done) / done:.0f} s to go")
    return f"{what}: {', '.join([*parts, *filter(None, [words])])}"
