"""The draft tree: everything that somebody thinks may come next.

The root stands for the committed text; every path down from it is a possible continuation.
Both ends hold such a tree. Legal operations, and there are no others:

    add(parent, token)   hang a token below a live node (the same token twice is one node)
    advance(tokens)      the text grew: move the root down; what hangs elsewhere is dead

A dead node stays dead: ``alive`` is False, and nothing hangs below it any more.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from foredraft.core.anchor import ORIGIN, Anchor

_UNNAMED = Anchor(-1, 0)


class Node(msgspec.Struct, eq=False):
    """One token, somewhere below the committed text.

    ``position``: how many tokens the prefix has that ends with it. ``parent``: None once the text has
    got here. ``probability`` is how likely it is to be right, given that its parent is; ``guessed`` is
    what the drafter itself said of that. Marks of the grower's: ``sent``, the other end has it or it is on
    its way there; ``expanded``, how many guesses at what comes next the drafter was asked for;
    ``barren``, it had no idea.
    """

    position: int
    token: int
    parent: "Node | None"
    probability: float
    guessed: float = 0.0
    children: "dict[int, Node]" = msgspec.field(default_factory=dict)
    alive: bool = True
    sent: bool = False
    barren: bool = False
    expanded: int = 0
    _anchor: Anchor = _UNNAMED

    def __repr__(self) -> str:
        return f"Node(position={self.position}, token={self.token}, alive={self.alive})"

    @property
    def anchor(self) -> Anchor:
        """The name of the prefix that ends with this token; worked out when it is first asked for: few are."""
        unnamed: list[Node] = []
        node = self
        while node._anchor is _UNNAMED and node.parent is not None:  # what has no parent is the text, and has a name
            unnamed.append(node)
            node = node.parent
        anchor = node._anchor
        for node in reversed(unnamed):
            anchor = node._anchor = anchor.then(node.token)
        return anchor

    def likeliest(self) -> list["Node"]:
        """The nodes below this one, going to the most probable child each time."""
        chain: list[Node] = []
        below = self.children
        while below:
            if len(below) == 1:
                (node,) = below.values()
            else:
                node = max(below.values(), key=_probability)
            chain.append(node)
            below = node.children
        return chain

    def path(self) -> list["Node"]:
        """The nodes from just below the root down to this one; empty for the root."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes


def _probability(node: Node) -> float:
    return node.probability


class DraftTree:
    """The committed text and the live nodes below its tip.

    ``position``: how many tokens are committed. ``live``: the live nodes below the root, as the keys of a
    dict: oldest first, so parents come before children.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ValueError("a text needs at least one token")
        self.tokens = list(tokens)
        self.position = len(self.tokens)
        self._hashes = array("Q", [ORIGIN.hash])  # of the anchors of all prefixes: by position
        anchor = ORIGIN
        for token in self.tokens:
            anchor = anchor.then(token)
            self._hashes.append(anchor.hash)
        self.root = Node(self.position, self.tokens[-1], None, 1.0, _anchor=anchor)
        self.live: dict[Node, None] = {}

    def __len__(self) -> int:
        """How many live nodes hang below the root."""
        return len(self.live)

    def nodes(self) -> Iterator[Node]:
        """The live nodes below the root, oldest first, so parents come before children."""
        return iter(self.live)

    def find(self, anchor: Anchor) -> Node | None:
        """The live node (or root) that the anchor names; of two with one hash the older."""
        if anchor == self.root.anchor:
            return self.root
        position = anchor.position
        for node in self.live:
            if node.position == position and node.anchor == anchor:
                return node
        return None

    def add(self, parent: Node, token: int, probability: float = 1.0, guessed: float = 0.0) -> Node:
        """Hang ``token`` below a live node. What is there already is returned as it is."""
        if not parent.alive:
            raise ValueError(f"cannot grow below the dead node {parent}")
        node = parent.children.get(token)
        if node is None:
            node = parent.children[token] = Node(parent.position + 1, token, parent, probability, guessed)
            self.live[node] = None
        return node

    def trim(self, anchor: Anchor, chain: Sequence[int]) -> tuple[Node, Sequence[int]] | None:
        """Where a chain that hangs from ``anchor`` hangs now, and what is left of it.

        The anchor may name a live node or any committed position. Tokens that equal the
        committed text are trimmed. None when text and chain differ, or nobody knows the anchor.
        """
        node = self.find(anchor)
        if node is not None:
            return node, chain
        if not 0 <= anchor.position < self.position or self._hashes[anchor.position] != anchor.hash:
            return None
        known = self.tokens[anchor.position : anchor.position + len(chain)]
        if list(chain[: len(known)]) != known:
            return None
        return self.root, chain[len(known) :]

    def advance(self, tokens: Iterable[int]) -> None:
        """Commit ``tokens``: the root moves down along them; everything beside that path dies."""
        root, live, hashes = self.root, self.live, self._hashes
        anchor = root.anchor
        for token in tokens:
            heir = root.children.pop(token, None)
            if root.children:
                self._kill(root)
            root.alive = False
            anchor = anchor.then(token)
            hashes.append(anchor.hash)
            self.tokens.append(token)
            if heir is None:
                heir = Node(anchor.position, token, None, 1.0, _anchor=anchor)
            else:
                del live[heir]
                heir.parent, heir._anchor = None, anchor
            root = heir
        self.root, self.position = root, anchor.position

    def _kill(self, top: Node) -> None:
        """Mark ``top`` and all that hangs below it as dead, and forget the latter."""
        live = self.live
        dying = [top]
        for node in dying:
            node.alive = False
            if node.children:
                for child in node.children.values():
                    del live[child]
                    dying.append(child)
                node.children = {}

    def clear(self) -> None:
        """Drop every node below the root; the root stays."""
        self._kill(self.root)
        self.root.alive = True
