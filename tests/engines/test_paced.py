"""Paced engines and their device: exact in simulated time, never early on the wall clock."""

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

import msgspec
import pytest

from foredraft.engines.device import Device, Work
from foredraft.engines.pace import Pace
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter, ScriptedSlot, ScriptedTarget
from foredraft.errors import ProfileError, RefusedError
from foredraft.profiles import DraftProfile, Line, Memory, Model, Range, TargetProfile
from foredraft.protocol.ports import Drafter, Guess, Pass, Prediction, Target, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree
from foredraft_sim.loop.event_loop import SimLoop

SAMPLING = Sampling()
PASS_S, STEP_S, PREFILL_S = 0.080, 0.010, 0.030
MOST = Range(new_tokens=(1, 64), context=(0, 4096))


def target_profile(*, memory: Memory | None = None, pass_s: float = PASS_S) -> TargetProfile:
    return TargetProfile(
        name="slow",
        title="slow target",
        kind="target",
        model=Model(name="m", layers=8),
        target_pass=Line(base_s=pass_s, range=MOST),
        prefill=Line(base_s=PREFILL_S, range=MOST),
        memory=memory,
    )


def draft_profile() -> DraftProfile:
    reach = Range(new_tokens=(1, 16), context=(0, 4096))
    return DraftProfile(
        name="edge",
        title="edge",
        kind="draft",
        model=Model(name="m", layers=2),
        draft_step=Line(base_s=STEP_S, flat_tokens=1, per_token_s=0.001, range=reach),
        prefill=Line(base_s=PREFILL_S, range=MOST),
    )


def script() -> ScriptedTarget:
    return ScriptedTarget(lambda position: position % 7, exit_script=lambda layer, at: (at % 7, 0.9), exits=(2, 4))


def guesser() -> ScriptedDrafter:
    return ScriptedDrafter(lambda position, width: [Guess(position % 7, 0.5)])


def in_simulated_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


class Slow(ScriptedSlot):
    """A slot whose real pass takes this long, as a slow machine's would."""

    def __init__(self, real_s: float) -> None:
        super().__init__(8, lambda position: 1, lambda layer, position: (1, 0.9))
        self.real_s = real_s

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        await asyncio.sleep(self.real_s)
        return await super().verify(batch, on_exit)


class SlowTarget(ScriptedTarget):
    def __init__(self, real_s: float) -> None:
        super().__init__(lambda position: 1)
        self.real_s = real_s

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        return Slow(self.real_s)


def silent(prediction: Prediction) -> None:
    """For passes whose exits nobody reads."""


def test_exits_speak_at_their_share_of_the_pass_and_the_verdict_at_its_end() -> None:
    async def main() -> None:
        target = PacedTarget(script(), target_profile())
        slot = await target.slot([1, 2, 3], SAMPLING)
        heard: list[tuple[int, float]] = []
        verdict = await slot.verify(
            Pass((1, 2, 3), (4, 5), (-1, 0), (2, 4)), lambda prediction: heard.append((prediction.layer, now()))
        )
        assert [layer for layer, _ in heard] == [2, 4]
        assert [at for _, at in heard] == pytest.approx([PASS_S / 4, PASS_S / 2])
        assert now() == pytest.approx(PASS_S)
        assert (verdict.queue_s, verdict.pass_s) == pytest.approx((0.0, PASS_S))
        assert verdict.prediction.tokens == (3, 4, 5)
        assert target.overruns.count == 0
        assert slot.cached == 3

    in_simulated_time(main)


def test_prefill_takes_the_profiles_time() -> None:
    async def main() -> None:
        slot = await PacedTarget(script(), target_profile()).slot([1, 2, 3], SAMPLING)
        assert await slot.prefill([1, 2]) == pytest.approx(PREFILL_S)
        assert now() == pytest.approx(PREFILL_S)
        assert slot.cached == 2

    in_simulated_time(main)


