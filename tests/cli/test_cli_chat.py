"""``foredraft chat``: lines in, answers out; Ctrl-C ends an answer and not the conversation."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api import clouds
from foredraft.api.cloud import Cloud
from foredraft.cli.drafts_shown import ACCEPTED, CORRECTED, Painter
from foredraft.protocol.events import Event
from foredraft.text.chat_card import ChatCard
from foredraft.text.tokenizer import Tokenizer

CARD = ChatCard("boxer", "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>")
CHAT = [sys.executable, "-m", "foredraft", "chat", "--max-new-tokens", "30"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@asynccontextmanager
async def chatting(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Cloud]]:
    tokenizer = Tokenizer(clouds.TOKENIZER.json)
    tokenizer.chat = CARD
    async with Cloud(clouds.target(), tokenizer) as cloud, cloud.listen() as url:
        command, pipe = (*CHAT, "--server", url, *words), subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            yield process, cloud
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def rendered(*messages: tuple[str, str]) -> int:
    """How many tokens the prompt has: a byte each."""
    return len("".join(f"<{role}>{text}</>" for role, text in messages).encode()) + len("<assistant>")


def answer(*messages: tuple[str, str], tokens: int = 30) -> str:
    start = rendered(*messages)
    return clouds.text_between(start, start + tokens)


async def test_turns_are_answered_in_plain_text_and_commands_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "conversation.json"
    lines = [
        "Hello",
        "Again",
        "",
        f"/save {file}",
        "/reset",
        "Hello",
        "/system Be brief.",
        "Hello",
        "/polcy",
        "/quit",
        "no",
    ]
    async with chatting() as (process, _):
        out, wrong = await process.communicate("\n".join(lines).encode())
    hello = ("user", "Hello")
    first = answer(hello)
    second = answer(hello, ("assistant", first), ("user", "Again"))
    assert process.returncode == 0, wrong.decode()
    assert out.decode() == "".join(
        f"{said}\n" for said in (first, second, first, answer(("system", "Be brief."), hello))
    )
    saved = json.loads(file.read_text())["messages"]
    assert [message["content"] for message in saved] == ["Hello", first, "Again", second]
    assert "did you mean '/policy'" in wrong.decode()


async def test_an_unknown_policy_is_said_and_the_conversation_goes_on() -> None:
    async with chatting() as (process, _):
        out, wrong = await process.communicate(b"/policy sink\n/policy cloud\nHello\n")
    assert "did you mean 'sync'" in wrong.decode()
    assert out.decode() == answer(("user", "Hello")) + "\n"


async def test_answers_are_asked_for_by_the_rule_of_acceptance_that_is_wanted() -> None:
    """The scripted target knows the other one alone, and says so."""
    async with chatting("--acceptance", "rejection", "--temperature", "0.8") as (process, _):
        out, wrong = await process.communicate(b"Hello\n")
    assert "accepts drafts by shared noise alone; leave rejection sampling out" in wrong.decode()
    assert out.decode() == "\n"


async def test_ctrl_c_stops_an_answer_and_keeps_what_there_was(tmp_path: Path) -> None:
    file = tmp_path / "conversation.json"
    async with chatting("--max-new-tokens", "1000000", "--policy", "cloud") as (process, cloud):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello\n")
        begun = await process.stdout.readexactly(5)
        process.send_signal(signal.SIGINT)
        rest = await process.stdout.readline()
        while cloud.service.counters.active:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.01)
        process.stdin.write(f"/save {file}\n/quit\n".encode())
        _, wrong = await process.communicate()
    saved = json.loads(file.read_text())["messages"]
    assert process.returncode == 0, wrong.decode()
    assert saved[1]["content"] == (begun + rest).decode().rstrip("\n")
    assert answer(("user", "Hello"), tokens=20_000).startswith(saved[1]["content"][:1000])


async def test_ctrl_c_in_the_place_of_a_line_ends_the_program() -> None:
    async with chatting() as (process, _):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello\n")
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


def test_tokens_are_painted_by_what_became_of_the_drafts() -> None:
    painter = Painter(clouds.TOKENIZER)
    tokens = clouds.TOKENIZER.encode("abcde")
    for at, new, drafted, accepted in ((0, 3, 2, 2), (3, 1, 2, 0), (4, 1, 0, 0)):
        data = {"tokens": tokens[at : at + new], "drafted": drafted, "accepted": accepted}
        painter.observe(Event(0.0, "edge", "1", "commit", data))  # type: ignore[arg-type]
    end = "\x1b[0m"
    assert painter.paint(tokens[:2]) == f"{ACCEPTED}a{end}{ACCEPTED}b{end}"
    assert painter.paint(tokens[2:]) == f"c{CORRECTED}d{end}e"
