"""Replications: the deployed sessions on emulated devices and links, many at a time, whatever the network does."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import pytest

from foredraft import Cloud, SessionReport, connect
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.policies.sync import SyncPolicy
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.emulation import arrivals
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.replications import replicate, replicate_all
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.tokens.synthetic import SyntheticPair
from foredraft_sim.workers.processes import Processes
from foredraft_sim.workers.workers import Here
from sim.scenario.scenario_files import PAIR, scenario, workload

POLICIES = ("cloud", "sync", "seed", "ahead", "auto")
ONE = workload(prompt_tokens=8, new_tokens=24)
FLEET = workload(
    prompt_tokens=8, new_tokens="{ least = 4, most = 20 }", devices=4,
    requests=9,
    arrivals='{ kind = "poisson", rate_per_s = 1.0 }',
)  # fmt: skip


def texts(one: Replication) -> list[str]:
    return [finished.digest for finished in one.finished]


def truth(read: Scenario, seed: int, request: int, count: int) -> list[int]:
    """What the target alone would write."""
    assert isinstance(read.pair, SyntheticPair)
    own = read.sampling(seed, request).seed
    return [read.pair.truth(own, 8 + index) for index in range(count)]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_text_is_what_the_target_alone_writes(tmp_path: Path, policy: str) -> None:
    read = scenario(tmp_path, ONE)
    one = replicate(read, policy, 3, texts=True)
    assert one.finished[0].report.tokens == truth(read, 3, 0, 24)
    assert one.finished[0].report.finish_reason == "length"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("storm", range(4))
def test_no_delay_cut_or_outage_changes_the_text(tmp_path: Path, policy: str, storm: int) -> None:
    draw = Random(storm)
    outages = ", ".join(
        f"{{ start_s = {draw.uniform(0, 20):.3f}, duration_s = {draw.uniform(0.01, 2):.3f}, "
        f"cuts = {'true' if draw.random() < 0.7 else 'false'} }}"
        for _ in range(5)
    )
    link = (
        "[pair]",
        f"""[link.override]
