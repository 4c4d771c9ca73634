"""What an edge alone has seen of a session, completed by what must have happened at the other end.

Only the edge's clock is used, since clocks of two machines must not be subtracted. What the cloud did is
placed by the durations that its commits carry and by half of the round trip before a message arrived; so
the two directions of the link are taken to be alike.
"""

from collections.abc import Iterator, Sequence
from statistics import median

import msgspec

from foredraft.observe.record.frames import Noted


def round_trip_s(noted: Sequence[Noted]) -> float:
    """The median round trip that the commits close, the cloud's own time left out; 0 where none did."""
    trips_s = [one.data["round_trip_s"] for one in noted if "round_trip_s" in one.data]
    return median(trips_s) if trips_s else 0.0


def placed(noted: Sequence[Noted], one_way_s: float) -> list[Noted]:
    """Everything in the order of time: messages with both of their ends, and the cloud's passes and exits.

    What was noted at both ends stays as it is.
    """
    known = {one.session for one in noted if one.where == "cloud"}
    came_s: dict[int, float] = {}  # when the session's last message came, of which its next event tells
    found: list[Noted] = []
    for one in noted:
        if one.session in known:
            found.append(one)
            continue
        if one.where == "downlink":
            came_s[one.session] = one.t_s
        found += _placed(one, one_way_s, came_s.get(one.session, one.t_s) - one_way_s)
    return sorted(found, key=lambda one: one.t_s)


def _placed(one: Noted, one_way_s: float, left_s: float) -> Iterator[Noted]:
    """``one``, and what it tells of the cloud, which said so at ``left_s``."""
    moved = msgspec.structs.replace
    match one.where, one.kind:
        case "uplink", _:
            yield moved(one, t_s=one.data["sent_s"] + one_way_s)
        case "downlink", _:
            yield moved(one, data=one.data | {"sent_s": left_s})
        case "edge", "hint":
            told = {"position": one.data["position"], "layer": one.data["layer"]}
            yield one
            yield moved(one, t_s=left_s, where="cloud", kind="exit", data=told)
        case "edge", "commit":
            yield one
            yield moved(one, t_s=left_s, where="cloud", kind="verdict")
        case _:
            yield one
