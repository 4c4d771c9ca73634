"""How far simulations with a fitted pair are off: a record replayed, and simulated on the same devices and links."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
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
    recorded = sum(len(text.tokens) for record in records for text in Replays(record).texts)
    rounds = max(2, -(-tokens // recorded))
    total, done = len(changes) * (1 + rounds), 0
    checked = []
    for one in changes:
        policy = one.policy or records[0].setup.policy
        link = one.link.name if one.link is not None else "the recorded link"
        each: list[_Ran] = []
        for luck in range(rounds + 1):
            tell(done, total, f"{policy}, {link}")
            each.append(_Ran.of([_run(pair if luck else None, record, one, luck) for record in records]))
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


def _run(pair: FittedPair | None, record: Record, changes: Changes, luck: int) -> Replication:
    """The record's texts, or as many others of the pair."""
    policy = changes.policy or record.setup.policy
    recorded = ReplaySource(record)
    scenario, paces = set_up(record, changes, len(recorded.replays.texts))
    scenario.policy(policy)
    source = recorded if pair is None else FittedSource(pair, record, luck)
    return replicate(scenario, policy, record.setup.seed + luck, source=source, new_pace=paces)


class FittedSource:
    """A fitted pair's texts in the place of a record's: as long as those, after prompts as long."""

    new_detokenizer: NewDetokenizer | None = None

    def __init__(self, pair: FittedPair, record: Record, luck: int) -> None:
        self._pair, self._models, self._luck = pair, record.setup.models, luck
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
        own = self._own(seed, request)
        self._starts[own] = len(asked.prompt)
        prompt = [self._pair.truth(own, position) for position in range(len(asked.prompt))]
        return Request(prompt, Sampling(seed=own), StopRules(len(text.tokens)), asked.estimates)

    def _own(self, seed: int, request: int) -> int:
        """A seed for the request's text. Topics come as often as they should, or a few texts would decide the error."""
        place = self._luck * len(self._recorded.replays.texts) + request
        topic = self._pair.topic((place * _GOLDEN) % 1.0)
        seeds = (key(seed, f"request {request}, {attempt}") >> 2 for attempt in count())
        return next(own for own in seeds if self._pair.topic_of(own) == topic)

    def text(self, tokens: list[int]) -> str:
        """Nothing: the tokens are random numbers."""
        return ""
