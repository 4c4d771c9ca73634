"""What every trace must keep to, whatever it shows."""

from itertools import pairwise
from typing import Any

import msgspec

Drawn = dict[str, Any]


def checked(trace: bytes) -> list[Drawn]:
    """The trace's events, which keep to what Perfetto asks of them."""
    events: list[Drawn] = msgspec.json.decode(trace)["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    for event in events:
        if event["ph"] != "M":
            assert event["ts"] >= 0.0, event
    assert all(event["dur"] >= 0.0 for event in slices)
    _every_track_is_named(events)
    _slices_do_not_overlap(slices)
    _arrows_are_whole(events, slices)
    return events


def names(events: list[Drawn], phase: str) -> set[str]:
    """The names of the events of a phase; of metadata, the names that it gives."""
    return {event["args"]["name"] if phase == "M" else event["name"] for event in events if event["ph"] == phase}


def _every_track_is_named(events: list[Drawn]) -> None:
    tracks = {(event["pid"], event["tid"]) for event in events if event["ph"] != "M"}
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert tracks <= named
    assert {pid for pid, _ in tracks} <= {event["pid"] for event in events if event["name"] == "process_name"}


def _slices_do_not_overlap(slices: list[Drawn]) -> None:
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in slices:
        tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["dur"]))
    for track in tracks.values():
        track.sort()
        assert all(start + dur <= after + 0.01 for (start, dur), (after, _) in pairwise(track))


def _arrows_are_whole(events: list[Drawn], slices: list[Drawn]) -> None:
    starts = {(event["pid"], event["tid"], event["ts"]) for event in slices}
    arrows: dict[int, list[Drawn]] = {}
    for event in events:
        if event["ph"] in "stf":
            arrows.setdefault(event["id"], []).append(event)
            assert (event["pid"], event["tid"], event["ts"]) in starts
    for parts in arrows.values():
        assert [part["ph"] for part in parts] == ["s", *"t" * (len(parts) - 2), "f"]
        assert all(one["ts"] <= after["ts"] + 0.01 for one, after in pairwise(parts))
