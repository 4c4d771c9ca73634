"""What calls cost by a hardware profile: ranges watched, overruns counted."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from foredraft.engines.device import TICK_S, Work
from foredraft.errors import ProfileError
from foredraft.profiles.compute import call_curve, curve_for, outside, seconds, share_after, wake_s, within
from foredraft.profiles.schema import Curve, DeviceProfile, TargetProfile

Outside = Literal["warn", "error"]
Residual = Callable[[str], float]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Overruns:
    """Real calls, or segments of passes, that took longer than the profile's device would."""

    count: int = 0
    worst_excess_s: float = 0.0


class Pace:
    """What calls cost by a profile, with its range watched and overruns counted.

    ``outside`` says what happens to a call outside the profile's declared range: "error"
    raises ProfileError; "warn" logs a warning, once for each kind of call, and extrapolates.
    ``residual`` gives the factor by which a batch's duration differs from the profile's; it is
    asked once per batch, with the kind of call ("pass", "prefill" or "step").

    A target whose profile declares batches ``batches``. A forward costs a pass of the rows that are read (nodes and
    tips), and besides what as many more rows as nobody reads add to a prefill.
    """

    chunk = 512
    """By how many rows of long trunks a forward may delay others; the target says."""

    def __init__(self, profile: DeviceProfile, residual: Residual | None, outside: Outside) -> None:
        self.profile = profile
        self.overruns = Overruns()
        self._residual = residual
        self._outside = outside
        self._call_curve = call_curve(profile)
        self._wakes = profile.host.wake_s > 0.0
        self._usual = within(self._call_curve)
        self.batches = isinstance(profile, TargetProfile) and self._call_curve.range.batch[1] > 1
        self._warned: set[str] = set()

    def batch_s(self, works: Sequence[Work], idle_s: float = 0.0) -> float:
        """Seconds that these calls take as one batch, after the device was idle for so long."""
        first = works[0]
        kind, exits = first.kind, first.exits
        if self.batches or (kind == "pass" and first.new_tokens > first.tree + 1):
            rows = _Rows(works)
            kind, exits, taken_s = "pass" if rows.read else "prefill", rows.exits, self._forward_s(rows)
        else:
            usual_s = None if kind == "prefill" else self._usual.seconds(first.new_tokens, first.context)
            taken_s = self._unusual_s(kind, first.new_tokens, first.context) if usual_s is None else usual_s
        if exits:
            taken_s += self.profile.model.exit_s * exits
        if self._wakes:
            taken_s += wake_s(self.profile.host, idle_s)
        return taken_s if self._residual is None else taken_s * self._residual(kind)

    def _forward_s(self, rows: "_Rows") -> float:
        """Seconds of a forward that calls may share, or of a pass with a trunk."""
        read, unread, prefill = rows.read, rows.unread, self.profile.prefill
        if not unread or prefill is None:
            usual_s = self._usual.seconds(read + unread, rows.context, rows.count)
            return self._unusual_s("pass", read + unread, rows.context, rows.count) if usual_s is None else usual_s
        if not read:
            count, curve = rows.count, self._call_curve
            alone_s = self._watched("prefill", prefill, unread, rows.context)
            return alone_s + seconds(curve, count, 0, count) - seconds(curve, count, 0, 1)
        upper = min(read + unread, max(unread, prefill.range.new_tokens[1]))  # where prefills were measured
        lower = max(1, upper - unread)
        pass_s = self._watched("pass", self._call_curve, read, rows.context, rows.count)
        prefill_s = self._watched("prefill", prefill, upper, rows.unread_context)
        return pass_s + max(0.0, prefill_s - seconds(prefill, lower, rows.unread_context))

    def fits(self, works: Sequence[Work]) -> bool:
        """Whether these run as one batch: as far as the profile's declared ranges go."""
        rows, prefill = _Rows(works), self.profile.prefill
        if not rows.unread or prefill is None:
            return not outside(self._call_curve, rows.read + rows.unread, rows.context, rows.count)
        if outside(self._call_curve, max(1, rows.read), rows.context, rows.count):
            return False
        return not outside(prefill, rows.unread, rows.unread_context)

    def share_after(self, layer: int, layers: int) -> float:
        """Which part of a pass is over when the exit after ``layer`` of ``layers`` speaks."""
        return share_after(self.profile.model, layer, layers)

    def layer_end(self, share: float, layers: int) -> float:
        """After which part of a pass the layer is over that runs at ``share`` of it; 1 after the last."""
        model = self.profile.model
        ends = (share_after(model, layer, layers) for layer in range(1, layers + 1))
        return next((end for end in ends if end >= share), 1.0)

    def note_late(self, kind: str, excess_s: float) -> None:
        """Count an overrun if the engine was late by ``excess_s``; the first is logged."""
        if excess_s <= TICK_S:
            return
        if self.overruns.count == 0:
            _log.warning(
                "hardware profile %r: a real %s came %.2g ms LATER than the profile's device would; timings "
                "are not the profile's (said once; later ones are only counted)",
                self.profile.name,
                kind,
                excess_s * 1e3,
            )
        self.overruns.count += 1
        self.overruns.worst_excess_s = max(self.overruns.worst_excess_s, excess_s)

    def _curve(self, kind: str, new_tokens: int) -> Curve:
        if kind == "prefill" and self.profile.prefill is not None:
            return self.profile.prefill
        return curve_for(self.profile, new_tokens)

    def _unusual_s(self, kind: str, new_tokens: int, context: int, count: int = 1) -> float:
        """Seconds of a prefill, or of a call outside of the range of the usual curve."""
        return self._watched(kind, self._curve(kind, new_tokens), new_tokens, context, count)

    def _watched(self, kind: str, curve: Curve, new_tokens: int, context: int, count: int = 1) -> float:
        """Seconds by the curve; outside of its range with a complaint."""
        taken_s = within(curve).seconds(new_tokens, context, count)
        if taken_s is not None:
            return taken_s
        self._complain(kind, outside(curve, new_tokens, context, count))
        return seconds(curve, new_tokens, context, count)

    def _complain(self, kind: str, miss: str) -> None:
        message = f"hardware profile {self.profile.name!r}: a {kind} outside its declared range: {miss}"
        if self._outside == "error":
            raise ProfileError(message)
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s; its duration is EXTRAPOLATED (said once for each kind of call)", message)


class _Rows:
    """The rows of a forward: how many are read (nodes and tips), how many are not, over how much context."""

    __slots__ = ("context", "count", "exits", "read", "unread", "unread_context")

    def __init__(self, works: Sequence[Work]) -> None:
        self.count = len(works)
        self.read = self.unread = self.context = self.unread_context = self.exits = 0
        for work in works:
            read = work.tree + 1 if work.kind == "pass" else 0
            self.read += read
            self.context += work.context
            self.exits += work.exits
            if work.new_tokens > read:
                self.unread += work.new_tokens - read
                self.unread_context += work.context
