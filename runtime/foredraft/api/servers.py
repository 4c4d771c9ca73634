"""The clouds that an edge may use, in order of preference: where one is gone, the next goes on.

What makes them interchangeable is that they serve the same model: a session refuses to go on
with another one's text.
"""

import asyncio
import logging
from collections.abc import Sequence

from foredraft.edge.handshake import shake_hands
from foredraft.edge.session import Connect, Retry
from foredraft.errors import LinkClosedError, RefusedError, UnreachableError
from foredraft.protocol.messages import Ready
from foredraft.protocol.ports import Link

log = logging.getLogger("foredraft.edge")


class Servers:
    """One way to connect per server. A lost link is made anew to the same server, if it answers."""

    def __init__(self, ways: Sequence[Connect]) -> None:
        self._ways = list(ways)
        self.current = 0

    async def connect(self) -> Link:
        """A link to the first server that answers, the current one first.

        Raises UnreachableError when none does; what a single server raises otherwise, that one raises.
        """
        errors: list[UnreachableError | RefusedError] = []
        for turn in range(len(self._ways)):
            index = (self.current + turn) % len(self._ways)
            try:
                link = await self._ways[index]()
            except (UnreachableError, RefusedError) as error:
                errors.append(error)
                continue
            self.current = index
            return link
        if len(errors) == 1:
            raise errors[0]
        raise UnreachableError("no server answers: " + "; ".join(map(str, errors)))

    async def ask(self, api_key: str, retry: Retry) -> Ready:
        """What is served there. Raises UnreachableError when retries are used up, RefusedError."""
        failures = 0
        while True:
            try:
                return await self._ask_once(api_key)
            except (LinkClosedError, UnreachableError, RefusedError) as error:
                failures += 1
                wait_s = retry.wait_s(failures)
                if isinstance(error, RefusedError):
                    if error.retry_after_s is None or failures > retry.attempts:
                        raise
                    wait_s = max(wait_s, error.retry_after_s)
                elif failures > retry.attempts:
                    raise UnreachableError(f"gave up after {retry.attempts} retries: {error}") from error
                log.warning("%s; trying again in %.2g s (%d of %d)", error, wait_s, failures, retry.attempts)
            await asyncio.sleep(wait_s)

    async def _ask_once(self, api_key: str) -> Ready:
        link = await self.connect()
        try:
            return await shake_hands(link, api_key)
        finally:
            await link.close()
