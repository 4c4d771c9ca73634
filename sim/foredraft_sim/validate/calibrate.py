"""What sessions take beyond what the profiles say, found on the prompts to fit on.

Engines that are called in turns, with waits between, and on a machine with an edge and a cloud on it,
are not quite as fast as engines that are measured alone. Four numbers take that up: the
session's own time per pass (from ``cloud``, which does nothing but passes), per draft step (from
``sync``, whose rounds have a known number of them), per message (from ``ahead``, which sends the most; what an
end sends or takes holds up what its engine runs) and the opening (from the time to the first token).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Final, TypeVar

import msgspec

from foredraft.profiles import Curve, DeviceProfile, Line, Provenance
from foredraft_sim.validate.sessions import Profiles, Session

LEAST: Final = 0.1
"""No correction takes a call below this share of what was measured."""

_FITTED: Final = Provenance("derived", "measured, and then fitted to real sessions by foredraft validate")

_C = TypeVar("_C", bound=Curve)


@dataclass(frozen=True, slots=True)
class Correction:
    """Seconds to add to each pass, each draft step and each opening, over the profiles as measured.

    ``message_s``: what each message takes of its end's device; never less than nothing.
    """

    pass_s: float = 0.0
    step_s: float = 0.0
    message_s: float = 0.0
    opening_s: float = 0.0


def pass_excess_s(real: Sequence[Session], simulated: Sequence[Session]) -> float:
    """What a pass took longer, really: per token of sessions in which each pass is a token. The median."""
    return median(theirs.tpot_s - ours.tpot_s for theirs, ours in zip(real, simulated, strict=True))


def token_excess_s(real: Sequence[Session], simulated: Sequence[Session]) -> float:
    """What a token took longer, over all of these sessions."""
    return fmean(theirs.tpot_s - ours.tpot_s for theirs, ours in zip(real, simulated, strict=True))


def round_excess_s(real: Sequence[Session], simulated: Sequence[Session]) -> float:
    """What a round, of draft steps and a pass, took longer. The median."""
    return median(
        (theirs.tpot_s - ours.tpot_s) * len(theirs.tokens) / theirs.passes
        for theirs, ours in zip(real, simulated, strict=True)
    )


def opening_excess_s(real: Sequence[Session], simulated: Sequence[Session]) -> float:
    """What the first token took longer. The median."""
    return median(theirs.ttft_s - ours.ttft_s for theirs, ours in zip(real, simulated, strict=True))


def corrected(profiles: Profiles, correction: Correction) -> Profiles:
    """The profiles with the correction in them. An opening is not made shorter than nothing."""
    host, message_s = profiles.target.host, correction.message_s
    opening_s = max(0.0, host.opening_s + correction.opening_s)
    target = msgspec.structs.replace(
        profiles.target,
        target_pass=longer(profiles.target.target_pass, correction.pass_s),
        host=msgspec.structs.replace(host, message_s=message_s, opening_s=opening_s),
        provenance=_fitted(profiles.target, "target_pass.host_s", "host.message_s", "host.opening_s"),
    )
    draft = msgspec.structs.replace(
        profiles.draft,
        draft_step=longer(profiles.draft.draft_step, correction.step_s),
        host=msgspec.structs.replace(profiles.draft.host, message_s=message_s),
        provenance=_fitted(profiles.draft, "draft_step.host_s", "host.message_s"),
    )
    return replace(profiles, target=target, draft=draft)


def _fitted(profile: DeviceProfile, *names: str) -> dict[str, Provenance]:
    """Where the profile's values come from, these ones from the fit."""
    return {**profile.provenance, **dict.fromkeys(names, _FITTED)}


def longer(curve: Curve, by_s: float) -> Curve:
    """The curve with every call longer by ``by_s``, which may be negative."""
    host_s = curve.host_s + by_s
    if host_s >= 0.0:
        return msgspec.structs.replace(curve, host_s=host_s)
    if isinstance(curve, Line):
        return msgspec.structs.replace(curve, host_s=0.0, base_s=max(curve.base_s + host_s, LEAST * curve.base_s))
    planes = tuple(
        tuple(tuple(max(at_s + host_s, LEAST * at_s) for at_s in row) for row in rows) for rows in curve.seconds_s
    )
    return msgspec.structs.replace(curve, host_s=0.0, seconds_s=planes)
