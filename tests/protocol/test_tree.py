"""The draft tree against a naive model: a set of paths."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.tree import DraftTree, Node

TOKENS = st.integers(0, 2)  # few, so that chains meet
CHAINS = st.lists(TOKENS, max_size=5)
GOLDEN = (0x59AB0232640160BF, 0xEB86FEFD83F17B29, 0xD6024167ED83D6B3)


def graft(tree: DraftTree, anchor: Anchor, chain: list[int]) -> Node | None:
    """Hang a chain where ``trim`` says, as the cloud does; its last node, or None if it cannot hang."""
    place = tree.trim(anchor, chain)
    if place is None:
        return None
    node, rest = place
    for token in rest:
        node = tree.add(node, token)
    return node


class TreeMachine(RuleBasedStateMachine):
    """``committed`` and ``paths`` (absolute, so that they outlive a commit) are the model."""

    nodes = Bundle("nodes")
    graves = Bundle("graves")

    def __init__(self) -> None:
        super().__init__()
        self.tree = DraftTree([7])
        self.committed: tuple[int, ...] = (7,)
        self.paths: set[tuple[int, ...]] = set()
        self.texts: dict[Node, tuple[int, ...]] = {self.tree.root: self.committed}

    def text_of(self, node: Node) -> tuple[int, ...]:
        return (*self.committed, *(below.token for below in node.path()))

    def grow(self, text: tuple[int, ...], chain: list[int]) -> None:
        self.paths |= {(*text, *chain[:count]) for count in range(1, len(chain) + 1)}

    @rule(target=nodes)
    def look_at_the_root(self) -> Node:
        return self.tree.root

    @rule(target=nodes, parent=nodes, token=TOKENS)
    def add(self, parent: Node, token: int) -> object:
        if not parent.alive:
            with pytest.raises(ValueError, match="dead"):
                self.tree.add(parent, token)
            return multiple()
        text = self.text_of(parent)
        node = self.tree.add(parent, token)
        assert self.text_of(node) == (*text, token)
        self.grow(text, [token])
        self.texts[node] = (*text, token)
        return node

    @rule(target=nodes, parent=nodes, chain=CHAINS)
    def graft_below_a_node_that_lives_or_was_overtaken(self, parent: Node, chain: list[int]) -> object:
        text = self.texts[parent]
        whole = (*text, *chain)
        grafted = graft(self.tree, parent.anchor, chain)
        known = text in self.paths or text == self.committed[: len(text)]
        shared = min(len(whole), len(self.committed))
        if not known or whole[:shared] != self.committed[:shared]:
            assert grafted is None
            return multiple()
        assert grafted is not None
        if len(whole) <= len(self.committed):
            assert grafted is self.tree.root
        else:
            assert self.text_of(grafted) == whole
            new = len(whole) - max(len(self.committed), len(text))
            self.grow(whole[: len(whole) - new], list(whole[len(whole) - new :]))
            self.texts[grafted] = whole
        return grafted

    @rule(position=st.integers(-3, 40), hash_=st.integers(0, 2**64 - 1), chain=CHAINS)
    def graft_below_what_nobody_knows(self, position: int, hash_: int, chain: list[int]) -> None:
        assert graft(self.tree, Anchor(position, hash_), chain) is None

    @rule(chain=st.lists(TOKENS, min_size=1, max_size=4))
    def advance(self, chain: list[int]) -> None:
        self.tree.advance(chain)
        self.committed = (*self.committed, *chain)
        depth = len(self.committed)
        self.paths = {path for path in self.paths if len(path) > depth and path[:depth] == self.committed}
        self.texts.setdefault(self.tree.root, self.committed)

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.paths.clear()

    @rule(target=graves, node=consumes(nodes))
    def bury(self, node: Node) -> object:
        return multiple() if node.alive else node

    @rule(node=graves)
    def a_dead_node_stays_dead(self, node: Node) -> None:
        assert not node.alive
        assert node not in list(self.tree.nodes())
        assert not node.children

    @invariant()
    def the_tree_holds_exactly_the_paths(self) -> None:
        live = list(self.tree.nodes())
        assert {self.text_of(node) for node in live} == self.paths
        assert len(live) == len(self.tree) == len(self.paths)
        assert tuple(self.tree.tokens) == self.committed
        assert self.tree.position == len(self.committed)

    @invariant()
    def parents_come_first_and_know_their_children(self) -> None:
        seen = {self.tree.root}
        for node in self.tree.nodes():
            assert node.parent in seen
            assert node.parent is not None
            assert node.parent.child(node.token) is node
            seen.add(node)
        assert all(node.alive for node in seen)

    @invariant()
    def every_live_node_is_found_by_the_anchor_of_its_text(self) -> None:
        assert self.tree.root.anchor == ORIGIN.after(self.committed)
        for node in [self.tree.root, *self.tree.nodes()]:
            assert node.anchor == ORIGIN.after(self.text_of(node))
            assert self.tree.find(node.anchor) is node


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=50, stateful_step_count=25)


def test_a_chain_that_a_commit_overtook_keeps_what_is_still_good_of_it() -> None:
    tree = DraftTree([1, 2])
    sent_at = tree.root.anchor
    tree.advance([3, 4])
    last = graft(tree, sent_at, [3, 4, 5, 6])
    assert last is not None
    assert [node.token for node in last.path()] == [5, 6]
    assert graft(tree, sent_at, [3, 9, 5]) is None
    assert graft(tree, sent_at, [3]) is tree.root


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        DraftTree([])


@given(st.lists(st.integers(0, 2**28 - 1), max_size=30), st.lists(st.integers(0, 2**28 - 1), max_size=30))
def test_an_anchor_is_a_function_of_the_text_and_differs_between_texts(one: list[int], other: list[int]) -> None:
    assert ORIGIN.after(one).after(other) == ORIGIN.after(one + other)
    assert (ORIGIN.after(one) == ORIGIN.after(other)) == (one == other)
    assert 0 <= ORIGIN.after(one).hash < 2**64


def test_anchors_are_the_same_in_every_version_of_this_protocol() -> None:
    assert ORIGIN.after([0]) == Anchor(1, GOLDEN[0])
    assert ORIGIN.after([1, 2, 3]) == Anchor(3, GOLDEN[1])
    assert ORIGIN.after([268435455, 0]) == Anchor(2, GOLDEN[2])


def test_of_two_prefixes_with_one_hash_the_older_is_meant_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foredraft.protocol.tree.hash_after", lambda prefix, token: 0)
    tree = DraftTree([1])
    node, other = tree.add(tree.root, 2), tree.add(tree.root, 3)
    assert tree.find(other.anchor) is node
    below = graft(tree, other.anchor, [4])
    assert list(tree.nodes()) == [node, other, below]
    tree.advance([3])
    assert (tree.root, len(tree)) == (other, 0)
    tree.advance([5])
    assert tree.tokens == [1, 3, 5]


def test_a_node_below_what_the_text_has_passed_keeps_its_name() -> None:
    tree = DraftTree([1])
    first = tree.add(tree.root, 2)
    second = tree.add(first, 3)
    tree.advance([2])
    assert (second.anchor, second.position) == (ORIGIN.after([1, 2, 3]), 3)
    tree.advance([9])
    assert not second.alive
    assert second.anchor == ORIGIN.after([1, 2, 3])


def test_a_name_is_found_for_a_chain_of_any_length() -> None:
    tree = DraftTree([1])
    node = tree.root
    for _ in range(5000):
        node = tree.add(node, 7)
    assert node.anchor == ORIGIN.after([1, *[7] * 5000])
