"""What would move a plan most: the same fleet with one thing a fifth better, and what that does to each objective."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from foredraft_sim.scenario.scenario import Scenario

BETTER = 0.8
"""Of what it took before."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def better(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    """The scenario with one thing better each time, and what that is."""
    yield "the server's passes and prefills a fifth shorter", replace(scenario, target=_quicker(scenario.target))
    yield "the device's draft steps a fifth shorter", replace(scenario, draft=_quicker(scenario.draft))
    ways = {way: _nearer(getattr(scenario.link, way)) for way in ("up", "down")}
    yield "the link's delays a fifth shorter", replace(scenario, link=msgspec.structs.replace(scenario.link, **ways))


def _quicker(profile: _Struct) -> _Struct:
    """A device's profile whose curves take so much less."""
    curves = {
        name: _scaled(value)
        for name in profile.__struct_fields__
        if isinstance(value := getattr(profile, name), msgspec.Struct) and hasattr(value, "range") and name != "range"
    }
    return msgspec.structs.replace(profile, **curves)


def _scaled(curve: Any) -> Any:
    """A curve, each of whose seconds is so much less."""

    def less(value: Any) -> Any:
        return tuple(map(less, value)) if isinstance(value, tuple) else value * BETTER

    seconds = {name: less(getattr(curve, name)) for name in curve.__struct_fields__ if name.endswith("_s")}
    return msgspec.structs.replace(curve, **seconds)


def _nearer(way: Any) -> Any:
    return msgspec.structs.replace(way, delay_s=way.delay_s * BETTER, jitter_s=way.jitter_s * BETTER)


Measure = Callable[[Sequence[Scenario]], Sequence[Mapping[str, float]]]
"""The metrics of each."""


def influences(
    scenario: Scenario, objectives: Mapping[str, float], measure: Measure
) -> list[tuple[str, dict[str, float]]]:
    """Of each thing that might be better: the objectives' metrics then, over those of the scenario as it is."""
    changed = dict(better(scenario))
    before, *afters = measure([scenario, *changed.values()])
    return [
        (says, {name: after[name] / before[name] for name in objectives if before[name]})
        for says, after in zip(changed, afters, strict=True)
    ]
