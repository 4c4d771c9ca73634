"""Stop wherever you like: leave the loop, and the cloud is told to stop, too.

Here the text ends when a function is complete: at the first line that is not indented. A second turn
then goes on from what was kept, in a text of one's own.

    python examples/own_stop_rule.py http://127.0.0.1:8471
"""

import asyncio
import sys

import foredraft


async def one_function(edge: foredraft.Edge, prompt: str) -> str:
    """The prompt and what completes its function."""
    text = prompt
    generation = edge.generate(prompt, policy="sync", temperature=0.8, seed=1, max_new_tokens=400)
    async for piece in generation:
        text += piece.text
        ends = [end for end in range(len(prompt), len(text) - 1) if text[end] == "\n" and not text[end + 1].isspace()]
        if ends:
            text = text[: ends[0] + 1]
            break
    await generation.aclose()  # the next generation would do it, too
    return text


async def main(url: str) -> None:
    async with foredraft.connect(url) as edge:
        text = await one_function(edge, "def parse(line):\n")
        text = await one_function(edge, text + "\n\ndef main():\n")
        print(text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
