"""Which row of a drafter's flat cache belongs to which prefix of the text.

The first rows are the committed text but for its tip. From row ``base`` on come the rows of the
tree: the tip (the tree's root) first, then nodes below it, each seeing its own ancestors. No
node is ever cached without its ancestors, so a tree row means that all of the text is cached.

Plain bookkeeping: it says what to run and which rows to gather; it holds no tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.prefix import common_prefix

Step = tuple[Anchor, int]
"""A node: the prefix that ends with it, and its token."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the tree. ``sees``: indices of tree rows, itself last. ``anchor`` is None for a repeated node."""

    anchor: Anchor | None
    position: int
    sees: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """What one forward runs: ``trunk`` goes on with the text at row ``start``, then come new tree rows.

    ``rows`` and ``tokens`` describe the new tree rows; ``asked[i]`` is the index among them of the
    i-th node that was asked for.
    """

    start: int
    trunk: tuple[int, ...]
    tokens: tuple[int, ...]
    rows: tuple[Row, ...]
    asked: tuple[int, ...]


class TreeCache:
    """The rows of one text and its tree."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self.anchor = ORIGIN
        """Names the whole text, so the tree's root."""
        self.left_out = 0
        """How many of the text's tokens have no rows, so that its rows lie before where they stand."""
        self._cached = 0  # rows of the text without its tip
        self._tree: list[Row] = []
        self._index: dict[Anchor, int] = {}

    @property
    def base(self) -> int:
        """The row where the tree begins: that of the tip."""
        return len(self.text) - 1

    @property
    def used(self) -> int:
        """How many rows are in use."""
        return self._cached + len(self._tree)

    @property
    def tree_positions(self) -> list[int]:
        """The positions of the tree's rows."""
        return [row.position for row in self._tree]

    def begin(self, tokens: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """Another text; what the cache holds of its beginning stays. ``rows``: what is run of it, by name."""
        rows = tokens if rows is None else rows
        common = common_prefix(self.text[: self._cached], rows[:-1])
        self.text, self._cached, self.left_out = list(rows), common, len(tokens) - len(rows)
        self.anchor = ORIGIN.after(tokens)
        self._tree, self._index = [], {}

    def trunk(self) -> list[int]:
        """Committed tokens that have no row yet, the tip left out."""
        return self.text[self._cached : self.base]

    def fed(self, tokens: int) -> None:
        """The first ``tokens`` of the trunk have rows now."""
        self._cached += tokens

    def plan(self, paths: Sequence[Sequence[Step]]) -> Feed:
        """The forward that expands nodes, each given by its path from the root, which comes first.

        Ancestors without a row come along. A node that has a row is run again in a row of its own.
        """
        rows: list[Row] = []
        tokens: list[int] = []
        index = dict(self._index)

        def append(anchor: Anchor, token: int, parents: tuple[int, ...], repeated: bool) -> int:
            place = len(self._tree) + len(rows)
            position = anchor.position - self.left_out - 1
            rows.append(Row(None if repeated else anchor, position, (*parents, place)))
            tokens.append(token)
            index.setdefault(anchor, place)
            return len(rows) - 1

        def sees(place: int) -> tuple[int, ...]:
            known = len(self._tree)
            return (self._tree[place] if place < known else rows[place - known]).sees

        asked: list[int] = []
        for steps in paths:
            parents: tuple[int, ...] = ()
            for anchor, token in steps[:-1]:
                if anchor not in index:
                    append(anchor, token, parents, repeated=False)
                parents = sees(index[anchor])
            anchor, token = steps[-1]
            place = index.get(anchor)
            if place is not None and place >= len(self._tree):
                asked.append(place - len(self._tree))
            else:
                asked.append(append(anchor, token, parents, repeated=place is not None))
        return Feed(self._cached, tuple(self.trunk()), tuple(tokens), tuple(rows), tuple(asked))

    def ran(self, feed: Feed) -> None:
        """The forward is done: its rows are in the cache."""
        self._cached = self.base
        for row in feed.rows:
            if row.anchor is not None:
                self._index[row.anchor] = len(self._tree)
            self._tree.append(row)

    def advance(self, tokens: Sequence[int]) -> tuple[int, list[int]]:
        """The text grew by ``tokens``. What to gather: the first row to write, and the rows that go there.

        Rows along the path become text; rows below the new tip stay; all others are forgotten.
        """
        base, path = self.base, [self.anchor]
        for token in tokens:
            path.append(path[-1].then(token))
        places = [self._index[anchor] for anchor in path if anchor in self._index]
        promoted = places[: len(tokens)]
        kept: list[int] = []
        if len(places) == len(path):
            tip = places[-1]
            kept = [place for place, row in enumerate(self._tree) if row.anchor and tip in row.sees]
        renamed = {place: new for new, place in enumerate(kept)}
        self._tree = [
            Row(row.anchor, row.position, tuple(renamed[seen] for seen in row.sees if seen in renamed))
            for row in (self._tree[place] for place in kept)
        ]
        self._index = {row.anchor: place for place, row in enumerate(self._tree) if row.anchor}
        self._cached += len(promoted)
        self.text.extend(tokens)
        self.anchor = path[-1]
        return base, [base + place for place in (*promoted, *kept)]
