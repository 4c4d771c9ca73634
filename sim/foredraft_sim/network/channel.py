"""One direction of an emulated link, as arithmetic: when does what is sent now arrive?

    wire    = payload + message framing + segments * segment headers
    start   = max(now, busy);   busy = start + wire * 8 / rate         # first in, first out, bounded
    arrival = max(previous arrival, busy + delay + jitter + penalty)   # in order

The penalty is what retransmission timeouts cost: speculation is a thin stream, with too few
packets in flight for a fast retransmission. Tail loss probes, which some stacks send, are not
modelled; retransmissions take no rate from what follows, and connecting loses nothing. Times are seconds since the
channel began.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from random import Random
from statistics import NormalDist
from typing import Final

from foredraft.errors import ProfileError
from foredraft.profiles import Direction, Framing, Loss, Outage
from foredraft_sim.network.traces import Trace, TraceSender
from foredraft_sim.streams import Streams

_CLOCK_S: Final = 1e-9  # event loops round timers: what is done within a nanosecond is done
_LOGNORMAL_SIGMA: Final = math.sqrt(math.log(2.0))  # a coefficient of variation of 1
_NORMAL: Final = NormalDist()


class Channel:
    """One direction. ``streams`` gives it its own luck; ``trace`` takes the place of the rate."""

    def __init__(
        self,
        direction: Direction,
        streams: Streams,
        *,
        trace: Trace | None = None,
        framing: Framing | None = None,
        loss: Loss | None = None,
        outages: Sequence[Outage] = (),
    ) -> None:
        self.always_room = direction.queue_bytes is None
        self._direction = direction
        self._framing = framing
        self._outages = merged(outages)
        self._steady = trace is None and not outages  # a rate, or none, that never changes
        self._trace = None if trace is None else TraceSender(trace)
        self._loss = None if loss is None else LossProcess(loss, streams)
        self._streams = streams  # a generator is 2.5 kB: made when it is first drawn from
        self._drawn_s, self._jitter_s = -1.0, 0.0  # when jitter was drawn last, and what
        self._busy_s = 0.0
        self._arrival_s = 0.0
        self._backlog: deque[tuple[float, int]] = deque()  # (when it has left, its bytes)
        self._backlog_bytes = 0

    def wire_bytes(self, payload_bytes: int) -> int:
        """Bytes on the wire of one message."""
        framing = self._framing
        if framing is None:
            return payload_bytes
        stream_bytes = payload_bytes + framing.message_bytes
        return stream_bytes + -(-stream_bytes // framing.mss_bytes) * framing.segment_bytes

    def room_at(self, now_s: float, wire_bytes: int) -> float:
        """The earliest time from ``now_s`` on at which ``wire_bytes`` fit into the queue.

        An empty queue takes any message, however large.
        """
        backlog = self._backlog
        while backlog and backlog[0][0] <= now_s + _CLOCK_S:
            self._backlog_bytes -= backlog.popleft()[1]
        limit, waiting_bytes = self._direction.queue_bytes, self._backlog_bytes
        if limit is None:
            return now_s
        for left_s, left_bytes in backlog:
            if waiting_bytes + wire_bytes <= limit:
                break
            waiting_bytes -= left_bytes
            now_s = left_s
        return now_s

    def send(self, now_s: float, wire_bytes: int) -> float:
        """Put ``wire_bytes`` into the queue now; returns when they arrive."""
        direction = self._direction
        start_s = self._busy_s if self._busy_s > now_s else now_s
        if not self._steady:
            self._busy_s = self._leave_s(start_s, wire_bytes)
        elif direction.rate_bps is None:
            self._busy_s = start_s
        else:
            self._busy_s = start_s + wire_bytes * 8.0 / direction.rate_bps
        if direction.queue_bytes is not None:
            self._backlog.append((self._busy_s, wire_bytes))
            self._backlog_bytes += wire_bytes
        arrival_s = self._busy_s + direction.delay_s
        if direction.jitter_s:
            if now_s != self._drawn_s:  # what leaves at one instant travels together
                self._drawn_s, self._jitter_s = now_s, jitter_s(direction, self._streams.stream("jitter"))
            arrival_s += self._jitter_s
        if self._loss is not None:
            arrival_s += self._loss.penalty_s(self._busy_s, now_s)
        if self._outages:
            arrival_s = self.out_of_outage_s(arrival_s)
        if arrival_s > self._arrival_s:
            self._arrival_s = arrival_s
        return self._arrival_s

    def out_of_outage_s(self, time_s: float) -> float:
        """``time_s``, or the end of the outage that it falls into."""
        for outage in self._outages:
            if outage.start_s <= time_s < outage.start_s + outage.duration_s:
                return outage.start_s + outage.duration_s
        return time_s

    def drop_queue(self) -> None:
        """What waits for the rate is gone: the connection that sent it was cut."""
        self._backlog.clear()
        self._backlog_bytes = 0
        self._busy_s = self._arrival_s = 0.0
        if self._trace is not None:
            self._trace.forget()

    def _leave_s(self, start_s: float, wire_bytes: int) -> float:
        """When the last of ``wire_bytes`` leaves, begun at ``start_s``; nothing leaves in an outage."""
        start_s = self.out_of_outage_s(start_s)
        if self._trace is not None:
            return self._trace.finish_s(start_s, wire_bytes, self._outages)
        rate_bps = self._direction.rate_bps
        if rate_bps is None:
            return start_s
        bits = wire_bytes * 8.0
        for outage in self._outages:
            if outage.start_s < start_s:
                continue
            if start_s + bits / rate_bps <= outage.start_s:
                break
            bits -= (outage.start_s - start_s) * rate_bps
            start_s = outage.start_s + outage.duration_s
        return start_s + bits / rate_bps


def merged(outages: Sequence[Outage]) -> tuple[Outage, ...]:
    """The same outages in order of time, those that touch as one."""
    ordered: list[Outage] = []
    for outage in sorted(outages, key=lambda o: o.start_s):
        last = ordered[-1] if ordered else None
        if last is not None and outage.start_s <= last.start_s + last.duration_s:
            end_s = max(last.start_s + last.duration_s, outage.start_s + outage.duration_s)
            ordered[-1] = Outage(start_s=last.start_s, duration_s=end_s - last.start_s)
        else:
            ordered.append(outage)
    return tuple(ordered)


def jitter_s(direction: Direction, draw: Random) -> float:
    """One message's jitter: one number drawn, of mean ``direction.jitter_s``, never negative."""
    mean_s, share = direction.jitter_s, draw.random()
    if direction.jitter_shape == "uniform":
        return 2.0 * mean_s * share
    if direction.jitter_shape == "exponential":
        return -mean_s * math.log1p(-share)
    normal = _NORMAL.inv_cdf(min(max(share, 2.0**-54), 1.0 - 2.0**-53))
    return mean_s * math.exp(_LOGNORMAL_SIGMA * normal - _LOGNORMAL_SIGMA**2 / 2.0)


