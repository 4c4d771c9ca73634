"""A server in a process of its own, to be killed, stopped and drained."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit


def said_of(pid: int, what: str) -> str:
    """What Linux says of a process: a line of its status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{what}:"))


class ServerProcess:
    """``foredraft serve`` with one model and always the same port; it can be killed and started again.

    ``words``: options before the verb. ``stderr``: where its log goes, if not to ours. ``file_bytes``: what its files
    may have once it serves, as if the disk were full then.
    """

    def __init__(
        self,
        model: Path | str,
        words: Sequence[str] = (),
        *,
        stderr: IO[str] | None = None,
        file_bytes: int | None = None,
    ) -> None:
        serve = ["serve", "--model", str(model), "--threads", "1", "--json", "--port"]
        self._command = [sys.executable, "-m", "foredraft", *words, *serve]
        self._stderr, self._file_bytes = stderr, file_bytes
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = subprocess.Popen(
            [*self._command, str(self._port)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = str(json.loads(self._process.stdout.readline())["url"])
        self._port = int(urlsplit(self.url).port or 0)
        if self._file_bytes is not None:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (self._file_bytes, self._file_bytes))

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """As a power cut does: no goodbye. Killing it twice is fine."""
        self._process.kill()
        with self._process:
            pass

    def pause(self) -> None:
        """It stops where it is, and has stopped; its connections stay."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """And goes on, if it was stopped."""
        self._process.send_signal(signal.SIGCONT)

    def drain(self) -> int:
        """Tell it to end in good order; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        with self._process:
            return self._process.wait()
