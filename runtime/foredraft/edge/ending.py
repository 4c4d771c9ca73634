"""How a text ends that was not complete at its deadline: as well formed as can be, without the cloud.

    stop   with what is committed; under a grammar, with the shortest ending that makes it whole
    local  the draft goes on alone to the text's end

Whatever comes here after the committed text nobody has verified: it is kept apart from it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from foredraft.edge.deadline import DEADLINE, LOCAL
from foredraft.errors import GrammarError
from foredraft.protocol.ports import Drafter
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree
from foredraft.text.grammar import Grammar, allows

log = logging.getLogger("foredraft.edge")

BY_DRAFT: Final = f"{DEADLINE}_local"
"""The draft took the text to its end: an end mark, a stop string, or the end of its grammar."""
BY_DRAFT_LENGTH: Final = f"{DEADLINE}_local_length"
"""The draft went on until the text had as many tokens as it may."""
CLOSED: Final = f"{DEADLINE}_closed"
"""The shortest ending follows, with which the text is of its grammar."""
OPEN: Final = f"{DEADLINE}_open"
"""The text is not whole under its grammar, and no short ending was found."""

MOST_CLOSING: Final = 256
"""Tokens of a shortest ending."""

LOOKED_FROM: Final = 64
LOOKED_EVERY: Final = 4
SPARE: Final = 8
"""Of so many last tokens, at every fourth, a draft under a grammar must leave room for the ending and so many more."""


class Ending:
    """The end of one text without the cloud. ``tokens``: beyond the committed ones; ``reason``: why it ended.

    ``then``: one of ``deadline.AT_DEADLINE``. ``span``: says where the generated text begins in the whole one, and
    where it ends at the latest, once that is known. ``stop_tokens`` end it. ``held``: whether to a grammar;
    ``begin_grammar`` makes that before any token, in a thread. A text whose grammar cannot be made here is left as
    it is.
    """

    def __init__(
        self,
        then: str,
        drafter: Drafter,
        sampling: Sampling,
        span: Callable[[], tuple[int, int]],
        stop_tokens: Sequence[int],
        *,
        held: bool = False,
        begin_grammar: Callable[[], Grammar] | None = None,
    ) -> None:
        self._then, self._drafter, self._sampling = then, drafter, sampling
        self._span, self._stop_tokens = span, frozenset(stop_tokens)
        self._begin_grammar = begin_grammar
        self._grammar: Grammar | None = None
        self.tokens: list[int] = []
        self.reason = OPEN if held else DEADLINE

    async def follow(self, text: Sequence[int]) -> AsyncGenerator[int, None]:
        """The tokens after ``text`` (prompt included).

        Who finds a stop string in them leaves the loop, and says so (``stopped``).
        """
        if self.reason == OPEN:
            if self._begin_grammar is None:
                return
            try:
                self._grammar = await asyncio.to_thread(self._begin_grammar)
                self._grammar.follow(text[self._span()[0] :])
            except GrammarError as error:
                log.warning("the text is left as it is: %s", error)
                return
        if self._then == LOCAL and not self._complete:
            async with aclosing(self._draft_on(text)) as drafted:
                async for token in drafted:
                    self.tokens.append(token)
                    yield token
        if self._grammar is not None and self.reason == OPEN:
            for token in await self._closing(self._grammar, self._span()[1] - len(text) - len(self.tokens)):
                self.tokens.append(token)
                yield token

    def stopped(self) -> None:
        """The last token completed a stop string."""
        self.reason = BY_DRAFT

    @property
    def _complete(self) -> bool:
        return self._grammar is not None and self._grammar.complete

    async def _draft_on(self, text: Sequence[int]) -> AsyncGenerator[int, None]:
        """The draft's own tokens, as far as it has any; a drafter that fails has none."""
        tree, drafter, (_, end) = DraftTree(text), self._drafter, self._span()
        try:
            await drafter.begin(text, self._sampling)
            while tree.position < end:
                if await self._must_close(end - tree.position):
                    return
                [guesses] = await drafter.draft([tree.root], 1)
                if not guesses or not self._takes(token := guesses[0].token):
                    return
                tree.advance([token])
                drafter.advance([token])
                yield token
                if token in self._stop_tokens or self._complete:
                    self.reason = BY_DRAFT
                    return
        except Exception as error:
            log.warning("the draft could not go on after the deadline: %s", error)
            return
        if self._grammar is None or self._grammar.whole:
            self.reason = BY_DRAFT_LENGTH

    async def _must_close(self, room: int) -> bool:
        """Whether no more than the shortest ending fits. Looked at now and then, since looking takes a moment."""
        if self._grammar is None or room > LOOKED_FROM or room % LOOKED_EVERY:
            return False
        found = await asyncio.to_thread(self._grammar.ending, room)
        return found is not None and len(found) + SPARE > room

    def _takes(self, token: int) -> bool:
        """Whether the grammar, where there is one, allows the token next; it follows it then."""
        if self._grammar is None:
            return True
        allowed = allows(self._grammar.masks((), ())[0], token)
        if allowed:
            self._grammar.follow([token])
        return allowed

    async def _closing(self, grammar: Grammar, room: int) -> list[int]:
        """The shortest ending, none where the text is whole without; says in ``reason`` whether there is one."""
        found = await asyncio.to_thread(grammar.ending, min(MOST_CLOSING, max(0, room)))
        if found is None:
            return []
        self.reason = CLOSED
        return found
