"""Models of many families, tiny and random: they pass the check at load, speak in a tree, and others are refused."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engines.torch_reference import GREEDY, PlainHeads, decode, ignore
from foredraft.core.ports import Pass, Reading
from foredraft.engines import attention, rows
from foredraft.engines.torch_model import LoadedModel, ready, run_layers
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ModelError

FAMILIES = [
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
    *("gpt2", "opt", "mixtral", "qwen2_moe", "qwen3_moe", "olmo2", "smollm3", "granite", "cohere"),
    *("starcoder2", "gpt_neox", "gpt_oss", "glm4", "stablelm", "exaone4", "ernie4_5", "hunyuan_v1_dense", "nemotron"),
]
SMALL: dict[str, Any] = {
    "vocab_size": 600, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "sliding_window": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "moe_intermediate_size": 64, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2, "shared_expert_intermediate_size": 64, "n_embd": 64, "n_layer": 4, "n_head": 4,
    "n_inner": 128, "ffn_dim": 128, "word_embed_proj_dim": 64, "initializer_range": 0.2,
    "final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0, "logits_scaling": 2.0, "logit_scale": 0.5,
    "residual_multiplier": 0.5, "embedding_multiplier": 2.0,
}  # fmt: skip


def tiny(family: str) -> Any:
    default = AutoConfig.for_model(family)
    changes = {name: value for name, value in SMALL.items() if hasattr(default, name)}
    kinds = list(dict.fromkeys(getattr(default, "layer_types", None) or ()))
    if kinds and "layer_types" not in type(default).__dict__:
        changes["layer_types"] = [kinds[layer % len(kinds)] for layer in range(4)]
    if family == "mamba2":
        changes["num_heads"] = 8
    if family == "phi3":
        changes["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **changes)
        return (
            AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float().requires_grad_(False)
        )


def loaded(family: str) -> LoadedModel:
    module = tiny(family)
    return ready(module, module.config, Path(family), ("", ""), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_exits_and_text_through_the_engine_are_those_of_the_model_itself(family: str) -> None:
    plain = tiny(family)
    model = loaded(family)
    prompt = torch.randint(3, 600, (20,), generator=torch.Generator().manual_seed(4)).tolist()

    def whole(tokens: list[int]) -> torch.Tensor:
        """By transformers alone, in another copy of the model."""
        with torch.inference_mode():
            return plain(torch.tensor([tokens]), use_cache=False).logits[0, -1]  # type: ignore[no-any-return]

    async def speak() -> None:
        target = TorchTarget(model, PlainHeads(model), cache_bytes=1 << 22, prefill_chunk=8)
        seat, beside = await target.seat(prompt, GREEDY), await target.seat(prompt[::-1], GREEDY)
        heard: list[Reading] = []
        await asyncio.gather(seat.prefill(prompt[:-1]), beside.prefill(prompt[:0:-1]))
        tree = Pass((prompt[-1],), (20, 21, 31, 32), (-1, 0, -1, 2), (1, 3))
        verdict, _ = await asyncio.gather(seat.verify(tree, heard.append), beside.verify(Pass((prompt[0],)), ignore))
        texts = [prompt, [*prompt, 20], [*prompt, 20, 21], [*prompt, 31], [*prompt, 31, 32]]
        for token, text in zip(verdict.reading.tokens, texts, strict=True):
            logits = whole(text)
            assert logits[token] > logits.max() - 1e-3
        assert [reading.layer for reading in heard] == [1, 3]
        early = run_layers(model, torch.tensor([prompt]), {3})[3][0, -1]
        assert heard[1].tokens[0] == int(model.logits(early).argmax())
        seat.keep([2, 3])
        text = [*prompt, 31, 32]
        for token in await decode(seat, [*text, 5], 12):
            logits = whole(text := [*text, 5] if len(text) == 22 else text)
            assert logits[token] > logits.max() - 1e-3
            text = [*text, token]
        await target.close()

    asyncio.run(speak())


@pytest.mark.parametrize(
    ("family", "named"),
    [("mamba2", "mamba2"), ("qwen3_next", "only 1 attend"), ("bloom", "'bloom'")],
)
def test_models_that_do_not_keep_their_text_in_keys_and_values_are_refused(family: str, named: str) -> None:
    with pytest.raises(ModelError, match=f"{named}.*use a model with ordinary attention"):
        loaded(family)


def test_a_model_that_says_something_else_through_the_engine_is_refused_with_the_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgets_the_scale(query: Any, key: Any, value: Any, mask: Any, rules: dict[str, Any]) -> Any:
        return attention.attention(query, key, value, mask, rules | {"scaling": 0.01})

    monkeypatch.setattr(rows, "attention", forgets_the_scale)
    with pytest.raises(ModelError, match=r"'llama' says through the engine something else.*standard deviations apart"):
        loaded("llama")


def test_a_layer_that_computes_something_else_is_not_swapped_for_a_faster_one() -> None:
    assert ["forward" in layer.__dict__ for layer in loaded("llama").layers] == [True] * 4
    assert ["forward" in layer.__dict__ for layer in loaded("granite").layers] == [False] * 4  # scales its residuals
    assert ["forward" in layer.__dict__ for layer in loaded("gemma").layers] == [False] * 4  # norms by 1 + weight
