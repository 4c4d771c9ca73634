"""Acceptance and foresight against naive implementations that enumerate every path."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.protocol.ports import Prediction
from foredraft.protocol.walk import TIP, accept, predict

TOKENS = st.integers(0, 2)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Tokens and parents of a tree in which no two siblings are the same token."""
    tokens: list[int] = []
    parents: list[int] = []
    for _ in range(draw(st.integers(0, 9))):
        parent = draw(st.integers(TIP, len(tokens) - 1))
        token = draw(TOKENS)
        if (parent, token) not in zip(parents, tokens, strict=True):
            tokens.append(token)
            parents.append(parent)
    return tokens, parents


def paths_of(tokens: list[int], parents: list[int]) -> list[list[int]]:
    """Every path from the tip down, the empty one included, as indices."""
    paths: list[list[int]] = [[]]
    for node, parent in enumerate(parents):
        above = next(path for path in paths if (path[-1] if path else TIP) == parent)
        paths.append([*above, node])
    return paths


@given(trees(), st.lists(TOKENS, min_size=10, max_size=10))
def test_the_accepted_path_is_the_longest_on_which_every_token_is_the_targets(
    tree: tuple[list[int], list[int]], said: list[int]
) -> None:
    tokens, parents = tree
    right = [
        path
        for path in paths_of(tokens, parents)
        if all(tokens[node] == said[before + 1] for before, node in zip([TIP, *path], path, strict=False))
    ]
    longest = max(right, key=len)
    assert sum(len(path) == len(longest) for path in right) == 1
    path, bonus = accept(tokens, parents, said)
    assert path == longest
    assert bonus == said[(path[-1] if path else TIP) + 1]


@given(trees(), st.lists(TOKENS, min_size=10, max_size=10))
def test_the_hint_of_a_perfect_exit_is_what_commits(tree: tuple[list[int], list[int]], said: list[int]) -> None:
    tokens, parents = tree
    path, bonus = accept(tokens, parents, said)
    predicted, confidence = predict(tokens, parents, Prediction(1, tuple(said), (1.0,) * 10), threshold=1.0)
    assert predicted == [*(tokens[node] for node in path), bonus]
    assert confidence == 1.0


@given(
    trees(),
    st.lists(st.tuples(TOKENS, st.floats(0, 1)), min_size=10, max_size=10),
    st.floats(0, 1),
)
def test_a_hint_is_the_longest_start_of_the_exits_walk_whose_joint_confidence_reaches_the_threshold(
    tree: tuple[list[int], list[int]], seen: list[tuple[int, float]], threshold: float
) -> None:
    tokens, parents = tree
    said, sure = [token for token, _ in seen], [confidence for _, confidence in seen]
    path, bonus = accept(tokens, parents, said)
    whole = [*(tokens[node] for node in path), bonus]
    joint = [math.prod(sure[node + 1] for node in [TIP, *path][:count]) for count in range(len(whole) + 1)]
    length = max(count for count in range(len(whole) + 1) if count == 0 or joint[count] >= threshold)
    predicted, confidence = predict(tokens, parents, Prediction(4, tuple(said), tuple(sure)), threshold)
    assert predicted == whole[:length]
    assert confidence == pytest.approx(joint[length])


def test_a_confidence_that_is_not_a_number_is_no_hint() -> None:
    assert predict([], [], Prediction(1, (5,), (math.nan,)), 0.0) == ([], 1.0)
