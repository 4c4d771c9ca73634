"""Faster decoder layers, in the place of a model's own where they say the same.

A small model spends most of its time between the operations, not in them. The usual layer,
``h + attention(norm(h))`` and then ``h + mlp(norm(h))`` with rotary positions and a gated mlp, needs
fewer of them when queries, keys and values are one product, and gate and up another. Measured on one core, a
pass of five rows of the bundled target takes half the time. No family is named: a layer that has the parts
is tried beside its own, and taken only where the two agree.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from foredraft.engines import attention

_Function = TypeVar("_Function", bound=Callable[..., Tensor])

_activations: dict[str, Any] = {}
"""One of each kind, so that what is compiled is compiled once."""

_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"})
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
_ROWS = 5
_SMALL_BYTES = 1 << 19
_QUICK_ROWS, _WIDE = 4, 2048


class FastLayer:
    """One decoder layer, with the signature of the module that it stands in for."""

    def __init__(self, layer: Any, rules: dict[str, Any], own: Callable[..., Any]) -> None:
        mixer, mlp = layer.self_attn, layer.mlp
        self._own, self._rules, self._index = own, rules, mixer.layer_idx
        self._dim = int(mixer.head_dim)
        self._query_heads = mixer.q_proj.out_features // self._dim
        self._heads = mixer.k_proj.out_features // self._dim
        self._attention_norm, self._mlp_norm = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._qk_norm = None
        if hasattr(mixer, "q_norm"):
            weights = [mixer.q_norm.weight.expand(self._query_heads, -1), mixer.k_norm.weight.expand(self._heads, -1)]
            self._qk_norm = _Norm(mixer.q_norm, torch.cat(weights))
        self._qkv, self._out = _join(mixer.q_proj, mixer.k_proj, mixer.v_proj), _join(mixer.o_proj)
        self._gate_up, self._down = _join(mlp.gate_proj, mlp.up_proj), _join(mlp.down_proj)
        fused = _fused if self._down[0].device.type == "cuda" else _as_it_is
        activation = _activations.setdefault(repr(mlp.act_fn), mlp.act_fn)
        self._rotate, self._gated = fused(_rotate), fused(_gated_by(activation))

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Hidden states ``[batch, rows, width]`` after the layer; what transformers runs itself goes to its own."""
        forward = attention.running()
        if forward is None or args:
            return self._own(hidden_states, *args, **kwargs)
        cos, sin = _rotary(forward, *kwargs["position_embeddings"])
        rotated_heads = self._query_heads + self._heads
        shape = hidden_states.shape
        hidden = hidden_states.view(-1, shape[-1])
        qkv = _product(self._attention_norm(hidden), *self._qkv)
        qkv = qkv.view(*shape[:2], rotated_heads + self._heads, self._dim)
        rotated = qkv[:, :, :rotated_heads]
        if self._qk_norm is not None:
            rotated = self._qk_norm(rotated)
        rotated = self._rotate(rotated, cos, sin).transpose(1, 2)
        queries, keys = rotated[:, : self._query_heads], rotated[:, self._query_heads :]
        values = qkv[:, :, rotated_heads:].transpose(1, 2)
        seen = forward.attend(self._index, queries, keys, values, self._rules)
        hidden = _add_product(hidden, seen.reshape(len(hidden), -1), *self._out)
        gate, up = _product(self._mlp_norm(hidden), *self._gate_up).chunk(2, dim=-1)
        hidden = _add_product(hidden, self._gated(gate, up), *self._down).view(shape)
        forward.after(self._index + 1, hidden)
        return hidden


class _Norm:
    """RMS norm over the last dimension."""

    def __init__(self, module: Any, weight: Tensor | None = None) -> None:
        self._weight = (module.weight if weight is None else weight).detach()
        self._eps = float(module.variance_epsilon)
        self._eps_tensor = self._weight.new_tensor([self._eps])
        self._by_hand = self._weight.dtype == torch.float32 and self._weight.device.type == "cpu"
        self._norm = (_fused if self._weight.device.type == "cuda" else _as_it_is)(_rms_norm)

    def __call__(self, values: Tensor) -> Tensor:
        dim = values.shape[-1]
        if self._by_hand:  # torch's own is a chain of eleven small operations here, and a fused one elsewhere
            length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
            scale = torch.addcmul(self._eps_tensor, length, length, value=1.0 / dim).rsqrt_()
            return (values * scale).mul_(self._weight)
        return self._norm(values, self._weight, self._eps)


def _rms_norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(values, (values.shape[-1],), None, eps) * weight


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


