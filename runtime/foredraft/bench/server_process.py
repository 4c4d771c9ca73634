"""A real server of the bundled target in a process of its own, which benchmarks kill and look into."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from foredraft.bench.edge_memory import memory_mb
from foredraft.errors import ForedraftError


class ServerProcess:
    """``foredraft serve``, always at the same port once it has had one. From ``server_process``."""

    def __init__(self, *options: str) -> None:
        self._command = [sys.executable, "-m", "foredraft", "serve", "--threads", "1", "--json", *options, "--port"]
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    async def start(self) -> None:
        """Start it, and wait until it serves. Raises ForedraftError when it ends before."""
        line = await asyncio.to_thread(self._first_line)
        if not line:
            raise ForedraftError("the server ended before it served; what it said is above")
        self.url = json.loads(line)["url"]
        self._port = urlsplit(self.url).port or 0

    def _first_line(self) -> str:
        command = [*self._command, str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        return "" if self._process.stdout is None else self._process.stdout.readline()

    def kill(self) -> None:
        """End it as a power cut does (``kill -9``)."""
        if self._process is not None:
            self._process.kill()
            with self._process:
                self._process = None

    def resident_mb(self) -> float:
        """Its memory. Raises ForedraftError."""
        return memory_mb(self._number())["VmRSS"]

    def cpu_s(self) -> float:
        """What it has taken of all cores. Raises ForedraftError."""
        fields = Path("/proc", self._number(), "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in user mode, and in the kernel

    def _number(self) -> str:
        if self._process is None:
            raise ForedraftError("the server is not running")
        return str(self._process.pid)


@contextlib.asynccontextmanager
async def server_process(*options: str) -> AsyncIterator[ServerProcess]:
    """A server with these options of ``foredraft serve``, until the block ends."""
    server = ServerProcess(*options)
    try:
        await server.start()
        yield server
    finally:
        server.kill()