up = {{ jitter_s = {draw.uniform(0, 0.4):.3f}, rate_bps = {draw.uniform(4e3, 1e5):.0f}, queue_bytes = 200 }}
down = {{ jitter_s = {draw.uniform(0, 0.4):.3f}, jitter_shape = "lognormal" }}
loss = {{ good_s = 3.0, bad_s = 0.5, bad_loss = 0.6, rto_s = 0.2, rto_max_s = 3.0 }}
outages = [{outages}]
[pair]""",
    )
    read = scenario(tmp_path, ONE, link)
    one = replicate(read, policy, storm, texts=True)
    assert one.finished[0].report.tokens == truth(read, storm, 0, 24)


def test_storms_do_cut_sessions(tmp_path: Path) -> None:
    cut = ("[pair]", "[link.override]\noutages = [{ start_s = 3.0, duration_s = 1.0, cuts = true }]\n[pair]")
    assert replicate(scenario(tmp_path, ONE, cut), "sync", 1).finished[0].report.reconnects >= 1


def test_all_policies_meet_the_same_luck(tmp_path: Path) -> None:
    read = scenario(tmp_path, FLEET)
    runs = [replicate(read, policy, 2) for policy in POLICIES]
    assert len({tuple(texts(one)) for one in runs}) == 1
    assert len({tuple(finished.arrived_s for finished in one.finished) for one in runs}) == 1
    assert texts(runs[0]) != texts(replicate(read, "cloud", 3))


@pytest.mark.parametrize("policy", POLICIES)
def test_shuffled_ties_leave_every_text_as_it_is(tmp_path: Path, policy: str) -> None:
    read = scenario(tmp_path, FLEET)
    straight = replicate(read, policy, 1)
    for shuffle_seed in (1, 2):
        assert texts(replicate(read, policy, 1, shuffle_seed=shuffle_seed)) == texts(straight)


def test_replications_in_other_processes_are_the_same(tmp_path: Path) -> None:
    read = scenario(tmp_path, FLEET)
    serial = replicate_all(read, ["cloud", "seed"], [1, 2], log=True, workers=Here())
    with Processes(2) as workers:
        assert replicate_all(read, ["cloud", "seed"], [1, 2], log=True, workers=workers) == serial


def test_a_link_s_luck_changes_nothing_in_the_tokens_or_the_arrivals(tmp_path: Path) -> None:
    still = scenario(tmp_path, FLEET)
    noisy = scenario(tmp_path, FLEET, ("[pair]", "[link.override]\nup = { jitter_s = 0.3 }\n[pair]"))
    before, after = replicate(still, "seed", 1), replicate(noisy, "seed", 1)
    assert texts(before) == texts(after)
    assert before.duration_s != after.duration_s
    assert arrivals(still, 1) == arrivals(noisy, 1)


def test_other_luck_changes_times_and_nothing_else(tmp_path: Path) -> None:
    read = scenario(tmp_path, FLEET, ("[pair]", "[link.override]\nup = { jitter_s = 0.3 }\n[pair]"))
    one, other = (replicate(read, "seed", 1, luck=luck) for luck in (0, 1))
    assert texts(one) == texts(other)
    assert [finished.arrived_s for finished in one.finished] == [finished.arrived_s for finished in other.finished]
    assert one.duration_s != other.duration_s
    assert replicate(read, "seed", 1, luck=1).duration_s == other.duration_s


def test_requests_of_a_device_run_one_after_another_and_their_waiting_is_counted(tmp_path: Path) -> None:
    one = replicate(scenario(tmp_path, workload(prompt_tokens=8, new_tokens=6, requests=3)), "cloud", 1)
    ends = [finished.began_s + finished.report.e2e_s for finished in one.finished]
    assert one.finished[0].began_s == 0.0
    assert [finished.began_s for finished in one.finished[1:]] == pytest.approx(ends[:-1], abs=0.2)
    assert [finished.arrived_s for finished in one.finished] == [0.0] * 3
    assert one.duration_s == pytest.approx(ends[-1], abs=0.2)


def test_a_closed_loop_thinks_between_requests(tmp_path: Path) -> None:
    pace = '{ kind = "closed", think_s = 5.0 }'
    one = replicate(scenario(tmp_path, workload(prompt_tokens=8, new_tokens=4, requests=40, arrivals=pace)), "cloud", 1)
    ends = [finished.began_s + finished.report.e2e_s for finished in one.finished]
    thought = [finished.arrived_s - end for finished, end in zip(one.finished[1:], ends, strict=False)]
    assert min(thought) > 0.0
    assert 3.0 < sum(thought) / len(thought) < 8.0


@pytest.mark.parametrize("balance", ["least_loaded", "round_robin"])
def test_servers_share_the_devices(tmp_path: Path, balance: str) -> None:
    servers = ('"a100-qwen2-vl-7b"', f'"a100-qwen2-vl-7b"\nservers = 3\nbalance = "{balance}"')
    fleet = workload(prompt_tokens=8, new_tokens=12, devices=6, requests=6)
    one = replicate(scenario(tmp_path, servers, fleet), "cloud", 1, log=True)
    lines = msgspec.json.Decoder().decode_lines(one.log)
    served = {line["request"]: line["place"] for line in lines if line["where"] == "cloud"}
    assert sorted(served.values()) == [0, 0, 1, 1, 2, 2]
    alone = replicate(scenario(tmp_path, fleet), "cloud", 1)
    assert one.duration_s < alone.duration_s


def test_a_server_without_memory_for_all_makes_some_wait(tmp_path: Path) -> None:
    memory = ("[link]", "[cloud.override]\nmemory.device_bytes = 16_605_000_000\n[link]")  # 87 tokens: two requests
    retries = ('"orin-go2-qwen2-vl-2b"', '"orin-go2-qwen2-vl-2b"\nretries = 100')
    fleet = workload(prompt_tokens=8, new_tokens=24, devices=4, requests=4)
    one = replicate(scenario(tmp_path, memory, retries, fleet), "cloud", 1)
    assert sum(finished.report.reconnects for finished in one.finished) > 0
    assert {finished.report.new_tokens for finished in one.finished} == {24}


def test_residual_noise_has_its_own_stream_and_keeps_the_mean(tmp_path: Path) -> None:
    noise = ("[link]", "[cloud.override]\nresidual.cv = 0.3\n[link]")
    long = workload(prompt_tokens=8, new_tokens=300)
    still, noisy = (replicate(scenario(tmp_path, long, *more), "cloud", 1) for more in ((), (noise,)))
    assert texts(still) == texts(noisy)
    assert noisy.servers_busy_s != still.servers_busy_s
    assert noisy.servers_busy_s == pytest.approx(still.servers_busy_s, rel=0.06)


def test_a_call_outside_of_a_profile_s_range_warns_or_is_an_error(tmp_path: Path) -> None:
    far = ("[link]", "[cloud.override]\ntarget_pass.range.context = [0, 20]\n[link]")
    one = replicate(scenario(tmp_path, far), "cloud", 1)
    assert len(one.warnings) == 1
    assert "EXTRAPOLATED" in one.warnings[0]
    strict = scenario(tmp_path, far, ("seeds = [1, 2]", 'seeds = [1, 2]\noutside = "error"'))
    with pytest.raises(ScenarioError, match=r"request 0 of seed 1 failed: .*outside its declared range: context"):
        replicate(strict, "cloud", 1)


@dataclass(frozen=True, slots=True)
class Broken(SyncPolicy):
    name: str = "broken"

    def step(self, state: EdgeState) -> Step | None:
        if state.position > 12:
            raise ValueError("no idea what to do")
        return SyncPolicy.step(self, state)


def test_a_policy_that_raises_is_named_with_the_request(tmp_path: Path) -> None:
    read = scenario(tmp_path, ONE)
    said = "policies: 'sim.scenario.test_emulation:Broken': request 0 of seed 1 raised ValueError: no idea what to do"
    with pytest.raises(ScenarioError, match=re.escape(said)):
        replicate(read, "sim.scenario.test_emulation:Broken", 1)


def test_a_network_that_never_comes_back_is_named_with_the_request(tmp_path: Path) -> None:
    gone = ("[pair]", "[link.override]\noutages = [{ start_s = 3.0, duration_s = 1e6, cuts = true }]\n[pair]")
    with pytest.raises(ScenarioError, match="request 0 of seed 1 failed: gave up after 12 retries"):
        replicate(scenario(tmp_path, ONE, gone), "sync", 1)


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from engines.tiny_models import save_model

    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "target", seed=1)
    save_model(folder / "draft", seed=2, num_hidden_layers=1)
    return folder


@pytest.mark.parametrize("policy", ["cloud", "sync", "seed", "ahead"])
def test_real_models_say_in_simulated_time_what_they_say_on_the_wall_clock(tiny_models: Path, policy: str) -> None:
    read = scenario(
        tiny_models,
        (PAIR, 'kind = "models"\ntarget = "target"\ndraft = "draft"'),
        workload(prompts='["one two", "three"]', requests=2, new_tokens=20),
        more="[sampling]\ntemperature = 0.9\ntop_k = 40\n",
    )
    simulated = replicate(read, policy, 5, texts=True)

    async def real() -> list[list[int]]:
        async with Cloud.load(tiny_models / "target") as cloud, connect(cloud, draft=tiny_models / "draft") as edge:
            return [
                (
                    await edge.generate(
                        prompt, policy=policy, temperature=0.9, top_k=40, seed=read.sampling(5, request).seed,
                        max_new_tokens=20,
                    ).finish()
                ).tokens
                for request, prompt in enumerate(["one two", "three"])
            ]  # fmt: skip

    assert [finished.report.tokens for finished in simulated.finished] == asyncio.run(real())
    assert all(finished.report.text for finished in simulated.finished)


def test_a_gguf_draft_drafts_in_simulated_time_and_the_text_is_the_targets(tiny_models: Path, tmp_path: Path) -> None:
    from engines.tiny_gguf import needs_llama, tiny_gguf
    from foredraft.text.tokenizer import Tokenizer

    needs_llama()
    tokenizer = Tokenizer.from_folder(tiny_models / "target")
    written = [text for _, text in tokenizer.tokens()]
    tiny_gguf(tmp_path / "draft.gguf", written, marks=tokenizer.special_ids())
    (tmp_path / "target").symlink_to(tiny_models / "target")

    def said(draft: str, policy: str) -> SessionReport:
        pair = (PAIR, f'kind = "models"\ntarget = "target"\ndraft = "{draft}"')
        few = workload(prompts='["one two"]', requests=1, new_tokens=20)
        return replicate(scenario(tmp_path, pair, few), policy, 5, texts=True).finished[0].report

    drafted = said("draft.gguf", "sync")
    assert drafted.drafted > 0
    assert drafted.tokens == said("target", "cloud").tokens
