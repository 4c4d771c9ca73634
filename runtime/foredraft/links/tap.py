"""A link around another one, for whoever wants to know of its messages."""

import asyncio
from collections.abc import Callable

from foredraft.protocol.messages import Message
from foredraft.protocol.ports import Link


class Tap(Link):
    """A link that does as the one within, and whose messages are heard of by the hooks of a subclass."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def bytes_sent(self) -> int:
        """The link's."""
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        """The link's."""
        return self._link.bytes_received

    async def send(self, message: Message) -> None:
        """Send, and tell."""
        sent_s, before = asyncio.get_running_loop().time(), self._link.bytes_sent
        self._leaves(sent_s)
        await self._link.send(message)
        self._left(message, sent_s, self._link.bytes_sent - before)

    def post(self, message: Message) -> bool:
        """Send at once if that needs no waiting, and tell."""
        sent_s, before = asyncio.get_running_loop().time(), self._link.bytes_sent
        if not self._link.post(message):
            return False
        self._leaves(sent_s)
        self._left(message, sent_s, self._link.bytes_sent - before)
        return True

    async def receive(self) -> Message:
        """Receive, and tell."""
        before = self._link.bytes_received
        message = await self._link.receive()
        self._arrived(message, self._link.bytes_received - before)
        return message

    async def listen(self, take: Callable[[Message], bool]) -> None:
        """Let the link hand over its messages, and tell of each before."""
        before = self._link.bytes_received

        def tell(message: Message) -> bool:
            nonlocal before
            size_bytes, before = self._link.bytes_received - before, self._link.bytes_received
            self._arrived(message, size_bytes)
            return take(message)

        await self._link.listen(tell)

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()

    def _leaves(self, sent_s: float) -> None:
        """A message is on its way."""

    def _left(self, message: Message, sent_s: float, size_bytes: int) -> None:
        """The link has taken it."""

    def _arrived(self, message: Message, size_bytes: int) -> None:
        """A message came."""
