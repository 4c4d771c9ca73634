"""What a round of synchronous speculative decoding sends to the cloud.

A scripted session over a loopback WebSocket: gamma 4, a vocabulary of 32,768 used evenly, so that
half of the token ids take three bytes, and drafts right three times in five. The prompt, the
handshake and pings are left out; WebSocket framing is counted.
"""

from foredraft.api import connect
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.result import Figure, Result
from foredraft.core.ports import Guess
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.hosting import Cloud

MOST_BYTES = 40.0
VOCABULARY = 1 << 15


def _mixed(position: int) -> int:
    """A number that looks random, from Knuth's multiplicative hashing."""
    return position * 2654435761 % (1 << 32)


def _truth(position: int) -> int:
    return _mixed(position) % VOCABULARY


def _guess(position: int) -> int:
    return _truth(position) if _mixed(position + 1) % 5 < 3 else 0


async def measure(tokens: int = 4000) -> Result:
    """Bytes up per round of a text of so many tokens."""
    tokenizer = byte_tokenizer()
    target = ScriptedTarget(_truth, vocab_size=VOCABULARY, tokenizer_digest=tokenizer.digest)
    drafter = ScriptedDrafter(lambda position, _: [Guess(_guess(position), 0.6)])
    async with Cloud(target, tokenizer) as cloud, cloud.listen() as url, connect(url, draft=drafter) as edge:
        asked = edge.generate(list(range(1000)), policy="sync:gamma=4", max_new_tokens=tokens)
        report = await asked.finish()
    per_round = (report.bytes_up - report.opening_bytes_up) / report.passes
    return Result(
        "uplink",
        f"{report.passes} rounds of sync at gamma 4, positions 1000 to {1000 + tokens}, a vocabulary of {VOCABULARY}",
        (
            Figure("bytes up per round, framing included", per_round, "bytes", bound=MOST_BYTES),
            Figure("bytes down per round, framing included", report.bytes_down / report.passes, "bytes"),
            Figure("tokens per pass", report.tokens_per_pass, ""),
        ),
    )
