"""What the session logic costs per verification round, beside the network and the threads.

Engines that take no time run through worker threads as real ones do, over a loopback WebSocket with
both ends on one loop. A round drafts one token and has it verified: one visit to each worker.
From it are taken off the round trip of a bare aiohttp echo of the same bytes and two bare visits
to a worker thread, measured in the same run.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import median

from foredraft.api import connect
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.result import Figure, Result
from foredraft.core.events import Event
from foredraft.core.ports import Guess
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.hosting import Cloud
from foredraft.links.framing import framed_bytes
from foredraft.links.measure import bare_echo_round_trips

MOST_MS = 0.3
WARM_UP_ROUNDS = 100


async def measure(rounds: int = 2000) -> Result:
    """The overhead of a round, over so many rounds."""
    with ThreadPoolExecutor(1) as target_worker, ThreadPoolExecutor(1) as draft_worker:
        rounds_s, up_bytes, down_bytes = await _rounds(rounds, target_worker, draft_worker)
        hop_s = await _hop_s(target_worker, rounds)
    echo_s = median(await bare_echo_round_trips(up_bytes, down_bytes, rounds))
    round_s = median(rounds_s)
    return Result(
        "overhead",
        f"medians of {rounds} rounds; {up_bytes} bytes up and {down_bytes} down per round",
        (
            Figure("one verification round", round_s * 1e3, "ms"),
            Figure("bare WebSocket echo of the same bytes", echo_s * 1e3, "ms"),
            Figure("bare visit to a worker thread", hop_s * 1e3, "ms"),
            Figure("overhead", (round_s - echo_s - 2 * hop_s) * 1e3, "ms", bound=MOST_MS),
        ),
    )


async def _rounds(
    rounds: int, target_worker: ThreadPoolExecutor, draft_worker: ThreadPoolExecutor
) -> tuple[list[float], int, int]:
    """Seconds from commit to commit, and the payload bytes of a round in each direction."""

    def truth(position: int) -> int:
        return position % 251 + 3

    tokenizer = byte_tokenizer()
    target = ScriptedTarget(truth, worker=target_worker, tokenizer_digest=tokenizer.digest, vocab_size=257)
    drafter = ScriptedDrafter(lambda position, _: [Guess(truth(position), 0.9)], worker=draft_worker)
    events: list[Event] = []
    async with Cloud(target, tokenizer) as cloud, cloud.listen() as url, connect(url, draft=drafter) as edge:
        asked = edge.generate(
            [5, 6, 7], policy="sync:gamma=1", max_new_tokens=2 * (rounds + WARM_UP_ROUNDS), observer=events.append
        )
        report = await asked.finish()
    commits_s = [event.t_s for event in events if event.kind == "commit"][WARM_UP_ROUNDS:]
    header = framed_bytes(0, masked=True), framed_bytes(0, masked=False)
    up_bytes = round((report.bytes_up - report.opening_bytes_up) / report.passes) - header[0]
    down_bytes = round(report.bytes_down / report.passes) - header[1]
    return [later - earlier for earlier, later in pairwise(commits_s)], up_bytes, down_bytes


async def _hop_s(worker: ThreadPoolExecutor, count: int) -> float:
    """Median seconds of a visit to a worker thread and back."""
    loop = asyncio.get_running_loop()
    times_s = []
    for _ in range(count):
        began_s = time.perf_counter()
        await loop.run_in_executor(worker, int)
        times_s.append(time.perf_counter() - began_s)
    return median(times_s)
