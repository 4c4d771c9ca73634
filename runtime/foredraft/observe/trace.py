"""A Chrome trace of recorded sessions, for ui.perfetto.dev or chrome://tracing.

Every device and every server is a process. A device has a thread for drafting and some for what is on its
way up and down; a server has, per session, one for passes, one for their layers and one for exits.
Arrows go from a draft step to the message that ships it, to the pass that verifies it, and on to
the commit. What was drafted and never accepted has a name and a category of its own: "wasted". Slices of
one thread never overlap: messages that are under way together take a thread each.
"""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from foredraft.observe.record.cloud_side import placed, round_trip_s
from foredraft.observe.record.frames import Asked, Noted
from foredraft.observe.record.reading import Record, RecordedSession
from foredraft.protocol.anchor import ORIGIN, Anchor

Drawn = dict[str, Any]

_US: Final = 1e6
_DRAFT, _UP, _DOWN = 0, 100, 200  # numbers of a device's threads; messages take lanes from there on
_PASSES, _LAYERS, _EXITS = 0, 1, 2  # of a server's, three for each session
_TICK_S: Final = 1e-6
_WASTED: Final = "terrible"
"""The colour of waste in chrome://tracing; Perfetto colours by name."""


def chrome_trace(records: Sequence[Record]) -> bytes:
    """The trace of these records: one after another, each a group of processes."""
    drawn: list[Drawn] = []
    pids = 0
    for record in records:
        picture = _Picture(record, pids)
        drawn += picture.events
        pids += picture.count
    return json.dumps({"traceEvents": drawn, "displayTimeUnit": "ms"}, separators=(",", ":")).encode()


@dataclass(slots=True)
class _Accepted:
    """Which draft nodes of a session came to be text, and which draft steps said them."""

    nodes: set[Anchor]
    asked: deque[Asked]

    def of_step(self, until_s: float) -> tuple[int, int] | None:
        """Of the step that ends at ``until_s``: how many of its guesses became text, of how many; None: not known."""
        right = made = 0
        known = False
        while self.asked and self.asked[0].t_s <= until_s:
            one = self.asked.popleft()
            parent = Anchor(one.position, one.hash)
            known = True
            made += len(one.guesses)
            right += sum(parent.then(token) in self.nodes for token, _ in one.guesses)
        return (right, made) if known else None

    def of_chain(self, position: int, tokens: Sequence[int], text: Sequence[int], start: int) -> int:
        """How many tokens of a chain that was shipped below ``position`` are the text's."""
        said = text[position - start : position - start + len(tokens)] if position >= start else ()
        return sum(ours == theirs for ours, theirs in zip(tokens, said, strict=False))


def _accepted(session: RecordedSession) -> _Accepted:
    """From the commits: ``accepted`` of the tokens of each were draft nodes."""
    start = session.began.prompt_tokens
    taken: set[int] = set()
    for one in session.noted:
        if (one.where, one.kind) == ("edge", "commit"):
            taken.update(range(one.data["position"], one.data["position"] + one.data["accepted"]))
    anchor, nodes = ORIGIN.after(session.prompt), set()
    for position, token in enumerate(session.tokens, start):
        anchor = anchor.then(max(0, token))
        if position in taken:
            nodes.add(anchor)
    return _Accepted(nodes, deque(one for one in session.asked if one.where == "edge"))


@dataclass(slots=True)
class _Session:
    """What is still needed to draw the rest of a session."""

    recorded: RecordedSession
    accepted: _Accepted
    draft: Drawn | None = None  # the last draft step
    ships: deque[tuple[Drawn | None, bool]] = field(default_factory=deque)  # shipments not arrived: step, waste
    waiting: list[Drawn] = field(default_factory=list)  # slices that an arrow to the next pass begins with
    there_s: float = 0.0  # when what they brought was at the cloud
    arrow: list[Drawn] = field(default_factory=list)  # slices of an arrow that waits for its commit
    exits: list[Noted] = field(default_factory=list)  # that have spoken in the pass that runs
    nodes: int = 0  # draft nodes in it


