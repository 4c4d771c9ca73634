"""Islands: what never meets is simulated apart, and nothing that anybody can see tells it from one loop for all."""

import gc
import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.policies.sync import SyncPolicy
from foredraft_sim.errors import ScenarioError
from foredraft_sim.network.network import SimNetwork
from foredraft_sim.scenario import replications
from foredraft_sim.scenario.emulation import Run, emulate
from foredraft_sim.scenario.finished import Finished, Replication
from foredraft_sim.scenario.islands import Island, IslandDone, everything, islands_of, joined, shares
from foredraft_sim.scenario.pairs import token_source
from foredraft_sim.scenario.replications import replicate, replicate_all, simulated
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.workers.processes import Processes
from foredraft_sim.workers.workers import Here, opened
from sim.scenario.scenario_files import PAIR, scenario, workload

SERVER = '"a100-qwen2-vl-7b"'
FLEET = workload(prompt_tokens=8, new_tokens="{ least = 4, most = 20 }", devices=5, requests=9)
SLOW = "draft_step.base_s = 1.7\nprefill.base_s = 1.7"  # a step is in flight when the cloud has said the last token
NOISE = ("[pair]", "[link.override]\nup = { jitter_s = 0.3 }\n[pair]")


def affinity(servers: int, more: str = "") -> tuple[str, str]:
    """A change: so many servers, and each device keeps to its own."""
    return SERVER, f'{SERVER}\nservers = {servers}\nbalance = "affinity"\n{more}'


def together(read: Scenario, policy: str, seed: int, **more: Any) -> Replication:
    """The replication in one loop for all."""
    run = Run(read, policy, seed, token_source(read), **more)
    return joined(policy, seed, simulated(run, [everything(read)]))


WORLDS = st.fixed_dictionaries(
    {
        "servers": st.integers(1, 6),
        "devices": st.integers(1, 8),
        "requests": st.integers(1, 12),
        "arrivals": st.sampled_from(
            (
                '{ kind = "at_once" }',
                '{ kind = "poisson", rate_per_s = 0.7 }',
                '{ kind = "closed", think_s = 2.0 }',
            )
        ),
        "server": st.sampled_from(
            (
                "",
                "residual.cv = 0.3",
                "target_pass.range.batch = [1, 4]\ntarget_pass.per_sequence_s = 0.02",
                "target_pass.range.context = [0, 12]",  # warns
                "memory.device_bytes = 16_603_500_000",  # 61 tokens: refuses a third session
                "host.message_s = 0.003\nhost.wake_s = 0.05",
            )
        ),
        "device": st.sampled_from(("", "residual.cv = 0.5", "host.message_s = 0.01", SLOW)),
        "link": st.sampled_from(
            (
                "",
                'up = { jitter_s = 0.3 }\ndown = { jitter_s = 0.1, jitter_shape = "lognormal" }',
                "up = { rate_bps = 5e3, queue_bytes = 200 }",
                "loss = { good_s = 3.0, bad_s = 0.5, bad_loss = 0.6, rto_s = 0.2, rto_max_s = 3.0 }",
                "outages = [{ start_s = 2.0, duration_s = 0.5, cuts = true }, { start_s = 6.0, duration_s = 1.0 }]",
            )
        ),
    }
)


def world(folder: Path, said: dict[str, Any]) -> Scenario:
    """A small fleet in which each device keeps to its server."""
    return scenario(
        folder,
        (
            '"orin-go2-qwen2-vl-2b"',
            f'"orin-go2-qwen2-vl-2b"\nretries = 1000\n[edge.override]\n{said["device"]}',
        ),
        affinity(said["servers"], f'draft = "robot-5-draft"\n[cloud.override]\n{said["server"]}\n'),
        ("[pair]", f"[link.override]\n{said['link']}\n[pair]"),
        workload(
            prompt_tokens=8,
            new_tokens="{ least = 4, most = 20 }",
            devices=said["devices"],
            requests=said["requests"],
            arrivals=said["arrivals"],
        ),
    )


@given(
    said=WORLDS,
    policy=st.sampled_from(("cloud", "sync", "seed", "ahead", "auto", "colocated", "both")),
    luck=st.integers(0, 1),
)
def test_island_by_island_is_one_loop_for_all_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, Any], policy: str, luck: int
) -> None:
    read = world(tmp_path_factory.mktemp("world"), said)
    assert len(islands_of(read)) == min(said["servers"], said["devices"])
    assert replicate(read, policy, 3, texts=True, luck=luck) == together(read, policy, 3, texts=True, luck=luck)


