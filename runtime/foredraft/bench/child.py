"""Child processes of a benchmark: a Python module on one core, asked by lines of JSON.

``python -m foredraft.bench.child CORE MODULE ARGUMENTS`` keeps itself, and all threads that it
will start, on that core (``-``: on any), then runs the module.
"""

import contextlib
import json
import os
import runpy
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from foredraft.errors import ForedraftError

READY_S = 300.0
"""How long an answer may take; the first one waits for a model to be loaded."""


def cores() -> list[int]:
    """The cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


class Child:
    """A running child; from ``child``."""

    def __init__(self, process: "subprocess.Popen[str]", name: str) -> None:
        self._process = process
        self._name = name

    def ask(self, question: object) -> dict[str, Any]:
        """Its answer. Raises ForedraftError when it has ended, or takes too long."""
        if self._process.stdin is None:
            raise ForedraftError(f"{self._name} has no input")
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ForedraftError(f"{self._name} has ended; what it said is above") from error
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next thing that it says. Raises ForedraftError as ``ask`` does."""
        output = self._process.stdout
        if output is None:
            raise ForedraftError(f"{self._name} has no output")
        if not select.select([output], [], [], READY_S)[0]:
            raise ForedraftError(f"{self._name} has said nothing for {READY_S:g} s")
        line = output.readline()
        if not line:
            raise ForedraftError(f"{self._name} has ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def child(core: int | None, module: str, *arguments: str) -> Iterator[Child]:
    """The module in a process of its own until the block ends, on one core."""
    command = [sys.executable, "-m", "foredraft.bench.child", "-" if core is None else str(core), module, *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            yield Child(process, module)
        finally:
            process.terminate()


def answer(reply: Callable[[Any], dict[str, Any]]) -> None:
    """In the child: answer each line of standard input, until it closes."""
    for line in sys.stdin:
        print(json.dumps(reply(json.loads(line))), flush=True)


def main() -> None:
    """Pin this process, and be the module."""
    core, module, *arguments = sys.argv[1:]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
