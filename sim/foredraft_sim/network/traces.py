"""Packet-opportunity traces in Mahimahi's format, and sending over one.

A file holds one integer per line: a time in milliseconds at which the link can carry 1,500 bytes;
a repeated line is another opportunity in the same millisecond. The trace repeats after its last
time. Bytes share opportunities: what a message leaves of one, the next message may use, and what
nobody uses when its time comes is lost (Netravali et al., "Mahimahi: Accurate Record-and-Replay
for HTTP", USENIX ATC 2015).
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from foredraft.errors import ProfileError
from foredraft.profiles import Outage

OPPORTUNITY_BYTES: Final = 1500


class Trace:
    """A repeating series of opportunities, numbered from 0 over all repetitions.

    ``times_ms``: the times of one repetition, not falling, the last above 0; it is the period.
    """

    def __init__(self, times_ms: Sequence[int]) -> None:
        if not times_ms or times_ms[0] < 0 or times_ms[-1] == 0:
            raise ProfileError("a trace needs times from 0 on, in milliseconds, the last of them above 0")
        if any(left > right for left, right in pairwise(times_ms)):
            raise ProfileError("the times of a trace must not fall")
        self._times_ms = tuple(times_ms)

    def __len__(self) -> int:
        return len(self._times_ms)

    @property
    def period_s(self) -> float:
        """Seconds after which the trace repeats."""
        return self._times_ms[-1] / 1000

    @property
    def rate_bps(self) -> float:
        """The mean rate in bits per second."""
        return len(self) * OPPORTUNITY_BYTES * 8 / self.period_s

    def time_s(self, index: int) -> float:
        """When opportunity ``index`` comes."""
        round_, rest = divmod(index, len(self._times_ms))
        return (round_ * self._times_ms[-1] + self._times_ms[rest]) / 1000

    def first_at(self, time_s: float) -> int:
        """The first opportunity at or after ``time_s``, to the nanosecond."""
        time_ms = -(-round(time_s * 1e9) // 1_000_000)
        period_ms = self._times_ms[-1]
        # The end of one repetition is the beginning of the next: count from the earlier one.
        round_ = max(0, (time_ms - 1) // period_ms)
        return round_ * len(self) + bisect_left(self._times_ms, time_ms - round_ * period_ms)


def parse_trace(lines: Iterable[str], name: str) -> Trace:
    """The trace in ``lines``. Raises ProfileError naming ``name``, the line and what is wrong with it."""
    times_ms: list[int] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not (text.isascii() and text.isdigit()):
            raise ProfileError(f"{name}:{number}: {text!r} is not a time in whole milliseconds")
        time_ms = int(text)
        if times_ms and time_ms < times_ms[-1]:
            raise ProfileError(f"{name}:{number}: {time_ms} ms comes after {times_ms[-1]} ms; times must not fall")
        times_ms.append(time_ms)
    if not times_ms or times_ms[-1] == 0:
        raise ProfileError(f"{name}: the trace ends at 0 ms; it needs a last time above 0, after which it repeats")
    return Trace(times_ms)


def read_trace(path: Path) -> Trace:
    """The trace in the file ``path``. Raises ProfileError."""
    try:
        with path.open(encoding="ascii") as lines:
            return parse_trace(lines, str(path))
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no ASCII, a number of thousands of digits, or a name that no file can have
        raise ProfileError(f"{path}: not a trace of packet opportunities: {error}") from error


class TraceSender:
    """Sends bytes over a trace, first in, first out."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._index = -1  # the opportunity used last
        self._left = 0  # bytes that it still has

    def finish_s(self, start_s: float, wire_bytes: int, outages: Sequence[Outage]) -> float:
        """When the last of ``wire_bytes``, ready at ``start_s``, leaves. Opportunities in ``outages`` are lost."""
        trace, index, left = self._trace, self._index, self._left
        first = trace.first_at(start_s)
        if first > index:  # the one used last is past
            index, left = first, OPPORTUNITY_BYTES
        for outage in outages:
            lost, back = trace.first_at(outage.start_s), trace.first_at(outage.start_s + outage.duration_s)
            if index < lost:
                room = left + (lost - 1 - index) * OPPORTUNITY_BYTES
                if wire_bytes <= room:
                    break
                wire_bytes -= room
            if index < back:
                index, left = back, OPPORTUNITY_BYTES
        more = max(0, -(-(wire_bytes - left) // OPPORTUNITY_BYTES))
        self._index = index + more
        self._left = left + more * OPPORTUNITY_BYTES - wire_bytes
        return trace.time_s(self._index)

    def forget(self) -> None:
        """What was to be sent is not: the opportunities are free again."""
        self._index, self._left = -1, 0
