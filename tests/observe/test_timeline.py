"""What was noted becomes lanes: by the edge's clock, the cloud's durations and half of the round trip."""

from pathlib import Path
from typing import Any

import pytest

from foredraft.errors import ConfigError
from foredraft.observe.picture import draw
from foredraft.observe.record.frames import Noted
from foredraft.observe.timeline import Span, Timeline, timeline


def edge(t_s: float, kind: str, **data: Any) -> Noted:
    return Noted(0, 0, t_s, "edge", kind, data)


def grow(t_s: float) -> list[Noted]:
    message = Noted(0, 0, t_s, "uplink", "Grow", {"sent_s": t_s, "bytes": 20})
    return [edge(t_s, "ship", position=0, tokens=[7]), message]


def came(t_s: float, kind: str) -> Noted:
    return Noted(0, 0, t_s, "downlink", kind, {"bytes": 20})


def commit(t_s: float, tokens: list[int], pass_s: float, prefill_s: float = 0.0) -> list[Noted]:
    told = edge(t_s, "commit", tokens=tokens, pass_s=pass_s, prefill_s=prefill_s, queue_s=0.0)
    return [came(t_s, "Commit"), told]


SESSION = [
    edge(10.0, "open"),
    edge(10.2, "draft", began_s=10.1),
    *grow(10.2),
    came(10.5, "Hint"),
    edge(10.5, "hint", position=0, layer=2, tokens=[7]),
    edge(10.6, "draft", began_s=10.5),
    *commit(10.7, [7, 8], pass_s=0.3, prefill_s=0.05),
    edge(10.8, "draft", began_s=10.7),
    *grow(10.8),
    *commit(11.3, [9], pass_s=0.3),
]


def spans(session: Timeline) -> set[tuple[str, str, float, float]]:
    return {(span.lane, span.kind, round(span.start_s, 6), round(span.end_s, 6)) for span in session.spans}


def test_each_event_is_placed_in_its_lane() -> None:
    assert spans(timeline(SESSION, round_trip_s=0.2)) == {
        ("edge", "draft", 0.1, 0.2),
        ("uplink", "tokens", 0.2, 0.3),
        ("downlink", "hint", 0.4, 0.5),
        ("edge", "ahead", 0.5, 0.6),
        ("cloud", "prefill", 0.25, 0.3),
        ("cloud", "pass", 0.3, 0.6),
        ("downlink", "commit", 0.6, 0.7),
        ("edge", "draft", 0.7, 0.8),
        ("uplink", "tokens", 0.8, 0.9),
        ("cloud", "pass", 0.9, 1.2),
        ("downlink", "commit", 1.2, 1.3),
    }


def test_tokens_are_counted_when_they_become_text() -> None:
    session = timeline(SESSION, round_trip_s=0.2)
    assert [commit.tokens for commit in session.commits] == [2, 1]
    assert session.tokens_between(0.0, 1.0) == 2
    assert session.tokens_between(0.75, 1.35) == 1


def test_a_typical_window_has_the_pace_of_the_session() -> None:
    slow, fast = [1] * 10, [9] * 10
    noted = [edge(0.0, "open")]
    for at, count in enumerate(slow + fast):
        noted += commit(float(at + 1), [0] * count, pass_s=0.1)
    session = timeline(noted, round_trip_s=0.0)
    start_s = session.typical_start_s(4.0)
    assert session.tokens_between(start_s, start_s + 4.0) in range(12, 29)  # the mean is 20


@pytest.mark.parametrize("noted", [[], [edge(1.0, "open")], SESSION[:8]])
def test_short_sessions_have_a_window_too(noted: list[Noted]) -> None:
    session = timeline(noted, round_trip_s=0.1)
    assert session.typical_start_s(5.0) == (session.commits[0].at_s if session.commits else 0.0)


def test_a_picture_is_drawn_of_several_sessions(tmp_path: Path) -> None:
    session = timeline(SESSION, round_trip_s=0.2)
    for name in ("lanes.png", "new folder/lanes.svg"):
        file = tmp_path / name
        draw([("one", session), ("two", session)], file, title="Title", caption="Caption", width_s=1.0)
        assert file.stat().st_size > 5_000


def test_a_picture_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    session = Timeline((Span("edge", "draft", 0.0, 1.0),), ())
    with pytest.raises(ConfigError, match="cannot write the picture"):
        draw([("one", session)], tmp_path / "lanes.nothing", title="", caption="", width_s=1.0)
