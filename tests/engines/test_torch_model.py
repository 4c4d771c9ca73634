"""Models: loaded, named by a digest, their layers heard in the middle of a forward, and refused when unfit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.conftest import TinyModel
from engines.tiny_models import EOS, FAMILIES, VOCABULARY
from foredraft.engines.fast_layers import lay_out_head
from foredraft.engines.model_files import locate
from foredraft.engines.torch_model import load_model, run_layers
from foredraft.errors import ConfigError, ModelError
from foredraft.text.tokenizer import tokenizer_digest

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "llama with biases, ungrouped heads, tied": (
        "llama",
        {"num_key_value_heads": 4, "mlp_bias": True, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "llama with scaled rotary positions": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "mistral with a window": ("mistral", {"sliding_window": 7}),
    "qwen2 with a window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
}


@pytest.fixture
def copy_of(tmp_path: Path, tiny_model: TinyModel) -> Path:
    """A model's folder that the test may change."""
    return Path(shutil.copytree(tiny_model(), tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_between_layers_are_those_of_the_whole_model(tiny_model: TinyModel, shape: str) -> None:
    family, changes = SHAPES[shape]
    loaded = load_model(tiny_model(family, **changes))
    tokens = torch.randint(0, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = loaded.model(tokens, output_hidden_states=True)
    hidden = run_layers(loaded, tokens, {2, 4})
    torch.testing.assert_close(hidden[2], expected.hidden_states[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loaded.logits(hidden[4]), expected.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_loads_and_stays_close_to_full(tiny_model: TinyModel, dtype: str) -> None:
    full, half = load_model(tiny_model()), load_model(tiny_model(), dtype)
    tokens = torch.arange(20).unsqueeze(0)
    error = run_layers(half, tokens, {4})[4].float() - run_layers(full, tokens, {4})[4]
    assert half.dtype != full.dtype
    assert error.abs().mean() < 0.1 * run_layers(full, tokens, {4})[4].abs().mean()


def test_joined_weights_leave_the_transformers_model_as_it_was(tiny_model: TinyModel) -> None:
    folder = tiny_model("qwen2")
    stored = load_file(folder / "model.safetensors")
    loaded = load_model(folder)
    for name, tensor in loaded.model.state_dict().items():
        torch.testing.assert_close(tensor, stored[name])


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("width", [512, 2048])
@pytest.mark.parametrize("bias", [False, True])
def test_a_large_output_layer_says_the_same_of_any_number_of_rows(rows: int, width: int, bias: bool) -> None:
    torch.manual_seed(rows)
    head = torch.nn.Linear(width, 300, bias=bias)
    hidden = torch.randn(rows, width)
    wanted = torch.nn.functional.linear(hidden, head.weight, head.bias)
    lay_out_head(head)
    with torch.inference_mode():
        torch.testing.assert_close(head(hidden), wanted)
        torch.testing.assert_close(head(hidden[None]), wanted[None])


def test_model_says_its_limits_and_end_marks(tiny_model: TinyModel) -> None:
    loaded = load_model(tiny_model())
    assert (loaded.vocab_size, loaded.context, len(loaded.layers)) == (VOCABULARY, 256, 4)
    assert loaded.stop_tokens == (EOS,)
    assert loaded.tokenizer_digest == tokenizer_digest((tiny_model() / "tokenizer.json").read_bytes())


def test_digest_depends_on_the_weights_and_not_on_the_type_they_are_loaded_into(tiny_model: TinyModel) -> None:
    first = load_model(tiny_model())
    assert load_model(tiny_model(), "bfloat16").digest == first.digest
    assert load_model(tiny_model(seed=1)).digest != first.digest
    assert load_model(tiny_model("mistral")).digest != first.digest


def test_digest_follows_a_change_of_one_number(copy_of: Path, tiny_model: TinyModel) -> None:
    file = copy_of / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, file, {"format": "pt"})
    assert load_model(copy_of).digest != load_model(tiny_model()).digest


def test_digest_of_large_files_samples_them(copy_of: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foredraft.engines.model_files._WHOLE_BYTES", 1000)
    monkeypatch.setattr("foredraft.engines.model_files._BLOCK_BYTES", 64)
    before = load_model(copy_of).digest
    edit_config(copy_of, rms_norm_eps=0.5)
    assert load_model(copy_of).digest != before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "no-such-family"}, "no-such-family"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic.*cached"),
        ({"layer_types": ["chunked_attention"] * 4}, "chunked"),
    ],
)
def test_unfit_model_is_refused_by_name(copy_of: Path, changes: dict[str, Any], named: str) -> None:
    edit_config(copy_of, **changes)
    with pytest.raises(ModelError, match=named):
        load_model(copy_of)


def test_missing_files_are_refused_by_name(copy_of: Path, tmp_path: Path) -> None:
    (copy_of / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_model(copy_of)
    (copy_of / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_model(copy_of)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(tmp_path)


def test_damaged_weights_are_refused(copy_of: Path) -> None:
    file = copy_of / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy_of)


def test_weights_that_lack_a_tensor_are_refused(copy_of: Path) -> None:
    file = copy_of / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        load_model(copy_of)


def test_hub_id_that_cannot_be_fetched_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **kwargs: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"nobody/nothing.*no connection.*folder"):
        locate("nobody/nothing")


def test_name_that_is_neither_folder_nor_hub_id_is_refused() -> None:
    with pytest.raises(ModelError, match="no/such/folder"):
        locate("no/such/folder")


@pytest.mark.parametrize(("option", "value"), [("dtype", "int7"), ("device", "abacus"), ("device", "cuda:99")])
def test_unknown_dtype_and_device_are_refused_by_name(tiny_model: TinyModel, option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        load_model(tiny_model(), **{option: value})  # type: ignore[arg-type]


def test_token_ids_outside_the_vocabulary_are_named(tiny_model: TinyModel) -> None:
    loaded = load_model(tiny_model())
    assert loaded.outside([0, VOCABULARY - 1]) == ""
    assert "258" in loaded.outside([3, VOCABULARY])
    assert "-1" in loaded.outside([3, -1])
