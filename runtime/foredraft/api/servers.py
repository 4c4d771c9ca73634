"""The clouds that an edge may use, in order of preference: where one is gone, the next goes on.

What makes them interchangeable is that they serve the same model: a session refuses to go on
with another one's text.
"""

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
