"""A hint reaches the edge while the target still has layers to run, or these passes would never end."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

import foredraft
from engines.torch_reference import PlainHeads, prompt_of
from foredraft.core.events import Event
from foredraft.core.sampling import Sampling
from foredraft.engines.torch_draft import TorchDrafter
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import RefusedError
from foredraft.text import Tokenizer
from lossless.oracle import Oracle

LENGTH = 16


class Gate(PlainHeads):
    """Exits, and a gate before the layer after the last one: one forward that had a hint passes per ``open``."""

    def __init__(self, model: LoadedModel, patience_s: float) -> None:
        super().__init__(model)
        self.patience_s = patience_s
        self.passed = 0
        self._hints = threading.Semaphore(0)
        self._spoke = threading.local()  # the drafter runs the same model, on a thread of its own

    def open(self) -> None:
        self._hints.release()

    def read(self, *args: Any) -> tuple[Tensor, Tensor]:
        self._spoke.now = True
        return super().read(*args)

    def before_last_layer(self, module: Any, arguments: Any) -> None:
        if getattr(self._spoke, "now", False):
            self._spoke.now = False
            if not self._hints.acquire(timeout=self.patience_s):
                raise RuntimeError("no hint was heard at the edge")
            self.passed += 1


@pytest.fixture
def gate(target_model: LoadedModel) -> Iterator[Gate]:
    gate = Gate(target_model, patience_s=30.0)
    hook = target_model.layers[3].register_forward_pre_hook(gate.before_last_layer)
    yield gate
    hook.remove()


async def write(
    model: LoadedModel, gate: Gate, policy: str, observer: Callable[[Event], None]
) -> foredraft.SessionReport:
    """A text over a real WebSocket, with real exits and a real draft."""
    tokenizer = Tokenizer.from_folder(model.folder)
    drafter = TorchDrafter(model)
    async with (
        foredraft.Cloud(TorchTarget(model, gate), tokenizer) as cloud,
        cloud.listen() as url,
        foredraft.connect(url, draft=drafter) as edge,
    ):
        asked = edge.generate(prompt_of(9), policy=policy, max_new_tokens=LENGTH, observer=observer)
        try:
            return await asked.finish()
        finally:
            await drafter.close()


async def test_a_pass_whose_last_layers_wait_for_the_edge_to_hear_its_hint_ends(
    target_model: LoadedModel, oracle: Oracle, gate: Gate
) -> None:
    def heard(event: Event) -> None:
        if event.kind == "hint":
            gate.open()

    report = await write(target_model, gate, "seed:exits=3,threshold=0.0", heard)
    oracle.check(report.tokens, prompt_of(9), Sampling())
    assert report.hints == report.passes == gate.passed > 0


async def test_the_gate_holds_whatever_no_hint_opens(target_model: LoadedModel, gate: Gate) -> None:
    gate.patience_s = 0.1
    with pytest.raises(RefusedError, match="no hint was heard at the edge"):
        await write(target_model, gate, "seed:exits=3,threshold=0.0", lambda event: None)
    assert gate.passed == 0
