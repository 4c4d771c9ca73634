"""Tiny models whose exits and drafts are right sometimes, made once and shared."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.tiny_models import save_model
from foredraft.engines.torch_model import LoadedModel, load_model
from lossless.oracle import Oracle


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are faster on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random target whose last layer changes little, so that its exits are right now and then."""
    folder = save_model(tmp_path_factory.mktemp("target"), eos_token_id=None, max_position_embeddings=512)
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        weights[f"model.layers.3.{name}.weight"] *= 0.2
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def draft_folder(target_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target with every weight a little off: a draft that is right sometimes."""
    folder = save_model(tmp_path_factory.mktemp("draft"), eos_token_id=None, max_position_embeddings=512)
    weights = load_file(target_folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        weights[name] = weight + 0.06 * weight.std().nan_to_num() * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def target_model(target_folder: Path) -> LoadedModel:
    return load_model(target_folder)


@pytest.fixture(scope="session")
def draft_model(draft_folder: Path) -> LoadedModel:
    return load_model(draft_folder)


@pytest.fixture(scope="session")
def oracle(target_folder: Path) -> Oracle:
    """The target's own texts."""
    return Oracle.of(target_folder)