def test_passes_of_several_slots_go_one_after_another_in_order_of_arrival() -> None:
    async def main() -> None:
        target = PacedTarget(script(), target_profile())
        ended: list[tuple[int, float, float]] = []

        async def work(number: int) -> None:
            slot = await target.slot([1], SAMPLING)
            for _ in range(2):
                verdict = await slot.verify(Pass((1,)), silent)
                ended.append((number, now(), verdict.queue_s))

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(work(number))
        assert [number for number, _, _ in ended] == [0, 1, 2, 0, 1, 2]
        assert [at for _, at, _ in ended] == pytest.approx([PASS_S * turn for turn in range(1, 7)])
        assert [wait for _, _, wait in ended] == pytest.approx([0, PASS_S, 2 * PASS_S] + [2 * PASS_S] * 3)
        assert target.device.busy_s == pytest.approx(6 * PASS_S)
        assert target.device.batches == target.device.calls == 6

    in_simulated_time(main)


@pytest.mark.parametrize(
    ("cancelled_at", "free_at"),
    [(0.005, 0.010), (0.025, 0.030), (0.050, 0.050), (0.072, PASS_S)],
)
def test_a_cancelled_pass_keeps_the_device_to_the_end_of_the_layer_in_flight(
    cancelled_at: float, free_at: float
) -> None:
    async def main() -> None:
        target = PacedTarget(script(), target_profile())
        first, second = await target.slot([1], SAMPLING), await target.slot([1], SAMPLING)
        heard: list[float] = []
        given_up = asyncio.create_task(first.verify(Pass((1,), exits=(2, 4)), lambda prediction: heard.append(now())))
        await asyncio.sleep(0)
        other = asyncio.create_task(second.verify(Pass((1,)), silent))
        await asyncio.sleep(cancelled_at)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert now() == pytest.approx(cancelled_at)  # the canceller does not wait
        said = len(heard)
        verdict = await other
        assert len(heard) == said
        assert verdict.queue_s == pytest.approx(free_at)

    in_simulated_time(main)


def test_a_pass_cancelled_while_it_waits_never_takes_the_device() -> None:
    async def main() -> None:
        target = PacedTarget(script(), target_profile())
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        tasks = [asyncio.create_task(slot.verify(Pass((1,)), silent)) for slot in slots]
        await asyncio.sleep(0.010)
        tasks[1].cancel()
        verdict = await tasks[2]
        assert verdict.queue_s == pytest.approx(PASS_S)
        assert target.device.calls == 2

    in_simulated_time(main)


def test_a_call_cancelled_in_the_moment_it_is_granted_frees_the_device() -> None:
    async def main() -> None:
        device = Device()
        work = Work("step", 1, 0, 0, Pace(draft_profile(), None, "error"))
        first = await device.enter(work)
        second, third = asyncio.create_task(device.enter(work)), asyncio.create_task(device.enter(work))
        await asyncio.sleep(0)
        first.leave(0.0)  # the second has the device now, and does not know it yet
        second.cancel()
        turn = await third
        assert second.cancelled()
        assert turn.start_s == now() == 0.0

    in_simulated_time(main)


def test_residuals_stretch_calls_and_are_asked_by_kind() -> None:
    async def main() -> None:
        asked: list[str] = []

        def residual(kind: str) -> float:
            asked.append(kind)
            return 1.5

        slot = await PacedTarget(script(), target_profile(), residual=residual).slot([1, 2], SAMPLING)
        await slot.prefill([1])
        verdict = await slot.verify(Pass((2,)), silent)
        assert verdict.pass_s == pytest.approx(1.5 * PASS_S)
        assert asked == ["prefill", "pass"]

    in_simulated_time(main)


def test_rows_of_a_trunk_cost_what_they_add_to_a_prefill_since_nobody_reads_them() -> None:
    profile = msgspec.structs.replace(
        target_profile(),
        target_pass=Line(base_s=PASS_S, per_token_s=0.004, range=MOST),
        prefill=Line(base_s=PREFILL_S, per_token_s=0.001, range=MOST),
    )

    async def main() -> None:
        slot = await PacedTarget(script(), profile).slot([1], SAMPLING)
        prompt = await slot.verify(Pass(tuple(range(20)), (7, 8), (-1, 0)), silent)
        assert prompt.pass_s == pytest.approx(PASS_S + 3 * 0.004 + 19 * 0.001)
        alone = await slot.verify(Pass((20,), (7, 8), (-1, 0)), silent)
        assert alone.pass_s == pytest.approx(PASS_S + 3 * 0.004)

    in_simulated_time(main)


