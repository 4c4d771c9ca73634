"""The shaping proxy in a process of its own, where nothing holds up its clock.

The process is told what to do by words on its standard input, ends when that closes, and
answers ``report`` with a line of JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from foredraft.errors import ConfigError, LinkError
from foredraft.links.proxy import ShapingProxy
from foredraft.links.shaping import DirectionReport, ProxyReport, Shape


class ProxyProcess:
    """A running proxy process; from ``proxy_process``. Its calls take microseconds, but they do block."""

    def __init__(self, process: "subprocess.Popen[str]", host: str, port: int) -> None:
        self._process = process
        self.host = host
        self.port = port

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def cut(self) -> None:
        """Break all connections, with what is on the way."""
        self._ask("cut")

    def refuse(self) -> None:
        """Take no new connections."""
        self._ask("refuse")

    def resume(self) -> None:
        """Take new connections again."""
        self._ask("resume")

    def report(self) -> ProxyReport:
        """What was achieved so far."""
        answer = self._ask("report")
        return ProxyReport(DirectionReport(**answer["up"]), DirectionReport(**answer["down"]), answer["realtime"])

    def _ask(self, word: str) -> dict[str, Any]:
        try:
            return _exchange(self._process, word)
        except (OSError, ValueError) as error:  # ValueError: its pipes are closed already
            raise LinkError("the shaping proxy has ended") from error


def _exchange(process: "subprocess.Popen[str]", line: str) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise LinkError("the shaping proxy has no pipes")
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise LinkError("the shaping proxy has ended")
    decoded: dict[str, Any] = json.loads(answer)
    return decoded


@contextlib.contextmanager
def proxy_process(
    target_host: str, target_port: int, *, up: Shape, down: Shape, seed: int = 0, port: int = 0, core: int | None = None
) -> Iterator[ProxyProcess]:
    """A shaping proxy in its own process until the block ends; starting it takes some 0.1 s.

    ``core``: where it runs, before whatever else does there; None: on any. Raises ConfigError when it cannot listen or
    does not find the target's host.
    """
    spec = {
        "target_host": target_host,
        "target_port": target_port,
        "up": asdict(up),
        "down": asdict(down),
        "seed": seed,
        "port": port,
    }
    words = [sys.executable, "-m", "foredraft.links.proxy_process", *([] if core is None else [str(core)])]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for whoever uses the proxy, which then ends it
    )
    with process:
        answer = _exchange(process, json.dumps(spec))
        if "error" in answer:
            raise ConfigError(answer["error"])
        yield ProxyProcess(process, answer["host"], answer["port"])


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def _obey(proxy: ShapingProxy) -> None:
    """Follow the words on standard input until it closes."""
    for line in sys.stdin:
        word = line.strip()
        if word == "report":
            _say(asdict(proxy.report()))
        elif word in ("cut", "refuse", "resume"):
            getattr(proxy, word)()
            _say({})
    proxy.stop()


def main() -> None:
    """Run the proxy that the first line of standard input describes; the argument is the core, if it has one."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    spec = json.loads(sys.stdin.readline())
    spec |= {"up": Shape(**spec["up"]), "down": Shape(**spec["down"])}
    try:
        proxy = ShapingProxy(**spec)
    except ConfigError as error:
        _say({"error": str(error)})
        return
    _say({"host": proxy.host, "port": proxy.port})
    threading.Thread(target=_obey, args=(proxy,), daemon=True).start()
    proxy.run(realtime=True)


if __name__ == "__main__":
    main()
