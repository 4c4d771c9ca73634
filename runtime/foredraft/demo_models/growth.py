"""Growing a model in depth: train a shallower one first, then put layers in that change nothing yet.

A new layer starts with zeros where it adds to the stream, so the grown model says what the shallow one said, and
the steps before were cheaper (Chen, Goodfellow and Shlens, "Net2Net", 2016, for the idea).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import nn
from transformers import LlamaForCausalLM

from foredraft.demo_models.train import Shape, build_model


def grow(model: LlamaForCausalLM, shape: Shape, after: Collection[int]) -> LlamaForCausalLM:
    """A model of `shape`, with more layers, that computes what `model` computes.

    `shape` is the shallow model's; for each number in `after` one layer is put in behind that many of its layers.
    """
    grown = build_model(replace(shape, layers=shape.layers + len(after)), model.config.vocab_size)
    grown.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    grown.model.norm.load_state_dict(model.model.norm.state_dict())
    fresh = iter(grown.model.layers)
    for done, layer in enumerate(model.model.layers, 1):
        next(fresh).load_state_dict(layer.state_dict())
        if done in after:
            added = next(fresh)
            nn.init.zeros_(added.self_attn.o_proj.weight)
            nn.init.zeros_(added.mlp.down_proj.weight)
    return grown
