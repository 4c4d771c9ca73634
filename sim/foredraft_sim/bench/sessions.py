"""What simulating whole sessions costs, and how well it meets the wall clock.

Rates are ratios within one run, since seconds depend on the machine. A simulation is one thread that
never waits, so its wall time on a core of its own is its CPU time, which others on the machine hardly disturb.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

import msgspec

from foredraft.api.cloud import Cloud
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.result import Figure, Result
from foredraft.edge.session import EdgeSession
from foredraft.edge.session_report import SessionReport
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.errors import ForedraftError
from foredraft.links import websocket
from foredraft.links.proxy_process import proxy_process
from foredraft.links.shaping import Shape
from foredraft.profiles import Line, Range, Setup, load_profile
from foredraft.protocol.sampling import StopRules
from foredraft_sim.bench.loop import compare_loops
from foredraft_sim.scenario.pairs import token_source
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import Balance, CloudTable, EdgeTable, Override, ScenarioFile, Workload
from foredraft_sim.tokens.synthetic import SyntheticPair

MOST_GROWTH: Final = 1.6
MOST_MB: Final = 2000.0
MOST_ERROR: Final = 0.03

PAIR: Final = SyntheticPair(ranks=(0.58, 0.12, 0.06, 0.04, 0.03), exits=((8, 0.55), (16, 0.80), (24, 0.92)), layers=32)
GAMMA, DRAFT_S, PASS_S, ONE_WAY_S = 4, 0.02, 0.1, 0.02
"""A round of the benchmarks: draft steps, the target pass, and the way there or back."""
_ANY: Final = Range(new_tokens=(0, 1 << 20), context=(0, 1 << 30), batch=(1, 64))


def bench_scenario(
    devices: int, servers: int, requests: int, tokens: int, balance: Balance = "least_loaded"
) -> Scenario:
    """Devices and servers over links without a limit."""
    draft, target = load_profile("robot-5-draft", "draft"), load_profile("robot-5-target", "target")
    link = load_profile("robot-5", "link")
    one_way = msgspec.structs.replace(link.up, delay_s=ONE_WAY_S)
    file = ScenarioFile(
        policies=(f"sync:gamma={GAMMA}",),
        edge=EdgeTable(profile=draft.name),
        cloud=CloudTable(profile=target.name, servers=servers, balance=balance),
        link=Override(profile=link.name),
        pair=PAIR,
        workload=Workload(devices=devices, requests=requests, prompt_tokens=32, new_tokens=tokens),
    )
    return Scenario(
        Path("bench"),
        file,
        draft=msgspec.structs.replace(draft, draft_step=Line(base_s=DRAFT_S, range=_ANY), memory=None),
        target=msgspec.structs.replace(target, target_pass=Line(base_s=PASS_S, range=_ANY), memory=None),
        link=msgspec.structs.replace(link, up=one_way, down=one_way),
        pair=PAIR,
    )


def rounds_per_s(scenario: Scenario) -> tuple[float, int]:
    """Rounds per second (of a core of its own) of a scenario's first policy, and how many there were."""
    gc.collect()
    began_s = time.process_time()
    done = replicate(scenario, scenario.file.policies[0], 1)
    rounds = sum(finished.report.passes for finished in done.finished)
    return rounds / (time.process_time() - began_s), rounds


def loop_speed(turns: int = 300) -> Result:
    """The simulated loop against asyncio's own."""
    figures = [Figure(one.title, one.ratio, f"x of {one.against}") for one in compare_loops(turns)]
    return Result("loop-speed", "sleeps of a nanosecond and queues of one, best of 3", tuple(figures))


