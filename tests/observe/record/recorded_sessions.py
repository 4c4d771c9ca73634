"""Small records for tests: scripted clouds in memory, recorded as a user would."""

import asyncio
from pathlib import Path
from typing import Any

from api import clouds
from foredraft.api.edge import connect
from foredraft.edge.session_report import SessionReport
from foredraft.observe.record.frames import Models, Setup
from foredraft.observe.record.recorder import Recorder

PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())

MODELS = Models("target", "tok", 300, 4096, 8, (2, 4), (256,), 32, 256, 64, 512, "draft", 8)
SETUP = Setup("0.1.0", False, False, "sync", MODELS)


async def session(file: Path | None, *, private: bool = False, **asked: Any) -> tuple[SessionReport, Recorder]:
    """A live session in memory, recorded to ``file``."""
    recorder = Recorder(file, private=private)
    async with clouds.cloud() as cloud, connect(cloud, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, record=recorder, **{"policy": "seed", "max_new_tokens": 40, **asked})
        return await generation.finish(), recorder


def recorded(file: Path, **asked: Any) -> SessionReport:
    """The same, from where no loop runs."""
    return asyncio.run(session(file, **asked))[0]
