"""What the judge accepts, and how it counts passes and hints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.demo_models.judge import Guesses, Tally, complete_lines, first_lines, reads_as_python, replay


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n",
        "",
        "if x:\n    y = f(1, [2])\n",
        "class A:\n    def f(self):\n        pass\nx = 'a'\n",
        "if x:\n",  # cut after a header: the lines are complete, the block is not begun
        "return break = 3\n",  # tokens, no grammar
    ],
)
def test_accepts(text: str) -> None:
    assert reads_as_python(text)


@pytest.mark.parametrize(
    "text",
    [
        "x = 'open\n",
        'x = "open\n',
        "x = f(1\n",
        "x = [1\ny = 2\n",
        "if x:\n        y = 1\n    z = 2\n",
        "x = ?\n",
        "x = $a\n",
        "x = '''open\n",
    ],
)
def test_refuses(text: str) -> None:
    assert not reads_as_python(text)


def test_lines() -> None:
    text = "a\nb\nc\nd"
    assert first_lines(text, 2) == "a\nb"
    assert complete_lines(text, 3) == "a\nb\nc\n"
    assert complete_lines(text, 4) is None


def test_replay_by_hand() -> None:
    committed, drafted = [1, 2, 3, 4, 5, 6, 7], [1, 2, 0, 4, 0, 6, 7]
    # tip 0: 1, 2 right, 3 from the target; tip 3: 4 right, 5 from the target; tip 5 is too near the end
    assert replay(Guesses(committed, drafted), gamma=2) == Tally(passes=2, tokens=5)


def test_hints_by_hand() -> None:
    committed, drafted = [1, 2, 3, 4, 5, 6, 7], [1, 9, 3, 4, 5, 6, 7]
    early = [1, 2, 3, 8, 5, 6, 7]
    # tip 0: the walk says 1, then 2 where the draft said 9: right. tip 2: 3, then 8: wrong if it is sure of both.
    sure = Guesses(committed, drafted, early, [0.9] * 7)
    assert replay(sure, gamma=2, threshold=0.5) == Tally(passes=2, tokens=5, hints=2, right=1)
    unsure_of_the_8 = Guesses(committed, drafted, early, [0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9])
    assert replay(unsure_of_the_8, gamma=2, threshold=0.5) == Tally(passes=2, tokens=5, hints=2, right=2)
    assert replay(sure, gamma=2, threshold=0.95) == Tally(passes=2, tokens=5)


@given(st.lists(st.booleans(), min_size=6, max_size=60), st.integers(1, 5))
def test_every_pass_commits_between_one_and_gamma_and_one(right: list[bool], gamma: int) -> None:
    committed = [1] * len(right)
    drafted = [1 if hit else 0 for hit in right]
    tally = replay(Guesses(committed, drafted), gamma)
    assert tally.passes <= tally.tokens <= tally.passes * (gamma + 1)
    assert len(right) - gamma - 1 < tally.tokens + gamma <= len(right) + gamma


@given(st.lists(st.sampled_from([0, 1]), min_size=6, max_size=40))
def test_an_exit_that_knows_is_always_right(drafted: list[int]) -> None:
    committed = [1] * len(drafted)
    tally = replay(Guesses(committed, drafted, committed, [1.0] * len(drafted)), gamma=4, threshold=0.99)
    assert tally.hints == tally.passes == tally.right
