"""How probable it is that the walk gets somewhere, against counting all cases."""

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.edge.path_probability import expected_tokens, path_probabilities
from foredraft.protocol.tree import DraftTree

RANKS = st.lists(st.floats(0.0, 0.5), min_size=1, max_size=3).map(
    lambda ranks: tuple(sorted((rank / max(1.0, sum(ranks)) for rank in ranks), reverse=True))
)


def best_by_trying_all(ranks: tuple[float, ...], nodes: int, depth: int) -> float:
    """Expected tokens of the best of all trees: a node is the ranks that lead to it."""
    paths = [path for level in range(1, depth + 1) for path in product(range(len(ranks)), repeat=level)]
    best = 0.0
    for size in range(min(nodes, len(paths)) + 1):
        for tree in combinations(paths, size):
            held = {(), *tree}
            if all(path[:-1] in held for path in tree):
                best = max(best, sum(reach_of(path, ranks) for path in tree))
    return 1.0 + best


def reach_of(path: tuple[int, ...], ranks: tuple[float, ...]) -> float:
    reach = 1.0
    for rank in path:
        reach *= ranks[rank]
    return reach


@settings(max_examples=40)
@given(RANKS, st.integers(0, 3), st.integers(0, 2))
def test_the_best_first_tree_is_the_best_of_all_trees(ranks: tuple[float, ...], nodes: int, depth: int) -> None:
    assert expected_tokens(ranks, nodes, depth) == pytest.approx(best_by_trying_all(ranks, nodes, depth))


def test_a_chain_meets_the_closed_form() -> None:
    a, gamma = 0.7, 5
    assert expected_tokens((a,), gamma, gamma) == pytest.approx((1 - a ** (gamma + 1)) / (1 - a))


def test_the_reference_pair_brings_3_21_tokens_in_a_pass_of_32() -> None:
    """As the project's design says of passes that are flat to 32 tokens."""
    assert expected_tokens((0.58, 0.12, 0.06, 0.04, 0.03), 31, 31) == pytest.approx(3.21, abs=0.03)


def test_probabilities_multiply_down_the_path() -> None:
    tree = DraftTree([1])
    first = tree.add(tree.root, 2, 0.5)
    second = tree.add(first, 3, 0.4)
    assert dict(path_probabilities(tree.root, {})) == {tree.root: 1.0, first: 0.5, second: pytest.approx(0.2)}


def test_a_hint_reweighs_a_node_and_its_siblings_share_the_rest() -> None:
    tree = DraftTree([1])
    heir, sibling = tree.add(tree.root, 2, 0.2), tree.add(tree.root, 3, 0.6)
    below = tree.add(sibling, 4, 0.5)
    found = dict(path_probabilities(tree.root, {tree.root: (heir, 0.9)}))
    assert found[heir] == pytest.approx(0.9)
    assert found[sibling] == pytest.approx(0.6 * 0.1 / 0.8)
    assert found[below] == pytest.approx(0.5 * found[sibling])
