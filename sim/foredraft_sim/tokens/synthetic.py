"""A synthetic pair: a target and a draft that are nothing but their statistics.

The target's text is random. At every position the target's token is the draft's 1st, 2nd, ...
choice with given probabilities, and each exit names it with a given probability and a
calibrated confidence. All of it is a function of (seed of the request, position): whatever a
policy does, it meets the same luck.

An exit's confidence is ``v ** ((1 - a) / a)`` with v uniform, which has the agreement a as its
mean, and the exit is right with exactly that probability: calibrated by construction. The same
v and the same luck serve all exits, so deeper exits are right wherever shallower ones are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import msgspec

from foredraft.engines.scripted import ScriptedSlot
from foredraft.protocol.ports import Guess, TargetCard
from foredraft.protocol.rejection import CANDIDATES
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from foredraft_sim.streams import drawn, key, uniform
from foredraft_sim.tokens.spoken import Spoken, SpokenPair
from foredraft_sim.tokens.synthetic_slot import SyntheticSlot


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

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """After which layers there are exits."""
        return tuple(layer for layer, _ in self.exits)

    def spoken(self, seed: int, start: int) -> Spoken:
        """What is said of the request with this seed; where its prompt ends makes no difference."""
        return _Spoken(self, seed)

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

    def predict(self, seed: int, layer: int, position: int) -> tuple[int, float]:
        """What the exit after ``layer`` names, and how sure it is. When wrong, it names a likely draft."""
        agreement = dict(self.exits)[layer]
        confidence = float(uniform(seed, "exit confidence", position) ** ((1.0 - agreement) / agreement))
        said = confidence if self.overconfidence == 1.0 else confidence ** (1.0 / self.overconfidence)
        truth, rank = _drawn(self, seed, position)
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


@lru_cache(maxsize=1 << 14)
def _drawn(pair: SyntheticPair, seed: int, position: int) -> tuple[int, int]:
    """As the pair's ``draw``, once for both ends of a request and for all branches."""
    return pair.draw(seed, position)


@lru_cache(maxsize=1 << 14)
def _guesses(pair: SyntheticPair, seed: int, position: int, width: int) -> list[Guess]:
    """The draft's first ``width`` choices."""
    truth, right = _drawn(pair, seed, position)
    return [
        Guess(truth if rank == right else (truth + 1 + rank) % pair.vocab_size, probability)
        for rank, probability in enumerate(pair.ranks_at(position)[:width])
        if probability > 0.0
    ]


@dataclass(frozen=True, slots=True)
class _Spoken:
    pair: SyntheticPair
    seed: int

    def truth(self, position: int) -> int:
        return _drawn(self.pair, self.seed, position)[0]

    def rank(self, position: int) -> int:
        rank = _drawn(self.pair, self.seed, position)[1]
        return rank if rank < len(self.pair.ranks_at(position)) else -1

    def predict(self, layer: int, position: int) -> tuple[int, float]:
        return self.pair.predict(self.seed, layer, position)

    def guesses(self, position: int, width: int) -> list[Guess]:
        return _guesses(self.pair, self.seed, position, width)


class SyntheticTarget:
    """The pair's target: it takes no time; ``PacedTarget`` around it does.

    ``starts``: how long the prompts of requests are, by their seeds, as far as that is known.
    """

    def __init__(
        self,
        pair: SpokenPair,
        *,
        max_pass_nodes: int = 32,
        prefill_chunk: int = 512,
        starts: Mapping[int, int] | None = None,
    ) -> None:
        self._pair = pair
        self._starts = {} if starts is None else starts
        self._card = TargetCard(
            model_digest=DIGEST,
            tokenizer_digest=DIGEST,
            vocab_size=pair.vocab_size,
            context=pair.context,
            layers=pair.layers,
            exits=pair.exit_layers,
            max_pass_nodes=max_pass_nodes,
            prefill_chunk=prefill_chunk,
            rejects=True,
        )

    @property
    def card(self) -> TargetCard:
        """What it is."""
        return self._card

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        """A place for the request whose seed ``sampling`` carries."""
        said = self._pair.spoken(sampling.seed, self._starts.get(sampling.seed, 0))
        return SyntheticSlot(self._pair, said)

    async def close(self) -> None:
        """Nothing to free."""


class SyntheticDrafter:
    """The pair's draft: it takes no time; ``PacedDrafter`` around it does. ``starts``: as of the target.

    ``proposes``: it is asked for proposals, and names as many candidates as a model would: those beyond the pair's
    choices share what probability these leave.
    """

    def __init__(
        self,
        pair: SpokenPair,
        *,
        max_nodes_per_step: int = 8,
        starts: Mapping[int, int] | None = None,
        proposes: bool = False,
    ) -> None:
        self._pair, self._proposes = pair, proposes
        self._starts = {} if starts is None else starts
        self._max_nodes_per_step = max_nodes_per_step
        self._said = pair.spoken(0, 0)

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
        self._said = self._pair.spoken(sampling.seed, self._starts.get(sampling.seed, 0))

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """The pair's choices at each node's position."""
        if self._proposes:
            return [self._candidates(node.position)[:width] for node in nodes]
        return [self._said.guesses(node.position, width) for node in nodes]

    def _candidates(self, position: int) -> list[Guess]:
        """The choices, and others up to the last but one before the truth, which no draft ever names."""
        choices, truth, size = (
            self._said.guesses(position, CANDIDATES),
            self._said.truth(position),
            self._pair.vocab_size,
        )
        named = {guess.token for guess in choices}
        others = ((truth + 1 + more) % size for more in range(size - 2))
        free = list(islice((token for token in others if token not in named), CANDIDATES - len(choices)))
        left = 1.0 - sum(guess.probability for guess in choices)
        return choices + [Guess(token, left / len(free)) for token in free if left > 0.0]

    def advance(self, tokens: Sequence[int]) -> None:
        """Nothing to keep."""

    async def close(self) -> None:
        """Nothing to free."""