def test_outside_the_declared_range_a_strict_run_fails_and_the_device_goes_on() -> None:
    async def main() -> None:
        target = PacedTarget(script(), target_profile(), outside="error")
        slot = await target.slot([1], SAMPLING)
        with pytest.raises(ProfileError, match=r"'slow'.*a prefill outside.*new_tokens 99 \(declared: 1 to 64\)"):
            await slot.verify(Pass(tuple(range(100))), silent)
        verdict = await slot.verify(Pass((1,)), silent)
        assert verdict.queue_s == 0.0

    in_simulated_time(main)


def test_outside_the_declared_range_a_lenient_run_warns_once_and_extrapolates(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        slot = await PacedTarget(script(), target_profile()).slot([1], SAMPLING)
        for _ in range(3):
            verdict = await slot.verify(Pass(tuple(range(100))), silent)
        assert verdict.pass_s > 0

    with caplog.at_level(logging.WARNING):
        in_simulated_time(main)
    assert [record.getMessage().count("EXTRAPOLATED") for record in caplog.records] == [1]


def test_sessions_beyond_the_devices_memory_are_refused_until_one_leaves() -> None:
    async def main() -> None:
        memory = Memory(device_bytes=10_000, weights_bytes=4_000, cache_bytes_per_token=10)
        target = PacedTarget(script(), target_profile(memory=memory), headroom_tokens=200)
        first = await target.slot([1] * 100, SAMPLING)
        await target.slot([1] * 100, SAMPLING)
        with pytest.raises(RefusedError, match="10,000 bytes of memory") as caught:
            await target.slot([1], SAMPLING)
        assert (caught.value.code, caught.value.retry_after_s) == ("busy", 1.0)
        first.close()
        first.close()
        await target.slot([1] * 100, SAMPLING)
        with pytest.raises(RefusedError):
            await target.slot([1] * 100, SAMPLING)

    in_simulated_time(main)


def test_a_cache_that_outgrows_the_memory_is_refused() -> None:
    async def main() -> None:
        memory = Memory(device_bytes=1_000, weights_bytes=0, cache_bytes_per_token=10)
        slot = await PacedTarget(script(), target_profile(memory=memory), headroom_tokens=0).slot([1], SAMPLING)
        await slot.prefill([1] * 60)
        with pytest.raises(RefusedError, match="would need 1,200"):
            await slot.verify(Pass((1,) * 60), silent)
        await slot.verify(Pass((1,) * 40), silent)

    in_simulated_time(main)


def test_a_real_pass_slower_than_the_profile_is_released_late_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        target = PacedTarget(SlowTarget(0.100), target_profile())
        slot = await target.slot([1], SAMPLING)
        heard: list[float] = []
        for _ in range(2):
            verdict = await slot.verify(Pass((1,), exits=(2,)), lambda prediction: heard.append(now()))
            assert verdict.pass_s == pytest.approx(0.100)
        assert heard == pytest.approx([0.100, 0.200])
        assert target.overruns.count == 4  # the exit's segment and the pass, twice
        assert target.overruns.worst_excess_s == pytest.approx(0.080)

    with caplog.at_level(logging.WARNING):
        in_simulated_time(main)
    assert ["LATER" in record.getMessage() for record in caplog.records] == [True]


def test_a_card_tells_the_profiles_pass() -> None:
    assert PacedTarget(script(), target_profile()).card.pass_s == pytest.approx(PASS_S)


def test_a_draft_step_takes_its_time_by_the_nodes_that_the_cache_lacks() -> None:
    async def main() -> None:
        drafter = PacedDrafter(guesser(), draft_profile())
        tree = DraftTree([1] * 20)
        await drafter.begin(tree.tokens, SAMPLING)
        assert now() == 0.0

        async def step_s(*nodes: object) -> float:
            start = now()
            await drafter.draft(list(nodes), 1)  # type: ignore[arg-type]
            return now() - start

        assert await step_s(tree.root) == pytest.approx(PREFILL_S)  # the prompt, more than a step's range
        assert await step_s(tree.root) == pytest.approx(STEP_S)
        child = tree.add(tree.root, 4)
        assert await step_s(child) == pytest.approx(STEP_S)
        # A chain of three that others hung there: all three are run.
        node = child
        for token in (5, 6, 0):
            node = tree.add(node, token)
        assert await step_s(node) == pytest.approx(STEP_S + 0.002)
        # Two of it commit with a token that was never drafted: it alone is run, with the next step.
        for part in (drafter, tree):
            part.advance([4, 5, 9])
        assert await step_s(tree.root) == pytest.approx(STEP_S)
        for part in (drafter, tree):
            part.advance([7, 8])
        assert await step_s(tree.root, tree.add(tree.root, 1)) == pytest.approx(STEP_S + 0.002)

    in_simulated_time(main)


def test_a_text_that_begins_like_the_last_one_is_not_run_again() -> None:
    async def main() -> None:
        drafter = PacedDrafter(guesser(), draft_profile())
        for text, due_s in (([1] * 5, STEP_S + 0.004), ([1] * 5 + [2, 3, 4], STEP_S + 0.002), ([1, 1, 9], STEP_S)):
            await drafter.begin(text, SAMPLING)
            start = now()
            await drafter.draft([DraftTree(text).root], 1)
            assert now() - start == pytest.approx(due_s)

    in_simulated_time(main)


def test_a_cancelled_draft_step_keeps_the_device_to_its_end() -> None:
    async def main() -> None:
        drafter = PacedDrafter(guesser(), draft_profile())
        tree = DraftTree([1])
        await drafter.begin(tree.tokens, SAMPLING)
        step = asyncio.create_task(drafter.draft([tree.root], 1))
        await asyncio.sleep(STEP_S / 4)
        step.cancel()
        await drafter.draft([tree.root], 1)
        assert now() == pytest.approx(2 * STEP_S)

    in_simulated_time(main)


def test_dead_nodes_cost_no_step_and_steps_are_as_wide_as_the_profile_allows() -> None:
    async def main() -> None:
        drafter = PacedDrafter(guesser(), draft_profile())
        assert drafter.max_nodes_per_step == 8  # the engine's; the profile would allow 16
        tree = DraftTree([1])
        await drafter.begin(tree.tokens, SAMPLING)
        dead = tree.add(tree.root, 2)
        tree.clear()
        await drafter.draft([dead], 1)
        assert now() == 0.0

    in_simulated_time(main)


def loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's own loop, and uvloop's where there is one."""
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
    if importlib.util.find_spec("uvloop") is not None:
        found.append(importlib.import_module("uvloop").new_event_loop)
    return found


@pytest.mark.parametrize("new_loop", loops())
def test_on_the_wall_clock_nothing_leaves_early(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        target: Target = PacedTarget(script(), target_profile(pass_s=0.020))
        drafter: Drafter = PacedDrafter(guesser(), draft_profile())
        slot = await target.slot([1], SAMPLING)
        for _ in range(3):
            heard = [monotonic()]

            def on_exit(prediction: Prediction, heard: list[float] = heard) -> None:
                heard.append(monotonic())

            await slot.verify(Pass((1,), exits=(2, 4)), on_exit)
            heard.append(monotonic())
            after_s = [at - heard[0] for at in heard[1:]]
            assert all(left >= due - 1e-6 for left, due in zip(after_s, (0.005, 0.010, 0.020), strict=True))
        await drafter.begin([1], SAMPLING)
        start = monotonic()
        await drafter.draft([DraftTree([1]).root], 1)
        assert monotonic() - start >= STEP_S - 1e-6
        await drafter.close()
        await target.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
