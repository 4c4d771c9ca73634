"""What was measured of a device, for people and for programs."""

import json
from typing import Any

import msgspec

from foredraft.calibration.device import Measured
from foredraft.calibration.fitting import Fit, error_at
from foredraft.profiles.schema import Line


def device_lines(measured: Measured) -> list[str]:
    """Tables of the measured points beside the curves, what exits did, and the errors where nothing was fitted."""
    machine = measured.profile.machine
    lines = [f"{measured.profile.name}: {measured.profile.title}"]
    if machine is not None:
        lines.append(f"{machine.settings}; {machine.software}; {machine.system}")
    for name, fit in measured.fits.items():
        lines += ["", *_fit_lines(name, fit)]
    for layer, hint in measured.hints.items():
        lines.append(
            f"exit after {layer} layers: heard at {hint.share:.1%} of the pass (the profile says {hint.modelled:.1%}), "
            f"{hint.passes} passes"
        )
    if measured.hints:
        late = measured.hints_late
        lines.append(f"hints that came no earlier than their verdict: {late}" if late else "every hint left early")
    lines += [
        f"a prefill of {one.unread} beside {one.passes} passes, over {one.context} tokens each: {error:+.1%}"
        for one, error in measured.mixed.items()
    ]
    lines += [f"not measured: {one}" for one in measured.left_out]
    lines.append(f"calls of one kind vary by {measured.variation:.1%} (median absolute deviation, as sigma)")
    return lines


def _fit_lines(name: str, fit: Fit) -> list[str]:
    shape = "line" if isinstance(fit.curve, Line) else "grid"
    lines = [
        f"{name}: a {shape}; {fit.curve.host_s * 1e3:.3f} ms of the session's own per call",
        f"  {'new':>6} {'context':>8} {'batch':>5} {'median ms':>10} {'MAD ms':>8} {'curve':>7}",
    ]
    for point in fit.points:
        call = point.call
        error = error_at(fit.bare, point)
        lines.append(
            f"  {call.new_tokens:6} {call.context:8} {call.batch:5} {point.median_s * 1e3:10.3f} "
            f"{point.mad_s * 1e3:8.3f} {error:+7.1%}"
        )
    lines.append(
        f"  held out, {len(fit.held_out)} points: off by {fit.median_error:.1%} (median), {fit.worst_error:.1%} (worst)"
    )
    return lines


def as_json(measured: Measured) -> str:
    """Everything that was measured, as one JSON object."""
    fits = {
        name: {
            "shape": "line" if isinstance(fit.curve, Line) else "grid",
            "curve": msgspec.to_builtins(fit.curve),
            "held_out": {
                "median_error": fit.median_error,
                "worst_error": fit.worst_error,
                "points": [{**_plain(point), "error": error} for point, error in fit.held_out],
            },
            "points": [_plain(point) for point in fit.points],
        }
        for name, fit in measured.fits.items()
    }
    return json.dumps(
        {
            "name": measured.profile.name,
            "kind": measured.profile.kind,
            "model": msgspec.to_builtins(measured.profile.model),
            "machine": msgspec.to_builtins(measured.profile.machine),
            "variation": measured.variation,
            "fits": fits,
            "hints": {str(layer): msgspec.to_builtins(hint) for layer, hint in measured.hints.items()},
            "hints_late": measured.hints_late,
            "left_out": list(measured.left_out),
            "mixed": [{**one._asdict(), "error": error} for one, error in measured.mixed.items()],
        }
    )


def _plain(point: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(point)
    return {**plain.pop("call"), **plain}
