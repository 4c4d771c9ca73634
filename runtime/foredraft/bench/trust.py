"""What a key's share of the target is worth beside keys that flood it.

The bundled target's engine alone, one thread: a quiet key decodes token by token while others ask for as much as they
can, long prompts and wide trees at once, without end. No link and no event loop of a server is in the way.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Final

from foredraft.bench.one_thread import one_thread
from foredraft.bench.result import Figure, Result
from foredraft.demo_models import bundled_pair
from foredraft.engines.device import fine_clock
from foredraft.engines.torch_model import load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import RefusedError
from foredraft.observe.aggregate import percentile
from foredraft.protocol.ports import Pass, Slot
from foredraft.protocol.sampling import Sampling

MOST_BESIDE_ONE: Final = 2.2
"""Of two keys of the same weight each has half."""

MOST_OVER_SHARE: Final = 1.1
_QUIET: Final = "quiet"
_SESSIONS, _TREE, _PROMPT, _TEXT, _TOKENS = 8, 32, 300, 24, 32


async def measure(texts: int = 24) -> Result:
    """The quiet key's time per token at p99 of ``texts`` texts: alone, beside one key that floods, and beside ten."""
    target = TorchTarget(load_model(bundled_pair().target), max_slots=256, cache_bytes=1 << 30)
    with one_thread():
        try:
            await _quiet(target, 2)
            alone_s = await _quiet(target, texts)
            one_s, ten_s = [await _beside(target, [f"flood {key}" for key in range(keys)], texts) for keys in (1, 10)]
            same_s = await _beside(target, [_QUIET], texts)
        finally:
            await target.close()
    figures = (
        Figure("alone", alone_s * 1e3, "ms"),
        Figure("beside one that floods, over alone", one_s / alone_s, "x", MOST_BESIDE_ONE),
        Figure("beside ten that flood, over alone", ten_s / alone_s, "x"),
        Figure("beside ten that flood, over its share, an eleventh", ten_s / alone_s / 11, "x", MOST_OVER_SHARE),
        Figure("beside a flood of its own key, where nothing is divided, over alone", same_s / alone_s, "x"),
    )
    flood = f"{_SESSIONS} sessions a key, half of them passes of {_TREE} nodes, half prompts of {_PROMPT} tokens"
    return Result("trust", f"time per token at p99 of {texts} texts of {_TEXT} tokens; {flood}", figures)


async def _beside(target: TorchTarget, owners: Sequence[str], texts: int) -> float:
    flood = [asyncio.create_task(_flood(target, owner, number)) for owner in owners for number in range(_SESSIONS)]
    try:
        await asyncio.sleep(0.5)
        return await _quiet(target, texts)
    finally:
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def _quiet(target: TorchTarget, texts: int) -> float:
    """Seconds per token at p99."""
    clock = fine_clock(asyncio.get_running_loop())
    per_token_s = []
    for number in range(texts):
        slot = await _begun(target, _QUIET, [number + 2] * _TOKENS)
        began_s = clock()
        for token in range(_TEXT):
            await slot.verify(Pass((token + 2,)), _ignore)
        per_token_s.append((clock() - began_s) / _TEXT)
        slot.close()
    return percentile(per_token_s, 99)


async def _flood(target: TorchTarget, owner: str, number: int) -> None:
    luck = Random(f"{owner} {number}")
    wide = number % 2 == 0
    for text in _texts(luck, target.card.vocab_size):
        slot = await _begun(target, owner, text if not wide else text[:_TOKENS])
        with contextlib.suppress(RefusedError):  # its text is as long as it can be
            while wide:
                await slot.verify(Pass((1,), tuple(range(2, 2 + _TREE)), (-1,) * _TREE), _ignore)
        slot.close()


async def _begun(target: TorchTarget, owner: str, text: list[int]) -> Slot:
    slot = await target.slot(text, Sampling(), owner)
    await slot.prefill(text[slot.cached : -1])
    return slot


def _texts(luck: Random, vocabulary: int) -> Iterator[list[int]]:
    for _ in count():
        yield [luck.randrange(2, vocabulary) for _ in range(_PROMPT)]


def _ignore(prediction: object) -> None:
    """No exit is asked."""
