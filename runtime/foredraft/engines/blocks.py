"""Which session's text lies in which blocks of the target's memory: one pool, and beginnings that are held once.

A block holds ``BLOCK_ROWS`` tokens. A session's text lies in blocks, in one piece where possible, and grows without
being copied. A block that is full is known by a digest of its tokens and of all before them; whoever has
the same text before it shares it, within one owner (an API key). Blocks that no session needs any longer stay
until the memory is wanted, least recently used first: a session that resumes finds its text there, as does the
next one with the same system prompt. Used on the event loop's thread only; it holds no tensors.

As in vLLM's automatic prefix caching (Kwon et al., "PagedAttention", 2023).
"""

import hashlib
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from foredraft.engines.gaps import Gaps
from foredraft.errors import RefusedError
from foredraft.protocol.messages import BUSY

if TYPE_CHECKING:
    from foredraft.engines.kv_memory import Run

BLOCK_ROWS = 16
WORTH_WAITING_ROWS = 2 * BLOCK_ROWS
"""A common beginning this long is run once, though the others then wait for one forward more."""

GROWTH_ROWS = 256
"""Rows set aside beyond the text, when a session begins and whenever it runs out of them."""


class Text:
    """A session's text in the pool: its tokens whose rows are held, and where."""

    def __init__(self, pool: "BlockPool", owner: str) -> None:
        self.tokens: list[int] = []
        self.owner = owner
        self._pool = pool
        self._blocks: list[int] = []
        self._digests = [hashlib.blake2b(owner.encode(), digest_size=16).digest()]
        """Of the owner, then of each full block and all before it."""

    @property
    def rows(self) -> int:
        """How many tokens its blocks have room for."""
        return len(self._blocks) * BLOCK_ROWS

    def runs(self, end: int) -> "list[Run]":
        """Where its first ``end`` rows lie."""
        runs: list[Run] = []
        for place, block in enumerate(self._blocks[: -(-end // BLOCK_ROWS)]):
            first, last = block * BLOCK_ROWS, block * BLOCK_ROWS + min(BLOCK_ROWS, end - place * BLOCK_ROWS)
            if runs and runs[-1][1] == first:
                runs[-1] = runs[-1][0], last
            else:
                runs.append((first, last))
        return runs

    def row(self, index: int) -> int:
        """Where its ``index``-th token lies."""
        return self._blocks[index // BLOCK_ROWS] * BLOCK_ROWS + index % BLOCK_ROWS

    def reserve(self, end: int) -> None:
        """See to it that ``end`` rows have room.

        Raises RefusedError("busy"), without a time to retry where they never will.
        """
        if end > self.rows:
            wanted = -(-end // BLOCK_ROWS) - len(self._blocks)
            after = self._blocks[-1] + 1 if self._blocks else None
            if end > self._pool.count * BLOCK_ROWS:
                raise RefusedError(
                    BUSY,
                    f"a text of {end} tokens needs more cache than the {self._pool.count * BLOCK_ROWS} tokens "
                    "that there is room for; raise cache_bytes (--cache-gib)",
                )
            self._pool._check_share(self, wanted)
            self._blocks += self._pool._take(wanted, GROWTH_ROWS // BLOCK_ROWS, after)

    def extend(self, tokens: Sequence[int]) -> None:
        """The rows of these tokens are written, or will be before anybody reads them."""
        self.tokens += tokens
        while (full := len(self._digests)) * BLOCK_ROWS <= len(self.tokens):
            digest = self._next_digest(self.tokens)
            self._digests.append(digest)
            self._blocks[full - 1] = self._pool._share(digest, self._blocks[full - 1])

    def adopt(self, tokens: Sequence[int]) -> int:
        """Take over what the pool holds of a text that goes on with ``tokens``; how many of these that is.

        The last token is always left to run.
        """
        before = len(self.tokens)
        if before % BLOCK_ROWS or not tokens:
            return 0
        text = [*self.tokens, *tokens]
        while (full := len(self._digests)) * BLOCK_ROWS < len(text):
            digest = self._next_digest(text)
            block = self._pool._find(digest)
            if block is None:
                break
            if len(self._blocks) < full:
                self._blocks.append(block)
            else:
                self._pool._free(self._blocks[full - 1])
                self._blocks[full - 1] = block
            self._digests.append(digest)
            self.tokens += text[len(self.tokens) : full * BLOCK_ROWS]
        return len(self.tokens) - before

    def ahead(self, tokens: Sequence[int]) -> bytes | None:
        """Names a beginning of ``tokens`` that another text could take over, if it is worth a wait."""
        if not self._pool.prefix_cache or len(self.tokens) % BLOCK_ROWS or len(tokens) <= WORTH_WAITING_ROWS:
            return None
        packed = array("q", tokens[:WORTH_WAITING_ROWS]).tobytes()
        return hashlib.blake2b(self._digests[-1] + packed, digest_size=16).digest()

    def _next_digest(self, text: Sequence[int]) -> bytes:
        first = (len(self._digests) - 1) * BLOCK_ROWS
        packed = array("q", text[first : first + BLOCK_ROWS]).tobytes()
        return hashlib.blake2b(self._digests[-1] + packed, digest_size=16).digest()

    def _release(self) -> None:
        for block in reversed(self._blocks):  # of a beginning, the end goes first
            self._pool._free(block)
        self._blocks = []


class BlockPool:
    """Blocks for ``rows`` tokens of at most ``max_slots`` sessions.

    ``prefix_cache``: whether texts share and find again what is held of their beginnings.
    """

    def __init__(self, rows: int, max_slots: int, retry_after_s: float, *, prefix_cache: bool = True) -> None:
        self.count, self.prefix_cache = rows // BLOCK_ROWS, prefix_cache
        self._max_slots, self._retry_after_s = max_slots, retry_after_s
        self._gaps = Gaps(self.count)
        self._users: dict[int, int] = {}
        self._known: dict[bytes, int] = {}  # full blocks by their digest
        self._digest: dict[int, bytes] = {}
        self._idle: dict[int, None] = {}  # known blocks without users, least recently used first
        self._active: set[Text] = set()
        self.most_of: Callable[[str], int] = lambda owner: 0
        """How many tokens all texts of an owner may hold; 0: as many as there is room for."""

    @property
    def active(self) -> int:
        """How many slots are taken."""
        return len(self._active)

    @property
    def held_rows(self) -> int:
        """Rows of all blocks that hold something or are set aside."""
        return (self.count - self._gaps.free) * BLOCK_ROWS

    @property
    def idle_rows(self) -> int:
        """Rows that are kept without a session, and go when memory is wanted."""
        return len(self._idle) * BLOCK_ROWS

    def open(self, tokens: Sequence[int], owner: str = "") -> Text:
        """Room for a session over ``tokens``, with what the pool holds of their beginning.

        Raises RefusedError("busy").
        """
        if len(self._active) >= self._max_slots:
            raise RefusedError(BUSY, f"all {self._max_slots} slots are taken", self._retry_after_s)
        text = Text(self, owner)
        text.adopt(tokens)
        try:
            text.reserve(len(tokens))
        except RefusedError:
            text._release()
            raise
        self._active.add(text)
        return text

    def close(self, text: Text) -> None:
        """The session is over; what it held stays until the memory is wanted. Twice is fine."""
        if text in self._active:
            self._active.discard(text)
            text._release()

    def clear(self) -> None:
        """Forget all that no session holds."""
        while self._idle:
            self._evict()

    def _check_share(self, text: Text, wanted: int) -> None:
        """Raise RefusedError("busy") where its owner's texts would hold more than they may."""
        most = self.most_of(text.owner)
        if most:
            held = sum(len(one._blocks) for one in {*self._active, text} if one.owner == text.owner)
            if (held + wanted) * BLOCK_ROWS > most:
                reason = f"the texts of {text.owner!r} hold {held * BLOCK_ROWS} of their {most} tokens (limit: cache)"
                raise RefusedError(BUSY, reason, self._retry_after_s)

    def _take(self, count: int, more: int, after: int | None) -> list[int]:
        """``count`` blocks, and up to ``more`` where they are free."""
        if count > self._gaps.free + len(self._idle):
            raise RefusedError(
                BUSY,
                f"{len(self._active)} sessions fill the cache of {self.count * BLOCK_ROWS} tokens",
                self._retry_after_s,
            )
        while self._gaps.free < count + more and self._idle:
            self._evict()
        taken = self._gaps.take(min(count + more, self._gaps.free), after)
        self._users.update(dict.fromkeys(taken, 1))
        return taken

    def _evict(self) -> None:
        block = next(iter(self._idle))
        del self._idle[block]
        del self._known[self._digest.pop(block)]
        self._gaps.give(block)

    def _find(self, digest: bytes) -> int | None:
        """The block of that digest, with one user more."""
        block = self._known.get(digest)
        if block is not None:
            self._idle.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        return block

    def _share(self, digest: bytes, block: int) -> int:
        """A block is full: the one to use from now on, which is another one if that was there before."""
        if not self.prefix_cache:
            return block
        known = self._find(digest)
        if known is None:
            self._known[digest], self._digest[block] = block, digest
            return block
        self._free(block)
        return known

    def _free(self, block: int) -> None:
        """One user less."""
        self._users[block] -= 1
        if self._users[block]:
            return
        del self._users[block]
        if block in self._digest:
            self._idle[block] = None
        else:
            self._gaps.give(block)
