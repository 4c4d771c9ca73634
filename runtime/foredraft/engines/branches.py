"""Which sequence of a llama.cpp context holds which branch of the draft tree.

A unified cache holds one cell for each token that was run, and a cell knows the sequences that it belongs to. Sequence
0 is the committed text without its tip. Each branch of the tree, from the tip (the tree's root) down to a leaf, is a
sequence of its own, which shares the cells of text and common ancestors: branching copies marks and no values, and a
cell in no sequence is free again. A chain goes on in its branch's own sequence.

Plain bookkeeping: it says what to run and tells the memory what to mark; it knows nothing of llama.cpp.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from foredraft.engines.tree_cache import Step
from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.prefix import common_prefix

TEXT = 0
"""The sequence of the committed text."""


class SequenceMemory(Protocol):
    """The cells of a context, by sequence and position."""

    def copy(self, source: int, target: int, begin: int, end: int) -> None:
        """Cells of ``source`` at positions from ``begin`` to before ``end`` belong to ``target``, too."""

    def remove(self, sequence: int, begin: int = 0) -> None:
        """Take the cells from position ``begin`` on out of a sequence."""


@dataclass(slots=True)
class Row:
    """A token to run. ``sequences``: all that it will be part of. ``parent``: None for the tip, and for text."""

    token: int
    position: int
    sequences: list[int]
    anchor: Anchor | None = None
    parent: Anchor | None = None
    leaf: bool = True


@dataclass(slots=True)
class Run:
    """What one decode runs, parents before children. ``asked[i]``: the row of the i-th node that was asked for.

    ``spare``: sequences of nodes that are run a second time, which are nobody's afterwards.
    """

    rows: list[Row] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Cached:
    sequence: int  # of a branch that it lies on
    position: int
    parent: Anchor | None


class Branches:
    """The branches of one text and its tree. ``sequences``: how many there are, 0 among them.

    ``cells``: how many tokens the cache holds.
    """

    def __init__(self, memory: SequenceMemory, sequences: int, cells: int) -> None:
        self._memory, self._cells = memory, cells
        self.text: list[int] = []
        self.anchor = ORIGIN
        """Names the whole text, so the tree's root."""
        self.cached = 0
        """Tokens of the text that have cells; its tip is one of the tree's."""
        self.left_out = 0
        """How many of the text's tokens are not run, so that its rows lie before where they stand."""
        self._tree: dict[Anchor, _Cached] = {}
        self._ends: dict[int, Anchor] = {}  # the last node of each branch, by sequence
        self._sequences = range(sequences - 1, TEXT, -1)
        self._free = list(self._sequences)

    def begin(self, tokens: Sequence[int], words: Sequence[int] | None = None) -> None:
        """Another text; what the cache holds of its beginning stays. ``words``: those of its tokens that are run."""
        words = tokens if words is None else words
        common = common_prefix(self.text[: self.cached], words[:-1])
        self._drop_tree()
        self._memory.remove(TEXT, common)
        self.text, self.cached, self.left_out = list(words), common, len(tokens) - len(words)
        self.anchor = ORIGIN.after(tokens)

    def lost(self) -> None:
        """A decode failed, and the cache holds nothing any more."""
        self._ends, self._tree, self._free = {}, {}, list(self._sequences)
        self.cached = 0

    def _drop_tree(self) -> None:
        for sequence in self._ends:
            self._give_up(sequence)
        self._ends, self._tree = {}, {}

    def _give_up(self, sequence: int) -> None:
        self._memory.remove(sequence)
        self._free.append(sequence)

    def trunk(self) -> list[int]:
        """Committed tokens that have no cell yet, the tip left out."""
        return self.text[self.cached : len(self.text) - 1]

    def run_ahead(self, count: int) -> Run:
        """The run of the first ``count`` tokens of the trunk."""
        first = self.cached
        return Run([Row(self.text[at], at, [TEXT]) for at in range(first, first + count)])

    def plan(self, paths: Sequence[Sequence[Step]]) -> Run:
        """The run that expands nodes, each given by its path from the root, which comes first.

        Ancestors without a cell come along. A node that has one is run again on a branch that is given up afterwards.
        Where cells or sequences are short, what is cached of the tree makes room: it comes along anew.
        """
        used = self.cached + len(self._tree)
        rows = self._missing(paths).rows
        going_on = {row.parent for row in rows if row.anchor is not None} & set(self._ends.values())
        fresh = sum(row.leaf for row in rows) - len(going_on)
        if self._tree and (fresh > len(self._free) or used + len(self.trunk()) + len(rows) > self._cells):
            self._drop_tree()
        run = self._missing(paths)
        text = self.run_ahead(len(self.trunk())).rows
        self._assign(run, text)
        run.rows[:0] = text
        run.asked = [len(text) + at for at in run.asked]
        return run

    def _missing(self, paths: Sequence[Sequence[Step]]) -> Run:
        """The rows that the tree lacks, parents first, in no sequence yet."""
        run, places = Run(), dict[Anchor, int]()

        def append(step: Step, parent: Anchor | None, *, again: bool) -> int:
            anchor, token = step
            if parent in places:
                run.rows[places[parent]].leaf = False
            position = anchor.position - self.left_out - 1
            run.rows.append(Row(token, position, [], None if again else anchor, parent))
            return len(run.rows) - 1

        for steps in paths:
            parent: Anchor | None = None
            for step in steps[:-1]:
                if step[0] not in self._tree and step[0] not in places:
                    places[step[0]] = append(step, parent, again=False)
                parent = step[0]
            last = steps[-1]
            if last[0] in places:
                run.asked.append(places[last[0]])
                continue
            again = last[0] in self._tree
            run.asked.append(append(last, parent, again=again))
            if not again:
                places[last[0]] = run.asked[-1]
        return run

    def _assign(self, run: Run, text: list[Row]) -> None:
        """Give each new leaf a sequence, and its rows that sequence; the trunk belongs to all."""
        at = {row.anchor: row for row in run.rows if row.anchor is not None}
        for leaf in [row for row in run.rows if row.leaf]:
            path = [leaf]
            while path[-1].parent in at:
                path.append(at[path[-1].parent])
            sequence = self._sequence_below(path[-1], again=leaf.anchor is None)
            for row in (*path, *text):
                row.sequences.append(sequence)
            if leaf.anchor is None:
                run.spare.append(sequence)
            else:
                self._ends[sequence] = leaf.anchor

    def _sequence_below(self, top: Row, *, again: bool) -> int:
        """The sequence of a new branch whose first new row is ``top``: that of the branch which ends there, if any."""
        above = None if top.parent is None else self._tree[top.parent]
        if above is not None and not again:
            for sequence, end in self._ends.items():
                if end == top.parent:
                    return sequence
        fresh = self._free.pop()
        self._memory.copy(TEXT if above is None else above.sequence, fresh, 0, top.position)
        return fresh

    def ran(self, run: Run) -> None:
        """The decode is done: its rows have cells."""
        for row in run.rows:
            if row.sequences[0] == TEXT:
                self.cached += 1
            elif row.anchor is not None:
                self._tree[row.anchor] = _Cached(row.sequences[0], row.position, row.parent)
        for sequence in run.spare:
            self._give_up(sequence)

    def advance(self, tokens: Sequence[int]) -> None:
        """The text grew by ``tokens``: nodes along them become text, those below the new tip stay, others go."""
        path = [self.anchor]
        for token in tokens:
            path.append(path[-1].then(token))
        known = [self._tree[anchor] for anchor in path if anchor in self._tree]
        if promoted := known[: len(tokens)]:
            self._memory.copy(promoted[-1].sequence, TEXT, self.cached, self.cached + len(promoted))
            self.cached += len(promoted)
        below = {path[-1]}
        for anchor, cell in self._tree.items():  # parents come before children
            if cell.parent in below:
                below.add(anchor)
        for sequence, end in list(self._ends.items()):
            if end not in below:
                del self._ends[sequence]
                self._give_up(sequence)
        self._tree = {anchor: cell for anchor, cell in self._tree.items() if anchor in below}
        if (tip := self._tree.get(path[-1])) is not None:
            tip.parent = None
        self.text.extend(tokens)
        self.anchor = path[-1]