@cache
def _gated_by(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda gate, up: activation(gate) * up


@cache
def _fused(function: _Function) -> _Function:
    """In captured forwards a few small operations are one, by torch's compiler: a tenth less time on a GPU."""
    compiled = torch.compile(function)

    def either(*given: Any) -> Tensor:
        return (compiled if attention.fuses() else function)(*given)

    return either  # type: ignore[return-value]


def _as_it_is(function: _Function) -> _Function:
    return function


def _add_product(sums: Tensor, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``sums`` and a product, in one operation where there is no bias."""
    if bias is None and not _slow(values, weight):
        return torch.addmm(sums, values, weight.t())
    return sums + _product(values, weight, bias)


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Rows ``[..., width]`` times a layer's weights."""
    if not _slow(values, weight):
        return functional.linear(values, weight, bias)
    rows = len(values)
    return functional.linear(functional.pad(values, (0, 0, 0, _QUICK_ROWS - rows)), weight, bias)[:rows]


def _slow(values: Tensor, weight: Tensor) -> bool:
    """Whether so few rows take longer than four: torch's product runs two or three of them one by one.

    Three take 1.1 to 1.7 times as long as four, and up to a width of 1,536 two take 1.1 to 1.3 times as long.
    """
    rows = len(values) if values.dim() == 2 else 0
    large = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.nbytes > _SMALL_BYTES
    return large and (rows == 3 or (rows == 2 and weight.shape[1] < _WIDE))


def _rotary(forward: Any, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines, and sines with the signs of ``rotate_half``, over ``[batch, rows, heads, dim]``: once for all layers."""
    kept = forward.scratch.get("rotary")
    if kept is None or kept[0] is not sin:
        half = sin.shape[-1] // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        kept = forward.scratch["rotary"] = (sin, cos.unsqueeze(2), signed.unsqueeze(2))
    return kept[1], kept[2]


def _join(*parts: nn.Linear) -> tuple[Tensor, Tensor | None]:
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
    return weight, bias


def _laid_out(weight: Tensor) -> Tensor:
    """The same matrix, with its columns contiguous where it is small and on a CPU.

    A pass of five rows of the bundled target takes a tenth less time so; large matrices take more.
    """
    small = weight.device.type == "cpu" and weight.nbytes <= _SMALL_BYTES
    return weight.T.contiguous().T if small else weight


def lay_out_head(head: Any) -> None:
    """Ready an output layer for passes of few rows; a small one that is tied to the embedding gets a copy."""
    if _is_plain(head):
        head.weight = nn.Parameter(_laid_out(head.weight.detach()), requires_grad=False)
        head.forward = lambda hidden: _product(hidden, head.weight, head.bias)


def _has_the_parts(layer: Any) -> bool:
    names = {name for name, _ in layer.named_children()}
    if names != _PARTS or {name for name, _ in layer.mlp.named_children()} != _MLP:
        return False
    mixer = layer.self_attn
    if {name for name, _ in mixer.named_children()} not in _ATTENTION:
        return False
    parts = [part for part in layer.modules() if part is not layer]
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
        return False  # tensor parallelism, offloading
    linears = [mixer.q_proj, mixer.k_proj, mixer.v_proj, mixer.o_proj]
    linears += [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
    biased = {part.bias is None for part in linears[:3]}
    return (
        all(map(_is_plain, linears))
        and linears[0].weight.dtype in _TOLERANCE
        and len(biased) == 1
        and (linears[4].bias is None) == (linears[5].bias is None)
    )


def _is_plain(part: Any) -> bool:
    return type(part) is nn.Linear and type(part.weight.data) is Tensor


class _Trial:
    """A forward of one layer alone: plain causal attention, and the rules that the layer gave it."""

    def __init__(self) -> None:
        self.rules: dict[str, Any] = {}
        self.scratch: dict[str, Any] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
        self.rules = {name: rules[name] for name in attention.RULES if name in rules}
        return attention.causal(query, key, value, rules).transpose(1, 2)

    def after(self, layers: int, hidden: Tensor) -> None:
        """Nobody asks."""


@torch.inference_mode()
def quicken(layer: Any, rotary: Any, width: int) -> bool:
    """Take the faster layer if there can be one, and if it says what the layer's own says of random rows."""
    if rotary is None or not _has_the_parts(layer):
        return False
    like = layer.self_attn.q_proj.weight
    generator = torch.Generator().manual_seed(layer.self_attn.layer_idx)
    hidden = torch.randn(1, _ROWS, width, generator=generator).to(like.device, like.dtype)
    at = torch.arange(_ROWS, device=like.device).unsqueeze(0)
    try:
        with attention.run(trial := _Trial()):
            given = {"position_embeddings": rotary(hidden, position_ids=at), "position_ids": at}
            wanted = layer(hidden, **given)
            own = layer.forward
            fast = FastLayer(layer, trial.rules, own)
            said = fast(hidden, **given)
        apart = float((said - wanted).abs().max() / (wanted - hidden).abs().max())
    except (RuntimeError, AttributeError, TypeError, KeyError, ValueError):
        return False
    if not apart <= _TOLERANCE[like.dtype]:
        return False
    layer.forward = fast
    return True
