"""Records of simulated sessions: how they begin, and what is asked when a simulation is over.

A replication that keeps a record writes it in the format of live sessions. The emulated models are asked
about every token afterwards, outside of simulated time, so recording changes nothing.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec

from foredraft.cloud.read_back import guesses_along, read_back
from foredraft.observe.record.frames import HEADER, Closed, Frame, Setup, TokenPredictions, encode_frame, models_of
from foredraft.observe.record.plain_profiles import profile_as_plain
from foredraft.observe.record.predictions import RANKED, CloudSays, columns, told_of
from foredraft.observe.record.privacy import hidden
from foredraft.observe.record.reading import Record, frames_in
from foredraft.protocol.messages import Ready
from foredraft.version import __version__
from foredraft_sim.scenario.pairs import TokenSource, token_source
from foredraft_sim.scenario.scenario import Scenario

_DRAFT: Final = "simulated"


def head_of(scenario: Scenario, policy: str, seed: int, ready: Ready, *, prefill_chunk: int, draft_nodes: int) -> bytes:
    """The beginning of a replication's record: header and set-up; ``ready``: what a server answers."""
    file, replaced = scenario.file, msgspec.structs.replace
    models = models_of(ready, prefill_chunk=prefill_chunk, draft=_DRAFT, draft_nodes=draft_nodes)
    # Prompts are in the sessions.
    tables = replaced(file, workload=replaced(file.workload, prompts=(), prompts_file=""))
    setup = Setup(
        foredraft=__version__,
        simulated=True,
        private=False,
        policy=policy,
        models=models,
        seed=seed,
        edge=profile_as_plain(scenario.draft),
        cloud=profile_as_plain(scenario.target),
        link=profile_as_plain(scenario.link),
        scenario=msgspec.to_builtins(tables),
        cloud_draft=None if scenario.cloud_draft is None else profile_as_plain(scenario.cloud_draft),
    )
    return HEADER + encode_frame(setup)


def closed(recorded: bytes) -> bytes:
    """The record with its last frame."""
    return recorded + encode_frame(Closed())


def complete(scenario: Scenario, record: Record, recorded: bytes, *, private: bool = False) -> bytes:
    """The replication's record with all that its pair says of every token. Raises ScenarioError, ModelError.

    ``recorded``: the bytes of ``record``. ``private``: without token ids.
    """
    predictions = asyncio.run(_ask(token_source(scenario), record))
    *frames, last = frames_in(recorded)
    return HEADER + b"".join(map(encode_frame, _kept([*frames, *predictions, last], private)))


def _kept(frames: Iterable[Frame], private: bool) -> list[Frame]:
    if not private:
        return list(frames)
    setup, *rest = frames
    said = [msgspec.structs.replace(setup, private=True), *map(hidden, rest)]
    return [frame for frame in said if frame is not None]


async def _ask(source: TokenSource, record: Record) -> list[TokenPredictions]:
    """What draft and exits say along each session's text."""
    target, drafter = source.target(), source.drafter()
    predictions: list[TokenPredictions] = []
    try:
        for session in record.sessions:
            source.prompt(record.setup.seed, session.number)  # so that a recorded pair knows which of its texts it is
            prompt, sampling = session.prompt, session.sampling
            guesses = await guesses_along(drafter, prompt, session.tokens, sampling, RANKED)
            blocks = read_back(target, [*prompt, *session.tokens], len(prompt), sampling)
            cloud = CloudSays(await columns(blocks) if target.card.exits else [])
            predictions += told_of(session.number, len(prompt), session.tokens, guesses, cloud)
    finally:
        await drafter.close()
        await target.close()
    return predictions
