"""What any drafter of a model goes through: steps and commits in random order, each guess compared."""

import random
from collections.abc import Callable, Sequence

import pytest

from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree, Node

Expected = Callable[[Sequence[int]], list[Guess]]
"""The three best guesses after a text, of one run over the whole of it."""


async def any_history(
    drafter: Drafter,
    expected: Expected,
    luck: random.Random,
    sampling: Sampling,
    *,
    vocabulary: int,
    length: int,
    turns: int,
    within: float,
) -> None:
    """Nodes asked in any order, again, with gaps above them; commits that hit, miss, and go past the tree."""
    tree = DraftTree([luck.randrange(vocabulary) for _ in range(length)])
    await drafter.begin(tree.tokens, sampling)
    for _ in range(turns):
        for _ in range(luck.randrange(3)):  # nodes that the drafter did not propose
            tree.add(luck.choice([tree.root, *tree.nodes()]), luck.randrange(vocabulary))
        pool = [tree.root, *tree.nodes()]
        asked = luck.sample(pool, min(len(pool), luck.randint(1, 4)))
        for node, guesses in zip(asked, await drafter.draft(asked, 3), strict=True):
            agree(guesses, expected(text_of(tree, node)), within)
            for guess in guesses:
                tree.add(node, guess.token, guess.probability)
        for _ in range(luck.randrange(3)):  # several commits may come between two steps
            commit = commit_of(tree, luck, vocabulary)
            tree.advance(commit)
            drafter.advance(commit)


def agree(found: Sequence[Guess], wanted: Sequence[Guess], within: float) -> None:
    assert [guess.token for guess in found] == [guess.token for guess in wanted]
    assert [guess.probability for guess in found] == pytest.approx([guess.probability for guess in wanted], abs=within)


def text_of(tree: DraftTree, node: Node) -> list[int]:
    return tree.tokens + [step.token for step in node.path()]


def commit_of(tree: DraftTree, luck: random.Random, vocabulary: int) -> list[int]:
    """Some way down the tree, mostly with a token at the end that it may not have."""
    commit: list[int] = []
    node = tree.root
    while node.children and luck.random() < 0.6:
        node = luck.choice(node.children)
        commit.append(node.token)
    if not commit or luck.random() < 0.5:
        commit.append(luck.randrange(vocabulary))
    return commit
