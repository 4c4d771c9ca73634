"""One forward of the target on its device: the rows of all sessions whose turn it is, and their exits on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from foredraft.engines import rejection
from foredraft.engines.captured import CapturedForwards
from foredraft.engines.exact import run
from foredraft.engines.kv_memory import KvMemory, Moves
from foredraft.engines.masks import allowed_tokens, held_to
from foredraft.engines.noise import Noise, sample
from foredraft.engines.rows import Part, Rows
from foredraft.engines.scene import Scene
from foredraft.engines.torch_model import LoadedModel
from foredraft.protocol.ports import Pass, Prediction
from foredraft.protocol.sampling import Sampling

LEAST_LOGPROB = -9999.0
"""In the place of minus infinity, as OpenAI has it."""


class ExitReader(Protocol):
    """The exit heads of a model. ``layers``: how many layers have run before each head, shallowest first."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Where the heads sit."""

    def read(
        self,
        layer: int,
        hidden: Tensor,
        positions: Tensor,
        sampling: Sampling,
        noise: Noise | None = None,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens and confidences, both ``[rows]``, from hidden states ``[rows, width]``.

        ``positions``: ``[rows]``, the position in the text of the token that each row predicts. ``noise``: the
        pass's own, where it has some; the seed in ``sampling`` is then of no account, since rows have their own.
        ``allowed``: the tokens that each row may say, ``[rows, vocab]``; None for all.
        """


@dataclass(eq=False, slots=True)
class Call:
    """What a session asks of the device: to run ``trunk``, and a pass with it where ``batch`` is given.

    ``scene``: the images of its text, whose tokens in ``trunk`` are names then. ``cancelled`` may be set from any
    thread.
    """

    trunk: Sequence[int]
    batch: Pass | None
    sampling: Sampling
    on_exit: Callable[[Prediction], None]
    scene: Scene | None = None
    cancelled: bool = False

    def __reduce__(self) -> Any:
        """Other ranks run it as well, and nobody listens there."""
        return Call, (self.trunk, self.batch, self.sampling, ignore, self.scene)

    def part(self, runs: Sequence[tuple[int, int]], start: int, trunk: int, whole: bool) -> Part:
        """Its rows in a forward that runs ``trunk`` tokens of it, and the tree if it is the whole of it."""
        base = start + trunk
        new = self.trunk[:trunk] if self.scene is None else self.scene.tokens(self.trunk[:trunk])
        if self.batch is None or not whole or not self.batch.tokens:
            return Part(new, runs, start, base, scene=self.scene)
        depths: list[int] = []
        sees: list[list[int]] = []
        for node, parent in enumerate(self.batch.parents):
            depths.append(0 if parent < 0 else depths[parent] + 1)
            sees.append([*(sees[parent] if parent >= 0 else ()), node])
        return Part((*new, *self.batch.tokens), runs, start, base, [base + depth for depth in depths], sees, self.scene)


def ignore(prediction: object) -> None:
    """Nobody asks."""


class AbandonedError(Exception):
    """Nobody wants this forward any more."""


@dataclass(eq=False, slots=True)
class _Group:
    """Passes that are read together, for they sample alike (but for their seeds) and want the same exits.

    ``masked``: whether what they may say is limited. ``rejecting``: whether their tokens come by rejection sampling.
    """

    sampling: Sampling
    exits: tuple[int, ...]
    logprobs: int | None
    masked: bool
    rejecting: bool
    calls: list[Call] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    index: Tensor | slice | None = None
    predicted: Tensor = field(default_factory=Tensor)
    noise: Noise | None = None
    allowed: Tensor | None = None

    @property
    def foreseen(self) -> Sampling:
        """How exits read its rows. What rejection sampling will say they cannot know; what is likeliest they can."""
        return replace(self.sampling, temperature=0.0) if self.rejecting else self.sampling

    def say(self, logits: Tensor) -> Tensor:
        """The token that each row says comes next: ``[rows]``, int64."""
        if not self.rejecting:
            return sample(logits, self.predicted, self.sampling, self.noise)
        trials = [trial for call in self.calls if call.batch for trial in call.batch.trials]
        return torch.tensor(rejection.said(logits, self.sampling, trials), device=logits.device)


Said = list[tuple[Call, Prediction]]


class TargetForward:
    """A forward of several calls. ``post`` is called on the device's thread with what exits say."""

    def __init__(
        self,
        model: LoadedModel,
        exits: ExitReader | None,
        memory: KvMemory,
        calls: Sequence[tuple[Call, Part, bool]],
        post: Callable[[Said], None],
        *,
        exact: bool = False,
        captured: CapturedForwards | None = None,
    ) -> None:
        self._exact, self._captured = exact, captured
        self._model, self._exits, self._memory, self._post = model, exits, memory, post
        self._given = calls
        self._calls = [call for call, _, _ in calls]
        self._parts = [part for _, part, _ in calls]
        self._whole = [(call, part) for call, part, whole in calls if whole and call.batch is not None]
        self._wanted = {layer for call, _ in self._whole if call.batch for layer in call.batch.exits}
        self._unread: Callable[[], None] | None = None
        self._groups: list[_Group] = []

    def run(self, moves: Moves | None = None) -> Said:
        """Run it: what the whole target says to the calls that ask. Raises AbandonedError once nobody wants it.

        ``moves``: of the memory, before; by default those that wait. Rank 0 tells the other ranks first.
        """
        model = self._model
        moves = self._memory.due() if moves is None else moves
        if model.ranks is not None:
            model.ranks.tell((moves, self._given))
        self._memory.move(moves)
        read = self._read()
        self._read_late()
        if not self._groups and model.device.type == "cuda":
            torch.cuda.synchronize(model.device)  # nobody else waits for a prefill, and its time is to be known
        said: Said = []
        for group, logits in zip(self._groups, read, strict=True):
            sampled = group.say(held_to(logits, group.allowed))
            scored = [] if group.logprobs is None else _scored(logits, sampled, group.logprobs)
            tokens = sampled.tolist()
            said += _split(group, len(model.layers), tokens, [1.0] * len(tokens), scored)
        return said

    def _read(self) -> list[Tensor]:
        """Run the layers, with the exits on the way: the logits of each group."""
        model, captured = self._model, self._captured
        if captured is not None and captured.fits(self._parts):
            self._groups = self._grouped()
            hidden = captured.run(self._parts, self._after)
            return [model.output(hidden[group.index]) for group in self._groups]
        rows = Rows(self._memory, self._parts, self._after, exact=self._exact)
        self._groups = self._grouped()
        return run(model, rows, [group.index for group in self._groups])

    def _grouped(self) -> list[_Group]:
        groups: dict[tuple[Sampling, tuple[int, ...], int | None, bool, bool], _Group] = {}
        for call, part in self._whole:
            batch = call.batch or Pass(())
            sampling = replace(call.sampling, seed=0) if call.sampling.temperature else Sampling()
            key = sampling, batch.exits, batch.logprobs, bool(batch.masks), bool(batch.trials)
            group = groups.setdefault(key, _Group(*key))
            count = len(batch.tokens) + 1
            group.seeds += [call.sampling.seed] * count
            group.calls.append(call)
            group.counts.append(count)
            group.rows += range(part.last - count, part.last)
            group.positions += [at + 1 for at in part.at[-count:]]
        for group in groups.values():
            self._prepare(group)
        return list(groups.values())

    def _prepare(self, group: _Group) -> None:
        first, last = group.rows[0], group.rows[-1] + 1
        in_one = last - first == len(group.rows)
        device = self._model.device
        group.index = slice(first, last) if in_one else torch.tensor(group.rows, device=device)
        group.predicted = torch.tensor(group.positions, device=device)
        if group.sampling.temperature and not group.rejecting:
            seeds = torch.tensor(group.seeds, device=device)
            group.noise = Noise(group.predicted, self._model.vocab_size, seeds)
        if group.masked:
            masks = [mask for call in group.calls if call.batch for mask in call.batch.masks]
            group.allowed = allowed_tokens(masks, self._model.vocab_size, device)

    def _after(self, layers: int, hidden: Tensor) -> None:
        self._read_late()
        if self._model.ranks is None and all(call.cancelled for call in self._calls):
            raise AbandonedError  # other ranks could not know
        if layers in self._wanted:
            self._unread = self._read_exits(layers, hidden[0])

    def _read_late(self) -> None:
        if self._unread is not None:
            self._unread()
            self._unread = None

    def _read_exits(self, layer: int, hidden: Tensor) -> Callable[[], None] | None:
        """Read the heads and post what they say; on an accelerator, give what posts it once the copy has arrived.

        Waiting for the copy at once would leave the accelerator idle until the next layer is submitted.
        """
        if self._exits is None:
            raise ValueError("exits without heads")
        groups = [group for group in self._groups if layer in group.exits]
        read = [
            self._exits.read(layer, hidden[group.index], group.predicted, group.foreseen, group.noise, group.allowed)
            for group in groups
        ]

        def post() -> None:
            said: Said = []
            for group, (tokens, confidence) in zip(groups, read, strict=True):
                said += _split(group, layer, tokens.tolist(), confidence.tolist())
            self._post(said)

        if hidden.device.type != "cuda":
            post()
            return None
        read = [
            (tokens.to("cpu", non_blocking=True), confidence.to("cpu", non_blocking=True))
            for tokens, confidence in read
        ]
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def post_on_arrival() -> None:
            arrived.synchronize()
            post()

        return post_on_arrival


Scored = list[tuple[tuple[int, float], ...]]
"""Of each row: (token, log-probability) of what it says, and of the most probable tokens."""


def _scored(logits: Tensor, said: Tensor, count: int) -> Scored:
    """The log-probabilities of ``said``, ``[rows]``, and of the ``count`` best of each row of ``logits``."""
    logarithms = logits.float().log_softmax(dim=-1).clamp(min=LEAST_LOGPROB)
    best = logarithms.topk(count, dim=-1)
    own = logarithms.gather(-1, said.unsqueeze(-1))
    tokens = torch.cat([said.unsqueeze(-1), best.indices], dim=-1).tolist()
    values = torch.cat([own, best.values], dim=-1).tolist()
    return [tuple(zip(*row, strict=True)) for row in zip(tokens, values, strict=True)]


def _split(group: _Group, layer: int, tokens: list[int], confidence: list[float], scored: Scored | None = None) -> Said:
    """What is said to each call of a group."""
    said: Said = []
    first = 0
    for call, count in zip(group.calls, group.counts, strict=True):
        last = first + count
        scores = tuple(scored[first:last]) if scored else ()
        said.append((call, Prediction(layer, tuple(tokens[first:last]), tuple(confidence[first:last]), scores)))
        first = last
    return said
