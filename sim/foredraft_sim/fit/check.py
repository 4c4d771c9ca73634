"""How far simulations with a fitted pair are off: a record replayed, and simulated on the same devices and links."""

from collections.abc import Callable, Sequence
from itertools import accumulate, count
from typing import Final

from foredraft.cloud.session import NewDetokenizer
from foredraft.edge.session_report import SessionReport
from foredraft.observe.record.reading import Record
from foredraft.protocol.ports import Drafter, Target
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft_sim.fit.error import Checked, Compared
from foredraft_sim.replay.replay import Changes, ReplaySource, set_up
from foredraft_sim.scenario.pairs import Request
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.streams import key
from foredraft_sim.tokens.fitted import FittedPair
from foredraft_sim.tokens.recorded import Replays
from foredraft_sim.tokens.synthetic import SyntheticDrafter, SyntheticTarget

_GOLDEN: Final = 0.6180339887498949
"""Multiples of it are spread evenly between whole numbers."""

Tell = Callable[[int, int, str], None]
"""Told how many runs are done, of how many, and what runs now."""


def check(
    pairs: Sequence[tuple[Record, FittedPair]],
    changes: Sequence[Changes],
    *,
    tokens: int,
    held_out: bool = False,
    tell: Tell = lambda done, total, what: None,
) -> list[Checked]:
    """Each of ``changes`` (a policy, and what else differs) over all records. Raises RecordError, ConfigError.

    ``pairs``: each record with the pair that is to say the same; ``held_out``: whether those were fitted without it.
    As many texts as were recorded are simulated, again and again, until there are so many ``tokens``.
    """
    counts = [[len(text.tokens) for text in Replays(record).texts] for record, _ in pairs]
    rounds = max(2, -(-tokens // sum(map(sum, counts))))
    *befores, texts = accumulate(map(len, counts), initial=0)
    total, done = len(changes) * len(pairs) * (1 + rounds), 0
    checked = []
    for one in changes:
        policy = one.policy or pairs[0][0].setup.policy
        link = one.link.name if one.link is not None else "the recorded link"
        compared: dict[FittedPair, list[Compared]] = {pair: [] for _, pair in pairs}
        for (record, pair), before in zip(pairs, befores, strict=True):
            places = [None, *(luck * texts + before for luck in range(rounds))]
            runs = []
            for place in places:
                tell(done, total, f"{policy}, {link}")
                runs.append(_run(record, one, None if place is None else (pair, place)))
                done += 1
            compared[pair] += [Compared(*each) for each in zip(*runs, strict=True)]
        checked.append(Checked(policy, link, held_out, tuple(map(tuple, compared.values()))))
    return checked


def _run(record: Record, changes: Changes, fitted: tuple[FittedPair, int] | None) -> list[SessionReport]:
    """In order, the record's texts, or as many others of the pair, from the one with that number on."""
    policy = changes.policy or record.setup.policy
    recorded = ReplaySource(record)
    scenario, paces = set_up(record, changes, len(recorded.replays.texts))
    scenario.policy(policy)
    source = recorded if fitted is None else FittedSource(record, *fitted)
    luck = 0 if fitted is None else 1 + fitted[1]
    done = replicate(scenario, policy, record.setup.seed, luck=luck, source=source, new_pace=paces)
    return [one.report for one in sorted(done.finished, key=lambda one: one.request)]


class FittedSource:
    """A fitted pair's texts, from number ``place`` on, for a record's: as long as those, after prompts as long."""

    new_detokenizer: NewDetokenizer | None = None

    def __init__(self, record: Record, pair: FittedPair, place: int) -> None:
        self._pair, self._models, self._place = pair, record.setup.models, place
        self._recorded = ReplaySource(record)
        self._starts: dict[int, int] = {}

    def target(self) -> Target:
        """A target that says the pair's truth."""
        models = self._models
        return SyntheticTarget(
            self._pair,
            max_pass_nodes=models.max_pass_nodes,
            prefill_chunk=models.prefill_chunk,
            starts=self._starts,
        )

    def drafter(self) -> Drafter:
        """A drafter that says the pair's choices."""
        return SyntheticDrafter(self._pair, max_nodes_per_step=self._models.draft_nodes, starts=self._starts)

    def cloud_drafter(self) -> Drafter:
        """It guesses what the edge's would."""
        return self.drafter()

    def prompt(self, seed: int, request: int) -> list[int]:
        """Random tokens."""
        return self.request(seed, request).prompt

    def request(self, seed: int, request: int) -> Request:
        """As long as that of the record, knowing what its edge knew, and with luck of its own."""
        asked = self._recorded.request(seed, request)
        text = self._recorded.replays.text(asked.sampling)
        own = self._own(self._place + request)
        self._starts[own] = len(asked.prompt)
        prompt = [self._pair.truth(own, position) for position in range(len(asked.prompt))]
        return Request(prompt, Sampling(seed=own), StopRules(len(text.tokens)), asked.estimates)

    def _own(self, place: int) -> int:
        """A seed for a text. Topics come as often as they should, or a few texts would decide the error."""
        topic = self._pair.topic((place * _GOLDEN) % 1.0)
        seeds = (key(place, f"attempt {attempt}") >> 2 for attempt in count())
        return next(own for own in seeds if self._pair.topic_of(own) == topic)

    def text(self, tokens: list[int]) -> str:
        """Nothing: the tokens are random numbers."""
        return ""
