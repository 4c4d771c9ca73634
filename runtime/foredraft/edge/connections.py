"""Connections to a cloud: links on which hands were shaken, each carrying one text after another.

A text that has ended gives its connection back, and the next one opens on it: its first token is one round trip away,
where connecting takes three more. What is free is listened to, so that it answers pings and is known to be lost
when it is; then another is made in the background.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from foredraft.edge.handshake import in_time, shake_hands
from foredraft.errors import ForedraftError, LinkClosedError, ProtocolError, RefusedError, UnreachableError
from foredraft.protocol.messages import Close, Drain, Message, Ready, Refused
from foredraft.protocol.ports import Link

log = logging.getLogger("foredraft.edge")

LEAVE_S = 1.0
"""So long the last word on a link may take."""

Connect = Callable[[], Awaitable[Link]]
"""Makes a link to a cloud. Raises UnreachableError where there is none at the moment."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a lost link is made anew: ``attempts`` in a row without progress, waits that double up to ``most_s``.

    A server that is back is seen after ``most_s`` at the latest; all together, the attempts wait for 17 s.
    """

    attempts: int = 12
    first_s: float = 0.1
    most_s: float = 2.0

    def wait_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return min(self.most_s, self.first_s * 2.0 ** (failures - 1))


class Connection:
    """A link, what the cloud at its end serves (None until it has said so), and how many texts it has carried."""

    def __init__(self, link: Link, ready: Ready | None = None) -> None:
        self.link = link
        self.ready = ready
        self.session = 0

    def next_session(self, above: int) -> int:
        """The number of the text that is opened next, which had the number ``above`` on another link before."""
        self.session = max(self.session, above) + 1
        return self.session

    async def leave(self) -> bool:
        """Say that the text is no longer wanted; whether the link can carry another."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.link.send(Close(self.session))
        except (LinkClosedError, TimeoutError):
            return False
        return True


class Connections:
    """The connections of an edge. ``most_idle``: how many of them are kept for the texts to come.

    ``expected``: what the cloud served when it was met last; with it, ``Open`` need not wait for ``Ready``.
    """

    def __init__(self, connect: Connect, api_key: str = "", *, most_idle: int = 0, retry: Retry | None = None) -> None:
        self.api_key = api_key
        self.expected: Ready | None = None
        self._connect = connect
        self._most_idle = most_idle
        self._retry = retry or Retry()
        self._idle: dict[Connection, asyncio.Task[None]] = {}  # with who listens there
        self._replacing: asyncio.Task[None] | None = None
        self._closed = False

    async def meet(self) -> Ready:
        """What the cloud serves; the connection is kept for the first text.

        Raises UnreachableError when retries are used up, RefusedError.
        """
        failures = 0
        while True:
            try:
                connection = await self._greeted()
                break
            except (LinkClosedError, UnreachableError, RefusedError) as error:
                failures += 1
                wait_s = self._wait_s(error, failures)
                log.warning("%s; trying again in %.2g s (%d of %d)", error, wait_s, failures, self._retry.attempts)
            await asyncio.sleep(wait_s)
        await self.give_back(connection)
        assert self.expected is not None
        return self.expected

    def _wait_s(self, error: ForedraftError, failures: int) -> float:
        """How long to wait after a failure. Raises where there is no use in it."""
        wait_s = self._retry.wait_s(failures)
        if isinstance(error, RefusedError):
            if error.retry_after_s is None or failures > self._retry.attempts:
                raise error
            return max(wait_s, error.retry_after_s)
        if failures > self._retry.attempts:
            raise UnreachableError(f"gave up after {self._retry.attempts} retries: {error}") from error
        return wait_s

    async def _greeted(self) -> Connection:
        """A new connection on which hands were shaken."""
        link = await self._connect()
        try:
            self.expected = await in_time(shake_hands(link, self.api_key))
        except BaseException:
            await link.close()
            raise
        return Connection(link, self.expected)

    async def take(self) -> Connection:
        """One that is free, or else a new one, on which nothing was said yet. Raises as ``Connect`` does."""
        while self._idle:
            connection, listener = self._idle.popitem()
            listener.cancel()
            try:
                await asyncio.wait([listener])
            except asyncio.CancelledError:  # nobody else knows of it any more
                await connection.link.close()
                raise
            if listener.cancelled():
                return connection
        return Connection(await self._connect())

    async def give_back(self, connection: Connection) -> None:
        """The text on it is over, and the link is whole: keep it for the next one, if there is room."""
        self.expected = connection.ready
        if self._closed or len(self._idle) >= self._most_idle:
            await connection.link.close()
        else:
            listening = self._listen(connection)
            self._idle[connection] = asyncio.create_task(listening, name="edge idle connection")

    async def _listen(self, connection: Connection) -> None:
        """Hear what comes while no text needs the connection; when it is lost, have another made."""
        goodbye: Drain | Refused | None = None

        def hear(message: Message) -> bool:
            nonlocal goodbye
            if isinstance(message, Drain) or (isinstance(message, Refused) and message.session == 0):
                goodbye = message
            return goodbye is None

        with suppress(LinkClosedError, ProtocolError):
            await connection.link.listen(hear)
        self._idle.pop(connection, None)
        await connection.link.close()
        wait_s = 0.0 if goodbye is None else goodbye.retry_after_s
        if wait_s is not None and self._replacing is None and not self._closed:  # None: its place is needed
            self._replacing = asyncio.create_task(self._replace(wait_s), name="edge reconnects")

    async def _replace(self, wait_s: float) -> None:
        """Make a connection for texts to come, if there is one to be had within the retries."""
        try:
            for failures in range(1, self._retry.attempts + 1):
                await asyncio.sleep(max(wait_s, self._retry.wait_s(failures)))
                try:
                    await self.give_back(await self._greeted())
                    return
                except (LinkClosedError, UnreachableError, ProtocolError):
                    wait_s = 0.0
                except RefusedError as error:
                    if error.retry_after_s is None:
                        return
                    wait_s = error.retry_after_s
        finally:
            self._replacing = None

    async def close(self) -> None:
        """Close those that are free; what is given back from now on is closed."""
        self._closed = True
        idle, self._idle = self._idle, {}
        tasks = [*idle.values(), *([] if self._replacing is None else [self._replacing])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(connection.link.close() for connection in idle))
