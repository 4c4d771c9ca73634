"""``local``: what the edge shows by itself while the cloud is out of reach, and what became of it.

The edge goes on along the likeliest path of its own draft. Every such token is unverified; it is
never part of the committed text, which only the cloud extends. When the cloud is back it goes on
from the committed text, and each commit is compared with what was shown: it confirms it, or it
differs from some position on, and what was shown from there is withdrawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.protocol.prefix import common_prefix
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class Unverified:
    """The edge's own draft, shown at ``position`` of the text without the cloud."""

    position: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The cloud says the same as was shown, up to ``position``."""

    position: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The cloud says otherwise at ``position``: these tokens, shown from there on, do not count."""

    position: int
    tokens: tuple[int, ...]


LocalEvent = Unverified | Confirmed | Withdrawn


class LocalText:
    """The unverified end of one session's text; ``tell`` is called with all that happens to it.

    How far it may go is bounded by the draft tree: as many nodes as the cloud allowed.
    """

    def __init__(self, tell: Callable[[LocalEvent], None]) -> None:
        self.away = False
        self._tell = tell
        self._begins = 0
        self._tokens: list[int] = []

    @property
    def tokens(self) -> list[int]:
        """What is shown and not verified yet."""
        return list(self._tokens)

    def step(self, state: EdgeState) -> Step | None:
        """Show what the draft has by now, and say what to draft next."""
        tip = self._extend(state)
        done = tip is None or tip.expanded or tip.position >= state.end
        return None if done or tip is None else Step((tip,))

    def _extend(self, state: EdgeState) -> Node | None:
        """Follow what was shown down from the tip, and on along the likeliest guesses; the node at its end."""
        if not self._tokens:
            self._begins = state.position
        node = state.root
        for token in self._tokens:
            below = node.child(token)
            if below is None:
                return None  # what was shown has gone from the tree: nothing to go on from
            node = below
        fresh: list[int] = []
        while node.children and node.position < state.end:
            node = max(node.children, key=lambda child: child.probability)
            fresh.append(node.token)
        if fresh:
            self._tokens += fresh
            self._tell(Unverified(node.position - len(fresh), tuple(fresh)))
        return node

    def committed(self, tokens: Sequence[int]) -> None:
        """The cloud committed ``tokens`` at the tip: confirm what was shown there, or withdraw it."""
        if not self._tokens:
            return
        same = common_prefix(self._tokens, tokens)
        if same:
            self._begins += same
            del self._tokens[:same]
            self._tell(Confirmed(self._begins))
        if self._tokens and same < len(tokens):
            self._tell(Withdrawn(self._begins, tuple(self._tokens)))
            self._tokens.clear()