def test_islands_of_real_and_of_recorded_models_are_the_same_too(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from engines.tiny_models import save_model

    save_model(tmp_path / "target", seed=1)
    save_model(tmp_path / "draft", seed=2, num_hidden_layers=1)
    models = (PAIR, 'kind = "models"\ntarget = "target"\ndraft = "draft"')
    asked = workload(prompts='["one two", "three"]', requests=5, devices=3, new_tokens=12)
    real = scenario(tmp_path, affinity(2), models, asked, more="[sampling]\ntemperature = 0.9\n")
    logged = replicate(real, "auto", 1, log=True)
    assert replicate(real, "auto", 1, texts=True) == together(real, "auto", 1, texts=True)
    (tmp_path / "r.rec").write_bytes(complete(real, logged.record, logged.recorded))
    pair = (PAIR, 'kind = "recorded"\nfile = "r.rec"')
    recorded = scenario(tmp_path, affinity(2), pair, workload(requests=7, devices=3, new_tokens=12))
    assert replicate(recorded, "auto", 1, texts=True) == together(recorded, "auto", 1, texts=True)


def test_the_worlds_do_what_makes_islands_hard(tmp_path: Path) -> None:
    plain = {"servers": 2, "devices": 5, "requests": 12, "server": "", "device": "", "link": ""}
    plain["arrivals"] = '{ kind = "at_once" }'

    def done(policy: str = "sync", **other: str) -> Replication:
        return replicate(world(tmp_path, plain | other), policy, 3)

    def retried(one: Replication) -> int:
        return sum(finished.report.reconnects for finished in one.finished)

    assert retried(done(link="outages = [{ start_s = 2.0, duration_s = 0.5, cuts = true }]")) > 0
    assert retried(done(server="memory.device_bytes = 16_603_500_000")) > 0
    assert done(server="target_pass.range.context = [0, 12]").warnings
    batching = "target_pass.range.batch = [1, 4]\ntarget_pass.per_sequence_s = 0.02"
    assert done(server=batching).duration_s < done().duration_s


@settings(max_examples=20)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=9), data=st.data())
def test_sums_and_order_do_not_depend_on_the_islands(counts: list[int], data: st.DataObject) -> None:
    numbers = range(len(counts))
    busy_s = {number: data.draw(st.floats(0.0, 1e3)) for number in numbers}
    report: Any = None
    of_each = [
        IslandDone([Finished(number, 0.0, 0.0, report, "")], float(count), {number: busy_s[number]}, {}, frozenset("w"))
        for number, count in zip(numbers, counts, strict=True)
    ]
    one = joined("sync", 1, data.draw(st.permutations(of_each)))
    assert [finished.request for finished in one.finished] == list(numbers)
    assert one.duration_s == max(counts)
    assert one.servers_busy_s == sum(busy_s[number] for number in numbers)
    assert one.warnings == ("w",)


def test_an_island_is_a_server_and_its_devices(tmp_path: Path) -> None:
    devices = workload(prompt_tokens=8, new_tokens=4, devices=5, requests=5)
    two, nine = (islands_of(scenario(tmp_path, affinity(servers), devices)) for servers in (2, 9))
    assert [(list(one.servers), list(one.devices)) for one in two] == [([0], [0, 2, 4]), ([1], [1, 3])]
    assert [(list(one.servers), list(one.devices)) for one in nine] == [([number], [number]) for number in range(5)]


@pytest.mark.parametrize("balance", ["least_loaded", "round_robin"])
def test_where_a_device_may_meet_any_server_there_is_one_island(tmp_path: Path, balance: str) -> None:
    read = scenario(tmp_path, FLEET, (SERVER, f'{SERVER}\nservers = 3\nbalance = "{balance}"'))
    assert islands_of(read) == [everything(read)] == [Island(range(3), range(5))]


def test_a_device_keeps_its_server_through_every_reconnection(tmp_path: Path) -> None:
    cuts = ", ".join(f"{{ start_s = {at}, duration_s = 0.1, cuts = true }}" for at in (2.0, 3.5, 5.0, 9.0))
    read = scenario(tmp_path, FLEET, affinity(3), ("[pair]", f"[link.override]\noutages = [{cuts}]\n[pair]"))
    one = replicate(read, "sync", 1, log=True)
    assert sum(finished.report.reconnects for finished in one.finished) > 3
    lines = msgspec.json.Decoder().decode_lines(one.log)
    met = {(line["request"], line["place"]) for line in lines if line["where"] == "cloud"}
    assert met == {(request, request % 5 % 3) for request in range(9)}


@pytest.mark.parametrize("policy", ["sync", "auto"])
def test_a_log_is_kept_in_one_loop_and_changes_nothing(tmp_path: Path, policy: str) -> None:
    read = scenario(tmp_path, FLEET, affinity(3), NOISE)
    logged = replicate(read, policy, 1, log=True)
    times_s = [line["t_s"] for line in msgspec.json.Decoder().decode_lines(logged.log)]
    assert times_s == sorted(times_s)
    assert {line["place"] for line in msgspec.json.Decoder().decode_lines(logged.log)} == set(range(5))
    assert replace(logged, recorded=b"") == replicate(read, policy, 1)