def fleet(rounds: int = 200_000, few: int = 10, many: int = 1000) -> Result:
    """Many devices against few, in processes of their own: wall time per round, and memory.

    Ten devices keep to a server each, so many are simulated server by server; and once more with connections that go to
    the least loaded server, which takes one loop for all. The few are over in a second or two, which a disturbance
    spoils as a whole: the best of three counts.
    """
    few_rounds = max(few * 100, rounds // 20)
    small = max((_measured(few, few_rounds, "affinity") for _ in range(3)), key=lambda said: said["rate"])
    apart, together = _measured(many, rounds, "affinity"), _measured(many, rounds, "least_loaded")
    return Result(
        "fleet",
        f"{apart['rounds']:,} rounds of {many} devices, {small['rounds']:,} of {few}, best of 3; ten devices a server",
        (
            Figure(f"{few} devices", small["rate"], "rounds/s"),
            Figure(f"{many} devices, each with its server", apart["rate"], "rounds/s"),
            Figure("time per round, many over few", small["rate"] / apart["rate"], "x", bound=MOST_GROWTH),
            Figure(f"peak memory, {many} devices", apart["peak_mb"], "MB", bound=MOST_MB),
            Figure(f"{many} devices, any server, in one loop", together["rate"], "rounds/s"),
            Figure("time per round in one loop, many over few", small["rate"] / together["rate"], "x"),
            Figure(f"peak memory in one loop, {many} devices", together["peak_mb"], "MB", bound=MOST_MB),
        ),
    )


def _measured(devices: int, rounds: int, balance: Balance) -> dict[str, Any]:
    arguments = [sys.executable, "-m", __name__, str(devices), str(rounds), balance]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ForedraftError(f"the process of {devices} devices failed: {done.stderr.strip()}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _fleet_process(devices: int, rounds: int, balance: Balance) -> None:
    """In a process of its own: enough requests of 100 rounds, and what they cost."""
    requests = max(-(-rounds // 100), devices)
    rate, ran = rounds_per_s(bench_scenario(devices, max(1, devices // 10), requests, 240, balance))
    print(json.dumps({"rate": rate, "rounds": ran, "peak_mb": _peak_mb()}))


def _peak_mb() -> float:
    """Peak resident memory of this process in 10**6 bytes. Raises ForedraftError off Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise ForedraftError("memory is read from /proc/self/status, which this system does not have")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


async def _real(scenario: Scenario, policy: str, requests: Sequence[int]) -> list[SessionReport]:
    """The same sessions on the wall clock: paced engines, aiohttp over loopback, a shaping proxy between."""
    source, tokenizer = token_source(scenario), byte_tokenizer()
    target = PacedTarget(source.target(), scenario.target)
    drafter = PacedDrafter(source.drafter(), scenario.draft)
    up, down = Shape(scenario.link.up.delay_s), Shape(scenario.link.down.delay_s)
    reports = []
    async with Cloud(target, tokenizer) as cloud, cloud.listen() as url:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        with proxy_process(host, int(port), up=up, down=down) as proxy:
            for request in requests:
                session = EdgeSession(
                    source.prompt(1, request),
                    connect=partial(websocket.connect, f"http://{proxy.host}:{proxy.port}"),
                    drafter=drafter,
                    policy=scenario.policy(policy),
                    sampling=scenario.sampling(1, request),
                    rules=StopRules(scenario.file.workload.new_tokens),  # type: ignore[arg-type]
                )
                async for _ in session.stream():
                    pass
                reports.append(session.report())
    return reports


def wall_clock(requests: int = 3, tokens: int = 32, policies: Sequence[str] = ("cloud", "sync", "seed")) -> Result:
    """Sessions on real sockets at the robot's times divided by five, against the same simulated."""
    from foredraft.loop import new_event_loop

    scenario = _robot_5(requests, tokens)
    errors: dict[str, list[float]] = {"tpot_s": [], "e2e_s": []}
    same = True
    for policy in policies:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            real = runner.run(_real(scenario, policy, range(requests)))
        simulated = [finished.report for finished in replicate(scenario, policy, 1, texts=True).finished]
        same = same and [one.tokens for one in real] == [one.tokens for one in simulated]
        for name, found in errors.items():
            found += [
                getattr(ours, name) / getattr(theirs, name) - 1 for ours, theirs in zip(simulated, real, strict=True)
            ]
    medians = {name: median(map(abs, found)) for name, found in errors.items()}
    return Result(
        "wall-clock",
        f"{len(policies) * requests} sessions of {tokens} tokens, {', '.join(policies)}, at the robot's times over 5",
        (
            Figure("median error of TPOT", medians["tpot_s"] * 100, "%", bound=MOST_ERROR * 100),
            Figure("median error end to end", medians["e2e_s"] * 100, "%", bound=MOST_ERROR * 100),
            Figure("worst error of TPOT", max(map(abs, errors["tpot_s"])) * 100, "%"),
            Figure("bias of TPOT, simulated over real", median(errors["tpot_s"]) * 100, "%"),
            Figure("texts that differ", float(not same), "", bound=0.0),
        ),
    )


def _robot_5(requests: int, tokens: int) -> Scenario:
    scenario = bench_scenario(1, 1, requests, tokens)
    link = load_profile("robot-5", "link")
    return replace(
        scenario,
        draft=load_profile("robot-5-draft", "draft"),
        target=load_profile("robot-5-target", "target"),
        # A WebSocket takes a round trip of HTTP to open; the proxy is near, so TCP's own is not delayed.
        link=msgspec.structs.replace(link, setup=Setup(round_trips=1.0)),
    )


if __name__ == "__main__":
    _fleet_process(int(sys.argv[1]), int(sys.argv[2]), cast(Balance, sys.argv[3]))
