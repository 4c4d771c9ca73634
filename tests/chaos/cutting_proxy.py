"""A proxy that breaks each connection after some bytes, wherever a message is at the time."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Each way of a connection has so many bytes, drawn from ``seed``; with the last of them the connection ends.

    Half of them end as if the peer had closed them, and half with a reset. Once there were ``cuts``, links hold.
    """

    def __init__(self, target: str, seed: int, cuts: int) -> None:
        address = urlsplit(target)
        self._target = str(address.hostname), int(address.port or 0)
        self._luck = Random(seed)
        self._left = cuts
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self.cuts = 0
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator["CuttingProxy"]:
        """Forward within the block; afterwards all is closed."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut_all()
            await server.wait_closed()

    def cut_all(self) -> None:
        """Reset every connection that there is."""
        for link in list(self._links):
            _reset(link)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset((writer,))
            return
        link = writer, far_writer
        self._links.add(link)
        try:
            ways = [self._forward(reader, far_writer), self._forward(far_reader, writer)]
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._links.discard(link)
            if self._luck.random() < 0.5:
                _reset(link)
            for end in link:
                end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes until the bytes are used up, or either side has gone."""
        left = self._luck.randrange(1, 2_500) if self._left > 0 else None
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if left is not None and self._left > 0:
                    data, over = data[:left], len(data) >= left
                    left -= len(data)
                    if over:
                        self._left -= 1
                        self.cuts += 1
                        writer.write(data)
                        return
                writer.write(data)
                await writer.drain()


def _reset(writers: tuple[asyncio.StreamWriter, ...]) -> None:
    """End it without a goodbye."""
    for writer in writers:
        end = writer.get_extra_info("socket")
        with suppress(OSError, AttributeError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
