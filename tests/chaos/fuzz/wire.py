"""What comes over a link, from a peer that nobody knows."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from api import clouds
from chaos.fuzz.forms import JSON, MESSAGE, MESSAGES, framed, frames_of
from chaos.fuzz.subject import UNSEEN, Subject
from foredraft.cloud.service import CloudService
from foredraft.edge.connections import Retry
from foredraft.errors import ForedraftError
from foredraft.links.memory import MemoryLink, memory_link
from foredraft.protocol import messages
from foredraft.protocol.anchor import ORIGIN
from foredraft.protocol.messages import (
    Chain,
    Close,
    Commit,
    Constrain,
    Drain,
    Grow,
    Hello,
    Hint,
    Image,
    Message,
    Open,
    Predictions,
    Propose,
    Proposed,
    Read,
    Ready,
    Refused,
    Score,
    Scores,
    Show,
    Shown,
    Steer,
    decode,
    encode,
    pack,
    pack_weights,
    unpack,
    unpack_weights,
)
from foredraft.protocol.ports import Link
from foredraft.text.chat_card import ChatCard, parse_chat_card
from foredraft.text.chat_template import check_template
from foredraft.text.tokenizer import Tokenizer
from foredraft_sim.loop.event_loop import SimLoop
from openai_api.test_official_clients import CARD
from sessions.room import PROMPT, collect, session_to, text

MOST_S: Final = 120.0
"""Of simulated time; whatever an edge waits for, it does not wait longer."""

_ANSWERED_S: Final = 5.0
_TEXT: Final = 10
_TIP: Final = ORIGIN.after(PROMPT)
_CHAIN: Final = Chain(_TIP.position, _TIP.hash, pack([clouds.truth(_TIP.position + n) for n in range(4)]))
_STEER: Final = Steer(1, 2, 100, 0.01, 2, 3, (2, 4), 0.5, 8, 4, 5_000)
_OPEN: Final = Open(1, pack(PROMPT), 3, 0.8, 40, 0.9, 7, _TEXT, (2, 256), ("stop", "é"), _STEER, (_CHAIN,))
_PROPOSED: Final = Proposed(_TIP.position, _TIP.hash, _CHAIN.tokens, pack_weights([65535, 300, 2, 1]))
_BELOW: Final = _TIP.after(unpack(_CHAIN.tokens))
_LATER: Final = Proposed(_BELOW.position, _BELOW.hash, pack([5, 200]), pack_weights([65535, 2]))
_DIGEST: Final = b"0123456789abcdef"
_HELLO: Final = Hello(messages.PROTOCOL_VERSION, "")
TO_CLOUD: Final[Sequence[Sequence[Message]]] = (
    (_HELLO, _OPEN, Grow(1, (_CHAIN, _CHAIN)), _STEER),
    (_HELLO, Score(1, 3), Constrain(1, "regex", "[a-z]+"), _OPEN, _HELLO, Steer(1, 9, alone_until=100)),
    (_HELLO, Propose(1, (_PROPOSED,)), _OPEN, Propose(1, (_LATER, _PROPOSED)), Grow(1, (_CHAIN,)), Propose(1, ())),
    (_HELLO, Read(1, pack([*PROMPT, *range(8)]), 3, 0.8, 0, 1.0, 7), Close(1), _OPEN),
    (_HELLO, Show(1, (_DIGEST,)), Image(_DIGEST, 8, 0, b"1234"), Image(_DIGEST, 8, 4, b"5678"), _OPEN),
)
_READY: Final = Ready(
    messages.PROTOCOL_VERSION, "m", "scripted", 2000, 1000, 8, (2, 4), 64, 8, 8, (2,), 0.01, "seed", 4, True, 9
)
_COMMIT: Final = Commit(1, 3, pack(text(2)), 2, 1, 0.1, 0.1, 0.1, "", 0.1, 3, 0.1, (100, 200))
_FINISH: Final = Commit(1, 5, pack(text(_TEXT)[2:]), 0, 0, 0.0, 0.0, 0.0, "length")
TO_EDGE: Final[Sequence[Sequence[Message]]] = (
    (_READY, Hint(1, 3, 2, pack(text(3)), 0.9, 0.01), _COMMIT, _FINISH),
    (_READY, Scores(1, 3, (((5, -0.1), (6, -2.0)),) * 2), _COMMIT, Shown(1, (pack([9, 9]),)), _FINISH),
    (_READY, _COMMIT, Refused(1, messages.FULL, "no room", 0.1, _TIP.position, _TIP.hash), _FINISH),
    (_READY, Predictions(1, 3, ((2, pack([5]), (0.5,)),), ((7, 0.5), None)), _COMMIT, Drain(0.5)),
    (Refused(0, messages.BUSY, "all places are taken", 0.5), _READY, _FINISH),
)


def subjects() -> list[Subject]:
    """The subjects that are messages, or files that a server hands out."""
    single = [encode(one) for said in (*TO_CLOUD, *TO_EDGE) for one in said]
    card = ChatCard("m", "{{ messages }}", {"eos_token": "</s>"}, 0.7, 0.9, 40, "{{ tools }}")
    return [
        Subject("decoder", MESSAGE, single, _decode),
        Subject("cloud", MESSAGES, [_input(said) for said in TO_CLOUD], _serve),
        Subject("edge", MESSAGES, [_input(said) for said in TO_EDGE], _generate),
        Subject("card", JSON, [CARD.to_json(), card.to_json()], lambda data: check_template(parse_chat_card(data))),
        Subject("tokenizer", JSON, [clouds.TOKENIZER.json], _tokenize),
    ]


def _input(said: Sequence[Message]) -> bytes:
    return framed([encode(one) for one in said])


def _decode(data: bytes) -> None:
    """What is decoded is encoded to what is decoded to the same."""
    message = decode(data)
    again = decode(encode(message))
    assert again == message or "nan" in repr(message), "it is not decoded to what was encoded"
    for name in ("tokens", "data"):
        if isinstance(packed := getattr(message, name, None), bytes):
            assert packed == b"" or unpack(pack(unpack(packed))) == unpack(packed)
    if isinstance(message, Propose):
        for one in message.proposals:
            assert pack_weights(unpack_weights(one.weights)) == one.weights


def _tokenize(data: bytes) -> None:
    tokenizer = Tokenizer(data)
    stream = tokenizer.stream(tokenizer.encode("Grüße!"), ("stop",))
    for token in (0, 1, 2, 200, 255, 256, 100_000):
        stream.step(token)
    stream.flush()


@contextmanager
def _no_task_left() -> Iterator[None]:
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"{left} are left"


def _simulated(main: Coroutine[Any, Any, None]) -> None:
    """In simulated time; what fails in a task of its own, or is told to the log alone, is raised, too."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.get_loop().set_exception_handler(UNSEEN.heard)
        try:
            runner.run(main)
        finally:
            UNSEEN.raised()


