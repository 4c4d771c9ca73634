"""How a session ends: at the end of the text, early, by an error at either end; nothing is left running."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.cloud.connection import MAX_UNSENT
from foredraft.cloud.drafter import CloudDrafter
from foredraft.cloud.state import Limits
from foredraft.edge.state import EdgeState
from foredraft.edge.step import VerifyParams
from foredraft.engines.scripted import ScriptedDrafter, ScriptedSlot, ScriptedTarget
from foredraft.errors import ConfigError, ForedraftError, LinkClosedError, RefusedError
from foredraft.policies.sync import SyncPolicy
from foredraft.protocol import messages
from foredraft.protocol.messages import Commit, Drain, Refused
from foredraft.protocol.ports import Guess, Link, Pass, Prediction, Verdict
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.protocol.tree import DraftTree, Node
from foredraft_sim.loop.event_loop import SimLoop
from sessions.room import PROMPT, Room, SlowTarget, collect, perfect, room, session_to, text, truth, watching

POLICIES = ("cloud", "sync", "seed", "ahead", "auto")


class Letters:
    """A detokenizer whose tokens are letters."""

    def step(self, token: int) -> str:
        return chr(ord("a") + token % 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_stop_tokens_and_the_limit_end_the_text_wherever_they_fall_in_a_chain(policy: str) -> None:
    for end in range(1, 12):
        stop = (truth(len(PROMPT) + end - 1),)
        assert finished(policy, StopRules(50, tokens=stop)) == (text(end), messages.STOP)
        assert finished(policy, StopRules(end)) == (text(end), messages.LENGTH)
        assert finished(policy, StopRules(50), context=len(PROMPT) + end) == (text(end), messages.CONTEXT)


def finished(policy: str, rules: StopRules, **options: int) -> tuple[list[int], str]:
    async def main() -> tuple[list[int], str]:
        here = room(ScriptedTarget(truth, **options), new_detokenizer=lambda prompt: Letters())  # type: ignore[arg-type]
        session = here.session(policy, rules=rules, drafter=ScriptedDrafter(perfect))
        shown = await collect(session)
        await here.left()
        return shown, session.report().finish_reason

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main())


@given(st.text("abc", min_size=1, max_size=4), st.sampled_from(POLICIES))
def test_a_stop_string_ends_the_text_with_the_token_that_completes_it(string: str, policy: str) -> None:
    letters = "".join(Letters().step(token) for token in text(30))
    at = letters.find(string)
    expected = (text(30), messages.LENGTH) if at < 0 else (text(at + len(string)), messages.STOP)
    assert finished(policy, StopRules(30, strings=(string,))) == expected


@pytest.mark.simulated
@pytest.mark.parametrize("cut_after", [1, 2, 5, 6, 7])
async def test_a_stop_string_that_a_cut_link_splits_is_found(cut_after: int) -> None:
    letters = "".join(Letters().step(token) for token in text(8))
    here = room(SlowTarget(truth), new_detokenizer=lambda prompt: Letters())
    session = here.session("cloud", rules=StopRules(50, strings=(letters,)))
    shown: list[int] = []

    def show(tokens: list[int]) -> None:
        shown.extend(tokens)
        if len(shown) == cut_after:
            here.taps[-1].link.cut()

    assert await collect(session, show) == text(8)
    assert session.report().finish_reason == messages.STOP
    assert session.report().reconnects == 1
    await here.left()


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (StopRules(5), messages.LENGTH),
        (StopRules(50, tokens=(text(5)[-1],)), messages.STOP),
        (StopRules(50, strings=("".join(Letters().step(token) for token in text(5)),)), messages.STOP),
    ],
)
async def test_a_text_resumed_at_its_very_end_is_told_again_why_it_ended(rules: StopRules, reason: str) -> None:
    here = room(new_detokenizer=lambda prompt: Letters())
    session = here.session("sync", rules=rules)
    session.state.tree.advance(text(5))  # every token came, the reason was lost with the link
    assert await collect(session) == []
    assert session.report().finish_reason == reason
    assert session.report().tokens == text(5)
    await here.left()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_link_cut_after_every_commit_loses_and_repeats_nothing(policy: str) -> None:
    here = room()
    session = here.session(policy, 30)
    assert await collect(session, lambda _: here.taps[-1].link.cut()) == text(30)
    assert session.report().reconnects > 5
    await here.left()


async def test_the_report_counts_every_connection() -> None:
    here = room()
    session = here.session("sync", 30)
    await collect(session, lambda _: here.taps[-1].link.cut() if len(here.taps) < 3 else None)
    report = session.report()
    assert report.reconnects == 2
    assert report.bytes_up == sum(tap.bytes_sent for tap in here.taps)
    assert report.bytes_down == sum(tap.bytes_received for tap in here.taps)
    assert 0 < report.opening_bytes_up < report.bytes_up
    await here.left()


class BrokenError(ForedraftError):
    """What a broken engine raises."""


class BrokenDrafter(ScriptedDrafter):
    def __init__(self, after: int, in_begin: bool = False) -> None:
        super().__init__(perfect)
        self.after = after
        self.in_begin = in_begin

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        if self.in_begin:
            raise BrokenError("the drafter broke")

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        self.after -= 1
        if self.after < 0:
            raise BrokenError("the drafter broke")
        return await super().draft(nodes, width)


@pytest.mark.parametrize(("after", "in_begin"), [(0, True), (0, False), (1, False), (7, False)])
@pytest.mark.parametrize("policy", ["sync", "seed", "ahead", "auto"])
async def test_a_text_goes_on_without_its_drafter_when_that_fails_and_says_so_once(
    policy: str, after: int, in_begin: bool, caplog: pytest.LogCaptureFixture
) -> None:
    here = room()
    session = here.session(policy, drafter=BrokenDrafter(after, in_begin))
    assert await collect(session) == await collect(here.session("cloud"))
    said = [record.getMessage() for record in caplog.records if "drafter" in record.getMessage()]
    assert said == ["the drafter failed, and the text goes on without drafts: the drafter broke"][: len(said)]
    assert len(said) == 1 or policy == "auto"  # which may have had no use for it so far
    await here.left()


async def test_a_drafter_that_breaks_in_an_unforeseen_way_costs_no_token_and_its_trace_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sloppy(ScriptedDrafter):
        async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
            raise IndexError("off by one")

    here = room()
    assert await collect(here.session("sync", drafter=Sloppy(perfect))) == await collect(here.session("cloud"))
    (said,) = [record for record in caplog.records if "off by one" in record.getMessage()]
    assert said.exc_info
    await here.left()


async def test_a_drafter_beside_the_target_that_fails_costs_no_token(caplog: pytest.LogCaptureFixture) -> None:
    tree = DraftTree([1, 2, 3])
    drafter = CloudDrafter(lambda: BrokenDrafter(1), tree, Sampling())
    await drafter.extend(tree.root)
    assert len(tree) == 1
    for node in (tree.live[0], tree.root):
        await drafter.extend(node)
        assert node.barren
    assert len(tree) == 1
    assert len([record for record in caplog.records if "the drafter broke" in record.getMessage()]) == 1


class BrokenTarget(ScriptedTarget):
    """Fails while seating, or in the n-th pass."""

    def __init__(self, *, seating: bool = False, passes: int = 0) -> None:
        super().__init__(truth)
        self.seating = seating
        self.passes = passes
        self.slots = 0

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        if self.seating:
            raise RuntimeError("out of memory")
        self.slots += 1
        return BrokenSlot(self)


class BrokenSlot(ScriptedSlot):
    def __init__(self, target: BrokenTarget) -> None:
        super().__init__(8, truth)
        self.target = target

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        self.target.passes -= 1
        if self.target.passes < 0:
            raise RuntimeError("out of memory")
        return await super().verify(batch, on_exit)

    def close(self) -> None:
        self.target.slots -= 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("seating", "passes"), [(True, 0), (False, 0), (False, 3)])
async def test_a_target_that_fails_is_a_refusal_and_the_service_goes_on(
    policy: str, seating: bool, passes: int
) -> None:
    target = BrokenTarget(seating=seating, passes=passes)
    here = room(target)
    session = here.session(policy)
    with pytest.raises(RefusedError, match="the target failed: out of memory") as caught:
        await collect(session)
    assert caught.value.code == messages.INTERNAL
    assert target.slots == 0
    await here.left()
    target.seating, target.passes = False, 1000
    assert await collect(here.session(policy, 10)) == text(10)
    assert target.slots == 0
    await here.left()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stream_that_is_closed_early_ends_the_session_at_the_cloud(policy: str) -> None:
    here = room()
    session = here.session(policy, 1000)
    async with aclosing(session.stream()) as stream:
        async for _ in stream:
            break
    await here.left()
    assert here.service.counters.tokens < 1000


@pytest.mark.simulated
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_cancelled_consumer_ends_the_session_at_the_cloud(policy: str) -> None:
    here = room(SlowTarget(truth))
    async with watching(here.session(policy, 1000)) as shown:
        await shown.get()
    await here.left()


@pytest.mark.simulated
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_text_at_once_is_the_same_and_ends_at_the_cloud_when_it_is_given_up(policy: str) -> None:
    here = room(SlowTarget(truth))
    session = here.session(policy, 20)
    await session.run()
    assert session.report().tokens == text(20)
    given_up = asyncio.create_task(here.session(policy, 1000).run())
    await asyncio.sleep(5.5)
    given_up.cancel()
    (ended,) = await asyncio.gather(given_up, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
    await here.left()


@pytest.mark.simulated
async def test_a_drained_server_is_left_and_the_text_goes_on_at_the_next() -> None:
    first, second = room(SlowTarget(truth)), room(SlowTarget(truth))
    drained = False

    async def connect() -> Link:
        return await (second if drained else first).connect()

    session = session_to(connect, "sync", 20)

    def drain(tokens: list[int]) -> None:
        nonlocal drained
        if not drained:
            drained = True
            first.service.drain(2.0)

    assert await collect(session, drain) == text(20)
    assert session.report().reconnects == 1
    assert first.said(Drain)
    assert second.said(Commit)
    await first.left()
    await second.left()


@pytest.mark.simulated
async def test_an_idle_session_loses_its_place_and_is_resumed() -> None:
    class SlowOnce(ScriptedDrafter):
        slow = True

        async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
            if self.slow and nodes[0].position > 10:
                self.slow = False
                await asyncio.sleep(25.0)
            return await super().draft(nodes, width)

    here = room(limits=Limits(idle_s=10.0))
    session = here.session("sync", 30, drafter=SlowOnce(perfect))
    assert await collect(session) == text(30)
    refused = here.said(Refused)
    assert {message.code for message in refused if isinstance(message, Refused)} == {messages.BUSY}
    assert "idle for too long" in str(refused[0])
    assert asyncio.get_running_loop().time() == pytest.approx(25.0, abs=1.0)
    await here.left()


@pytest.mark.simulated
async def test_patience_that_outlasts_the_idle_limit_is_no_idleness() -> None:
    class Patient(SyncPolicy):
        def verify_params(self, state: EdgeState) -> VerifyParams:
            return VerifyParams(patience_s=20.0, min_nodes=9)

    here = room(limits=Limits(idle_s=10.0))
    assert await collect(here.session(Patient(), 10)) == text(10)
    assert not here.said(Refused)
    assert asyncio.get_running_loop().time() > 20.0
    await here.left()


@pytest.mark.simulated
async def test_an_edge_that_stops_reading_loses_its_link_and_stalls_nobody() -> None:
    here = room()
    link = await here.connect()
    await link.send(messages.Hello(messages.PROTOCOL_VERSION))
    await link.send(stuck_open(MAX_UNSENT * 4))
    assert await collect(here.session("cloud", 50)) == text(50)
    await here.serving[0]  # closed by the cloud
    with pytest.raises(LinkClosedError):
        await read_for_ever(link)
    await here.left()


async def read_for_ever(link: Link) -> None:
    while True:
        await link.receive()


def stuck_open(length: int) -> messages.Open:
    steer = messages.Steer(1, 1, alone_until=1 << 40)
    return messages.Open(1, messages.pack(PROMPT), 3, 0.0, 0, 1.0, 0, length, (), (), steer)


@pytest.mark.parametrize("prompt", [[], [-1], [1, 1 << 28]])
async def test_a_prompt_that_is_none_is_refused_before_anything_is_sent(prompt: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"prompt|token id"):
        Room.session(room(), "sync", prompt=prompt)


async def test_a_report_of_a_session_that_got_nowhere_tells_no_times() -> None:
    session = room(BrokenTarget(seating=True)).session("sync")
    with pytest.raises(RefusedError):
        await collect(session)
    report = session.report()
    assert (report.ttft_s, report.tpot_s, report.e2e_s, report.new_tokens) == (0.0, 0.0, 0.0, 0)
