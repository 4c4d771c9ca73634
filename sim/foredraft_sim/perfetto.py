"""A Chrome trace of replications, for ui.perfetto.dev or chrome://tracing.

Every device and every server is a process. A device has a thread for drafting and some for what is
on its way up and down; a server has one per request for passes, with marks where exits spoke.
Arrows go from a draft to the pass that verifies it and on to the commit's arrival. Slices of one
thread never overlap: messages that are under way together take a thread each.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from foredraft_sim.emulation import Replication

Line = dict[str, Any]

_US = 1e6
_DRAFT, _UP, _DOWN = 0, 100, 200  # numbers of a device's threads; messages take lanes from there on


def chrome_trace(replications: Sequence[Replication]) -> bytes:
    """The trace of these replications, made with their logs: one after another, each a group of processes."""
    drawn: list[Line] = []
    decoder = msgspec.json.Decoder()
    pids = 0
    for one in replications:
        picture = _Picture(one.policy, pids)
        for line in decoder.decode_lines(one.log):
            picture.take(line)
        drawn += picture.events
        pids += picture.count
    return json.dumps({"traceEvents": drawn, "displayTimeUnit": "ms"}, separators=(",", ":")).encode()


@dataclass(slots=True)
class _Request:
    """What the arrows of a request still need."""

    draft: Line | None = None  # the slice of the last draft step
    shipped: Line | None = None  # the one before the last shipment, if no pass has taken it up yet
    arrow: int | None = None  # the arrow that is at a pass and waits for its commit


class _Picture:
    """Draws one replication."""

    def __init__(self, policy: str, first_pid: int) -> None:
        self.events: list[Line] = []
        self._policy = policy
        self._first_pid = first_pid
        self._pids: dict[str, int] = {}
        self._threads: set[tuple[int, int]] = set()
        self._lanes: dict[tuple[int, int], list[float]] = {}  # per lane, when it is free again
        self._requests: dict[int, _Request] = {}
        self._arrows = 0

    @property
    def count(self) -> int:
        """How many processes it has."""
        return len(self._pids)

    def take(self, line: Line) -> None:
        """Draw one line of the log."""
        request = self._requests.setdefault(line["request"], _Request())
        kind, where, data = line["kind"], line["where"], line["data"]
        if where in ("uplink", "downlink"):
            self._message(line, request)
        elif kind == "draft":
            place = self._thread(f"device {line['place']}", _DRAFT, "drafting")
            request.draft = self._slice(place, "draft", data["began_s"], line)
        elif kind == "ship":
            request.shipped = request.draft
        elif kind == "exit":
            self._draw(self._passes(line), "i", f"exit, layer {data['layer']}", line["t_s"], s="t")
        elif kind == "verdict":
            self._verdict(line, request)

    def _message(self, line: Line, request: _Request) -> None:
        device, where, sent_s = f"device {line['place']}", line["where"], line["data"]["sent_s"]
        first = _UP if where == "uplink" else _DOWN
        lanes = self._lanes.setdefault((line["place"], first), [])
        lane = next((index for index, free_s in enumerate(lanes) if free_s <= sent_s), len(lanes))
        lanes[lane : lane + 1] = [line["t_s"]]
        place = self._thread(device, first + lane, f"{where} {lane + 1}" if lane else where)
        drawn = self._slice(place, line["kind"], sent_s, line)
        if line["kind"] == "Commit" and request.arrow is not None:
            self._arrow("f", request.arrow, drawn, bp="e")
            request.arrow = None

    def _verdict(self, line: Line, request: _Request) -> None:
        drawn = self._slice(self._passes(line), "pass", line["t_s"] - line["data"]["pass_s"], line)
        if request.shipped is None:
            return
        self._arrows += 1
        request.arrow = self._first_pid * 1_000_000 + self._arrows
        self._arrow("s", request.arrow, request.shipped)
        self._arrow("t", request.arrow, drawn)
        request.shipped = None

    def _passes(self, line: Line) -> tuple[int, int]:
        return self._thread(f"server {line['place']}", line["request"], f"passes of request {line['request']}")

    def _thread(self, process: str, tid: int, name: str) -> tuple[int, int]:
        """A thread of a process, both made known when they are first used."""
        if process not in self._pids:
            self._pids[process] = self._first_pid + len(self._pids)
            self._draw((self._pids[process], 0), "M", "process_name", 0.0, args={"name": f"{self._policy}: {process}"})
        place = self._pids[process], tid
        if place not in self._threads:
            self._threads.add(place)
            self._draw(place, "M", "thread_name", 0.0, args={"name": name})
        return place

    def _slice(self, place: tuple[int, int], name: str, start_s: float, line: Line) -> Line:
        """Something that took until the time of ``line``, which tells the details."""
        args = {"request": line["request"]} | line["data"]
        dur = round((line["t_s"] - start_s) * _US, 3)
        return self._draw(place, "X", name, start_s, dur=dur, cat=line["where"], args=args)

    def _arrow(self, phase: str, number: int, at: Line, **more: Any) -> None:
        """A part of an arrow, bound to the slice ``at`` by lying at its start."""
        place = at["pid"], at["tid"]
        self._draw(place, phase, "verified", at["ts"] / _US, cat="verified", id=number, **more)

    def _draw(self, place: tuple[int, int], phase: str, name: str, at_s: float, **more: Any) -> Line:
        pid, tid = place
        drawn: Line = {"ph": phase, "pid": pid, "tid": tid, "ts": round(at_s * _US, 3), "name": name, **more}
        self.events.append(drawn)
        return drawn
