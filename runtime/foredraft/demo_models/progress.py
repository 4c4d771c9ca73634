"""Saying how far a step is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as RichProgress

from foredraft.demo_models.train import Progress

LINE_EVERY_S = 20.0
"""Seconds between two lines where there is no terminal."""

Show = Callable[[float, float, str], None]
"""Told how much is done, how much there is, and a few words."""


@contextmanager
def bar(name: str) -> Iterator[Show]:
    """Shows the progress of the step `name` while the context lasts."""
    console = Console()
    if console.is_terminal:
        with RichProgress(console=console) as shown:
            task = shown.add_task(name, total=None)
            yield lambda done, total, words: shown.update(
                task, completed=done, total=total, description=f"{name} {words}"
            )
        return
    began_s = last_s = time.monotonic()
    done_before: float | None = None  # by an earlier part of the training, or an interrupted run

    def line(done: float, total: float, words: str) -> None:
        nonlocal last_s, done_before
        now_s = time.monotonic()
        if done_before is None:
            done_before = done
        if now_s - last_s >= LINE_EVERY_S or done >= total:
            elapsed_s, last_s = now_s - began_s, now_s
            left_s = elapsed_s * (total - done) / (done - done_before) if done > done_before else float("nan")
            print(f"{name}: {100 * done / total:.0f}%, {elapsed_s:.0f} s, {left_s:.0f} s to go, {words}", flush=True)

    yield line


@contextmanager
def training_bar(name: str) -> Iterator[Callable[[Progress], None]]:
    """The same for a training, whose measure is the time it may take."""
    with bar(name) as show:
        yield lambda at: show(
            min(at.elapsed_s, at.budget_s),
            at.budget_s,
            f"loss {at.loss_nats:.3f} nats, {at.tokens / 1e6:.2f} million tokens",
        )
