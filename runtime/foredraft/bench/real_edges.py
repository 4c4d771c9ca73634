"""Many edges in a process of their own, all without drafts, that begin at once."""

import asyncio
import sys
from typing import Any

from foredraft.api.edge import connect
from foredraft.bench.child import answer
from foredraft.engines.ngram import NgramDrafter
from foredraft.loop import new_event_loop


def main() -> None:
    """Argument: the server's URL."""
    [url] = sys.argv[1:]

    async def session(prompt: str, asked: dict[str, Any]) -> dict[str, float]:
        async with connect(url, draft=NgramDrafter()) as edge:
            report = await edge.generate(prompt, policy="cloud", end_marks=False, **asked).finish()
            return {"ttft_s": report.ttft_s, "e2e_s": report.e2e_s, "new_tokens": report.new_tokens}

    async def together(asked: dict[str, Any]) -> dict[str, Any]:
        prompts = asked.pop("prompts")
        return {"sessions": await asyncio.gather(*(session(prompt, asked) for prompt in prompts))}

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        answer(lambda asked: runner.run(together(asked)))


if __name__ == "__main__":
    main()
