"""Several edges in one process, without a draft: ``foredraft validate`` asks them for texts, all at once."""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

from foredraft.api.edge import Edge, connect
from foredraft.bench.child import answer
from foredraft.edge.session_report import SessionReport
from foredraft.loop import new_event_loop


async def texts(url: str, asked: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What each edge's requests came to, one after another, and how long all took.

    Of a request: ``think_s`` before it, ``tokens`` of its prompt, ``new_tokens`` that are wanted.
    """
    clock = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(connect(url, draft="ngram")) for _ in asked]
        began_s = clock()
        done = await asyncio.gather(*(_of_edge(edge, requests) for edge, requests in zip(edges, asked, strict=True)))
        took_s = clock() - began_s
    reports = [report for each in done for report in each]
    return {
        "duration_s": took_s,
        "ttft_s": [report.ttft_s for report in reports],
        "tpot_s": [report.tpot_s for report in reports],
    }


async def _of_edge(edge: Edge, requests: list[dict[str, Any]]) -> list[SessionReport]:
    reports = []
    for one in requests:
        await asyncio.sleep(one["think_s"])
        asked = edge.generate(one["tokens"], policy="cloud", max_new_tokens=one["new_tokens"], end_marks=False)
        reports.append(await asked.finish())
    return reports


def main() -> None:
    """Argument: the server's URL."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        answer(lambda asked: runner.run(texts(sys.argv[1], asked["edges"])))


if __name__ == "__main__":
    main()