class _Picture:
    """Draws one record."""

    def __init__(self, record: Record, first_pid: int) -> None:
        self.events: list[Drawn] = []
        self._policy = record.setup.policy
        self._layers = record.setup.models.layers
        self._first_pid = first_pid
        self._pids: dict[str, int] = {}
        self._threads: dict[tuple[int, int], float] = {}  # when each is free again
        self._lanes: dict[tuple[int, int], list[float]] = {}  # per lane, when it is free again
        self._arrows = 0
        self._sessions = {one.number: _Session(one, _accepted(one)) for one in record.sessions}
        self._exact = record.setup.simulated  # both ends were heard, by one clock
        noted = record.noted if self._exact else placed(record.noted, round_trip_s(record.noted) / 2)
        starts_s = [one.began.began_s for one in record.sessions]
        self._origin_s = 0.0 if self._exact else min(starts_s, default=0.0)
        for one in noted:
            self._take(one, self._sessions[one.session])

    @property
    def count(self) -> int:
        """How many processes it has."""
        return len(self._pids)

    def _take(self, one: Noted, session: _Session) -> None:
        match one.where, one.kind:
            case (("uplink" | "downlink"), _):
                self._message(one, session)
            case "edge", "draft":
                self._draft(one, session)
            case "edge", "ship":
                session.ships.append((session.draft, self._is_waste(one, session)))
            case "edge", "beside" if session.ships:  # in the same message
                step, wasted = session.ships[-1]
                session.ships[-1] = step, wasted and self._is_waste(one, session)
            case "edge", ("connect" | "retry"):
                session.ships.clear()  # what was on its way is lost
                place = self._thread(f"device {one.place}", _DRAFT, "drafting")
                self._draw(
                    place, "i", "connected" if one.kind == "connect" else "link lost", one.t_s, s="t", args=one.data
                )
            case "cloud", "pass":
                session.nodes, session.exits = one.data["nodes"], []
            case "cloud", "exit":
                session.exits.append(one)
                self._draw(self._server(one, _EXITS, "exits"), "i", f"exit, layer {one.data['layer']}", one.t_s, s="t")
            case "cloud", "verdict":
                self._verdict(one, session)

    def _is_waste(self, ship: Noted, session: _Session) -> bool:
        tokens = ship.data["tokens"]
        if not isinstance(tokens, list):
            return False  # private: not known
        recorded = session.recorded
        start = recorded.began.prompt_tokens
        return not session.accepted.of_chain(ship.data["position"], tokens, recorded.tokens, start)

    def _draft(self, one: Noted, session: _Session) -> None:
        found = session.accepted.of_step(one.t_s)
        place = self._thread(f"device {one.place}", _DRAFT, "drafting")
        wasted = found is not None and found[0] == 0
        more = {} if found is None else {"accepted": found[0], "guessed": found[1]}
        session.draft = self._slice(place, "draft", one.data["began_s"], one, wasted=wasted, more=more)

    def _message(self, one: Noted, session: _Session) -> None:
        sent_s, up = one.data["sent_s"], one.where == "uplink"
        lanes = self._lanes.setdefault((one.place, _UP if up else _DOWN), [])
        lane = next((index for index, free_s in enumerate(lanes) if free_s <= sent_s), len(lanes))
        lanes[lane : lane + 1] = [one.t_s]
        number = (_UP if up else _DOWN) + lane
        place = self._thread(f"device {one.place}", number, f"{one.where} {lane + 1}" if lane else one.where)
        step, wasted = session.ships.popleft() if one.kind in ("Open", "Grow") and session.ships else (None, False)
        drawn = self._slice(place, one.kind, sent_s, one, wasted=wasted)
        if step is not None and not session.waiting:
            session.waiting = [step, drawn]
            session.there_s = one.t_s if self._exact else (sent_s + one.t_s) / 2  # a link's two ways differ
        if one.kind == "Commit" and session.arrow:
            self._arrow([*session.arrow, drawn])
            session.arrow = []

    def _verdict(self, one: Noted, session: _Session) -> None:
        place = self._server(one, _PASSES, "passes")
        began_s = max(one.t_s - one.data["pass_s"], self._threads[place])
        nodes = one.data.get("drafted", session.nodes)
        tokens = one.data["tokens"]
        accepted = min(nodes, (len(tokens) if isinstance(tokens, list) else tokens) - 1)
        more = {"drafted": nodes, "accepted": one.data.get("accepted", accepted)}
        wasted = nodes > 0 and more["accepted"] == 0
        drawn = self._slice(place, "pass", began_s, one, wasted=wasted, more=more)
        self._segments(one, began_s, session)
        if session.waiting and session.there_s <= began_s + _TICK_S:  # else it came in the middle of the pass
            session.arrow, session.waiting = [*session.waiting, drawn], []
        session.nodes, session.exits = 0, []

    def _segments(self, verdict: Noted, began_s: float, session: _Session) -> None:
        """The layers of a pass, up to each exit that spoke and to the end."""
        place, below, from_s = self._server(verdict, _LAYERS, "layers"), 0, began_s
        spoke = [(one.data["layer"], one.t_s) for one in session.exits if began_s <= one.t_s <= verdict.t_s]
        for layer, until_s in [*spoke, (self._layers, verdict.t_s)]:
            if layer > below and until_s >= from_s:
                dur = round((until_s - from_s) * _US, 3)
                self._draw(place, "X", f"layers {below + 1}-{layer}", from_s, dur=dur, cat="layers")
                below, from_s = layer, until_s

    def _server(self, one: Noted, kind: int, name: str) -> tuple[int, int]:
        place = one.place if one.where == "cloud" else 0
        return self._thread(f"server {place}", 3 * one.session + kind, f"{name} of request {one.session}")

    def _thread(self, process: str, tid: int, name: str) -> tuple[int, int]:
        """A thread of a process, both made known when they are first used."""
        if process not in self._pids:
            self._pids[process] = self._first_pid + len(self._pids)
            self._meta((self._pids[process], 0), "process_name", f"{self._policy}: {process}")
        place = self._pids[process], tid
        if place not in self._threads:
            self._threads[place] = 0.0
            self._meta(place, "thread_name", name)
        return place

    def _meta(self, place: tuple[int, int], kind: str, name: str) -> None:
        self.events.append({"ph": "M", "pid": place[0], "tid": place[1], "name": kind, "args": {"name": name}})

    def _slice(
        self,
        place: tuple[int, int],
        name: str,
        start_s: float,
        one: Noted,
        *,
        wasted: bool = False,
        more: dict[str, Any] | None = None,
    ) -> Drawn:
        """Something that took until the time of ``one``, which tells the details."""
        self._threads[place] = one.t_s
        args = {"request": one.session} | one.data | (more or {})
        dur = round(max(0.0, one.t_s - start_s) * _US, 3)
        if wasted:
            return self._draw(place, "X", f"{name} (wasted)", start_s, dur=dur, cat="wasted", cname=_WASTED, args=args)
        return self._draw(place, "X", name, start_s, dur=dur, cat=one.where, args=args)

    def _arrow(self, slices: Sequence[Drawn]) -> None:
        """An arrow from slice to slice, bound to each by lying at its start."""
        number = self._first_pid * 1_000_000 + self._arrows
        self._arrows += 1
        for phase, at in zip(["s", *"t" * (len(slices) - 2), "f"], slices, strict=True):
            arrow = {
                "ph": phase,
                "pid": at["pid"],
                "tid": at["tid"],
                "ts": at["ts"],
                "name": "verified",
                "cat": "verified",
            }
            self.events.append(arrow | {"id": number} | ({"bp": "e"} if phase == "f" else {}))

    def _draw(self, place: tuple[int, int], phase: str, name: str, at_s: float, **more: Any) -> Drawn:
        pid, tid = place
        at_us = round((at_s - self._origin_s) * _US, 3)
        drawn: Drawn = {"ph": phase, "pid": pid, "tid": tid, "ts": at_us, "name": name, **more}
        self.events.append(drawn)
        return drawn
