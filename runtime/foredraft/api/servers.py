"""The clouds that an edge may use, in order of preference: where one is gone, the next goes on.

What makes them interchangeable is that they serve the same model: a session refuses to go on
with another one's text.
"""

import math
from collections.abc import Sequence

from foredraft.edge.connections import Connect
from foredraft.errors import RefusedError, UnreachableError
from foredraft.protocol.ports import Link


class Servers:
    """One way to connect per server. A lost link is made anew to the same server, if it answers."""

    def __init__(self, ways: Sequence[Connect]) -> None:
        self._ways = list(ways)
        self.current = 0

    async def connect(self) -> Link:
        """A link to the first server that answers, the current one first.

        Raises UnreachableError when none does, RefusedError when all of them say no; what a single server raises
        otherwise, that one raises.
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
        refusals = [error for error in errors if isinstance(error, RefusedError)]
        if len(refusals) == len(errors):
            raise _all_refused(refusals)
        raise UnreachableError("no server answers: " + "; ".join(map(str, errors)))


def _all_refused(refusals: Sequence[RefusedError]) -> RefusedError:
    """What the refusals of all servers come to: a retry helps as soon as it helps with one of them."""
    first = min(refusals, key=lambda one: math.inf if one.retry_after_s is None else one.retry_after_s)
    reasons = "; ".join(one.reason for one in refusals)
    return RefusedError(first.code, f"no server lets us in: {reasons}", first.retry_after_s)
