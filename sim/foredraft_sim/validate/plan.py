"""What a validation runs: policies, links, prompts to fit on and prompts to report on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from foredraft.api.loading import DEMO
from foredraft.links.shaping import Shape

TEMPERATURE: Final = 0.8
SEED: Final = 1
GAMMA: Final = 4

FIT_PROMPTS: Final = (
    "import os\nimport sys\n\n\ndef read_lines(path):\n    with open(path) as file:\n",
    '"""Small helpers for dates."""\n\nimport datetime\n\n\ndef parse(text):\n',
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "def merge(left, right):\n    result = []\n    i = j = 0\n    while i < len(left):\n",
)
REPORT_PROMPTS: Final = (
    "import json\nfrom pathlib import Path\n\n\nclass Settings:\n    def __init__(self, path):\n",
    '"""Count the words of a text."""\n\nfrom collections import Counter\n\n\ndef count(text):\n',
    "class Queue:\n    def __init__(self):\n        self.items = []\n\n    def pop(self):\n",
    "def binary_search(values, wanted):\n    low, high = 0, len(values)\n    while low < high:\n",
    "import argparse\n\n\ndef main():\n    parser = argparse.ArgumentParser()\n",
    "import unittest\n\n\nclass TestParser(unittest.TestCase):\n    def test_empty(self):\n",
    "async def fetch(session, url):\n    async with session.get(url) as response:\n",
    "from dataclasses import dataclass\n\n\n@dataclass\nclass Point:\n    x: float\n",
)


@dataclass(frozen=True, slots=True)
class Way:
    """A link as the shaping proxy makes it; ``up`` is from the edge to the cloud."""

    up: Shape
    down: Shape


WAYS: Final[Mapping[str, Way]] = {
    "12 ms": Way(Shape(0.006), Shape(0.006)),
    "40 ms, jitter 2 ms": Way(Shape(0.018, 0.002, "exponential"), Shape(0.018, 0.002, "exponential")),
    "100 ms, 2 Mbit/s": Way(Shape(0.05, 0.0, "uniform", 2e6), Shape(0.05, 0.0, "uniform", 2e6)),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run.

    ``repeats``: calls of each kind in the profiles. ``link_s``: for measuring each link, once before the sessions and
    once after them.

    ``least_runs``, ``most_runs``: how often each session is really run, once in each pass over everything, so that slow
    minutes of the machine meet all alike; after the least, only those that are not settled (``repeats``). It is
    simulated as often, each time with other luck. ``paced``: the engines are slowed to the profiles ``target`` and
    ``draft``, which then need no measuring. ``model``, ``draft_model``: what runs.
    """

    policies: tuple[str, ...]
    ways: Mapping[str, Way]
    fit_prompts: tuple[str, ...]
    report_prompts: tuple[str, ...]
    new_tokens: int
    least_runs: int
    most_runs: int
    repeats: int
    link_s: float
    target: str = ""
    draft: str = ""
    model: str = DEMO
    draft_model: str = DEMO

    @property
    def prompts(self) -> tuple[str, ...]:
        """Those to fit on, and after them those to report on."""
        return self.fit_prompts + self.report_prompts

    @property
    def paced(self) -> bool:
        """Whether devices are emulated."""
        return bool(self.target)


def plan_of(*, quick: bool, paced: bool, model: str = DEMO, draft: str = DEMO) -> Plan:
    """The whole, in about seventeen minutes (paced, or with other models: longer), or the quick one, in four."""
    policies = ("cloud", f"sync:gamma={GAMMA}", f"seed:gamma={GAMMA}", "ahead", "auto")
    names = (*(("bench-60ms-target", "bench-6ms-draft") if paced else ("", "")), model, draft)
    if quick:
        ways = {name: WAYS[name] for name in list(WAYS)[:2]}
        return Plan(policies[:4], ways, FIT_PROMPTS[:2], REPORT_PROMPTS[:3], 32, 3, 3 if paced else 6, 9, 4.0, *names)
    fits, tokens, least, most = (2, 48, 3, 4) if paced else (4, 96, 4, 8)
    return Plan(policies, WAYS, FIT_PROMPTS[:fits], REPORT_PROMPTS[:4], tokens, least, most, 25, 6.0, *names)
