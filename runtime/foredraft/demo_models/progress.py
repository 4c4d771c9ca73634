"""Saying how far a training is, whose measure is the time it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from foredraft.demo_models.train import Progress
from foredraft.progress import progress


@contextmanager
def training_bar(name: str) -> Iterator[Callable[[Progress], None]]:
    """Shows the progress of a training while the context lasts."""
    with progress(name) as show:
        yield lambda at: show(
            min(at.elapsed_s, at.budget_s),
            at.budget_s,
            f"loss {at.loss_nats:.3f} nats, {at.tokens / 1e6:.2f} million tokens",
        )
