"""What the session logic costs per verification round, beside the network and the threads.

Engines that take no time run through worker threads as real ones do, over a loopback WebSocket with
both ends on one loop. A round drafts one token and has it verified: one visit to each worker.
From it are taken off the round trip of a bare aiohttp echo of the same bytes and two bare visits
to a worker thread: asyncio's own ``run_in_executor`` with a pool of one thread, which is what there would
be without this project. The three alternate, turn by turn, so that whatever else the machine does meets
all alike.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import median

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.link_costs import bare_echo_round_trips
from foredraft.bench.result import Figure, Result
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.engines.worker_thread import WorkerThread
from foredraft.links.framing import framed_bytes
from foredraft.protocol.ports import Guess

MOST_MS = 0.3
WARM_UP_ROUNDS = 100


async def measure(rounds: int = 2000, turns: int = 5) -> Result:
    """The overhead of a round, over so many rounds in so many turns."""
    rounds_s: list[float] = []
    echoes_s: list[float] = []
    visits_s: list[float] = []
    each = -(-rounds // turns)
    for _ in range(turns):
        times_s, up_bytes, down_bytes = await _rounds(each)
        rounds_s += times_s
        echoes_s += await bare_echo_round_trips(up_bytes, down_bytes, each)
        visits_s += await _bare_visits_s(each)
    round_s, echo_s, visit_s = median(rounds_s), median(echoes_s), median(visits_s)
    return Result(
        "overhead",
        f"medians of {each * turns} rounds in {turns} turns; {up_bytes} bytes up and {down_bytes} down per round",
        (
            Figure("one verification round", round_s * 1e3, "ms"),
            Figure("bare WebSocket echo of the same bytes", echo_s * 1e3, "ms"),
            Figure("bare visit to a worker thread", visit_s * 1e3, "ms"),
            Figure("overhead", (round_s - echo_s - 2 * visit_s) * 1e3, "ms", bound=MOST_MS),
        ),
    )


async def _rounds(rounds: int) -> tuple[list[float], int, int]:
    """Seconds from one piece of text to the next, and the payload bytes of a round in each direction."""

    def truth(position: int) -> int:
        return position % 251 + 3

    tokenizer = byte_tokenizer()
    pieces_s: list[float] = []
    with WorkerThread("target") as target_worker, WorkerThread("draft") as draft_worker:
        target = ScriptedTarget(truth, worker=target_worker, tokenizer_digest=tokenizer.digest, vocab_size=257)
        drafter = ScriptedDrafter(lambda position, _: [Guess(truth(position), 0.9)], worker=draft_worker)
        async with Cloud(target, tokenizer) as cloud, cloud.listen() as url, connect(url, draft=drafter) as edge:
            asked = edge.generate([5, 6, 7], policy="sync:gamma=1", max_new_tokens=2 * (rounds + WARM_UP_ROUNDS))
            async for _ in asked:
                pieces_s.append(time.perf_counter())
    report = asked.report
    header = framed_bytes(0, masked=True), framed_bytes(0, masked=False)
    up_bytes = round((report.bytes_up - report.opening_bytes_up) / report.passes) - header[0]
    down_bytes = round(report.bytes_down / report.passes) - header[1]
    rounds_s = [later - earlier for earlier, later in pairwise(pieces_s[WARM_UP_ROUNDS:])]
    return rounds_s, up_bytes, down_bytes


async def _bare_visits_s(count: int) -> list[float]:
    """Seconds of visits to a worker thread and back."""
    loop = asyncio.get_running_loop()
    times_s = []
    with ThreadPoolExecutor(1) as worker:
        for turn in range(WARM_UP_ROUNDS + count):
            began_s = time.perf_counter()
            await loop.run_in_executor(worker, int)
            if turn >= WARM_UP_ROUNDS:
                times_s.append(time.perf_counter() - began_s)
    return times_s
