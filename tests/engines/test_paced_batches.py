"""An emulated device that batches: who shares a forward, what it costs, and what becomes of those that give up."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.gate import Gate, gate_before
from engines.torch_reference import GREEDY, ignore, prompt_of
from foredraft.engines.batching import Waiting, choose
from foredraft.engines.device import Device, Turn, Work
from foredraft.engines.pace import Pace
from foredraft.engines.paced import PacedTarget
from foredraft.engines.scripted import ScriptedTarget
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ProfileError
from foredraft.profiles import Grid, Line, Model, Range, TargetProfile
from foredraft.protocol.ports import Pass, Prediction
from foredraft.protocol.sampling import Sampling
from foredraft_sim.loop.event_loop import SimLoop

SAMPLING = Sampling()
PASS_S, ROW_S, SEQUENCE_S, PREFILL_ROW_S = 0.080, 0.002, 0.010, 0.001
CHUNK = 100


def profile(*, batch: int = 16, most: int = 600, prefill: int = 600) -> TargetProfile:
    def reach(rows: int, together: int = 1) -> Range:
        return Range(new_tokens=(1, rows), context=(0, 65536), batch=(1, together))

    return TargetProfile(
        name="slow",
        title="slow target",
        kind="target",
        model=Model(name="m", layers=8, exit_s=0.003),
        target_pass=Line(
            base_s=PASS_S, flat_tokens=1, per_token_s=ROW_S, per_sequence_s=SEQUENCE_S, range=reach(most, batch)
        ),
        prefill=Line(base_s=0.050, per_token_s=PREFILL_ROW_S, range=reach(prefill)),
    )


def pass_s(rows: int, sequences: int, unread: int = 0) -> float:
    return PASS_S + ROW_S * (rows - 1) + SEQUENCE_S * (sequences - 1) + PREFILL_ROW_S * unread


def script(exits: tuple[int, ...] = (2, 4)) -> ScriptedTarget:
    return ScriptedTarget(
        lambda position: position % 7, exit_script=lambda layer, at: (at % 7, 0.9), exits=exits, prefill_chunk=CHUNK
    )


def in_simulated_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def silent(prediction: Prediction) -> None:
    """For passes whose exits nobody reads."""


class Watched(Pace):
    """Notes the rows of each forward."""

    def __init__(self, *, outside: str = "error", like: TargetProfile | None = None) -> None:
        super().__init__(like or profile(batch=64, most=1 << 20, prefill=1 << 20), None, outside)  # type: ignore[arg-type]
        self.forwards: list[list[int]] = []

    def batch_s(self, works: Sequence[Work], idle_s: float = 0.0) -> float:
        self.forwards.append([work.new_tokens for work in works])
        return super().batch_s(works, idle_s)


CALLS = st.lists(st.builds(Waiting, st.integers(1, 900), st.integers(0, 33), st.booleans()), min_size=1, max_size=12)


@given(CALLS, st.integers(1, 512))
def test_an_emulated_device_forms_the_forwards_of_the_engines_rule(calls: list[Waiting], chunk: int) -> None:
    calls = [call if call.tip else call._replace(tree=0) for call in calls]
    wanted, left = [], list(calls)
    while left:
        shares = choose(left, chunk)
        wanted.append([share.trunk + left[share.call].tree * share.whole for share in shares])
        ran = {share.call: share for share in shares}
        left = [
            call._replace(trunk=call.trunk - (ran[at].trunk if at in ran else 0))
            for at, call in enumerate(left)
            if at not in ran or not ran[at].whole
        ]
    pace = Watched()
    pace.chunk = chunk

    async def run(device: Device, call: Waiting) -> None:
        kind = "pass" if call.tip else "prefill"
        turn = await device.enter(Work(kind, call.trunk + call.tree, 0, 0, pace, call.tree))
        await turn.over()
        turn.leave()

    async def main() -> None:
        device = Device(spin_s=0.0)
        await asyncio.gather(*(run(device, call) for call in calls))

    in_simulated_time(main)
    assert pace.forwards == wanted


def test_all_that_is_ready_together_shares_each_forward() -> None:
    async def main() -> None:
        target = PacedTarget(script(), profile())
        waits: list[float] = []

        async def session() -> None:
            slot = await target.slot([1], SAMPLING)
            for _ in range(3):
                verdict = await slot.verify(Pass((1,)), silent)
                waits.append(verdict.queue_s)

        await asyncio.gather(*(session() for _ in range(8)))
        assert waits == [0.0] * 24
        assert now() == pytest.approx(3 * pass_s(8, 8))
        assert (target.device.calls, target.device.batches) == (24, 3)

    in_simulated_time(main)


def test_a_pass_that_comes_while_the_device_is_busy_shares_the_next_forward() -> None:
    async def main() -> None:
        target = PacedTarget(script(), profile())
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        first = asyncio.create_task(slots[0].verify(Pass((1,)), silent))
        await asyncio.sleep(0.020)
        others = [asyncio.create_task(slot.verify(Pass((1,), (2, 3), (-1, 0)), silent)) for slot in slots[1:]]
        await first
        for verdict in await asyncio.gather(*others):
            assert verdict.queue_s == pytest.approx(PASS_S - 0.020)
            assert verdict.pass_s == pytest.approx(pass_s(6, 2))

    in_simulated_time(main)


def test_a_long_prompt_delays_others_by_one_chunk_at_most() -> None:
    async def main() -> None:
        target = PacedTarget(script(), profile())
        waited_s: list[float] = []
        writer, reader = [await target.slot([1], SAMPLING) for _ in range(2)]

        async def decode() -> None:
            for _ in range(12):
                waited_s.append((await writer.verify(Pass((1,)), silent)).queue_s)

        async def read() -> None:
            await asyncio.sleep(0.001)
            assert await reader.prefill([1] * 450) == pytest.approx(
                4 * pass_s(1, 2, unread=CHUNK) + pass_s(1, 2, unread=50)
            )

        await asyncio.gather(decode(), read())
        assert max(waited_s) == 0.0  # each of its passes runs beside the chunk
        assert now() == pytest.approx(7 * PASS_S + 4 * pass_s(1, 2, unread=CHUNK) + pass_s(1, 2, unread=50))

    in_simulated_time(main)


def test_of_two_long_prompts_one_waits_and_a_short_call_between_does_not() -> None:
    async def main() -> None:
        pace = Watched()
        target = PacedTarget(script(), pace.profile, pace=pace)  # type: ignore[arg-type]
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        prompts = asyncio.gather(slots[0].prefill([1] * 80), slots[1].prefill([1] * 80), slots[2].prefill([1] * 5))
        await prompts
        assert pace.forwards == [[80, 20, 5], [60]]

    in_simulated_time(main)


def test_a_tip_and_its_tree_run_in_one_forward_after_the_chunk_before_them() -> None:
    async def main() -> None:
        pace = Watched()
        target = PacedTarget(script(), pace.profile, pace=pace)  # type: ignore[arg-type]
        slot = await target.slot([1], SAMPLING)
        verdict = await slot.verify(Pass((1,) * CHUNK, (2, 3), (-1, 0)), silent)
        assert pace.forwards == [[CHUNK - 1], [3]]
        assert verdict.queue_s == 0.0
        assert verdict.pass_s == pytest.approx(now())

    in_simulated_time(main)


def work(kind: str, new_tokens: int, *, tree: int = 0, context: int = 0, exits: int = 0) -> Work:
    return Work(kind, new_tokens, context, exits, Pace(profile(), None, "error"), tree)


@pytest.mark.parametrize(
    ("works", "wanted_s"),
    [
        ([work("pass", 1)], pass_s(1, 1)),
        ([work("pass", 5, tree=4)], pass_s(5, 1)),
        ([work("pass", 5, tree=4), work("pass", 1)], pass_s(6, 2)),
        ([work("prefill", 30)], 0.050 + 30 * PREFILL_ROW_S),
        ([work("prefill", 30), work("prefill", 20)], 0.050 + 50 * PREFILL_ROW_S + SEQUENCE_S),
        ([work("pass", 30)], pass_s(1, 1, unread=29)),
        ([work("pass", 1), work("prefill", 100), work("pass", 3, tree=2)], pass_s(4, 3, unread=100)),
        ([work("pass", 1, exits=2), work("pass", 1, exits=1)], pass_s(2, 2) + 3 * 0.003),
    ],
)
def test_a_forward_costs_a_pass_of_what_is_read_and_what_other_rows_add_to_a_prefill(
    works: list[Work], wanted_s: float
) -> None:
    assert Pace(profile(), None, "error").batch_s(works) == pytest.approx(wanted_s)


def test_rows_that_nobody_reads_are_priced_where_the_prefill_was_measured() -> None:
    """A chunk is as long as a prefill ever is: beside passes it is still within the measured range."""
    grid = Grid(
        new_tokens=(1, 50, CHUNK),
        seconds_s=(((0.05, 0.06, 0.09),),),
        range=Range(new_tokens=(1, CHUNK), context=(0, 4096)),
    )
    pace = Pace(TargetProfile(**profile_with(prefill=grid)), None, "error")
    taken_s = pace.batch_s([work("prefill", CHUNK), work("pass", 1), work("pass", 1)])
    assert taken_s == pytest.approx(pass_s(2, 3) + 0.09 - 0.05)


def profile_with(**changes: Any) -> dict[str, Any]:
    like = profile()
    fields = ("name", "title", "kind", "model", "target_pass", "prefill")
    return {name: getattr(like, name) for name in fields} | changes


def test_a_batch_goes_as_far_as_the_declared_ranges() -> None:
    async def main() -> None:
        pace = Watched(like=profile(batch=3, most=8, prefill=40))
        target = PacedTarget(script(), pace.profile, pace=pace)  # type: ignore[arg-type]
        slots = [await target.slot([1], SAMPLING) for _ in range(6)]
        two = Pass((1,), (2,), (-1,))
        await asyncio.gather(*(slot.verify(two, silent) for slot in slots[:4]), slots[4].prefill([1] * 30))
        assert pace.forwards == [[2, 2, 2], [2, 30]]
        await asyncio.gather(slots[5].prefill([1] * 30), slots[0].prefill([1] * 30))
        assert pace.forwards[2:] == [[30], [30]]

    in_simulated_time(main)


def test_a_profile_that_declares_no_batches_serves_one_call_after_another() -> None:
    async def main() -> None:
        pace = Watched(like=profile(batch=1))
        target = PacedTarget(script(), pace.profile, pace=pace)  # type: ignore[arg-type]
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        await asyncio.gather(*(slot.verify(Pass((1,)), silent) for slot in slots))
        assert pace.forwards == [[1], [1], [1]]

    in_simulated_time(main)


def test_a_call_outside_of_every_range_fails_alone() -> None:
    async def main() -> None:
        target = PacedTarget(script(), profile(most=8, prefill=8), outside="error")
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        said = await asyncio.gather(
            slots[0].verify(Pass((1,)), silent),
            slots[1].prefill([1] * 50),
            slots[2].verify(Pass((1,)), silent),
            return_exceptions=True,
        )
        assert [isinstance(one, ProfileError) for one in said] == [False, True, False]

    in_simulated_time(main)


def test_one_that_gives_up_does_not_stop_the_others_of_its_forward() -> None:
    async def main() -> None:
        target = PacedTarget(script(), profile())
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        tasks = [asyncio.create_task(slot.verify(Pass((1,)), silent)) for slot in slots]
        await asyncio.sleep(0.001)
        tasks[1].cancel()
        verdict = await tasks[2]
        assert now() == verdict.pass_s == pytest.approx(pass_s(3, 3))

    in_simulated_time(main)


def test_a_forward_that_nobody_wants_any_more_ends_with_the_layer_in_flight() -> None:
    async def main() -> None:
        target = PacedTarget(script(), profile())
        slots = [await target.slot([1], SAMPLING) for _ in range(3)]
        tasks = [asyncio.create_task(slot.verify(Pass((1,)), silent)) for slot in slots[:2]]
        await asyncio.sleep(0.001)
        other = asyncio.create_task(slots[2].verify(Pass((1,)), silent))
        await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        verdict = await other
        assert verdict.queue_s == pytest.approx(pass_s(2, 2) / 8 - 0.001)

    in_simulated_time(main)


def test_a_long_prompt_given_up_between_its_chunks_costs_nothing_from_then_on() -> None:
    async def main() -> None:
        pace = Watched()
        target = PacedTarget(script(), pace.profile, pace=pace)  # type: ignore[arg-type]
        slots = [await target.slot([1], SAMPLING) for _ in range(2)]
        prompt = asyncio.create_task(slots[0].prefill([1] * 500))
        await asyncio.sleep(0.001)
        decoded = asyncio.create_task(slots[1].verify(Pass((1,)), silent))
        await asyncio.sleep(0.001)
        prompt.cancel()
        await decoded
        assert pace.forwards == [[CHUNK], [1]]
        assert slots[0].cached == 0

    in_simulated_time(main)


def test_a_call_cancelled_in_the_moment_it_is_granted_does_not_stop_its_forward() -> None:
    async def main() -> None:
        device, pace = Device(spin_s=0.0), Watched()

        async def enter() -> Turn:
            return await device.enter(Work("pass", 1, 0, 0, pace))

        first, second = asyncio.create_task(enter()), asyncio.create_task(enter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # both are granted, and do not know it yet
        first.cancel()
        turn = await second
        assert first.cancelled()
        await turn.over()
        turn.leave()
        assert device.busy_s == pytest.approx(pass_s(2, 2))

    in_simulated_time(main)


@pytest.fixture
def gate(model: LoadedModel) -> Iterator[Gate]:
    with gate_before(model) as gate:
        yield gate


async def test_what_an_emulated_device_batches_the_real_engine_below_runs_as_one_forward(
    model: LoadedModel, gate: Gate
) -> None:
    target = PacedTarget(TorchTarget(model, cache_bytes=1 << 24, prefill_chunk=16), profile())
    prompts = [prompt_of(8, number) for number in range(3)]
    slots = [await target.slot(prompt, GREEDY) for prompt in prompts]
    await asyncio.gather(
        *(slot.verify(Pass(tuple(prompt)), ignore) for slot, prompt in zip(slots, prompts, strict=True))
    )
    assert gate.rows == [24]
    assert target.device.batches == 1
    await target.close()
