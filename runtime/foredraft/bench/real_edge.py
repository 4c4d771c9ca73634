"""``bench real``: the edge in a process of its own. Loads the draft once; each session knows nothing beforehand."""

import asyncio
import sys
from dataclasses import asdict
from typing import Any

from foredraft.api.edge import connect
from foredraft.api.loading import ModelOptions, load_drafter
from foredraft.bench.child import answer
from foredraft.loop import new_event_loop
from foredraft.protocol.sampling import Sampling

_OTHER_TEXT = 1
"""The end mark: a token that no prompt begins with."""


def main() -> None:
    """Arguments: the server's URL, the draft, and the profile that paces it (empty: none)."""
    url, draft, pace = sys.argv[1:]
    drafter, _ = load_drafter(draft, ModelOptions(threads=1, pace=pace))

    async def session(prompt: str, asked: dict[str, Any]) -> dict[str, Any]:
        await drafter.begin([_OTHER_TEXT], Sampling())  # the prompt of the turn before is still in its cache
        async with connect(url, draft=drafter) as edge:
            generation = edge.generate(prompt, end_marks=False, **asked)
            return asdict(await generation.finish())

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        answer(lambda asked: runner.run(session(asked.pop("prompt"), asked)))
        runner.run(drafter.close())


if __name__ == "__main__":
    main()
