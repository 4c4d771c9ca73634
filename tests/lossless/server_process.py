"""A server in a process of its own, to be killed, stopped and drained."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit


def said_of(pid: int, what: str) -> str:
    """What Linux says of a process: a line of its status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{what}:"))


class ServerProcess:
    """``foredraft serve`` with one model and always the same port; it can be killed and started again.

    ``words``: options before the verb. ``stderr``: where its log goes, if not to ours. ``limits``: what is done in the
    process before it becomes the server.
    """

    def __init__(
        self,
        model: Path | str,
        words: Sequence[str] = (),
        *,
        stderr: IO[str] | None = None,
        limits: Callable[[], None] | None = None,
    ) -> None:
        serve = ["serve", "--model", str(model), "--threads", "1", "--json", "--port"]
        self._command = [sys.executable, "-m", "foredraft", *words, *serve]
        self._stderr, self._limits = stderr, limits
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = subprocess.Popen(
            [*self._command, str(self._port)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            preexec_fn=self._limits,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = str(json.loads(self._process.stdout.readline())["url"])
        self._port = int(urlsplit(self.url).port or 0)

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
        """It stops where it is; its connections stay."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """And goes on, if it was stopped."""
        self._process.send_signal(signal.SIGCONT)

    def drain(self) -> int:
        """Tell it to end in good order; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        with self._process:
            return self._process.wait()
