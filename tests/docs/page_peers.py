"""An edge and a cloud written from docs/protocol.md alone: nothing here imports Foredraft.

Both speak of the same endless text, one byte a token. They prove that the page suffices.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

M64 = (1 << 64) - 1
HELLO, READY, OPEN, GROW, STEER, CLOSE, HINT, COMMIT, REFUSED = range(9)
Truth = Callable[[int], int]


def varints(tokens: list[int]) -> bytes:
    """LEB128, one after another."""
    packed = bytearray()
    for token in tokens:
        while token > 127:
            packed.append(token & 127 | 128)
            token >>= 7
        packed.append(token)
    return bytes(packed)


def tokens_in(packed: bytes) -> list[int]:
    """The other way round."""
    tokens, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            tokens.append(value)
            value = shift = 0
    return tokens


def hash_of(tokens: list[int]) -> int:
    """The hash of the anchor after ``tokens``."""
    value = 0x243F6A8885A308D3
    for token in tokens:
        mixed = ((value ^ (token + 1)) * 0x9E3779B97F4A7C15) & M64
        value = mixed ^ (mixed >> 29)
    return value


def message(*fields: Any) -> bytes:
    """One message."""
    return msgspec.msgpack.encode(fields)


async def generate(url: str, api_key: str, prompt: list[int], count: int, truth: Truth) -> tuple[list[int], int]:
    """An edge that drafts two right tokens and a wrong one at a time; the text, and how many drafts were accepted."""
    headers = {"Authorization": f"Bearer {api_key}"}
    text, accepted = list(prompt), 0

    def chain() -> list[Any]:
        at = len(text)
        return [at, hash_of(text), varints([truth(at), truth(at + 1), 0])]

    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/v1/session", headers=headers) as ws:
        await ws.send_bytes(message(HELLO, 2, api_key))
        steer = [STEER, 1, 1]
        opening = [OPEN, 1, varints(text), len(text), 0.0, 0, 1.0, 0, count, [], [], steer, [chain()]]
        await ws.send_bytes(message(*opening))  # without waiting for Ready, as the page allows
        while True:
            tag, *fields = msgspec.msgpack.decode(await ws.receive_bytes())
            if tag == READY:
                assert fields[0] == 2
                continue
            assert (tag, fields[0]) == (COMMIT, 1), (tag, fields)
            _, position, new, _, right, _, _, _, finish, *_ = fields
            assert position == len(text)
            text += tokens_in(new)
            accepted += right
            if finish:
                return text[len(prompt) :], accepted
            await ws.send_bytes(message(GROW, 1, [chain()]))


class PageCloud:
    """A cloud without a model: it knows the text. ``app`` is what to serve."""

    def __init__(self, truth: Truth, tokenizer_json: bytes, digest: str, api_key: str) -> None:
        self.truth, self.tokenizer_json, self.digest, self.api_key = truth, tokenizer_json, digest, api_key
        self.accepted = 0
        self.app = web.Application()
        self.app.router.add_get("/v1/session", self.session)
        self.app.router.add_get(f"/v1/tokenizer/{digest}", self.tokenizer)

    async def tokenizer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {self.api_key}"
        return web.Response(body=self.tokenizer_json)

    async def session(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        tag, version, api_key = msgspec.msgpack.decode(await ws.receive_bytes())
        assert (tag, version, api_key) == (HELLO, 2, self.api_key)
        await ws.send_bytes(message(READY, 2, "page", self.digest, 257, 4096, 4, [2], 64, 32, 16, []))
        text: list[int] = []
        end = alone_until = serial = 0
        async for frame in ws:
            tag, session, *fields = msgspec.msgpack.decode(frame.data)
            chains: list[list[Any]] = []
            if tag == OPEN:
                text, end, chains = tokens_in(fields[0]), fields[1] + fields[6], fields[10]
                serial, alone_until = fields[9][2], fields[9][3]
            elif tag == GROW:
                chains = fields[0]
            elif tag == STEER and fields[0] > serial:
                serial, alone_until = fields[0], fields[1]
            if tag != CLOSE and chains and len(text) < end:
                await self.verify(ws, session, text, end, chains)
            while tag != CLOSE and len(text) < min(end, alone_until):
                await self.verify(ws, session, text, end, [])
        return ws

    async def verify(
        self, ws: web.WebSocketResponse, session: int, text: list[int], end: int, chains: list[list[Any]]
    ) -> None:
        """One pass: the drafts that are right, and a token more. A chain that starts elsewhere is refused."""
        new: list[int] = []
        drafted = 0
        for position, hash_, packed in chains:
            if (position, hash_) != (len(text), hash_of(text)):
                await ws.send_bytes(message(REFUSED, session, "unknown_anchor", "elsewhere", 0.0, position, hash_))
                continue
            tokens = tokens_in(packed)
            drafted = max(drafted, len(tokens))
            right = 0
            while right < len(tokens) and tokens[right] == self.truth(len(text) + right):
                right += 1
            new = max(new, tokens[:right], key=len)
        accepted = len(new)
        new = [*new, self.truth(len(text) + accepted)][: end - len(text)]
        await ws.send_bytes(message(HINT, session, len(text), 2, varints(new), 0.9, 0.001))
        await asyncio.sleep(0)
        position = len(text)
        text += new
        self.accepted += accepted
        finish = "length" if len(text) == end else ""
        await ws.send_bytes(
            message(COMMIT, session, position, varints(new), drafted, accepted, 0.0, 0.0, 0.001, finish)
        )
