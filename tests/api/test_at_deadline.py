"""What becomes of a text at its deadline, from Python: its pieces, its report, its record."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import foredraft
from api import clouds
from foredraft.edge.ending import BY_DRAFT, BY_DRAFT_LENGTH, CLOSED, OPEN
from foredraft.engines.scripted import ScriptedDrafter, ScriptedSlot, ScriptedTarget
from foredraft.errors import ConfigError, MissingExtraError, UnknownNameError
from foredraft.observe.record.reading import read_record
from foredraft.protocol.ports import Guess, Pass, Prediction, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft.text import grammar
from foredraft.text.constraint import constraint_of

PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())
COMMITTED = 20
CALL = '{"goal": "the red chair"}'


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class StallingTarget(ScriptedTarget):
    """It says ``COMMITTED`` tokens after the prompt, or a few more, and then nothing more."""

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        return StallingSlot(self.card.layers, self.script, self.exit_script)


class StallingSlot(ScriptedSlot):
    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        if self.cached + len(batch.trunk) >= START + COMMITTED:
            await asyncio.Event().wait()
        return await super().verify(batch, on_exit)


def cloud(script: Callable[[int], int] = clouds.truth) -> foredraft.Cloud:
    target = StallingTarget(script, vocab_size=257, tokenizer_digest=clouds.TOKENIZER.digest)
    return foredraft.Cloud(target, clouds.TOKENIZER)


def shown(pieces: list[foredraft.Piece], *, unverified: bool) -> list[int]:
    return [token for piece in pieces for token in piece.tokens if piece.unverified == unverified]


async def test_with_local_the_draft_finishes_the_text_and_each_of_its_tokens_is_marked() -> None:
    async with cloud() as here, foredraft.connect(here, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, max_new_tokens=40, policy="cloud", deadline_s=0.5, at_deadline="local")
        pieces = [piece async for piece in generation]
    report = generation.report
    assert report.finish_reason == BY_DRAFT_LENGTH
    assert report.tokens == shown(pieces, unverified=False) == [clouds.truth(START + n) for n in range(COMMITTED)]
    assert report.unverified == shown(pieces, unverified=True)
    assert (report.new_tokens, len(report.unverified)) == (COMMITTED, 40 - COMMITTED)
    assert report.text == "".join(piece.text for piece in pieces)
    assert [piece.unverified for piece in pieces if piece.tokens] == sorted(
        piece.unverified for piece in pieces if piece.tokens
    )


async def test_a_stop_string_ends_what_the_draft_says() -> None:
    perfect = ScriptedDrafter(lambda position, _: [Guess(clouds.truth(position), 0.9)])
    async with cloud() as here, foredraft.connect(here, draft=perfect) as edge:
        asked: dict[str, Any] = {"max_new_tokens": 200, "stop": ["quer"], "deadline_s": 0.5, "at_deadline": "local"}
        report = await edge.generate(PROMPT, policy="cloud", **asked).finish()
    assert report.finish_reason == BY_DRAFT
    assert report.text == clouds.TEXT[13:].partition("quer")[0]


async def test_a_text_under_a_schema_is_json_also_at_its_deadline() -> None:
    tokens = clouds.TOKENIZER.encode(CALL)
    held = constraint_of(json_schema={"type": "object", "properties": {"goal": {"type": "string"}}})

    def script(position: int) -> int:
        return tokens[min(max(0, position - START), len(tokens) - 1)]

    async with cloud(script) as here, foredraft.connect(here, draft="ngram") as edge:
        generation = edge.generate(PROMPT, policy="cloud", constraint=held, deadline_s=0.5)
        pieces = [piece async for piece in generation]
    report = generation.report
    said = json.loads(report.text)
    assert report.finish_reason == CLOSED
    assert CALL.startswith('{"goal": "' + said["goal"])
    assert clouds.TOKENIZER.decode(shown(pieces, unverified=True)) == '"}'


async def test_without_the_grammars_library_a_text_is_left_open_and_local_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*packages: str, extra: str = "") -> None:
        raise MissingExtraError("llguidance", extra)

    held = constraint_of(regex="[^ ]+ .*")
    async with cloud() as here, foredraft.connect(here, draft=clouds.drafter()) as edge:
        monkeypatch.setattr(grammar, "needs", missing)
        with pytest.raises(MissingExtraError):
            edge.generate(PROMPT, constraint=held, deadline_s=0.5, at_deadline="local")
        report = await edge.generate(PROMPT, constraint=held, policy="cloud", deadline_s=0.5).finish()
    assert (report.finish_reason, report.unverified) == (OPEN, [])


async def test_a_record_has_the_targets_tokens_alone(tmp_path: Path) -> None:
    async with cloud() as here, foredraft.connect(here, draft=clouds.drafter()) as edge:
        file = tmp_path / "session.fdr"
        asked: dict[str, Any] = {"max_new_tokens": 40, "deadline_s": 0.5, "at_deadline": "local", "record": file}
        report = await edge.generate(PROMPT, policy="cloud", **asked).finish()
    (session,) = read_record(file).sessions
    assert list(session.tokens) == report.tokens
    assert report.unverified


async def test_what_cannot_be_a_deadline_is_refused_before_anything_is_sent() -> None:
    async with cloud() as here, foredraft.connect(here) as edge:
        for past in (0.0, -1.0):
            with pytest.raises(ConfigError, match="must lie ahead"):
                edge.generate(PROMPT, deadline_s=past)
        with pytest.raises(UnknownNameError, match="local"):
            edge.generate(PROMPT, deadline_s=1.0, at_deadline="locale")
