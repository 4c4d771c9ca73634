"""Small scenarios for tests: the robot's times, a few tokens, changed line by line."""

from pathlib import Path
from typing import Any

from foredraft_sim.scenario.scenario import Scenario, read_scenario

PAIR = """\
kind = "synthetic"
ranks = [0.58, 0.12, 0.06, 0.04, 0.03]
exits = [[8, 0.55], [16, 0.80], [24, 0.92]]"""

ROBOT = f"""\
title = "a test"
policies = ["cloud", "sync:gamma=4", "seed:gamma=4"]
seeds = [1, 2]

[edge]
profile = "orin-go2-qwen2-vl-2b"

[cloud]
profile = "a100-qwen2-vl-7b"

[link]
profile = "robot"

[pair]
{PAIR}

[workload]
prompt_tokens = 8
new_tokens = 24
"""


def write(folder: Path, *changes: tuple[str, str], more: str = "") -> Path:
    """The robot's scenario in a file, with texts in it replaced, and more text at its end."""
    text = ROBOT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file = folder / "scenario.toml"
    file.write_text(text + more)
    return file


def scenario(folder: Path, *changes: tuple[str, str], more: str = "") -> Scenario:
    return read_scenario(write(folder, *changes, more=more))


def workload(**values: Any) -> tuple[str, str]:
    """A change: other workload than the robot's."""
    lines = "\n".join(f"{name} = {value}" for name, value in values.items())
    return "prompt_tokens = 8\nnew_tokens = 24", lines
