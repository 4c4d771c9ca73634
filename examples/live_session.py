"""A text from a running server, drafted by n-gram lookup: no model and no torch on this side.

foredraft serve --model demo                                  # in another terminal, or on another machine
python examples/live_session.py http://127.0.0.1:8471
"""

import asyncio
import sys

import foredraft

PROMPT = "import os\nimport sys\n\ndef read_lines(path):\n"


async def main(url: str) -> None:
    async with foredraft.connect(url, draft="ngram") as edge:
        generation = edge.generate(PROMPT, policy="sync:gamma=4", temperature=0.8, max_new_tokens=64)
        print(PROMPT, end="")
        async for piece in generation:
            print(piece.text, end="", flush=True)
        report = generation.report
        print(f"\n\nseed {report.seed}: {report.tokens_per_pass:.2f} tokens per pass of the target")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
