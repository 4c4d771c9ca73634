"""A server in a program of one's own, and an edge that goes on when the first of two servers goes away.

python examples/own_server.py [FOLDER OR HUB ID OF A MODEL]
"""

import asyncio
import sys
from contextlib import AsyncExitStack

import foredraft


async def main(model: str) -> None:
    load = asyncio.to_thread(foredraft.Cloud.load, model, options=foredraft.ModelOptions(threads=1))
    async with await load as cloud, AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        urls = [await first.enter_async_context(cloud.listen()), await stack.enter_async_context(cloud.listen())]
        async with foredraft.connect(*urls) as edge:
            generation = edge.generate("def f(x):\n", policy="sync", temperature=0.8, max_new_tokens=40)
            async for piece in generation:
                print(piece.text, end="", flush=True)
                await first.aclose()  # after the first tokens; closing it again does nothing
            print(f"\n\nreconnects: {generation.report.reconnects}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "demo"))
