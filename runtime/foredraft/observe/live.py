"""What happens at this moment: the last seconds of every text at one end, heard as its observer.

It keeps token counts and moments; tokens themselves only where they may be shown.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from foredraft.observe.record.frames import Noted
from foredraft.observe.timeline import Commit, Span, Timeline, timeline
from foredraft.protocol.counters import Counters
from foredraft.protocol.events import Event

KEPT_S: Final = 10.0
MOST_EVENTS: Final = 4096
"""Of one text."""
MOST_TEXTS: Final = 256
SHOWN_TOKENS: Final = 128


@dataclass(slots=True)
class _Text:
    number: int
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    tokens: int = 0
    last: deque[int] = field(default_factory=lambda: deque(maxlen=SHOWN_TOKENS))
    hints: list[tuple[int, list[int]]] = field(default_factory=list)  # since the last commit: layer, tokens


class Live:
    """Hears the events of one end (``observe``), and tells of the last ``KEPT_S`` seconds.

    ``counters`` are counted here from an edge's events; a cloud counts its own. ``round_trip_s``: at an edge, to
    place what the cloud did. ``keep_tokens``: whether the last tokens of texts are kept.
    """

    def __init__(
        self,
        counters: Counters | None = None,
        round_trip_s: Callable[[], float] = lambda: 0.0,
        *,
        keep_tokens: bool = False,
    ) -> None:
        self._counts = counters is None
        self.counters = counters or Counters()
        self.round_trip_s = round_trip_s
        self.keeps_tokens = keep_tokens
        self._texts: dict[str, _Text] = {}  # the one that was heard of last at the end
        self._begun = 0

    def observe(self, event: Event) -> None:
        """Take an event in."""
        text = self._texts.pop(event.session, None)
        if text is None:
            self._begun += 1
            text = _Text(self._begun)
        self._texts[event.session] = text
        text.events.append(event)
        self._forget(event.t_s - KEPT_S)
        while text.events[0].t_s < event.t_s - KEPT_S:
            text.events.popleft()
        tokens = event.data.get("tokens")
        if event.kind in ("commit", "verdict") and isinstance(tokens, list):
            self._committed(text, event, tokens)
        elif event.kind == "hint" and isinstance(tokens, list):
            text.hints.append((int(_number(event, "layer")), tokens))

    def _forget(self, before_s: float) -> None:
        """Texts of which nothing was heard since, and those that are too many."""
        while True:
            name, oldest = next(iter(self._texts.items()))
            if oldest.events[-1].t_s >= before_s and len(self._texts) <= MOST_TEXTS:
                return
            del self._texts[name]

    def _committed(self, text: _Text, event: Event, tokens: list[int]) -> None:
        text.tokens += len(tokens)
        if self.keeps_tokens:
            text.last += tokens
        if not self._counts:
            return
        drafted, accepted = int(_number(event, "drafted")), int(_number(event, "accepted"))
        self.counters.passed(len(tokens), drafted, accepted, _number(event, "pass_s"))
        for layer, predicted in text.hints:
            self.counters.judge(layer, predicted, tokens)
        text.hints.clear()

    def texts(self) -> list[dict[str, Any]]:
        """The texts of which something was heard lately, the youngest first; ``idle_s``: since then."""
        now_s = asyncio.get_running_loop().time()
        last = [(text.number, name, text.tokens, now_s - text.events[-1].t_s) for name, text in self._texts.items()]
        fresh = sorted((one for one in last if one[3] <= KEPT_S), reverse=True)
        return [{"name": name, "tokens": tokens, "idle_s": idle_s} for _, name, tokens, idle_s in fresh]

    def last_tokens(self, name: str) -> list[int]:
        """The last tokens of a text, where they are kept."""
        return list(self._texts[name].last) if name in self._texts else []

    def lanes(self, name: str, last_s: float = KEPT_S) -> dict[str, Any]:
        """The last seconds of a text: spans (lane, kind, begin, end) and commits (moment, tokens); moments in
        seconds before now."""
        now_s = asyncio.get_running_loop().time()
        text = self._texts.get(name)
        events = [event for event in text.events if event.t_s >= now_s - last_s] if text else []
        if events and events[0].where == "edge":
            first_s, seen = events[0].t_s, _seen_from_edge(events, self.round_trip_s())
        else:
            first_s, seen = now_s, _seen_from_cloud(events, now_s)
        past_s = now_s - first_s
        return {
            "spans": [[one.lane, one.kind, past_s - one.start_s, past_s - one.end_s] for one in seen.spans],
            "commits": [[past_s - one.at_s, one.tokens] for one in seen.commits],
        }


def _seen_from_edge(events: list[Event], round_trip_s: float) -> Timeline:
    return timeline([noted for event in events for noted in _noted(event)], round_trip_s)


def _noted(event: Event) -> Iterator[Noted]:
    """An edge's event as a record has it, with the message that it was about."""
    t_s, data = event.t_s, event.data
    if event.kind == "ship":
        yield Noted(0, 0, t_s, "uplink", "Grow", {"sent_s": t_s})
    elif event.kind in ("hint", "commit"):
        yield Noted(0, 0, t_s, "downlink", event.kind.capitalize(), {})
    yield Noted(0, 0, t_s, "edge", event.kind, data)


def _seen_from_cloud(events: list[Event], origin_s: float) -> Timeline:
    """A cloud knows its own lane: passes, the exits in them, and when commits left."""
    spans, commits = [], []
    for event in events:
        at_s = event.t_s - origin_s
        if event.kind == "exit":
            spans.append(Span("cloud", "hint", at_s, at_s))
        elif event.kind == "verdict":
            spans.append(Span("cloud", "pass", at_s - _number(event, "pass_s"), at_s))
            tokens = event.data["tokens"]
            commits.append(Commit(at_s, len(tokens) if isinstance(tokens, list) else 0))
    return Timeline(tuple(spans), tuple(commits))


def _number(event: Event, name: str) -> float:
    value = event.data.get(name, 0)
    return value if isinstance(value, int | float) else 0.0