class LossProcess:
    """Gilbert and Elliott's two states in continuous time, and the timeouts that they cause.

    The states and each instant's luck depend on time alone, so how much somebody sends
    changes nothing for others, nor for what is sent later.
    """

    def __init__(self, loss: Loss, streams: Streams) -> None:
        if loss.rto_s <= 0.0 or loss.rto_max_s <= 0.0:
            raise ProfileError(
                f"loss.rto_s = {loss.rto_s:g} and loss.rto_max_s = {loss.rto_max_s:g} must be above 0: "
                "a lost message is sent again after a timeout"
            )
        if loss.good_loss == 1.0 and loss.bad_loss == 1.0:
            raise ProfileError("loss.good_loss and loss.bad_loss are both 1: nothing would ever arrive")
        self._loss = loss
        self._streams = streams
        self._sojourns = streams.stream("loss states")
        # The state before the first change that is kept; at first as likely as in the long run.
        self._bad = self._sojourns.random() < loss.bad_s / (loss.good_s + loss.bad_s)
        self._changes_s = [self._sojourn_s(bad=self._bad)]

    def penalty_s(self, leave_s: float, now_s: float) -> float:
        """What a message that leaves at ``leave_s`` loses to retransmission timeouts.

        Nothing before ``now_s`` will be asked about again.
        """
        self._forget(now_s)
        penalty_s, timeout_s = 0.0, self._loss.rto_s
        while self._is_lost(leave_s + penalty_s):
            penalty_s += timeout_s
            timeout_s = min(2.0 * timeout_s, self._loss.rto_max_s)
        return penalty_s

    def _is_lost(self, time_s: float) -> bool:
        probability = self._loss.bad_loss if self.is_bad(time_s) else self._loss.good_loss
        if probability in (0.0, 1.0):
            return probability == 1.0
        return self._streams.uniform("loss", round(time_s * 1e9)) < probability

    def is_bad(self, time_s: float) -> bool:
        """Whether the state at ``time_s`` is the bad one."""
        while self._changes_s[-1] <= time_s:
            bad_next = self._bad ^ (len(self._changes_s) % 2 == 1)
            self._changes_s.append(self._changes_s[-1] + self._sojourn_s(bad=bad_next))
        return self._bad ^ (bisect_right(self._changes_s, time_s) % 2 == 1)

    def _sojourn_s(self, *, bad: bool) -> float:
        mean_s = self._loss.bad_s if bad else self._loss.good_s
        return -mean_s * math.log1p(-self._sojourns.random())

    def _forget(self, now_s: float) -> None:
        """Drop pairs of changes before ``now_s``; a pair leaves the state as it was."""
        if len(self._changes_s) > 256:
            past = bisect_right(self._changes_s, now_s) & ~1
            del self._changes_s[: min(past, (len(self._changes_s) - 1) & ~1)]
