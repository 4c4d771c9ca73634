"""Hostile frames over WebSockets, without end, to a real server: its memory stays flat, and an honest text its own.

make frames FRAMES=1000000 SEED=1
"""

import argparse
import asyncio
import base64
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import urlsplit

import foredraft
from chaos.fuzz.forms import MESSAGE
from chaos.fuzz.mutation import mutated
from chaos.fuzz.wire import TO_CLOUD
from foredraft.errors import ProtocolError
from foredraft.protocol.messages import PROTOCOL_VERSION, Close, Hello, Message, Open, Read, decode, encode
from lossless.server_process import ServerProcess, said_of

PEERS: Final = 8
PARTS: Final = 10
"""So often the server's memory is looked at; first after a tenth of the frames: by then its pools are filled."""

MOST_GROWN_BYTES: Final = 8 << 20
_POOL: Final = 20_000
_BURST: Final = 64
_ENDS: Final = 0.01
"""How often a frame is such that the server hangs up; connecting costs more than all else."""
WORK: Final = 0.003
"""How often a message asks for a text, which costs the server passes."""
_END_S: Final = 60.0

_BINARY, _TEXT, _PING, _PONG = 0x82, 0x81, 0x89, 0x8A
_FRAME: Final = struct.Struct(">BBH")


def framed(first: int, payload: bytes) -> bytes:
    """A client's WebSocket frame; its mask is zeros."""
    if len(payload) < 126:
        return bytes((first, 0x80 | len(payload))) + bytes(4) + payload
    if len(payload) < 1 << 16:
        return _FRAME.pack(first, 0xFE, len(payload)) + bytes(4) + payload
    return struct.pack(">BBQ", first, 0xFF, len(payload)) + bytes(4) + payload


