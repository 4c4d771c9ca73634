"""The draft tree: everything that somebody thinks may come next.

The root stands for the committed text; every path down from it is a possible continuation.
Both ends hold such a tree. Legal operations, and there are no others:

    add(parent, token)   attach a token below a live node (the same token twice is one node)
    advance(tokens)      the text grew: move the root down; what is attached elsewhere is dead

A dead node stays dead: ``alive`` is False, and nothing is attached below it any more.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from foredraft.protocol.anchor import ORIGIN, Anchor, hash_after

_UNNAMED = -1


class Node(msgspec.Struct, eq=False):
    """One token, somewhere below the committed text.

    ``position``: how many tokens the prefix has that ends with it. ``parent``: None once the text has
    got here. ``probability`` is how likely it is to be right, given that its parent is; ``guessed`` is
    what the drafter itself said of that. Marks of the edge's: ``sent``, the other end has it or it is on
    its way there; ``expanded``, how many guesses at what comes next the drafter was asked for;
    ``barren``, it had no idea.
    """

    position: int
    token: int
    parent: "Node | None"
    probability: float
    guessed: float = 0.0
    children: "tuple[Node, ...]" = ()
    alive: bool = True
    sent: bool = False
    barren: bool = False
    expanded: int = 0
    _hash: int = _UNNAMED

    def __repr__(self) -> str:
        return f"Node(position={self.position}, token={self.token}, alive={self.alive})"

    @property
    def anchor(self) -> Anchor:
        """The name of the prefix that ends with this token; worked out when it is first asked for: few are."""
        if self._hash == _UNNAMED:
            unnamed: list[Node] = []
            node = self
            while node._hash == _UNNAMED and node.parent is not None:  # what has no parent is the text, and has a name
                unnamed.append(node)
                node = node.parent
            prefix = node._hash
            for node in reversed(unnamed):
                prefix = node._hash = hash_after(prefix, node.token)
        return Anchor(self.position, self._hash)

    def child(self, token: int) -> "Node | None":
        """The node right below this one with that token."""
        for node in self.children:
            if node.token == token:
                return node
        return None

    def likeliest(self) -> list["Node"]:
        """The nodes below this one, going to the most probable child each time."""
        chain: list[Node] = []
        below = self.children
        while below:
            node = below[0] if len(below) == 1 else max(below, key=_probability)
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

    ``position``: how many tokens are committed. ``live``: the live nodes below the root, oldest first, so
    parents come before children.
    """

    __slots__ = ("_hashes", "live", "position", "root", "tokens")

    def __init__(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ValueError("a text needs at least one token")
        self.tokens = list(tokens)
        self.position = len(self.tokens)
        self._hashes = array("Q", [ORIGIN.hash])  # of the anchors of all prefixes: by position
        prefix = ORIGIN.hash
        for token in self.tokens:
            prefix = hash_after(prefix, token)
            self._hashes.append(prefix)
        self.root = Node(self.position, self.tokens[-1], None, 1.0, _hash=prefix)
        self.live: list[Node] = []

    def __len__(self) -> int:
        """How many live nodes there are below the root."""
        return len(self.live)

    def nodes(self) -> Iterator[Node]:
        """The live nodes below the root, oldest first, so parents come before children."""
        return iter(self.live)

    def find(self, anchor: Anchor) -> Node | None:
        """The live node (or root) that the anchor names; of two with one hash the older."""
        root, position = self.root, anchor.position
        if position == root.position and anchor.hash == root._hash:
            return root
        for node in self.live:
            if node.position == position and node.anchor == anchor:
                return node
        return None

    def add(self, parent: Node, token: int, probability: float = 1.0, guessed: float = 0.0) -> Node:
        """Hang ``token`` below a live node. What is there already is returned as it is."""
        if not parent.alive:
            raise ValueError(f"cannot grow below the dead node {parent}")
        children = parent.children
        if children and (known := parent.child(token)) is not None:
            return known
        node = Node(parent.position + 1, token, parent, probability, guessed)
        parent.children = (*children, node) if children else (node,)
        self.live.append(node)
        return node

    def trim(self, anchor: Anchor, chain: Sequence[int]) -> tuple[Node, Sequence[int]] | None:
        """Where a chain that is attached from ``anchor`` is attached now, and what is left of it.

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

    def advance(self, tokens: Sequence[int]) -> None:
        """Commit ``tokens``: the root moves down along them; everything beside that path dies."""
        root, hashes = self.root, self._hashes
        position, prefix = self.position, root._hash
        dying: list[Node] = []
        self.tokens += tokens
        for token in tokens:
            heir = None
            for child in root.children:
                if child.token == token:
                    heir = child
                else:
                    dying.append(child)
            root.children, root.alive = (), False
            position, prefix = position + 1, hash_after(prefix, token)
            hashes.append(prefix)
            if heir is None:
                heir = Node(position, token, None, 1.0, _hash=prefix)
            else:
                heir.parent, heir._hash = None, prefix
            root = heir
        self.root, self.position = root, position
        if dying:
            _kill(dying)
        if self.live:
            self.live = [node for node in self.live if node.alive and node.parent is not None]

    def clear(self) -> None:
        """Drop every node below the root; the root stays."""
        _kill(self.live)
        self.root.children, self.live = (), []


def _kill(tops: Iterable[Node]) -> None:
    """Mark nodes, and all that is attached below them, as dead; nothing is attached below any of them any more."""
    dying = list(tops)
    for node in dying:
        node.alive = False
        if node.children:
            dying += node.children
            node.children = ()
