"""How far simulated texts are off the replayed ones, and how much of that may be luck.

Each recorded text is replayed, and texts of its length are simulated on the same devices. So luck is judged text by
text: devices that were slow during one text were slow in both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Final

from foredraft.edge.session_report import SessionReport
from foredraft_sim.scenario.results import student_t

MOST_OFF: Final = 0.03
"""How far the simulated time per token may be off the replayed one."""


class Compared:
    """A text, and at least two simulated ones in its place."""

    def __init__(self, replayed: SessionReport, *simulated: SessionReport) -> None:
        self.replayed = replayed
        self.simulated = simulated
        self.replayed_s = _seconds(replayed)
        self.simulated_s = fmean(map(_seconds, simulated))
        self.variance = variance(map(_seconds, simulated)) / len(simulated)


@dataclass(frozen=True, slots=True)
class Checked:
    """One policy over one link: texts after the first token, by the pair that stood for them.

    ``held_out``: whether each text's pair was fitted without it.
    """

    policy: str
    link: str
    held_out: bool
    groups: tuple[tuple[Compared, ...], ...]

    @property
    def texts(self) -> list[Compared]:
        """All of them."""
        return [text for group in self.groups for text in group]

    @property
    def replayed_s(self) -> float:
        """Seconds per token."""
        return sum(text.replayed_s for text in self.texts) / self._tokens

    @property
    def simulated_s(self) -> float:
        """Seconds per token."""
        return sum(text.simulated_s for text in self.texts) / self._tokens

    @property
    def _tokens(self) -> int:
        return max(1, sum(text.replayed.new_tokens - 1 for text in self.texts))

    @property
    def off(self) -> float:
        """Simulated over replayed seconds, less one."""
        return _off(self.texts)

    @property
    def half(self) -> float:
        """Half of the 95% confidence interval of ``off``.

        The luck of the simulated texts; of held-out ones that of the recorded, too, which are a sample of traffic.
        """
        texts = self.texts
        replayed_s, count = sum(text.replayed_s for text in texts), len(texts)
        if self.held_out:
            apart = [text.simulated_s - (1.0 + self.off) * text.replayed_s for text in texts]
            squares, freedom = sum(one**2 for one in apart) * count / (count - 1), count - 1
        else:
            squares, freedom = sum(text.variance for text in texts), count * (len(texts[0].simulated) - 1)
        return student_t(freedom) * math.sqrt(squares) / replayed_s if replayed_s else 0.0

    @property
    def missed(self) -> bool:
        """Whether ``off`` is more than it may be; of held-out texts, more than luck explains."""
        return abs(self.off) - (self.half if self.held_out else 0.0) > MOST_OFF

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        texts = self.texts
        return {
            "policy": self.policy,
            "link": self.link,
            "held_out": self.held_out,
            "replayed_s": self.replayed_s,
            "simulated_s": self.simulated_s,
            "off": self.off,
            "half": self.half,
            "groups": sorted(map(_off, self.groups)),
            "replayed_tokens": _tokens_per_pass([text.replayed for text in texts]),
            "simulated_tokens": _tokens_per_pass([one for text in texts for one in text.simulated]),
        }


def _off(texts: Sequence[Compared]) -> float:
    replayed_s = sum(text.replayed_s for text in texts)
    return sum(text.simulated_s for text in texts) / replayed_s - 1.0 if replayed_s else 0.0


def _seconds(one: SessionReport) -> float:
    return one.e2e_s - one.ttft_s


def _tokens_per_pass(ones: Sequence[SessionReport]) -> float:
    return sum(one.new_tokens for one in ones) / max(1, sum(one.passes for one in ones))
