"""What happens at this moment, from the events of one end."""

import asyncio

import foredraft
from api import clouds
from foredraft.observe.live import KEPT_S, MOST_TEXTS, Live
from foredraft.protocol.counters import Counters
from foredraft.protocol.events import Event, Value

PROMPT = clouds.TEXT[:13]


async def test_an_edges_events_become_its_figures_and_four_lanes() -> None:
    live = Live(round_trip_s=lambda: 0.01)
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter) as edge:
        generation = edge.generate(PROMPT, policy="seed", max_new_tokens=300, observer=live.observe)
        report = await generation.finish()
        lanes = live.lanes("1")
        texts = live.texts()
    counters = live.counters
    assert [(text["name"], text["tokens"]) for text in texts] == [("1", 300)]
    assert (counters.tokens, counters.passes) == (300, report.passes)
    assert (counters.drafted, counters.accepted, counters.hints) == (report.drafted, report.accepted, report.hints)
    assert sum(count.right for count in counters.by_layer.values()) == report.hints_right
    assert sum(counters.accepted_at) == counters.accepted
    assert counters.accepted_at == sorted(counters.accepted_at, reverse=True)
    assert {span[0] for span in lanes["spans"]} == {"edge", "uplink", "cloud", "downlink"}
    assert {span[1] for span in lanes["spans"]} >= {"draft", "tokens", "pass", "hint", "commit"}
    assert sum(tokens for _, tokens in lanes["commits"]) == 300
    assert all(begin_s >= end_s for _, _, begin_s, end_s in lanes["spans"])
    assert live.last_tokens("1") == []


async def test_a_cloud_counts_alike_and_shows_its_own_lane() -> None:
    async with clouds.cloud() as cloud:
        live = Live(cloud.service.counters)
        cloud.service.shared.observer = live.observe
        async with foredraft.connect(cloud, draft=clouds.drafter) as edge, foredraft.connect(cloud) as other:
            report = await edge.generate(PROMPT, policy="seed", max_new_tokens=300).finish()
            await other.generate(PROMPT, policy="cloud", max_new_tokens=20).finish()
        texts = {text["name"]: text["tokens"] for text in live.texts()}
        name = next(name for name, tokens in texts.items() if tokens == 300)
        lanes = live.lanes(name)
        counters = live.counters
    assert sorted(texts.values()) == [20, 300]  # two edges' first texts are two texts
    assert {(lane, kind) for lane, kind, _, _ in lanes["spans"]} == {("cloud", "pass"), ("cloud", "hint")}
    assert sum(tokens for _, tokens in lanes["commits"]) == 300
    assert (counters.drafted, counters.hints) == (report.drafted, report.hints)
    assert sum(count.right for count in counters.by_layer.values()) == report.hints_right


async def test_tokens_are_kept_only_where_they_may_be_shown_and_texts_are_bounded() -> None:
    live = Live(keep_tokens=True)
    now_s = asyncio.get_running_loop().time()
    data: dict[str, Value] = {"tokens": [1, 2, 3], "drafted": 4, "accepted": 2, "pass_s": 0.01}
    for number in range(MOST_TEXTS + 5):
        live.observe(Event(now_s, "edge", str(number), "commit", data))
    assert len(live.texts()) == MOST_TEXTS
    assert live.last_tokens("9") == [1, 2, 3]
    assert live.last_tokens("0") == []  # gone
    assert live.lanes("0") == {"spans": [], "commits": []}


async def test_what_is_older_than_the_last_seconds_is_forgotten() -> None:
    live = Live(keep_tokens=True)
    now_s = asyncio.get_running_loop().time()
    for at_s in range(60):
        live.observe(Event(now_s - 60 + at_s, "edge", "long", "draft", {"began_s": now_s - 60 + at_s}))
        if at_s == 10:
            live.observe(Event(now_s - 50, "edge", "over", "commit", {"tokens": [1]}))
    assert [text["name"] for text in live.texts()] == ["long"]
    assert live.last_tokens("over") == []
    assert len(live._texts["long"].events) <= KEPT_S + 1


def test_acceptance_by_position_is_that_of_the_drafts_so_far() -> None:
    counters = Counters()
    for drafted, accepted in ((0, 0), (4, 3), (4, 1), (2, 0)):
        counters.passed(accepted + 1, drafted, accepted, 0.01)
    assert (counters.drafts, counters.accepted_at) == (3, [2, 1, 1])
    counters.judge(2, [5, 6], [5, 6, 7])
    counters.judge(2, [5, 6], [5])
    assert (counters.by_layer[2].said, counters.by_layer[2].right) == (2, 1)
