"""How long a device takes: pure functions of a profile's curves.

``t = host + c0 + c1 * tokens + c2 * context`` (flat while memory-bound), or interpolated between
measured points; exits fire at their share of a pass. Outside a curve's range the functions
extrapolate along its last stretch: whoever calls them asks ``outside`` first.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

from foredraft.profiles.schema import Curve, DeviceProfile, DraftProfile, Grid, Host, Line, Model


def seconds(curve: Curve, new_tokens: int, context: int, batch: int = 1) -> float:
    """Seconds of one call that runs ``new_tokens`` over ``context`` cached ones, sums over a batch."""
    if not isinstance(curve, Line):
        return curve.host_s + max(0.0, _grid_s(curve, new_tokens, context, batch))
    beyond = new_tokens - curve.flat_tokens
    taken_s = curve.host_s + curve.base_s + curve.per_token_s * (beyond if beyond > 0 else 0)
    return taken_s + curve.per_context_s * context + curve.per_sequence_s * (batch - 1)


def pass_times(curve: Curve, nodes: Sequence[int], context: int) -> tuple[float, ...]:
    """Seconds of passes with so many draft nodes each, at this context; 0 where that is out of the curve's range."""
    most = curve.range.new_tokens[1]
    return tuple(seconds(curve, count + 1, context) if count < most else 0.0 for count in nodes)


@lru_cache(maxsize=64)
def within(curve: Curve) -> "Within":
    """The curve within its declared range; devices of one kind share it."""
    return Within(curve)


class Within:
    """A curve within its declared range, made ready to be asked often."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve
        reach = curve.range
        (self._few, self._many), (self._short, self._long) = reach.new_tokens, reach.context
        self._least, self._most = reach.batch
        self._per_context_s = self._per_sequence_s = 0.0
        self._alone_s: dict[int, float] | None = None  # by new tokens, without a context; for lines
        if isinstance(curve, Line):
            self._alone_s = {}
            self._per_context_s, self._per_sequence_s = curve.per_context_s, curve.per_sequence_s

    def seconds(self, new_tokens: int, context: int, batch: int = 1) -> float | None:
        """What the function ``seconds`` says, or None outside of the range."""
        inside = self._few <= new_tokens <= self._many and self._short <= context <= self._long
        if not inside or not self._least <= batch <= self._most:
            return None
        if self._alone_s is None:
            return seconds(self._curve, new_tokens, context, batch)
        alone_s = self._alone_s.get(new_tokens)
        if alone_s is None:
            alone_s = self._alone_s[new_tokens] = seconds(self._curve, new_tokens, 0)
        return alone_s + self._per_context_s * context + self._per_sequence_s * (batch - 1)


def _grid_s(grid: Grid, new_tokens: int, context: int, batch: int) -> float:
    planes = []
    for rows in grid.seconds_s:
        lines = [_interpolate(grid.new_tokens, row, new_tokens) for row in rows]
        planes.append(_interpolate(grid.context, lines, context))
    return _interpolate(grid.batch, planes, batch)


def _interpolate(axis: Sequence[int], values: Sequence[float], at: float) -> float:
    """Linear between the axis' points, and on along the first or last stretch beyond them."""
    if len(axis) == 1:
        return values[0]
    left = min(max(bisect_right(axis, at) - 1, 0), len(axis) - 2)
    share = (at - axis[left]) / (axis[left + 1] - axis[left])
    return values[left] + share * (values[left + 1] - values[left])


def outside(curve: Curve, new_tokens: int, context: int, batch: int = 1) -> str:
    """What of this call lies outside the curve's declared range, in words; empty if nothing does."""
    reach = curve.range
    if (
        reach.new_tokens[0] <= new_tokens <= reach.new_tokens[1]
        and reach.context[0] <= context <= reach.context[1]
        and reach.batch[0] <= batch <= reach.batch[1]
    ):
        return ""
    misses = []
    for name, value in (("new_tokens", new_tokens), ("context", context), ("batch", batch)):
        low, high = getattr(reach, name)
        if not low <= value <= high:
            misses.append(f"{name} {value} (declared: {low} to {high})")
    return ", ".join(misses)


def call_curve(profile: DeviceProfile) -> Curve:
    """The curve of a draft step or a target pass."""
    return profile.draft_step if isinstance(profile, DraftProfile) else profile.target_pass


def curve_for(profile: DeviceProfile, new_tokens: int) -> Curve:
    """The curve that a call of ``new_tokens`` lies on.

    Prefill is the large end of the same work: a call with more tokens than the call's curve
    was declared for lies on the prefill's curve, where the profile has one.
    """
    curve = call_curve(profile)
    if profile.prefill is not None and new_tokens > curve.range.new_tokens[1]:
        return profile.prefill
    return curve


def share_after(model: Model, layers_run: int, layers: int) -> float:
    """Which part of a pass is done after ``layers_run`` of the ``layers`` that really run.

    Layers take equal time and the head its own share, so a model that stands in for the
    profile's has its exits at the same relative depth.
    """
    return (1.0 - model.head_share) * layers_run / layers


def wake_s(host: Host, idle_s: float) -> float:
    """What a call takes longer that begins after so long without one."""
    return host.wake_s * (1.0 - math.exp2(-idle_s / host.wake_half_s))


def residual_factor(cv: float, normal: float) -> float:
    """A lognormal factor with mean 1 and coefficient of variation ``cv`` from a standard normal draw."""
    if cv == 0.0:
        return 1.0
    variance = math.log1p(cv * cv)
    return math.exp(math.sqrt(variance) * normal - variance / 2.0)