@dataclass
class Pool:
    """Frames to choose from: after ``harmless`` ones the link stays, after ``last`` ones it does not."""

    harmless: list[bytes]
    work: list[bytes]
    last: list[bytes]

    @classmethod
    def of(cls, seed: int, size: int = _POOL) -> "Pool":
        """Changed messages, and what is no WebSocket."""
        luck, pool = Random(f"{seed} frames"), cls([], [], list(_BROKEN))
        said = [message for one in TO_CLOUD for message in one if not isinstance(message, Close)]
        asking = [encode(message) for message in said if isinstance(message, Open | Read)]
        others = [encode(message) for message in said if not isinstance(message, Open | Read)]
        for number in range(size):
            data = mutated(asking if number % 5 == 0 else others, MESSAGE, luck)
            pool._add(data, _understood(data))
        pool.work += [framed(_BINARY, data) for data in asking] * (len(pool.work) // len(asking))
        pool.harmless += [framed(_PING, b"x" * 125), framed(_PONG, b""), framed(_BINARY, others[0])]
        return pool

    def _add(self, data: bytes, message: Message | None) -> None:
        if message is None:
            self.last.append(framed(_BINARY, data))
        else:
            (self.work if isinstance(message, Open | Read) else self.harmless).append(framed(_BINARY, data))

    def draw(self, luck: Random, work: float) -> tuple[bytes, bool]:
        """A frame, and whether it is the last on its link."""
        drawn = luck.random()
        if drawn < _ENDS:
            return luck.choice(self.last), True
        return luck.choice(self.work if drawn < _ENDS + work else self.harmless), False


_BROKEN: Final = (
    framed(_TEXT, b"hello"),
    framed(_BINARY, b"\xff" * 70_000),
    framed(0x83, b"an opcode that there is not"),
    framed(0xC2, b"compressed, which nobody agreed on"),
    framed(0x80, b"the rest of nothing"),
    framed(0x09, b"a ping in pieces"),
    framed(0x89, b"x" * 126),
    framed(0x88, b"\x00"),
    framed(0x88, b"\x03\xe8 bye"),
    struct.pack(">BBQ", _BINARY, 0xFF, 1 << 62) + bytes(4),
    struct.pack(">BBQ", _BINARY, 0xFF, 1 << 30) + bytes(70_000),
)


def _understood(data: bytes) -> Message | None:
    try:
        return decode(data)
    except ProtocolError:
        return None


class Flood:
    """Peers that say nothing but that."""

    def __init__(self, url: str, frames: int, seed: int, pool: Pool, work: float = WORK) -> None:
        self._address = urlsplit(url)
        self._left = frames
        self._luck = Random(f"{seed} flood")
        self._pool, self._work = pool, work
        self.connections = 0

    async def run(self, peers: int = PEERS) -> None:
        """Send all frames, and see every link closed."""
        async with asyncio.TaskGroup() as group:
            for _ in range(peers):
                group.create_task(self._peer())

    async def _peer(self) -> None:
        while self._left > 0:
            reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
            self.connections += 1
            with suppress(ConnectionError):
                writer.write(_upgrade(self._luck))
                assert (await reader.readline()).startswith(b"HTTP/1.1 101")
                await reader.readuntil(b"\r\n\r\n")
                await self._talk(reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send frames, some at a time until something is answered, and until one is the last."""
        heard = asyncio.Event()
        answers = asyncio.create_task(_read_all(reader, heard))
        try:
            if self._luck.random() < 0.9:
                writer.write(framed(_BINARY, encode(Hello(PROTOCOL_VERSION))))
            last = False
            while not last and self._left > 0 and not answers.done():
                burst: list[bytes] = []
                while not last and len(burst) < min(_BURST, self._left):
                    frame, last = self._pool.draw(self._luck, self._work)
                    burst.append(frame)
                self._left -= len(burst)
                heard.clear()
                writer.write(b"".join(burst) + (b"" if last else framed(_PING, b"?")))
                await writer.drain()
                await heard.wait()
            if not last:
                writer.write(framed(0x88, b"\x03\xe8"))
            async with asyncio.timeout(_END_S):
                await answers
        finally:
            answers.cancel()


async def _read_all(reader: asyncio.StreamReader, heard: asyncio.Event) -> None:
    """Read what is answered, and tell of it, up to the end of the link."""
    with suppress(ConnectionError):
        while await reader.read(1 << 16):
            heard.set()
    heard.set()


def _upgrade(luck: Random) -> bytes:
    key = base64.b64encode(luck.randbytes(16)).decode()
    return (
        "GET /v1/session HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


async def honest(url: str) -> list[int]:
    """A text of somebody who means well."""
    async with foredraft.connect(url, draft="ngram") as edge:
        asked = edge.generate("def read(path):\n", policy="seed", seed=3, temperature=0.8, max_new_tokens=16)
        return (await asked.finish()).tokens


async def measure(server: ServerProcess, frames: int, seed: int) -> int:
    """What the server's memory has grown by in bytes, from a tenth of the frames on, each time with nobody there."""
    pool = Pool.of(seed)
    wanted = await honest(server.url)
    sizes: list[int] = []
    for part in range(PARTS):
        flood = Flood(server.url, frames * (part + 1) // PARTS - frames * part // PARTS, seed + part, pool)
        await flood.run()
        assert await honest(server.url) == wanted, "another text"
        sizes.append(1024 * int(said_of(server.pid, "VmRSS").removesuffix(" kB")))
        told = f"after {frames * (part + 1) // PARTS:,} frames, the latest over {flood.connections:,} links"
        print(f"{told}: {sizes[-1] / 2**20:.1f} MB", flush=True)
    return sizes[-1] - sizes[0]


def main(arguments: Sequence[str]) -> int:
    """0 where the memory is flat."""
    parser = argparse.ArgumentParser(prog="python -m chaos.frames", description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args(arguments)
    server = ServerProcess("demo")
    try:
        grown_bytes = asyncio.run(measure(server, said.frames, said.seed))
        code = server.drain()
    finally:
        server.kill()
    print(f"grown by {grown_bytes / 2**20:.1f} MB; drained with exit code {code}")
    return 0 if grown_bytes < MOST_GROWN_BYTES and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
