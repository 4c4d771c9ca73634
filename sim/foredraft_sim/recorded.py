"""Recorded pairs: what models said in recorded sessions, to be said again without them.

Whatever was asked in the session is answered as it was then: a draft step about the same prefix, a pass over
the same nodes. What is asked beyond that is answered by what draft and exits say of that position of the
recorded text; so beside the text, where nothing can be accepted, a draft guesses what it guessed on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from foredraft.core.anchor import ORIGIN, Anchor
from foredraft.core.estimates import Estimates
from foredraft.core.messages import STOP
from foredraft.core.ports import Guess, Pass, Reading, TargetCard, Verdict
from foredraft.core.sampling import Sampling, StopRules
from foredraft.core.tree import Node
from foredraft.errors import RecordError
from foredraft.learned import estimates_from_plain
from foredraft.record.frames import Said
from foredraft.record.reading import Position, Record, RecordedSession, read_record
from foredraft_sim.recorded_cloud_draft import CloudDraft

_NOTHING: Said = (0, 0.0)

PassKey = tuple[int, tuple[int, ...], tuple[int, ...]]
"""The position of a pass's tip, its nodes' tokens and their parents."""


class RecordedText:
    """One recorded session's text, and what draft and exits say along it.

    Of a private record, which has no tokens, it makes a text of stand-ins with the same lengths and ranks.
    """

    def __init__(self, session: RecordedSession, record: Record) -> None:
        """Raises RecordError for a session that has no text, or of which too little is known."""
        self._where = f"{record.path}: session {session.number}"
        self._exits = record.setup.models.exits
        hidden = record.setup.private
        stand_in = _StandIns(session, record) if hidden else None
        self.prompt = session.prompt if stand_in is None else stand_in.prompt
        self.tokens = session.tokens if stand_in is None else stand_in.tokens
        self.positions = session.positions if stand_in is None else stand_in.positions
        if not self.tokens:
            raise RecordError(f"{self._where} has no text: it was cut off before the first token")
        self.sampling = session.sampling
        self.rules = _rules(session, self.tokens)
        self.stopped = session.finish == STOP
        self._cloud_draft: CloudDraft | None = None  # in a simulation both drafts are one, which was heard itself
        if not record.setup.simulated:
            self._cloud_draft = CloudDraft(session, self.tokens, self.positions, record.setup.models.vocab_size)
        self._knew = session.began.estimates
        self._said = session.said
        self._at = self._anchors()
        self._passes: dict[PassKey, dict[int, Reading]] = {}
        for one in session.passed:
            readings = self._passes.setdefault((one.position, one.tokens, one.parents), {})
            for layer, said in one.readings:
                readings[layer] = Reading(layer, tuple(token for token, _ in said), tuple(sure for _, sure in said))

    def _anchors(self) -> dict[Anchor, int]:
        """The prefixes of the text that end where a token of it follows, and that token's index."""
        anchor, found = ORIGIN.after(self.prompt), {}
        for index, token in enumerate(self.tokens):
            found[anchor] = index
            anchor = anchor.then(token)
        return found

    def estimates(self) -> Estimates | None:
        """What the edge knew when the session began; a copy each time. Raises EstimatesError."""
        return None if self._knew is None else estimates_from_plain(self._knew, Path(self._where))

    def truth(self, position: int) -> int:
        """The target's token."""
        index = position - len(self.prompt)
        return self.tokens[index] if 0 <= index < len(self.tokens) else 0

    def guesses_at(self, anchor: Anchor, width: int) -> list[Guess]:
        """The draft's first ``width`` guesses below a prefix; none beyond the recorded text."""
        said = self._said.get(anchor, {})
        if width in said:
            return [Guess(*one) for one in said[width]]
        best = said[max(said)] if said else ()
        index = anchor.position - len(self.prompt)
        along = self.positions[index].guesses if 0 <= index < len(self.positions) else ()
        if len(best) < width and (not said or self._at.get(anchor) == index) and len(along) > len(best):
            best = along
        return [Guess(*one) for one in best[:width]]

    def cloud_guesses_at(self, anchor: Anchor, width: int) -> list[Guess]:
        """The same of a draft beside the target: where nobody knows what that guessed, what the edge's did."""
        known = None if self._cloud_draft is None else self._cloud_draft.guesses_at(anchor.position)
        return self.guesses_at(anchor, width) if known is None else known

    def reading(self, layer: int, tip: int, batch: Pass, depths: Sequence[int]) -> Reading:
        """What the exit after ``layer`` says in a pass at ``tip``; ``depths``: of the tip and of each node."""
        known = self._passes.get((tip, batch.tokens, batch.parents), {}).get(layer)
        if known is not None:
            return known
        seen = [self._foresight(layer, tip + depth) for depth in depths]
        return Reading(layer, tuple(token for token, _ in seen), tuple(sure for _, sure in seen))

    def _foresight(self, layer: int, position: int) -> Said:
        index = position - len(self.prompt)
        readings = self.positions[index].readings if 0 <= index < len(self.positions) else ()
        return readings[self._exits.index(layer)] if readings else _NOTHING


