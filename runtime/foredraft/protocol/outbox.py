"""What one end of a link has to say: at once where the link has room, else in order as it gets room."""

from collections.abc import Callable

from foredraft.protocol.messages import Message
from foredraft.protocol.ports import Link
from foredraft.protocol.signal import Signal


class Outbox:
    """Sends for those who must not wait; ``run`` carries what the link had no room for.

    ``waiting``: messages that wait for room. ``on_room`` is called when the last of them has left.
    """

    __slots__ = ("_ending", "_filled", "_link", "_on_room", "waiting")

    def __init__(self, link: Link, on_room: Callable[[], None] | None = None) -> None:
        self.waiting: list[Message] = []
        self._link = link
        self._on_room = on_room
        self._filled = Signal()
        self._ending = False

    def say(self, message: Message) -> None:
        """Send, now or in its turn. Never waits. Raises ProtocolError for what is too large to send."""
        if self.waiting or not self._link.post(message):
            self.waiting.append(message)
            self._filled.set()

    def end(self) -> None:
        """Nothing more will be said: ``run`` ends once everything has left."""
        self._ending = True
        self._filled.set()

    async def run(self) -> None:
        """Send what waits, until ``end``. Raises LinkClosedError."""
        while self.waiting or not self._ending:
            if not self.waiting:
                await self._filled.wait()
                continue
            await self._link.send(self.waiting[0])
            del self.waiting[0]
            if not self.waiting and self._on_room is not None:
                self._on_room()
