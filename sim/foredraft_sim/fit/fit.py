"""Fitting a pair to recorded sessions: topics, states, what follows what, and what is said in each.

A state is whether the draft was surer of its first choice than usual, and how early the exits had the token: what one
position tells of the next. What follows is counted by the state and by whether the draft was right there, with some of
what follows anywhere mixed in. Held-out texts were likelier so than with six levels of sureness and no exits.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from foredraft.errors import RecordError
from foredraft.observe.record.frames import UNASKED, Models
from foredraft.observe.record.reading import Position, Record
from foredraft_sim.fit.topics import topics_of
from foredraft_sim.tokens.fitted import CHOICES, OTHER, RIGHT, Distribution, FittedPair, Outcome, Topic
from foredraft_sim.tokens.recorded import Replays

LEVELS: Final = 2
"""So many levels of sureness a topic has, where it has enough positions; as frequent as each other."""
HEAD: Final = 4
"""So many positions at the beginning of a text have a distribution of their own."""
LEAST: Final = 100
"""Fewer positions in all are no traffic."""
_PER_LEVEL: Final = 50
_MIXED_IN: Final = 4.0
_MIXED_INTO_A_ROW: Final = 30.0
"""With 10, held-out texts were less likely; with 300, runs were lost, and ``auto`` took longer than replayed."""
_MOST_OUTCOMES: Final = 150
_DIGITS: Final = 3

Text = Sequence[Outcome | None]
"""What was said at each position of a text; None where the record does not tell."""


def fit(records: Sequence[Record]) -> FittedPair:
    """The pair of these records' sessions. Raises RecordError: too few tokens, or of several pairs of models."""
    models = _models(records)
    positions = [text.positions for record in records for text in Replays(record).texts]
    told = any(one.predictions for each in positions for one in each)
    texts = [[_outcome(one, told) for one in each] for each in positions]
    texts = [text for text in texts if any(text)]
    known = sum(one is not None for text in texts for one in text)
    if known < LEAST:
        raise RecordError(
            f"{', '.join(str(record.path) for record in records)}: it is known of {known} tokens what the draft said, "
            f"too few to fit a pair to (at least {LEAST}); record more texts, to their ends"
        )
    groups = topics_of([[one.rank == 0 for one in text if one is not None] for text in texts])
    return FittedPair(
        topics=tuple(_topic([texts[number] for number in group], sum(map(len, texts))) for group in groups),
        layers=models.layers,
        exits=models.exits if told else (),
        vocab_size=models.vocab_size,
        context=models.context,
        source=f"{len(texts)} recorded texts, {known} tokens, draft {models.draft or 'without a name'}",
    )


def _models(records: Sequence[Record]) -> Models:
    """What models spoke in all of them."""
    first, *others = records
    ours = first.setup.models
    for one in others:
        for name in ("model_digest", "layers", "exits", "vocab_size"):
            theirs = getattr(one.setup.models, name)
            if theirs != getattr(ours, name):
                raise RecordError(
                    f"{one.path}: its {name} is {theirs!r}, and in {first.path} {getattr(ours, name)!r}: fit a pair to "
                    "records of the same models"
                )
    return ours


def _outcome(one: Position, told: bool) -> Outcome | None:
    """``told``: whether exits are asked for."""
    if one.rank == UNASKED or (told and not one.predictions):
        return None
    choices = [token for token, _ in one.guesses]
    exits = []
    for (token, sure), right in zip(one.predictions, one.right, strict=True):
        named = RIGHT if right else choices.index(token) if token in choices else OTHER
        exits.append((named, round(sure, _DIGITS)))
    says = tuple(round(probability, _DIGITS) for _, probability in one.guesses)
    return Outcome(1.0, one.rank if 0 <= one.rank < CHOICES else -1, says, tuple(exits))


def _topic(texts: Sequence[Text], of: int) -> Topic:
    """What these texts are like, of so many tokens in all."""
    outcomes = [one for text in texts for one in text if one is not None]
    edges = _edges(outcomes)
    numbers = {kind: number for number, kind in enumerate(sorted({_kind(one, edges) for one in outcomes}))}
    states = [[None if one is None else numbers[_kind(one, edges)] for one in text] for text in texts]
    count = len(numbers)
    usual = _shares(Counter(_known(state for text in states for state in text)), [1.0 / count] * count)
    wrong, right = (_rows(list(_followed(texts, states, rank_0)), usual) for rank_0 in (False, True))
    return Topic(
        share=sum(map(len, texts)) / of,
        states=tuple(_kept([one for one in outcomes if _kind(one, edges) == kind]) for kind in numbers),
        after_wrong=wrong,
        after_right=right,
        head=tuple(
            _shares(Counter(_known(text[index] for text in states if index < len(text))), usual)
            for index in range(HEAD)
        ),
    )


def _kind(one: Outcome, edges: Sequence[float]) -> tuple[int, int]:
    """What its state is known by: the level of sureness, and how many exits, from the deepest up, had the token."""
    depth = next((n for n, (named, _) in enumerate(reversed(one.exits)) if named != RIGHT), len(one.exits))
    return bisect_right(edges, _sure(one)), depth


def _sure(one: Outcome) -> float:
    """What the draft gave its first choice."""
    return one.says[0] if one.says else 0.0


def _edges(outcomes: Sequence[Outcome]) -> list[float]:
    """Where one level of sureness ends and the next begins; each has some outcomes."""
    ranked = sorted(map(_sure, outcomes))
    levels = max(1, min(LEVELS, len(ranked) // _PER_LEVEL))
    edges = {ranked[len(ranked) * level // levels] for level in range(1, levels)}
    return sorted(edge for edge in edges if edge > ranked[0])


def _known(states: Iterable[int | None]) -> Iterator[int]:
    return (state for state in states if state is not None)


def _followed(texts: Sequence[Text], states: Sequence[Sequence[int | None]], right: bool) -> Iterator[tuple[int, int]]:
    """Each state with the next, where the draft was right in the former, or was not."""
    for text, numbers in zip(texts, states, strict=True):
        for one, before, after in zip(text, numbers, numbers[1:], strict=False):
            if one is not None and before is not None and after is not None and (one.rank == 0) == right:
                yield before, after


def _rows(followed: Sequence[tuple[int, int]], usual: Distribution) -> tuple[Distribution, ...]:
    """By the state before, how often each came next."""
    anywhere = _shares(Counter(after for _, after in followed), usual)
    return tuple(
        _shares(Counter(after for before, after in followed if before == state), anywhere, _MIXED_INTO_A_ROW)
        for state in range(len(usual))
    )


def _shares(counted: Counter[int], usual: Sequence[float], mixed_in: float = _MIXED_IN) -> Distribution:
    """How probable each state is: as counted, with so many positions of what is usual mixed in."""
    total = counted.total() + mixed_in
    return tuple((counted[state] + mixed_in * share) / total for state, share in enumerate(usual))


def _kept(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """A state's outcomes, equal ones as one; of too many, as many evenly, right and wrong ones each by themselves."""
    kept: list[Outcome] = []
    for right in (False, True):
        counted = Counter(one for one in outcomes if (one.rank == 0) == right)
        ranked = sorted(counted, key=msgspec.structs.astuple)
        apart = max(1, -(-len(ranked) // _MOST_OUTCOMES))
        chosen = ranked[apart // 2 :: apart]
        scale = counted.total() / sum(counted[one] for one in chosen) if chosen else 1.0
        kept += [msgspec.structs.replace(one, weight=round(counted[one] * scale, _DIGITS)) for one in chosen]
    return tuple(kept)
