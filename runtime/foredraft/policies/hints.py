"""Which exits are worth asking, and for which of their hints."""

from foredraft.edge.state import EdgeState

PROBE_EVERY = 32
PROBE_TOKENS = 8
"""Of each 32 tokens the first 8 serve to see whether what was given up has become of use."""


def probing(state: EdgeState) -> bool:
    """Whether this is the time to try what was given up."""
    return (state.position - state.start) % PROBE_EVERY < PROBE_TOKENS


def worth_asking(state: EdgeState, least: float) -> tuple[tuple[int, ...], float]:
    """The layers to ask for hints that are right with probability ``least`` or more, and the threshold for that.

    The threshold is in the exits' own words, and the lowest that any of the layers needs. A layer whose hints
    are right too seldom, whatever it says, is left out, but for probes.
    """
    ready = state.ready
    if ready is None or not ready.exits:
        return (), least
    floors = {layer: state.estimates.hint_floor(layer, least) for layer in ready.exits}
    useful = {layer: floor for layer, floor in floors.items() if floor is not None}
    if probing(state) and (len(useful) < len(floors) or max(useful.values(), default=0.0) > least):
        return ready.exits, least
    return tuple(useful), min(useful.values(), default=least)