def test_paces_that_may_be_shared_are_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated_islands: list[Sequence[Island]] = []

    def remembered(run: Run, islands: Sequence[Island], shuffle_seed: int | None = None) -> list[IslandDone]:
        simulated_islands.append(islands)
        return simulated(run, islands, shuffle_seed)

    monkeypatch.setattr(replications, "simulated", remembered)
    read = scenario(tmp_path, FLEET, affinity(3))
    assert replicate(read, "sync", 1, new_pace=lambda where: None) == replicate(read, "sync", 1)
    assert simulated_islands == [[everything(read)], islands_of(read)]


def test_shuffled_ties_leave_every_text_as_it_is_in_islands_too(tmp_path: Path) -> None:
    read = scenario(tmp_path, FLEET, affinity(2))
    straight, shuffled = (replicate(read, "seed", 1, texts=True, shuffle_seed=seed) for seed in (None, 5))
    assert [one.report.tokens for one in shuffled.finished] == [one.report.tokens for one in straight.finished]


@pytest.mark.parametrize("processes", [2, 3])
def test_the_islands_of_a_replication_may_be_divided_among_processes(tmp_path: Path, processes: int) -> None:
    read = scenario(tmp_path, FLEET, affinity(4), NOISE)
    told: list[int] = []
    alone = replicate_all(read, ["seed"], [1], workers=Here())
    with Processes(processes) as workers:
        assert replicate_all(read, ["seed"], [1], workers=workers, on_done=told.append) == alone
    assert told == [1]


class Counting(Here):
    """Counts what it is given."""

    def __init__(self, count: int) -> None:
        self.count, self.given = count, 0

    def map(self, function: Any, shared: Any, tasks: Iterable[Any]) -> Generator[Any]:
        for done in super().map(function, shared, tasks):
            self.given += 1
            yield done


@pytest.mark.parametrize(
    ("seeds", "workers", "log", "parts"),
    [
        (1, 2, False, 2),
        (1, 9, False, 4),
        (3, 4, False, 6),
        (4, 4, False, 4),
        (4, 3, False, 4),
        (2, 8, True, 2),
    ],
)
def test_few_replications_are_divided_and_many_are_not(
    tmp_path: Path, seeds: int, workers: int, log: bool, parts: int
) -> None:
    counting = Counting(workers)
    read = scenario(tmp_path, FLEET, affinity(4))
    replicate_all(read, ["sync"], range(seeds), log=log, workers=counting)
    assert counting.given == parts


@pytest.mark.parametrize(("islands", "count"), [(1, 1), (7, 2), (7, 3), (3, 8), (100, 16)])
def test_shares_are_all_islands_in_their_order_and_about_alike(islands: int, count: int) -> None:
    parts = shares([Island((number,), (number,)) for number in range(islands)], count)
    assert [island.servers[0] for part in parts for island in part] == list(range(islands))
    assert len(parts) == min(islands, count)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@dataclass(frozen=True, slots=True)
class LateBroken(SyncPolicy):
    name: str = "late-broken"

    def step(self, state: EdgeState) -> Step | None:
        if state.position > 12:
            raise ValueError("no idea what to do")
        return SyncPolicy.step(self, state)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_of_several_islands_that_fail_the_first_is_named_however_many_processes(tmp_path: Path, processes: int) -> None:
    read = scenario(tmp_path, affinity(3), workload(prompt_tokens=8, new_tokens="[4, 24, 20]", devices=3, requests=3))
    said = "policies: 'sim.scenario.test_islands:LateBroken': request 1 of seed 1 raised ValueError: no idea what to do"
    with (
        opened(processes, "", worth=1) as workers,
        pytest.raises(ScenarioError, match=re.escape(said)),
    ):
        replicate_all(read, ["sim.scenario.test_islands:LateBroken"], [1], workers=workers)


def test_an_island_that_is_over_is_gone_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[int] = []

    async def counted(run: Run, island: Island, arrivals_s: Sequence[float]) -> IslandDone:
        networks.append(sum(type(one) is SimNetwork for one in gc.get_objects()))
        return await emulate(run, island, arrivals_s)

    monkeypatch.setattr(replications, "emulate", counted)
    gc.collect()
    replicate(scenario(tmp_path, FLEET, affinity(5)), "sync", 1)
    assert networks == networks[:1] * 5


@pytest.mark.parametrize("policy", ["ahead", "auto"])
def test_a_draft_step_in_flight_at_the_end_is_counted_to_its_end(tmp_path: Path, policy: str) -> None:
    slow = ('"orin-go2-qwen2-vl-2b"', f'"orin-go2-qwen2-vl-2b"\n[edge.override]\n{SLOW}')
    one = replicate(scenario(tmp_path, slow), policy, 1)
    assert one.devices_busy_s > one.duration_s
    assert one.devices_busy_s == pytest.approx(9 * 1.7)
