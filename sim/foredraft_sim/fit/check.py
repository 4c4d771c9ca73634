"""How far simulations with a fitted pair are off: a record replayed, and simulated on the same devices and links."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, count
from statistics import fmean
from typing import Any, Final

from foredraft.cloud.session import NewDetokenizer
from foredraft.observe.record.reading import Record
from foredraft.protocol.ports import Drafter, Target
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft_sim.replay.replay import Changes, ReplaySource, set_up
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.pairs import Request
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.results import interval
from foredraft_sim.streams import key
from foredraft_sim.tokens.fitted import FittedPair
from foredraft_sim.tokens.recorded import Replays
from foredraft_sim.tokens.synthetic import SyntheticDrafter, SyntheticTarget

MOST_OFF: Final = 0.03
"""How far the simulated time per token may be off the replayed one."""

_GOLDEN: Final = 0.6180339887498949
"""Multiples of it are spread evenly between whole numbers."""

Tell = Callable[[int, int, str], None]
"""Told how many runs are done, of how many, and what runs now."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One policy over one link: seconds per token after the first, and tokens per pass of the target.

    ``half``: half of the 95% confidence interval of the simulated seconds, as a share of them.
    """

    policy: str
    link: str
    replayed_s: float
    simulated_s: float
    replayed_tokens: float
    simulated_tokens: float
    half: float

    @property
    def off(self) -> float:
        """Simulated over replayed seconds, less one."""
        return self.simulated_s / self.replayed_s - 1.0

    @property
    def missed(self) -> bool:
        """Whether that is more than it may be."""
        return abs(self.off) > MOST_OFF

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "off": self.off}


def check(
    pair: FittedPair,
    records: Sequence[Record],
    changes: Sequence[Changes],
    *,
    tokens: int,
    tell: Tell = lambda done, total, what: None,
) -> list[Checked]:
    """Each of ``changes`` (a policy, and what else differs) over all records. Raises RecordError, ConfigError.

    As many texts as were recorded are simulated, again and again, until there are so many ``tokens``.
    """
    counts = [[len(text.tokens) for text in Replays(record).texts] for record in records]
    rounds = max(2, -(-tokens // sum(map(sum, counts))))
    *befores, texts = accumulate(map(len, counts), initial=0)
    total, done = len(changes) * (1 + rounds), 0
    checked = []
    for one in changes:
        policy = one.policy or records[0].setup.policy
        link = one.link.name if one.link is not None else "the recorded link"
        each: list[_Ran] = []
        for luck in range(rounds + 1):
            tell(done, total, f"{policy}, {link}")
            places = [(luck - 1) * texts + before for before in befores]
            runs = zip(records, places, strict=True)
            each.append(_Ran.of([_run(record, one, (pair, place) if luck else None) for record, place in runs]))
            done += 1
        replayed, *simulated = each
        mean = _Ran(*(fmean(getattr(ran, name) for ran in simulated) for name in _Ran.__slots__))
        low, high = interval([ran.token_s for ran in simulated]) or (mean.token_s, mean.token_s)
        half = (high - low) / 2 / mean.token_s
        checked.append(
            Checked(policy, link, replayed.token_s, mean.token_s, replayed.tokens_per_pass, mean.tokens_per_pass, half)
        )
    return checked


@dataclass(frozen=True, slots=True)
class _Ran:
    """What all texts came to together."""

    token_s: float
    tokens_per_pass: float

    @classmethod
    def of(cls, ones: Sequence[Replication]) -> "_Ran":
        reports = [finished.report for one in ones for finished in one.finished]
        tokens, passes = sum(report.new_tokens - 1 for report in reports), sum(report.passes for report in reports)
        return cls(
            sum(report.e2e_s - report.ttft_s for report in reports) / max(1, tokens),
            sum(report.new_tokens for report in reports) / max(1, passes),
        )


def _run(record: Record, changes: Changes, fitted: tuple[FittedPair, int] | None) -> Replication:
    """The record's texts, or as many others of the pair, from the one with that number on."""
    policy = changes.policy or record.setup.policy
    recorded = ReplaySource(record)
    scenario, paces = set_up(record, changes, len(recorded.replays.texts))
    scenario.policy(policy)
    source = recorded if fitted is None else FittedSource(record, *fitted)
    luck = 0 if fitted is None else 1 + fitted[1]
    return replicate(scenario, policy, record.setup.seed, luck=luck, source=source, new_pace=paces)


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
