"""A model is looked over once, and proves that it says through the engine what it says by itself.

There is no list of families, for lists age. A model whose attention is not the registered one (recurrent
layers, alibi) says something else over a few tokens already, and is refused with the figure.
"""

import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foredraft.engines import attention
from foredraft.engines.kv_memory import KvMemory, KvShape
from foredraft.engines.rows import Part, Rows
from foredraft.engines.scene import Scene
from foredraft.engines.sight import Sight
from foredraft.engines.torch_model import LoadedModel
from foredraft.errors import ModelError

LEAST_TOLERANCE = 1e-4
"""How far logits may be apart in any case, in standard deviations of a row's logits."""

ROUNDINGS = 3.0
"""How many times as far apart as what one rounding of the embeddings does to them."""

_WAY_OUT_SEEING = "use a model of the Qwen2-VL, Qwen2.5-VL, Qwen3-VL or LLaVA families"
_WAY_OUT = "use a model with ordinary attention, such as one of the Llama, Qwen, Gemma, Mistral or GPT families"


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What a model is made of; the fields are those of ``LoadedModel``."""

    backbone: Any
    layers: tuple[Any, ...]
    kv: KvShape
    norm: nn.Module
    lm_head: nn.Module
    output: Callable[[Tensor], Tensor]


class _Look:
    """A forward over a few tokens that sees which layers attend, with how many heads."""

    def __init__(self) -> None:
        self.planes: dict[int, tuple[Tensor, Tensor]] = {}
        self.scratch: dict[str, Any] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
        self.planes[layer] = key, value
        return attention.causal(query, key, value, rules).transpose(1, 2)

    def after(self, layers: int, hidden: Tensor) -> None:
        """Nobody asks."""


@torch.inference_mode()
def examine(module: Any, config: Any, folder: Path) -> Anatomy:
    """Find the parts of a causal model. Raises ModelError."""
    attention.register()
    name = repr(str(folder))
    with _explained(f"{name} cannot be run over our attention", _WAY_OUT):
        use(module, attention.NAME)
        backbone = module.get_decoder()
        layers = max((c for c in backbone.children() if isinstance(c, nn.ModuleList)), key=len)
        said: list[tuple[nn.Module, Any]] = []
        hooks = [c.register_forward_hook(lambda c, _, out: said.append((c, out))) for c in backbone.children()]
        tokens = torch.arange(3, device=module.device).unsqueeze(0) % config.vocab_size
        with attention.run(look := _Look()):
            last = backbone(input_ids=tokens, position_ids=torch.arange(3).to(tokens).unsqueeze(0), use_cache=False)[0]
        for hook in hooks:
            hook.remove()
    if sorted(look.planes) != list(range(len(layers))):
        raise ModelError(
            f"{name} is of the {config.model_type!r} family, of whose {len(layers)} layers only {len(look.planes)} "
            f"attend: the others keep a state that cannot be rolled back; {_WAY_OUT}"
        )
    planes = [plane for layer in sorted(look.planes) for plane in look.planes[layer]]
    return Anatomy(
        backbone=backbone,
        layers=tuple(layers),
        kv=KvShape(tuple((plane.shape[1], plane.shape[3]) for plane in planes), planes[0].dtype),
        norm=_last_norm(said, last),
        lm_head=module.get_output_embeddings(),
        output=_output_of(module, config),
    )


def _last_norm(said: list[tuple[nn.Module, Any]], last: Tensor) -> nn.Module:
    """The child of the backbone that gave its result; some models have none."""
    norms = (child for child, out in said if isinstance(out, Tensor) and out.data_ptr() == last.data_ptr())
    return next(norms, nn.Identity())


def _output_of(module: Any, config: Any) -> Callable[[Tensor], Tensor]:
    """Normed hidden states ``[..., width]`` to logits: the output layer, and what some models do to its result."""
    head = module.get_output_embeddings()
    factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    if factor == 1.0 and not cap:
        return head  # type: ignore[no-any-return]

    def output(hidden: Tensor) -> Tensor:
        logits: Tensor = head(hidden) * factor
        return torch.tanh(logits / cap) * cap if cap else logits

    return output


@torch.inference_mode()
def check(model: LoadedModel) -> None:
    """A tree beside a chain, through the engine and by the model's own eager attention. Raises ModelError."""
    name = repr(str(model.folder))
    with _explained(f"{name} cannot be run over our attention", _WAY_OUT):
        apart, allowed = _apart(model), most_apart(model)
    _judge(f"{name} says through the engine something else than by itself", apart, allowed, _WAY_OUT)
    if model.sight is None:
        return
    with _explained(f"{name} cannot see through our engine", _WAY_OUT_SEEING):
        apart = _apart_seeing(model, model.sight)
    _judge(f"{name} says through the engine something else of an image than by itself", apart, allowed, _WAY_OUT_SEEING)


