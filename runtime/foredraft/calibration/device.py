"""A device profile from a measurement on this machine, and how far to trust it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import msgspec

from foredraft.calibration.batched import Mixed, Shared, measure_batches
from foredraft.calibration.fitting import Fit, Samples, fit_curve, spread_over, variation
from foredraft.calibration.host import drafter_host_s, target_host_s, target_opening_s
from foredraft.calibration.machine import this_machine
from foredraft.calibration.measuring import Plan, Progress, Spoken, Taken, measure_drafter, measure_target
from foredraft.calibration.request import Wanted, load_drafter, load_target
from foredraft.calibration.wakeup import drafter_wake, target_wake
from foredraft.errors import ConfigError
from foredraft.profiles.compute import share_after
from foredraft.profiles.schema import (
    DeviceProfile,
    DraftProfile,
    Host,
    Machine,
    Model,
    Provenance,
    Range,
    Residual,
    TargetProfile,
)

NOISIEST: Final = 0.2
"""Calls that vary by more than this share of their median are no measurement."""

MOST_LATE: Final = 0.01
"""Of the passes, how many may end before all of their exits are heard."""

_TARGET_TOKENS: Final = (1, 2, 4, 8, 16, 32)
_DRAFT_TOKENS: Final = (1, 2, 4, 8, 16)
_ZERO_BY_DEFAULT: Final = {"head_share", "exit_s", "host_s", "flat_tokens", "message_s", "wake_s", "opening_s"} | {
    f"per_{what}_s" for what in ("token", "context", "sequence")
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A profile and what it rests on. ``fits``: by curve. ``hints``: what was seen of the exits.

    ``variation``: how much calls of one kind vary, as a share. ``left_out``: what did not fit the device.
    ``mixed``: by how much the profile is off where prefills ran beside passes.
    """

    profile: DeviceProfile
    fits: Mapping[str, Fit]
    variation: float
    hints: Mapping[int, "Hint"]
    hints_late: int = 0
    left_out: tuple[str, ...] = ()
    mixed: Mapping[Mixed, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ConfigError if calls varied too much, or hints did not leave before their pass ended."""
        if self.variation > NOISIEST:
            raise ConfigError(
                f"{self.profile.name}: calls varied by {self.variation:.0%}, more than {NOISIEST:.0%}: this "
                "machine is busy with other things; try again when it is idle, or use --force"
            )
        passes = max((hint.passes for hint in self.hints.values()), default=0)
        if self.hints_late > MOST_LATE * passes:
            raise ConfigError(
                f"{self.profile.name}: in {self.hints_late} of {passes} passes an exit spoke no earlier than the "
                "verdict: hints would not help; leave the exits out, or use --force"
            )


@dataclass(frozen=True, slots=True)
class Hint:
    """When an exit's reading reached the event loop: the median share of the pass, and what the profile says."""

    share: float
    modelled: float
    passes: int


async def measure(wanted: Wanted, *, progress: Progress | None = None) -> Measured:
    """Measure and fit. Raises ConfigError, ModelError."""
    return await (_measure_target(wanted, progress) if wanted.role == "target" else _measure_drafter(wanted, progress))


async def _measure_target(wanted: Wanted, progress: Progress | None) -> Measured:
    target, named = load_target(wanted)
    try:
        plan = _plan(wanted, target.card.context, _TARGET_TOKENS)
        taken = await measure_target(target, plan, progress=progress)
        host_s = await target_host_s(target)
        host = _host(await target_wake(target), await target_opening_s(target))
        batches = tuple(batch for batch in wanted.batches if batch > 1)
        shared = await measure_batches(target, plan, batches, progress=progress) if batches else Shared(Taken(plan))
    finally:
        await target.close()
    taken.passes.fitted |= shared.passes.fitted
    taken.passes.held_out |= shared.passes.held_out
    passes, prefill = _fit(taken.passes, host_s), _fit(taken.prefills, 0.0)
    found = Model(
        name=named.name,
        digest=named.digest,
        layers=target.card.layers,
        head_share=round(taken.spoken.head_share(target.card.layers), 4),
        exit_s=round(taken.exit_s, 7),
    )
    machine = this_machine(wanted.options, wanted.machine)
    profile = TargetProfile(
        name=wanted.name,
        title=f"{named.name} as a target on {machine.device}",
        notes=_notes(wanted, {"target_pass": passes, "prefill": prefill}, shared.left_out),
        kind="target",
        model=found,
        machine=machine,
        target_pass=passes.curve,
        prefill=prefill.curve,
        host=host,
        residual=Residual(cv=round(variation(taken.passes.fitted), 4)),
    )
    mixed = shared.mixed_errors(profile)
    if mixed:
        profile = msgspec.structs.replace(profile, notes=profile.notes + _mixed_said(mixed) + "\n")
    return Measured(
        _sourced(profile, machine, wanted),
        {"target_pass": passes, "prefill": prefill},
        variation(taken.passes.fitted),
        _hints(taken.spoken, found),
        taken.spoken.late,
        tuple(shared.left_out),
        mixed,
    )


def _mixed_said(mixed: Mapping[Mixed, float]) -> str:
    sizes = sorted(map(abs, mixed.values()))
    return (
        f"Prefills beside passes: {len(sizes)} kinds of forwards, none of them fitted to, off by {median(sizes):.1%} "
        f"(median), {sizes[-1]:.1%} (worst)."
    )


async def _measure_drafter(wanted: Wanted, progress: Progress | None) -> Measured:
    if max(wanted.batches) > 1:
        raise ConfigError("a drafter serves one session: --batches is for targets")
    drafter, named = load_drafter(wanted)
    try:
        usual = tuple(count for count in _DRAFT_TOKENS if count <= drafter.max_nodes_per_step)
        plan = _plan(wanted, named.context, usual)
        if max(plan.tokens) > drafter.max_nodes_per_step:
            raise ConfigError(f"{max(plan.tokens)} tokens in a step; this drafter takes {drafter.max_nodes_per_step}")
        taken = await measure_drafter(
            drafter, plan, vocab_size=named.vocab_size, context=named.context, progress=progress
        )
        host_s = await drafter_host_s(drafter, vocab_size=named.vocab_size, context=named.context)
        host = _host(await drafter_wake(drafter, vocab_size=named.vocab_size, context=named.context))
    finally:
        await drafter.close()
    steps, prefill = _fit(taken.steps, host_s), _fit(taken.prefills, 0.0)
    machine = this_machine(wanted.options, wanted.machine)
    profile = DraftProfile(
        name=wanted.name,
        title=f"{named.name} as a draft on {machine.device}",
        notes=_notes(wanted, {"draft_step": steps, "prefill": prefill}, ()),
        kind="draft",
        model=Model(name=named.name, digest=named.digest, layers=named.layers),
        machine=machine,
        draft_step=steps.curve,
        prefill=prefill.curve,
        host=host,
        residual=Residual(cv=round(variation(taken.steps.fitted), 4)),
    )
    return Measured(
        _sourced(profile, machine, wanted),
        {"draft_step": steps, "prefill": prefill},
        variation(taken.steps.fitted),
        {},
    )


def _host(wake: tuple[float, float], opening_s: float = 0.0) -> Host:
    """What rests and beginnings cost. What messages cost shows in sessions only: ``foredraft validate`` finds it."""
    wake_s, wake_half_s = wake
    return Host(wake_s=round(wake_s, 7), wake_half_s=round(wake_half_s, 5), opening_s=round(opening_s, 7))


def _plan(wanted: Wanted, longest: int, tokens: tuple[int, ...]) -> Plan:
    """What was asked for; else a spread over the model's context."""
    contexts = wanted.contexts or (1, longest // 4, longest * 3 // 4)
    return Plan(tuple(sorted(set(wanted.tokens or tokens))), tuple(sorted(set(contexts))), wanted.repeats)


def _fit(taken: Taken, host_s: float) -> Fit:
    """The curve of what was taken, with the session's own part of each call."""
    found = fit_curve(taken.fitted, taken.held_out, _reach(taken.fitted, taken.held_out))
    curve = spread_over(found.curve, host_s)
    return Fit(msgspec.structs.replace(curve, host_s=round(host_s, 7)), found.points, found.held_out)


def _reach(*several: Samples) -> Range:
    calls = [call for samples in several for call in samples]
    return Range(
        new_tokens=(min(call.new_tokens for call in calls), max(call.new_tokens for call in calls)),
        context=(0, max(call.context for call in calls)),
        batch=(1, max(call.batch for call in calls)),
    )


def _hints(spoken: Spoken, model: Model) -> dict[int, Hint]:
    return {
        layer: Hint(median(shares), share_after(model, layer, model.layers), len(shares))
        for layer, shares in sorted(spoken.shares.items())
    }


def _notes(wanted: Wanted, fits: Mapping[str, Fit], left_out: Sequence[str]) -> str:
    lines = ["Measured as the session sees it: thread hops are in it; host_s is what the session adds to each call."]
    for name, fit in fits.items():
        lines.append(
            f"{name}: {len(fit.held_out)} held-out points, off by {fit.median_error:.1%} (median), "
            f"{fit.worst_error:.1%} (worst)."
        )
    if wanted.shape:
        lines.append(f"The weights of this {wanted.shape} are random: only its times are claimed.")
    if max(wanted.batches) > 1:
        lines.append("Batches are forwards of the engine that several sessions shared, each with a text of its own.")
    return "\n".join([*lines, *(f"Not measured: {one}." for one in left_out)]) + "\n"


def _sourced(profile: DeviceProfile, machine: Machine, wanted: Wanted) -> DeviceProfile:
    """The profile with a provenance for each of its numbers."""
    weights = ", random weights" if wanted.shape else ""
    how = f"on {machine.device}, {machine.settings}{weights}, {machine.measured}"
    medians = Provenance("measured", f"fitted to medians of {wanted.repeats} calls each, {how}")
    chosen = Provenance("measured", f"where it was measured, {how}")
    spread = Provenance("measured", f"median absolute deviation of the calls, scaled to sigma, {how}")
    host = Provenance("measured", f"median from one call's end to the next's begin in a session in memory, {how}")
    exits = Provenance("measured", f"passes with exits beside passes without, and when the exits spoke, {how}")
    given = Provenance("published", "the model's configuration")
    rested = Provenance("measured", f"calls after rests of 2 to 100 ms beside calls after calls, {how}")
    sources = {"layers": given, "host_s": host, "cv": spread, "head_share": exits, "exit_s": exits}
    begun = Provenance("measured", f"median from a request to the session's place at the target, in memory, {how}")
    sources |= {"wake_s": rested, "wake_half_s": rested, "opening_s": begun}
    axes = ("new_tokens", "context", "batch")
    plain = msgspec.to_builtins(msgspec.structs.replace(profile, provenance={}, path=None))
    provenance = {}
    for at, value in _numbers(plain, ""):
        key = at.rsplit(".", 1)[-1]
        if value or key not in _ZERO_BY_DEFAULT:  # what nothing was found of is left out of the file
            provenance[at] = chosen if key in axes else sources.get(key, medians)
    return msgspec.structs.replace(profile, provenance=provenance)


def _numbers(plain: Any, at: str) -> list[tuple[str, Any]]:
    """The dotted paths and values of all numbers and lists of numbers."""
    if isinstance(plain, Mapping):
        return [found for key, value in plain.items() for found in _numbers(value, f"{at}.{key}" if at else key)]
    is_number = isinstance(plain, int | float | list | tuple) and not isinstance(plain, bool)
    return [(at, plain)] if is_number and plain != [] else []
