"""Both ends on one machine, as fast as profiles say: a server in a process of its own, a link, and an edge here."""

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from foredraft.api.edge import Edge, connect
from foredraft.api.loading import NGRAM, ModelOptions
from foredraft.api.points import Point
from foredraft.errors import ModelError
from foredraft.links.emulation import proxies
from foredraft.links.proxy_process import ProxyProcess
from foredraft.links.shaping import Shape
from foredraft.profiles import load_profile

READY_S: Final = 120.0


@asynccontextmanager
async def emulated_pair(
    model: str, exits: Path | None, draft: str, point: Point
) -> AsyncIterator[tuple[Edge, ProxyProcess]]:
    """An edge of a server that has seen nothing yet, and the link between them. Raises ModelError, ConfigError."""
    link = load_profile(point.link, "link")
    warming = asyncio.create_task(asyncio.to_thread(_warm_up, draft))  # while the cloud loads, too
    async with _cloud_process(model, exits, point.target) as url:
        await warming
        with proxies([url], Shape(link.up.delay_s), Shape(link.down.delay_s)) as [(front, proxy)]:
            async with connect(front, draft=draft, options=ModelOptions(threads=1, pace=point.draft)) as edge:
                yield edge, proxy


def _warm_up(draft: str) -> None:
    """Import what the edge's drafter will need."""
    if draft != NGRAM:
        importlib.import_module("foredraft.engines.torch_draft")


@asynccontextmanager
async def _cloud_process(model: str, exits: Path | None, pace: str) -> AsyncIterator[str]:
    """A server process; yields its URL. Raises ModelError when it does not start."""
    command = [sys.executable, "-m", "foredraft", "serve", "--json", "--port", "0", "--threads", "1"]
    command += ["--model", model, "--pace", pace]
    if exits is not None:
        command += ["--exits", str(exits)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        if process.stdout is None:
            raise ModelError("the cloud process has no output to read its address from")
        async with asyncio.timeout(READY_S):
            line = await process.stdout.readline()
        if not line:
            raise ModelError(f"the cloud process ended before it was ready (exit code {await process.wait()})")
        yield json.loads(line)["url"]
    except TimeoutError as error:
        raise ModelError(f"the cloud process was not ready after {READY_S:g} s") from error
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
