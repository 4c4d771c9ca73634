"""The decoder layers of Llama, Mistral, Qwen2 and Qwen3, run by hand.

One layer is ``h + attention(norm(h))`` and then ``h + mlp(norm(h))``, with rotary positions,
grouped queries and a gated mlp. It is written out here, over the weights of a transformers
model, because a pass runs in segments, over a cache and under masks of our own, and because
a small model spends most of its time between the operations, not in them: queries, keys and
values are one product here, and so are gate and up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_COPY_BYTES = 32 << 20  # a tied output layer up to this size gets a copy of its own
Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes keys and values of new rows, ``[rows, heads, dim]``; gives all that is seen, ``[heads, seen, dim]``."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A product ``x @ weight.T + bias``."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, values: Tensor) -> Tensor:
        return functional.linear(values, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS norm over the last dimension. ``weight``: ``[dim]`` or ``[heads, dim]``; ``eps_tensor``: [1]."""

    weight: Tensor
    eps: float
    eps_tensor: Tensor

    @classmethod
    def of(cls, weight: Tensor, eps: float) -> "Norm":
        return cls(weight.detach(), eps, weight.detach().new_tensor([eps]))

    def __call__(self, values: Tensor) -> Tensor:
        dim = values.shape[-1]
        if values.dtype == torch.float32 and values.device.type == "cpu":
            # torch's own is a chain of eleven small operations here, and a fused one elsewhere
            length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
            return (values * torch.addcmul(self.eps_tensor, length, length, value=1.0 / dim).rsqrt_()).mul_(self.weight)
        return functional.rms_norm(values, (dim,), None, self.eps) * self.weight


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one decoder layer. ``window``: how many tokens a token sees, itself included; None: all."""

    heads: int
    groups: int
    dim: int
    attention_norm: Norm
    qkv: Linear
    qk_norm: Norm | None
    out: Linear
    mlp_norm: Norm
    gate_up: Linear
    down: Linear
    activation: Callable[[Tensor], Tensor]
    window: int | None

    def __call__(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, store: Store | None = None
    ) -> Tensor:
        """Hidden states after this layer.

        ``hidden``: ``[batch, rows, width]``, batch 1 with a store; ``cos``, ``sin``: ``[rows, 1, dim]``;
        ``mask``: ``[rows, seen]``, added to the scores, None when every row sees everything.
        """
        query_heads = self.heads * self.groups
        rotated_heads = query_heads + self.heads
        qkv = self.qkv(self.attention_norm(hidden)).view(*hidden.shape[:2], rotated_heads + self.heads, self.dim)
        rotated = qkv[..., :rotated_heads, :]
        if self.qk_norm is not None:
            rotated = self.qk_norm(rotated)
        rotated = torch.addcmul(rotated * cos, rotated.roll(self.dim // 2, -1), sin)
        queries, keys = rotated[..., :query_heads, :], rotated[..., query_heads:, :]
        values = qkv[..., rotated_heads:, :]
        attended = self._attend(queries, keys, values, mask, store)
        hidden = hidden + self.out(attended)
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(self.activation(gate) * up)

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, store: Store | None
    ) -> Tensor:
        """Attention over ``[batch, rows, heads, dim]``; queries that share a key head run as one group."""
        batch, rows = queries.shape[:2]
        grouped = queries.view(batch, rows, self.heads, self.groups, self.dim)
        if store is None:
            keys, values = (part.transpose(1, 2).flatten(0, 1).unsqueeze(1) for part in (keys, values))
        else:
            keys, values = (part.unsqueeze(1) for part in store(keys[0], values[0]))
        if rows == 1:  # the group's queries take the place of rows
            grouped = grouped.reshape(batch * self.heads, 1, self.groups, self.dim)
        else:
            grouped = grouped.permute(0, 2, 3, 1, 4).flatten(0, 1)
            keys, values = (part.expand(-1, self.groups, -1, -1) for part in (keys, values))
        attended = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        attended = attended.view(batch, self.heads, self.groups, rows, self.dim)
        return attended.permute(0, 3, 1, 2, 4).reshape(batch, rows, -1)


def take_layers(backbone: Any, config: Any) -> list[Layer]:
    """The layers of a transformers backbone; its parameters become views of the joined weights."""
    kinds: Sequence[str | None] = getattr(config, "layer_types", None) or [None] * len(backbone.layers)
    return [_take_layer(block, config, kind) for block, kind in zip(backbone.layers, kinds, strict=True)]


def _take_layer(block: Any, config: Any, kind: str | None) -> Layer:
    attention, mlp = block.self_attn, block.mlp
    dim = int(attention.head_dim)
    query_heads, heads = int(config.num_attention_heads), int(config.num_key_value_heads)
    window = getattr(config, "sliding_window", None)
    slides = kind == "sliding_attention" or (kind is None and config.model_type == "mistral")
    eps = float(config.rms_norm_eps)
    qk_norm = None
    if hasattr(attention, "q_norm"):
        weights = [attention.q_norm.weight.expand(query_heads, dim), attention.k_norm.weight.expand(heads, dim)]
        qk_norm = Norm.of(torch.cat(weights), eps)
    return Layer(
        heads=heads,
        groups=query_heads // heads,
        dim=dim,
        attention_norm=Norm.of(block.input_layernorm.weight, eps),
        qkv=_join(attention.q_proj, attention.k_proj, attention.v_proj),
        qk_norm=qk_norm,
        out=_join(attention.o_proj),
        mlp_norm=Norm.of(block.post_attention_layernorm.weight, eps),
        gate_up=_join(mlp.gate_proj, mlp.up_proj),
        down=_join(mlp.down_proj),
        activation=mlp.act_fn,
        window=int(window) if slides and window else None,
    )


def _join(*parts: nn.Linear) -> Linear:
    """The parts as one product. The modules keep working: their weights become views of the joined one."""
    weight = _laid_out(torch.cat([part.weight.detach() for part in parts]))
    biases = [part.bias.detach() for part in parts if part.bias is not None]
    bias = torch.cat(biases) if biases else None
    start = 0
    for part in parts:
        end = start + part.out_features
        part.weight.data = weight[start:end]
        if bias is not None:
            part.bias.data = bias[start:end]
        start = end
    return Linear(weight, bias)


def _laid_out(weight: Tensor) -> Tensor:
    """The same matrix with its columns contiguous: for 2 to 16 rows on a CPU, products take half the time so."""
    return weight.T.contiguous().T if weight.device.type == "cpu" else weight


def lay_out_head(head: nn.Linear, tied: bool) -> None:
    """Lay out the output layer for passes of few rows; one that is tied and large stays as the embedding needs it."""
    if not tied or head.weight.nbytes <= _COPY_BYTES:
        head.weight = nn.Parameter(_laid_out(head.weight.detach()), requires_grad=False)


class Rotary:
    """Cosines and sines of positions, tabulated by the model's own module; the table grows as needed."""

    def __init__(self, module: Any, dtype: torch.dtype, device: torch.device, context: int) -> None:
        self._module, self._context = module, context
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._cos = self._sin = self._like

    def reserve(self, positions: int) -> None:
        """Make the table reach ``positions``."""
        have = self._cos.shape[0]
        if have >= positions:
            return
        length = min(max(positions, 2 * have, 256), max(positions, self._context))
        ids = torch.arange(length, device=self._like.device).unsqueeze(0)
        cos, sin = (part[0].unsqueeze(1) for part in self._module(self._like, position_ids=ids))
        half = sin.shape[-1] // 2  # rotate_half(x) * sin == roll(x, half) * signed sin
        self._cos, self._sin = cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)

    def span(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Those of positions ``start`` to ``end``: ``[rows, 1, dim]`` each."""
        self.reserve(end)
        return self._cos[start:end], self._sin[start:end]

    def at(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        """Those of ``positions``: ``[rows, 1, dim]`` each."""
        self.reserve(max(positions) + 1)
        index = torch.tensor(positions, device=self._like.device)
        return self._cos[index], self._sin[index]
