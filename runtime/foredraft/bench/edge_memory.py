"""What an edge with the n-gram drafter holds in memory, and that it loads no model library.

The edge is a process of its own that generates from a scripted server here, with the server's
tokenizer fetched as usual; it tells its resident memory and what it imported.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.result import Figure, Result
from foredraft.engines.scripted import ScriptedTarget
from foredraft.errors import ForedraftError

MOST_MB = 80.0
BOUND_TO = 1 << 15
"""The largest vocabulary for which the bound is meant."""

UNWANTED = ("torch", "transformers")


async def measure(vocabularies: tuple[int, ...] = (1 << 15, 1 << 17), tokens: int = 1000) -> Result:
    """Resident memory by the size of the vocabulary. Raises ForedraftError when the edge fails."""
    figures = []
    for size in vocabularies:
        said = await _edge_process(size, tokens)
        bound = MOST_MB if size <= BOUND_TO else None
        figures.append(Figure(f"resident after the text, vocabulary of {size}", said["VmRSS"], "MB", bound=bound))
        figures.append(Figure("its peak, while the tokenizer was read", said["VmHWM"], "MB"))
        figures.append(
            Figure("the process beside it that encodes prompts, where they are texts", said["encodes"], "MB")
        )
        figures.append(Figure(f"of {', '.join(UNWANTED)} imported", len(said["imported"]), "", bound=0.0))
    return Result("edge-memory", f"an n-gram edge that generates {tokens} tokens, prompt of 1000", tuple(figures))


async def _edge_process(size: int, tokens: int) -> dict[str, Any]:
    tokenizer = byte_tokenizer(size)
    target = ScriptedTarget(
        lambda position: position * position % 977, vocab_size=size, tokenizer_digest=tokenizer.digest
    )
    async with Cloud(target, tokenizer) as cloud, cloud.listen() as url:
        with tempfile.TemporaryDirectory() as cache:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __name__, url, str(tokens)),
                stdout=subprocess.PIPE,
                env=os.environ | {"XDG_CACHE_HOME": cache},
            )
            out, _ = await process.communicate()
    if process.returncode:
        raise ForedraftError(f"the edge process failed with exit code {process.returncode}")
    said: dict[str, Any] = json.loads(out)
    return said


def memory_mb(process: str = "self") -> dict[str, float]:
    """Resident memory of a process, now and at its peak, in 10**6 bytes. Raises ForedraftError off Linux."""
    status = Path("/proc", process, "status")
    if not status.exists():
        raise ForedraftError(f"memory is read from {status}, which this system does not have")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")}


def _child_mb() -> float:
    """Resident memory of the one process that this thread has started."""
    (child,) = Path("/proc/self/task", str(threading.get_native_id()), "children").read_text().split()
    return memory_mb(child)["VmRSS"]


async def _edge(url: str, tokens: int) -> None:
    async with connect(url, draft="ngram") as edge:
        await edge.generate(list(range(1000)), policy="sync", max_new_tokens=tokens).finish()
        resident = memory_mb()
        if edge.tokenizer is None:
            raise ForedraftError("the server has no tokenizer")
        edge.tokenizer.encode("a text")
        resident["encodes"] = _child_mb()
    imported = [name for name in UNWANTED if name in sys.modules]
    print(json.dumps(resident | {"imported": imported}))


if __name__ == "__main__":
    asyncio.run(_edge(sys.argv[1], int(sys.argv[2])))
