"""A synthetic pair: a target and a draft that are nothing but their statistics.

The target's text is random. At every position the target's token is the draft's 1st, 2nd, ...
choice with given probabilities, and each exit names it with a given probability and a
calibrated confidence. All of it is a function of (seed of the request, position): whatever a
policy does, it meets the same luck.

An exit's confidence is ``v ** ((1 - a) / a)`` with v uniform, which has the agreement a as its
mean, and the exit is right with exactly that probability: calibrated by construction. The same
v and the same luck serve all exits, so deeper exits are right wherever shallower ones are.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from weakref import WeakValueDictionary

import msgspec

from foredraft.core.ports import Guess, TargetCard
from foredraft.core.sampling import Sampling
from foredraft.core.tree import Node
from foredraft.engines.scripted import ScriptedSeat
from foredraft_sim.streams import drawn, drawn_rows, key, rows_of, uniform


class SyntheticPair(
    msgspec.Struct, frozen=True, cache_hash=True, forbid_unknown_fields=True, tag_field="kind", tag="synthetic"
):
    """The statistics.

    ``ranks[r]``: probability that the target's token is the draft's choice number r + 1; what
    is left to 1 falls to tokens that the draft does not name. ``ranks_from``: other ranks, each from
    a position of the text on (prompt included). ``exits``: after which layer, and the probability
    that the exit names the target's token. ``overconfidence``: 1 for calibrated exits; above 1 they
    claim to be surer than they are, below 1 less sure.
    """

    ranks: tuple[float, ...]
    exits: tuple[tuple[int, float], ...] = ()
    layers: int = 32
    vocab_size: int = 32000
    context: int = 1 << 20
    ranks_from: tuple[tuple[int, tuple[float, ...]], ...] = ()
    overconfidence: float = 1.0

    def __post_init__(self) -> None:
        for ranks in (self.ranks, *(ranks for _, ranks in self.ranks_from)):
            if not ranks or any(rank < 0.0 for rank in ranks) or sum(ranks) > 1.0 + 1e-9:
                raise ValueError(f"ranks must be probabilities with a sum of at most 1, not {ranks}")
        starts = [start for start, _ in self.ranks_from]
        if starts != sorted(set(starts)) or any(start < 0 for start in starts):
            raise ValueError(f"the positions of ranks_from must ascend from 0, not {starts}")
        if not self.overconfidence > 0.0:
            raise ValueError(f"overconfidence must be above 0, not {self.overconfidence}")
        longest = max(len(ranks) for ranks in (self.ranks, *(ranks for _, ranks in self.ranks_from)))
        if self.vocab_size < longest + 2:
            raise ValueError(f"vocab_size must be above {longest + 1}, not {self.vocab_size}")
        layers = [layer for layer, _ in self.exits]
        if layers != sorted(set(layers)) or any(not 0 < layer < self.layers for layer in layers):
            raise ValueError(f"exits must ascend within the {self.layers} layers, not {layers}")
        if any(not 0.0 < agreement <= 1.0 for _, agreement in self.exits):
            raise ValueError("an exit's agreement must be above 0 and at most 1")

    def truth(self, seed: int, position: int) -> int:
        """The target's token."""
        return self.draw(seed, position)[0]

    def ranks_at(self, position: int) -> tuple[float, ...]:
        """The ranks that hold at a position."""
        ranks = self.ranks
        for start, later in self.ranks_from:
            if position < start:
                break
            ranks = later
        return ranks

    def rank(self, seed: int, position: int) -> int:
        """Which of the draft's choices the target's token is, from 0; ``len(ranks)`` for none of them."""
        return self.draw(seed, position)[1]

    def draw(self, seed: int, position: int) -> tuple[int, int]:
        """The target's token, and its rank."""
        truth = int(drawn(key(seed, "truth"), position) * self.vocab_size)
        return truth, _rank(drawn(key(seed, "rank"), position), self.ranks_at(position))

    def choice(self, seed: int, position: int, rank: int) -> int:
        """The draft's choice number ``rank`` (from 0): the truth at its own rank, wrong at all others."""
        truth, right = self.draw(seed, position)
        return truth if rank == right else (truth + 1 + rank) % self.vocab_size

    def foresee(self, seed: int, layer: int, position: int) -> tuple[int, float]:
        """What the exit after ``layer`` names, and how sure it is. When wrong, it names a likely draft."""
        agreement = dict(self.exits)[layer]
        confidence = float(uniform(seed, "exit confidence", position) ** ((1.0 - agreement) / agreement))
        said = confidence if self.overconfidence == 1.0 else confidence ** (1.0 / self.overconfidence)
        truth, rank = _luck_of(self, seed).at(position)
        if uniform(seed, "exit luck", position) < confidence:
            return truth, said
        wrong = 1 if rank == 0 else 0
        return (truth + 1 + wrong) % self.vocab_size, said


def _rank(luck: float, ranks: tuple[float, ...]) -> int:
    """Which rank the luck of a position falls to; ``len(ranks)`` for none of them."""
    rank = 0
    for probability in ranks:
        luck -= probability
        if luck < 0.0:
            break
        rank += 1
    return rank


DIGEST = "synthetic"

