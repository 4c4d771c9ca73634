"""Tiny models, made once per test run and shared."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch

from engines.tiny_models import save_model
from engines.torch_reference import PlainHeads
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget

TinyModel = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are faster on one thread, and tests may run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Gives the folder of a random model: ``tiny_model(family, seed, **config)``; the same call, the same folder."""
    made: dict[str, Path] = {}

    def make(family: str = "llama", seed: int = 0, **changes: Any) -> Path:
        key = f"{family} {seed} {sorted(changes.items())}"
        if key not in made:
            made[key] = save_model(tmp_path_factory.mktemp(family), family, seed, **changes)
        return made[key]

    return make


@pytest.fixture
def model(tiny_model: TinyModel) -> LoadedModel:
    """A tiny Llama."""
    return load_model(tiny_model())


@pytest_asyncio.fixture(loop_scope="function")
async def target(model: LoadedModel) -> AsyncIterator[TorchTarget]:
    """A target over it, with plain exits."""
    target = TorchTarget(model, PlainHeads(model), prefill_chunk=16)
    yield target
    await target.close()
