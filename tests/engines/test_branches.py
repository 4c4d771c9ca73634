"""Branches of a draft tree as sequences: each row sees its own path, whatever happened before."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.histories import commit_of
from foredraft.engines.branches import TEXT, Branches, Run
from foredraft.protocol.tree import DraftTree, Node

VOCABULARY = 5


@dataclass(slots=True)
class Cell:
    token: int
    position: int
    sequences: set[int]


class Memory:
    """What llama.cpp's unified cache does with cells, and what it demands of a batch."""

    def __init__(self, cells: int) -> None:
        self.size = cells
        self.cells: list[Cell] = []

    def copy(self, source: int, target: int, begin: int, end: int) -> None:
        for cell in self.cells:
            if source in cell.sequences and begin <= cell.position < end:
                cell.sequences.add(target)

    def remove(self, sequence: int, begin: int = 0) -> None:
        for cell in self.cells:
            if cell.position >= begin:
                cell.sequences.discard(sequence)
        self.cells = [cell for cell in self.cells if cell.sequences]

    def positions(self, sequence: int) -> list[int]:
        return sorted(cell.position for cell in self.cells if sequence in cell.sequences)

    def decode(self, run: Run) -> list[list[int]]:
        """The tokens that each row sees, itself last."""
        for row in run.rows:
            assert len({tuple(self.positions(sequence)) for sequence in row.sequences}) == 1  # or they have diverged
            for sequence in row.sequences:
                assert self.positions(sequence) == list(range(row.position))  # in order, without a gap
            self.cells.append(Cell(row.token, row.position, set(row.sequences)))
        assert len(self.cells) <= self.size
        seen = []
        for row in run.rows:
            cells = [cell for cell in self.cells if row.sequences[0] in cell.sequences]
            cells = [cell for cell in cells if cell.position <= row.position]
            seen.append([cell.token for cell in sorted(cells, key=lambda cell: cell.position)])
        return seen


def steps(node: Node) -> list[tuple[object, int]]:
    path: list[tuple[object, int]] = []
    here: Node | None = node
    while here is not None:
        path.append((here.anchor, here.token))
        here = here.parent
    return path[::-1]


def ask(branches: Branches, memory: Memory, tree: DraftTree, nodes: Sequence[Node]) -> Run:
    """Run a step over ``nodes``, and see that each row read its own path."""
    run = branches.plan([steps(node) for node in nodes])  # type: ignore[misc]
    seen = memory.decode(run)
    for node, row in zip(nodes, run.asked, strict=True):
        assert seen[row] == tree.tokens + [step.token for step in node.path()]
    branches.ran(run)
    return run


@settings(max_examples=settings().max_examples * 3)
@given(luck=st.randoms(use_true_random=False), sequences=st.integers(5, 12), length=st.integers(1, 6))
def test_each_row_sees_its_own_path_after_any_history(luck: random.Random, sequences: int, length: int) -> None:
    """Nodes asked in any order and again, gaps above them, commits that hit, miss and go past the tree, new texts."""
    memory = Memory(96)
    branches = Branches(memory, sequences, 96)
    tree = DraftTree([luck.randrange(VOCABULARY) for _ in range(length)])
    branches.begin(tree.tokens)
    for _ in range(12):
        for _ in range(luck.randrange(4)):
            tree.add(luck.choice([tree.root, *tree.nodes()]), luck.randrange(VOCABULARY))
        pool = [tree.root, *tree.nodes()]
        ask(branches, memory, tree, luck.sample(pool, min(len(pool), luck.randint(1, 4))))
        if luck.random() < 0.1:
            tree = DraftTree([*tree.tokens[: luck.randint(1, len(tree.tokens))], luck.randrange(VOCABULARY)])
            branches.begin(tree.tokens)
        for _ in range(luck.randrange(3)):
            commit = commit_of(tree, luck, VOCABULARY)
            tree.advance(commit)
            branches.advance(commit)
        held = {cell.position for cell in memory.cells if TEXT in cell.sequences}
        assert held == set(range(branches.cached))


def small() -> tuple[Branches, Memory, DraftTree]:
    memory, tree = Memory(64), DraftTree([1, 2, 3])
    branches = Branches(memory, 8, 64)
    branches.begin(tree.tokens)
    return branches, memory, tree


def test_a_chain_goes_on_in_one_sequence() -> None:
    branches, memory, tree = small()
    node = tree.root
    for token in (4, 0, 1):
        node = tree.add(node, token)
        ask(branches, memory, tree, [node])
    assert set().union(*(cell.sequences for cell in memory.cells)) == {TEXT, 1}


def test_what_was_accepted_is_not_run_again_and_what_was_not_is_gone() -> None:
    branches, memory, tree = small()
    left, right = tree.add(tree.root, 4), tree.add(tree.root, 0)
    below = tree.add(left, 1)
    ask(branches, memory, tree, [below, right])
    tree.advance([4])
    branches.advance([4])
    assert [cell.token for cell in memory.cells] == [1, 2, 3, 4, 1]
    assert len(ask(branches, memory, tree, [tree.add(below, 2)]).rows) == 1


def test_a_tree_that_needs_more_branches_than_there_are_makes_room() -> None:
    branches, memory, tree = small()
    for token in range(5):
        ask(branches, memory, tree, [tree.add(tree.root, token)])
    first = list(tree.root.children)
    run = ask(branches, memory, tree, [tree.add(node, 1) for node in first])
    assert len(run.rows) == 5
    more = [tree.add(node, 2) for node in first[:3]]
    assert len(ask(branches, memory, tree, more).rows) == 7  # the tip and three of the five come along anew


def test_a_cache_that_was_lost_is_made_anew() -> None:
    branches, memory, tree = small()
    ask(branches, memory, tree, [tree.root])
    branches.plan([steps(tree.add(tree.root, 4))])  # type: ignore[list-item]
    memory.cells.clear()
    branches.lost()
    assert len(ask(branches, memory, tree, [tree.add(tree.root, 4)]).rows) == 4