_NEAR = 16
"""Positions that one request remembers: those around its tip."""

_AT_ONCE = 8
"""Positions that are drawn together: the one that is asked about, and those after it."""


class _Luck:
    """What is true in one request, and what its draft says: drawn once for both, and again what was long ago.

    It is asked about the positions around the tip, so each has a place of its own among ``_NEAR``. One table for all
    requests would be as large, and its order of age would touch the places of other requests every time.
    """

    __slots__ = ("__weakref__", "_guesses", "_pair", "_rows", "_truths")

    def __init__(self, pair: SyntheticPair, seed: int) -> None:
        self._pair = pair
        self._rows = rows_of((key(seed, "truth"), key(seed, "rank")), _AT_ONCE)
        self._truths = [(-1, 0, 0)] * _NEAR  # position, the target's token, its rank
        self._guesses: list[tuple[int, int, list[Guess]]] = [(-1, 0, [])] * _NEAR  # position, width

    def at(self, position: int) -> tuple[int, int]:
        """As the pair's ``draw``."""
        at, truth, rank = self._truths[position % _NEAR]
        if at != position:
            self._draw(position)
            _, truth, rank = self._truths[position % _NEAR]
        return truth, rank

    def _draw(self, first: int) -> None:
        """Draw ``first`` and the positions after it."""
        pair, lucks = self._pair, drawn_rows(self._rows, 2, first, _AT_ONCE)
        for ahead in range(_AT_ONCE):
            at = first + ahead
            ranks = pair.ranks_at(at) if pair.ranks_from else pair.ranks
            token = int(lucks[ahead] * pair.vocab_size)
            self._truths[at % _NEAR] = at, token, _rank(lucks[_AT_ONCE + ahead], ranks)

    def truth(self, position: int) -> int:
        """The target's token."""
        at, truth, _ = self._truths[position % _NEAR]
        return truth if at == position else self.at(position)[0]

    def guesses(self, position: int, width: int) -> list[Guess]:
        """The draft's first ``width`` choices."""
        at, most, said = self._guesses[position % _NEAR]
        if at != position or most != width:
            said = self._choices(position, width)
            self._guesses[position % _NEAR] = position, width, said
        return said

    def _choices(self, position: int, width: int) -> list[Guess]:
        pair = self._pair
        truth, right = self.at(position)
        ranks = pair.ranks_at(position) if pair.ranks_from else pair.ranks
        said = []
        for rank, probability in enumerate(ranks[:width]):
            if probability > 0.0:
                token = truth if rank == right else (truth + 1 + rank) % pair.vocab_size
                said.append(Guess(token, probability))
        return said


_lucks: WeakValueDictionary[tuple[SyntheticPair, int], _Luck] = WeakValueDictionary()


def _luck_of(pair: SyntheticPair, seed: int) -> _Luck:
    """The luck of the request with that seed, which its two ends share while either has it."""
    luck = _lucks.get((pair, seed))
    if luck is None:
        luck = _lucks[pair, seed] = _Luck(pair, seed)
    return luck


class SyntheticTarget:
    """The pair's target: it takes no time; ``PacedTarget`` around it does."""

    def __init__(self, pair: SyntheticPair, *, max_pass_nodes: int = 32, prefill_chunk: int = 512) -> None:
        self._pair = pair
        self._card = TargetCard(
            model_digest=DIGEST,
            tokenizer_digest=DIGEST,
            vocab_size=pair.vocab_size,
            context=pair.context,
            layers=pair.layers,
            exits=tuple(layer for layer, _ in pair.exits),
            max_pass_nodes=max_pass_nodes,
            prefill_chunk=prefill_chunk,
        )

    @property
    def card(self) -> TargetCard:
        """What it is."""
        return self._card

    async def seat(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSeat:
        """A place for the request whose seed ``sampling`` carries."""
        pair = self._pair
        foresight = lru_cache(maxsize=_NEAR * len(pair.exits))(partial(pair.foresee, sampling.seed))
        return ScriptedSeat(pair.layers, _luck_of(pair, sampling.seed).truth, foresight, yields=False)

    async def close(self) -> None:
        """Nothing to free."""


class SyntheticDrafter:
    """The pair's draft: it takes no time; ``PacedDrafter`` around it does."""

    def __init__(self, pair: SyntheticPair, *, max_nodes_per_step: int = 8) -> None:
        self._pair = pair
        self._max_nodes_per_step = max_nodes_per_step
        self._seed = 0
        self._guesses = _luck_of(pair, 0).guesses

    @property
    def tokenizer_digest(self) -> str:
        """The synthetic target's."""
        return DIGEST

    @property
    def max_nodes_per_step(self) -> int:
        """How many nodes one step may expand."""
        return self._max_nodes_per_step

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A request begins; its seed decides what the draft says."""
        self._seed = sampling.seed
        self._guesses = _luck_of(self._pair, sampling.seed).guesses

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """The pair's choices at each node's position."""
        said = []
        for node in nodes:
            said.append(self._guesses(node.position, width))
        return said

    def advance(self, tokens: Sequence[int]) -> None:
        """Nothing to keep."""

    async def close(self) -> None:
        """Nothing to free."""
