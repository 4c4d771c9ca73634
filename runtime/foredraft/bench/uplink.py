"""What a round of synchronous speculative decoding sends to the cloud.

A scripted session over a loopback WebSocket: gamma 4, vocabularies of 32,768 and 152,000 tokens used evenly,
so that half of the token ids (or nine in ten) take three bytes, and drafts right three times in five. The
prompt, the handshake and pings are left out; WebSocket framing is counted.
"""

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.result import Figure, Result
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.protocol.ports import Guess

MOST_BYTES = 40.0
VOCABULARIES = (1 << 15, 152_000)


def _mixed(position: int) -> int:
    """A number that looks random, from Knuth's multiplicative hashing."""
    return position * 2654435761 % (1 << 32)


async def measure(tokens: int = 4000) -> Result:
    """Bytes up per round of a text of so many tokens, for vocabularies of two sizes."""
    figures: list[Figure] = []
    for size in VOCABULARIES:
        figures += await _of_vocabulary(size, tokens)
    return Result("uplink", f"sync at gamma 4, positions 1000 to {1000 + tokens}", tuple(figures))


async def _of_vocabulary(size: int, tokens: int) -> list[Figure]:
    def truth(position: int) -> int:
        return _mixed(position) % size

    def guess(position: int, _: int) -> list[Guess]:
        return [Guess(truth(position) if _mixed(position + 1) % 5 < 3 else size - 1, 0.6)]

    tokenizer = byte_tokenizer()
    target = ScriptedTarget(truth, vocab_size=size, tokenizer_digest=tokenizer.digest)
    async with (
        Cloud(target, tokenizer) as cloud,
        cloud.listen() as url,
        connect(url, draft=ScriptedDrafter(guess)) as edge,
    ):
        asked = edge.generate(list(range(1000)), policy="sync:gamma=4", max_new_tokens=tokens)
        report = await asked.finish()
    per_round = (report.bytes_up - report.opening_bytes_up) / report.passes
    return [
        Figure(f"up per round, vocabulary of {size}", per_round, "bytes", bound=MOST_BYTES),
        Figure("down per round", report.bytes_down / report.passes, "bytes"),
        Figure("tokens per pass", report.tokens_per_pass, ""),
    ]