@contextmanager
def _explained(wrong: str, way_out: str) -> Iterator[None]:
    """Whatever a strange model meets our engine with is a ModelError."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
        raise ModelError(f"{wrong} ({reason_of(error)}); {way_out}") from error


def _judge(wrong: str, apart: float, allowed: float, way_out: str) -> None:
    if not apart <= allowed:
        raise ModelError(
            f"{wrong}: logits are {apart:.2g} standard deviations apart, {allowed:.2g} may be rounding; {way_out}"
        )


def _apart_seeing(model: LoadedModel, sight: Sight) -> float:
    """As ``_apart``, over a text with an image in it, its rows in two chunks, and a tree after it."""
    inputs = sight.read(_noise_image())
    picture = sight.look(inputs)
    draw = torch.randint(0, model.vocab_size, (9,), generator=torch.Generator().manual_seed(3)).tolist()
    draw = [(token + 1) % model.vocab_size if token == sight.image_token else token for token in draw]
    text = [*draw[:3], *picture.tokens, *draw[3:5]]
    wanted = [_alone(model, [*text, *draw[first:last]], sight, inputs)[-2:] for first, last in ((5, 7), (7, 9))]
    scene, tip, half = Scene(sight, text, [picture]), len(text) - 1, len(text) // 2
    memory = KvMemory(model.kv, len(text) + 4, model.device)
    for start, end in ((0, half), (half, tip)):
        model.run(Rows(memory, [Part(text[start:end], [(0, end)], start, end, scene=scene)]))
    sees, positions = [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4]], [tip, tip + 1, tip + 2, tip + 1, tip + 2]
    tree = Part([text[tip], *draw[5:9]], [(0, tip + 5)], tip, tip, positions, sees, scene)
    said = model.output(model.run(Rows(memory, [tree])))
    return max(distance(said[first : first + 2], other) for first, other in zip((1, 3), wanted, strict=True))


def _noise_image() -> bytes:
    """A small image, as a PNG; taller than wide, so that its axes are told apart."""
    from PIL import Image

    pixels = torch.randint(0, 256, (112, 84, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def _apart(model: LoadedModel) -> float:
    """How far what the engine says is from what the model says by itself; see ``distance``."""
    generator = torch.Generator().manual_seed(1)
    draw = torch.randint(0, model.vocab_size, (20,), generator=generator).tolist()
    text, beside, one, other = draw[:5], draw[5:12], draw[12:14], draw[14:17]
    wanted = [
        _alone(model, [*text, *one])[-3:],
        _alone(model, [*text, *other, draw[17]])[-4:],
        _alone(model, beside)[-4:],
    ]
    memory = KvMemory(model.kv, 32, model.device)
    beside_runs = [(20, 23), (28, 32)]  # in two pieces
    model.run(Rows(memory, [_chain(text[:4], [(2, 6)]), _chain(beside[:3], beside_runs[:1])]))
    # Of the tree, the tip is the last token of the text; two branches follow it.
    sees, positions = [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4], [0, 3, 4, 5]], [4, 5, 6, 5, 6, 7]
    tree = Part([text[4], *one, *other], [(2, 12)], 4, 4, positions, sees)
    said = model.output(model.run(Rows(memory, [tree, _chain(beside[3:], beside_runs, 3)])))
    memory.move_later([9, 10, 11], [7, 8, 9])
    memory.settle()
    after = model.output(model.run(Rows(memory, [_chain([draw[17]], [(2, 11)], 8)])))
    pairs = [
        (said[0:3], wanted[0]),
        (torch.cat([said[[0, 3, 4, 5]], after]), torch.cat([wanted[0][:1], wanted[1]])),
        (said[6:], wanted[2]),
    ]
    return max(distance(one, other) for one, other in pairs)


@torch.inference_mode()
def most_apart(model: LoadedModel) -> float:
    """How far apart logits may be that say the same; see ``distance``."""
    return max(LEAST_TOLERANCE, ROUNDINGS * _rounding(model))


def _rounding(model: LoadedModel) -> float:
    """How far the model's own logits move when each embedded number is rounded the other way: its sensitivity."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, model.vocab_size, (1, 12), generator=generator).to(model.device)
    embedded: Tensor = model.model.get_input_embeddings()(ids)
    signs = torch.randint(0, 2, embedded.shape, generator=generator).to(embedded) * 2 - 1
    moved = embedded * (1 + signs * torch.finfo(embedded.dtype).eps)
    with _eager(model):
        one, other = (model.model(inputs_embeds=part, use_cache=False).logits[0] for part in (moved, embedded))
    return distance(one, other)


def distance(one: Tensor, other: Tensor) -> float:
    """How far apart the logits of a row are (root of the mean square), in standard deviations: of the typical row.

    Rounding may send a single row to another expert of a mixture, and then far away.
    """
    apart = (one - other).float().square().mean(-1).sqrt()
    return float((apart / other.float().std(-1)).median())


def _chain(tokens: Sequence[int], runs: Sequence[tuple[int, int]], start: int = 0) -> Part:
    return Part(tokens, runs, start, start + len(tokens))


def _alone(
    model: LoadedModel, tokens: list[int], sight: Sight | None = None, inputs: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Logits of a whole text ``[rows, vocab]`` by the model's own eager attention; ``inputs``: those of its image."""
    ids = torch.tensor([tokens], device=model.device)
    given = {name: value.to(model.device) for name, value in (inputs or {}).items()}
    if sight is not None and "mm_token_type_ids" in inspect.signature(model.model.forward).parameters:
        given["mm_token_type_ids"] = (ids == sight.image_token).int()
    with _eager(model):
        logits: Tensor = model.model(input_ids=ids, use_cache=False, **given).logits
    return logits[0]


@contextmanager
def _eager(model: LoadedModel) -> Iterator[None]:
    use(model.model, "eager")
    try:
        yield
    finally:
        use(model.model, attention.NAME)


def use(module: Any, name: str) -> None:
    """Set the attention that a model writes with; its eyes keep their own."""
    module.set_attn_implementation({"text_config": name} if "text_config" in module.config.sub_configs else name)


def reason_of(error: Exception) -> str:
    """What went wrong, in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
