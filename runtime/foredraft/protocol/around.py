"""A drafter around another: it says what the inner one says, and whoever builds on it changes a part of that."""

from collections.abc import Sequence

from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node


class DrafterAround:
    """Implements ``protocol.ports.Drafter``. The inner drafter is its owner's to close."""

    def __init__(self, inner: Drafter) -> None:
        self._inner = inner

    @property
    def tokenizer_digest(self) -> str:
        """The inner drafter's."""
        return self._inner.tokenizer_digest

    @property
    def max_nodes_per_step(self) -> int:
        """The inner drafter's."""
        return self._inner.max_nodes_per_step

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins, or begins anew."""
        await self._inner.begin(tokens, sampling)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """What the inner drafter says."""
        return await self._inner.draft(nodes, width)

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew."""
        self._inner.advance(tokens)

    async def close(self) -> None:
        """Nothing that the inner drafter holds is freed."""
