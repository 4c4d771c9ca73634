"""A server in a process of its own, to be killed."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit


class ServerProcess:
    """``foredraft serve`` with one model and always the same port; it can be killed and started again."""

    def __init__(self, model: Path) -> None:
        words = ["serve", "--model", str(model), "--threads", "1", "--json", "--port"]
        self._command = [sys.executable, "-m", "foredraft", *words]
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = subprocess.Popen([*self._command, str(self._port)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = str(json.loads(self._process.stdout.readline())["url"])
        self._port = int(urlsplit(self.url).port or 0)

    def kill(self) -> None:
        """As a power cut does: no goodbye. Killing it twice is fine."""
        self._process.kill()
        with self._process:
            pass
