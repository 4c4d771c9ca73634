"""A child process for the tests: says where it runs, echoes, or ends."""

import os
import sys
import threading
from typing import Any

from foredraft.bench.child import answer


def reply(question: dict[str, Any]) -> dict[str, Any]:
    if question["want"] == "end":
        sys.exit(3)
    if question["want"] == "echo":
        return {"echo": question}
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(sorted(os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    return {"process": sorted(os.sched_getaffinity(0)), "thread": found}


answer(reply)