def _rules(session: RecordedSession, tokens: Sequence[int]) -> StopRules:
    """The recorded rules; a text that was cut off ends where it was cut."""
    rules = session.rules
    return rules if session.ended is not None else StopRules(len(tokens), rules.tokens, rules.strings)


class _StandIns:
    """Tokens in the place of those that a private record does not tell."""

    def __init__(self, session: RecordedSession, record: Record) -> None:
        models, began = record.setup.models, session.began
        self._vocab_size = models.vocab_size
        self._never = frozenset((*models.stop_tokens, *began.stop_tokens))
        self.prompt = [self._token(began.seed + index) for index in range(began.prompt_tokens)]
        self.tokens = [self._token(began.seed + began.prompt_tokens + index) for index in range(len(session.tokens))]
        if session.finish == STOP and began.stop_tokens and not began.stop_strings:
            self.tokens[-1] = began.stop_tokens[0]
        self.positions = tuple(map(self._position, session.positions, self.tokens))

    def _token(self, number: int) -> int:
        """Some token that ends no text."""
        token = number * 0x9E3779B1 % self._vocab_size
        while token in self._never:
            token = (token + 1) % self._vocab_size
        return token

    def _position(self, one: Position, token: int) -> Position:
        """The true token at its rank, others elsewhere."""
        wrong = (token + 1) % self._vocab_size
        readings = tuple(
            (token if right else wrong, sure) for (_, sure), right in zip(one.readings, one.right, strict=True)
        )
        guesses = self._guesses(token, one.rank, one.guesses)
        beside = self._guesses(token, one.cloud_rank, one.cloud_guesses)
        return replace(one, token=token, guesses=guesses, readings=readings, cloud_guesses=beside)

    def _guesses(self, token: int, rank: int, said: Sequence[Said]) -> tuple[Said, ...]:
        others = ((token + 1 + place) % self._vocab_size for place in range(len(said)))
        return tuple(
            (token if place == rank else other, probability)
            for place, ((_, probability), other) in enumerate(zip(said, others, strict=True))
        )


class Replays:
    """The texts of a record, and which of them belongs to which request, by the seed of the request's sampling."""

    def __init__(self, record: Record) -> None:
        """Raises RecordError for a record without a text."""
        self.record = record
        self.texts = [RecordedText(session, record) for session in record.sessions if session.tokens]
        if not self.texts:
            raise RecordError(f"{record.path}: no session in it has a text")
        self._by_seed: dict[int, RecordedText] = {}

    def assign(self, seed: int, request: int) -> RecordedText:
        """A request takes the next text, again and again."""
        text = self.texts[request % len(self.texts)]
        self._by_seed[seed] = text
        return text

    def text(self, sampling: Sampling) -> RecordedText:
        """The text of the request that has this sampling."""
        return self._by_seed[sampling.seed]


