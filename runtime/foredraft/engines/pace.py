"""What calls cost by a hardware profile: ranges watched, overruns counted."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from foredraft.engines.device import TICK_S, Work
from foredraft.errors import ProfileError
from foredraft.profiles.compute import call_curve, curve_for, outside, seconds, share_after, wake_s, within
from foredraft.profiles.schema import Curve, DeviceProfile

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
    """

    def __init__(self, profile: DeviceProfile, residual: Residual | None, outside: Outside) -> None:
        self.profile = profile
        self.overruns = Overruns()
        self._residual = residual
        self._outside = outside
        self._call_curve = call_curve(profile)
        self._wakes = profile.host.wake_s > 0.0
        self._usual = within(self._call_curve)
        self._warned: set[str] = set()

    def batch_s(self, works: Sequence[Work], idle_s: float = 0.0) -> float:
        """Seconds that these calls take as one batch, after the device was idle for so long."""
        first, count = works[0], len(works)
        kind, new_tokens, context, exits = first.kind, first.new_tokens, first.context, first.exits
        if count > 1:
            new_tokens, context = _sums(works)
            exits = sum(work.exits for work in works)
        taken_s = None if kind == "prefill" else self._usual.seconds(new_tokens, context, count)
        if taken_s is None:
            curve = self._curve(kind, new_tokens)
            if miss := outside(curve, new_tokens, context, count):
                self._complain(kind, miss)
            taken_s = seconds(curve, new_tokens, context, count)
        if exits:
            taken_s += self.profile.model.exit_s * exits
        if self._wakes:
            taken_s += wake_s(self.profile.host, idle_s)
        return taken_s if self._residual is None else taken_s * self._residual(kind)

    def fits(self, works: Sequence[Work]) -> bool:
        """Passes run as one batch as far as the profile's declared range goes; nothing else does."""
        return works[0].kind == "pass" and not outside(self._call_curve, *_sums(works), len(works))

    def share_after(self, layer: int, layers: int) -> float:
        """Which part of a pass is over when the exit after ``layer`` of ``layers`` speaks."""
        return share_after(self.profile.model, layer, layers)

    def note_late(self, kind: str, excess_s: float) -> None:
        """Count an overrun if the engine was late by ``excess_s``; the first is logged."""
        if excess_s <= TICK_S:
            return
        if self.overruns.count == 0:
            _log.warning(
                "hardware profile %r: a real %s came %.1f ms LATER than the profile's device would; timings "
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

    def _complain(self, kind: str, miss: str) -> None:
        message = f"hardware profile {self.profile.name!r}: a {kind} outside its declared range: {miss}"
        if self._outside == "error":
            raise ProfileError(message)
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s; its duration is EXTRAPOLATED (said once for each kind of call)", message)


def _sums(works: Sequence[Work]) -> tuple[int, int]:
    return sum(work.new_tokens for work in works), sum(work.context for work in works)