def _serve(data: bytes) -> None:
    _simulated(_said_to_a_cloud(frames_of(data)))


async def _said_to_a_cloud(frames: list[bytes]) -> None:
    """A service survives it, answers in the protocol, and has nothing left of it."""
    target = clouds.target(context=64, rejects=True)
    service = CloudService(target, new_detokenizer=clouds.TOKENIZER.stream, new_drafter=clouds.drafter)
    edge, cloud = memory_link(10_000)
    with _no_task_left():
        serving = asyncio.create_task(service.handle(cloud))
        try:
            for frame in frames[:200]:
                await edge.send_raw(frame)
            await asyncio.sleep(_ANSWERED_S)
        except ForedraftError:
            pass  # it has closed the link
        await edge.close()
        async with asyncio.timeout(MOST_S):
            await serving
    assert service.counters.active == 0


def _generate(data: bytes) -> None:
    _simulated(_said_to_an_edge(frames_of(data)))


async def _said_to_an_edge(frames: list[bytes]) -> None:
    """An edge ends with a text or an error of ours, and has nothing left of it."""
    clouds_ends: list[asyncio.Task[None]] = []

    async def cloud(link: MemoryLink) -> None:
        try:
            for frame in frames[:1]:
                await link.send_raw(frame)
            for _ in range(2):  # Hello and Open
                await link.receive()
            for frame in frames[1:200]:
                await link.send_raw(frame)
            while True:
                await link.receive()
        except ForedraftError:
            await link.close()

    async def connect() -> Link:
        edge, other = memory_link()
        clouds_ends.append(asyncio.create_task(cloud(other)))
        return edge

    session = session_to(connect, "seed", _TEXT, retry=Retry(attempts=1, first_s=0.0), logprobs=2)
    with _no_task_left():
        try:
            async with asyncio.timeout(MOST_S):
                shown = await collect(session)
            assert len(shown) <= _TEXT
        except TimeoutError:
            pass  # a cloud that says nothing more
        finally:
            for end in clouds_ends:
                end.cancel()
            await asyncio.gather(*clouds_ends, return_exceptions=True)