def read_replays(path: Path) -> Replays:
    """The texts in a record file. Raises RecordError."""
    return Replays(read_record(path))


class RecordedTarget:
    """The recorded target: it takes no time; ``PacedTarget`` around it does."""

    def __init__(self, replays: Replays, *, max_pass_nodes: int | None = None) -> None:
        self._replays = replays
        models = replays.record.setup.models
        self._card = TargetCard(
            model_digest=models.model_digest,
            tokenizer_digest=models.tokenizer_digest,
            vocab_size=models.vocab_size,
            context=models.context,
            layers=models.layers,
            exits=models.exits,
            max_pass_nodes=max_pass_nodes or models.max_pass_nodes,
            prefill_chunk=models.prefill_chunk,
            stop_tokens=models.stop_tokens,
        )

    @property
    def card(self) -> TargetCard:
        """What it was."""
        return self._card

    async def seat(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> "RecordedSeat":
        """A place for the request whose seed ``sampling`` carries."""
        return RecordedSeat(self._replays.text(sampling), self._card.layers)

    async def close(self) -> None:
        """Nothing to free."""


class RecordedSeat:
    """One session's place on a recorded target."""

    def __init__(self, text: RecordedText, layers: int) -> None:
        self._text = text
        self._layers = layers
        self._cached = 0

    @property
    def cached(self) -> int:
        """How many tokens of the text went through."""
        return self._cached

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Take committed tokens."""
        self._cached += len(tokens)
        return 0.0

    async def verify(self, batch: Pass, on_exit: Callable[[Reading], None]) -> Verdict:
        """Say what was recorded; the exits before it."""
        text, tip = self._text, self._cached + len(batch.trunk)
        depths = [0]
        for parent in batch.parents:
            depths.append(depths[parent + 1] + 1)
        for layer in batch.exits:
            on_exit(text.reading(layer, tip, batch, depths))
        self._cached = tip
        says = tuple(text.truth(tip + depth) for depth in depths)
        return Verdict(Reading(self._layers, says, (1.0,) * len(says)), 0.0, 0.0)

    def keep(self, nodes: Sequence[int]) -> None:
        """Keep a path of the last pass."""
        self._cached += len(nodes)

    def close(self) -> None:
        """Nothing to free."""


class RecordedDrafter:
    """A recorded draft, the edge's or that ``in_cloud``: it takes no time; ``PacedDrafter`` around it does."""

    def __init__(self, replays: Replays, *, in_cloud: bool = False) -> None:
        self._replays = replays
        self._in_cloud = in_cloud
        self._text: RecordedText | None = None

    @property
    def tokenizer_digest(self) -> str:
        """The recorded one."""
        return self._replays.record.setup.models.tokenizer_digest

    @property
    def max_nodes_per_step(self) -> int:
        """As many as the recorded one expanded."""
        return self._replays.record.setup.models.draft_nodes

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A request begins; its seed says which text it is."""
        self._text = self._replays.text(sampling)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """What was guessed below each node."""
        text = self._text
        if text is None:
            return [[] for _ in nodes]
        guesses_at = text.cloud_guesses_at if self._in_cloud else text.guesses_at
        return [guesses_at(node.anchor, width) for node in nodes]

    def advance(self, tokens: Sequence[int]) -> None:
        """Nothing to keep."""

    async def close(self) -> None:
        """Nothing to free."""


class StopsWhereRecorded:
    """A detokenizer for a text that a stop string ended: it says the string where the text ended."""

    def __init__(self, text: RecordedText) -> None:
        self._left = len(text.tokens)
        self._says = text.rules.strings[0] if text.stopped and text.rules.strings else ""

    def step(self, token: int) -> str:
        """Nothing, until the last token."""
        self._left -= 1
        return self._says if self._left == 0 else ""
