"""Counts the layers of a model that the engine runs, and holds them where a test says so."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from foredraft.engines import attention
from foredraft.engines.rows import Rows
from foredraft.engines.torch_model import LoadedModel


class Gate:
    """Stands before each layer; those from ``closed_from`` on wait until it is opened."""

    def __init__(self) -> None:
        self.closed_from = 1000
        self.opened, self.reached = threading.Event(), threading.Event()
        self.layers: list[int] = []
        self.rows: list[int] = []
        """How many rows each forward has run."""

    def _before(self, layer: int, module: Any, arguments: Any) -> None:
        if not isinstance(attention.running(), Rows):
            return  # what the engine is compared with
        if layer >= self.closed_from:
            self.reached.set()
            if not self.opened.wait(30):
                raise RuntimeError("the gate was never opened")
        self.layers.append(layer)
        if layer == 0:
            self.rows.append(arguments[0].shape[1])

    async def until_reached(self) -> None:
        await asyncio.to_thread(self.reached.wait, 30)


@contextmanager
def gate_before(model: LoadedModel) -> Iterator[Gate]:
    gate = Gate()
    hooks = [
        layer.register_forward_pre_hook(partial(gate._before, number)) for number, layer in enumerate(model.layers)
    ]
    try:
        yield gate
    finally:
        for hook in hooks:
            hook.remove()
