"""Drafts in other tokens than the target's, translated by text: guesses are the target's own tokens of that text."""

import json
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from foredraft.engines.translating import TokenizerSpeech, TranslatingDrafter, Words
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree, Node
from foredraft.text.tokenizer import Tokenizer

CORPUS = [
    "The robot walks to the red chair and stops in front of the second box on the left.",
    "def fibonacci(n: int) -> int:\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "Über den Wolken muß die Freiheit wohl grenzenlos sein. 今日は天気がいいですね。 🙂🙃",
]
TEXT = (
    "The robot stops in front of the chair. def walks(n: int) -> int:\n    return n + 2  # Über 今日 🙂\n"
    "and the box walks to the robot, the second robot, and so on: fibonacci(robot) < 2."
)


def bytes_tokenizer(size: int, kind: str = "bytes") -> Tokenizer:
    """A tokenizer that was trained on the corpus: GPT-2's way, or SentencePiece's."""
    library = Library(models.BPE(byte_fallback=kind == "pieces"))
    if kind == "bytes":
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        marks = ["<s>"]
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        library.decoder = decoders.Sequence(steps)
        alphabet, marks = [], ["<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(CORPUS * 3, trainer)
    written = json.loads(library.to_str())
    written["added_tokens"] = written["added_tokens"][:1]  # those of bytes are plain ones, as SentencePiece has them
    return Tokenizer(json.dumps(written).encode())


LARGE, SMALL = bytes_tokenizer(600), bytes_tokenizer(290)
PIECES = bytes_tokenizer(420, "pieces")


class Reciter:
    """A draft that knows a text by heart: each next token of it, the longest that fits, and a wrong one beside it."""

    tokenizer_digest, max_nodes_per_step = "", 4

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        self.begun = self.steps = 0
        self._pieces = TokenizerSpeech(tokenizer).pieces()
        self._by_heart = text.encode()
        self._text: list[int] = []

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        assert sampling.temperature == 0.0
        self.begun += 1
        self._text = list(tokens)

    def advance(self, tokens: Sequence[int]) -> None:
        self._text.extend(tokens)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        self.steps += 1
        return [self._guesses(node, width) for node in nodes]

    def _guesses(self, node: Node, width: int) -> list[Guess]:
        path = [step.token for step in node.path()]
        said = b"".join(self._pieces[token] for token in [*self._text, *path]).lstrip()
        rest = self._by_heart.removeprefix(said)
        if rest == self._by_heart:
            return []
        fitting = [token for token, piece in self._pieces.items() if piece and rest.startswith(piece)]
        right = sorted(fitting, key=lambda token: -len(self._pieces[token]))[:1]
        return [*(Guess(token, 0.8) for token in right), *(Guess(300 + at, 0.1) for at in range(1, width))]

    async def close(self) -> None:
        """Nothing is held."""


def pair(target: Tokenizer, draft: Tokenizer, text: str = TEXT) -> tuple[TranslatingDrafter, Reciter]:
    inner = Reciter(draft, text)
    return TranslatingDrafter(inner, Words(target, TokenizerSpeech(draft))), inner


PAIRS: Mapping[str, tuple[Tokenizer, Tokenizer]] = {
    "longer tokens": (SMALL, LARGE),
    "shorter tokens": (LARGE, SMALL),
    "the same": (LARGE, LARGE),
    "pieces for bytes": (LARGE, PIECES),
    "bytes for pieces": (PIECES, LARGE),
}


@pytest.mark.parametrize(("target", "draft"), PAIRS.values(), ids=PAIRS.keys())
async def test_a_draft_that_is_right_is_translated_into_the_targets_own_tokens(
    target: Tokenizer, draft: Tokenizer
) -> None:
    drafter, inner = pair(target, draft)
    tokens = target.encode(TEXT)
    tree, right = DraftTree(tokens[:2]), 0
    await drafter.begin(tree.tokens, Sampling(temperature=0.8))
    for token in tokens[2:-4]:
        guesses = (await drafter.draft([tree.root], 3))[0]
        right += bool(guesses) and guesses[0].token == token
        tree.advance([token])
        drafter.advance([token])
    assert right / (len(tokens) - 6) > 0.9
    assert inner.steps <= 2 * len(draft.encode(TEXT))


async def test_a_chain_is_drafted_without_asking_twice_and_committed_without_beginning_anew() -> None:
    drafter, inner = pair(LARGE, SMALL)
    tokens = LARGE.encode(TEXT)
    tree = DraftTree(tokens[:2])
    await drafter.begin(tree.tokens, Sampling())
    node, chain = tree.root, []
    for _ in range(8):
        best = (await drafter.draft([node], 1))[0][0]
        node = tree.add(node, best.token, best.probability)
        chain.append(best.token)
    assert chain == tokens[2:10]
    steps = inner.steps
    assert (await drafter.draft([tree.root], 1))[0][0].token == tokens[2]
    assert inner.steps == steps
    tree.advance(chain[:5])
    drafter.advance(chain[:5])
    assert (await drafter.draft([node], 1))[0][0].token == tokens[10]
    assert inner.begun == 1


async def test_a_text_that_goes_another_way_is_read_anew() -> None:
    drafter, inner = pair(LARGE, SMALL)
    tree = DraftTree(LARGE.encode("The robot walks"))
    await drafter.begin(tree.tokens, Sampling())
    assert await drafter.draft([tree.root], 2) == [[]]  # it knows another text
    tokens = LARGE.encode(TEXT)
    await drafter.begin(tokens[:3], Sampling())
    tree = DraftTree(tokens[:3])
    assert (await drafter.draft([tree.root], 2))[0][0].token == tokens[3]
    assert inner.begun == 2


async def test_dead_nodes_and_unknown_ones_come_back_empty() -> None:
    drafter, _ = pair(LARGE, SMALL)
    tree = DraftTree(LARGE.encode(TEXT)[:3])
    await drafter.begin(tree.tokens, Sampling())
    strange, dead = tree.add(tree.root, 5), DraftTree([1]).root
    dead.alive = False
    assert await drafter.draft([strange, dead], 2) == [[], []]


@given(luck=st.randoms(use_true_random=False), names=st.sampled_from(sorted(PAIRS)))
async def test_whatever_is_committed_each_guess_is_a_token_of_the_target_with_a_probability(
    luck: random.Random, names: str
) -> None:
    """Commits that follow the guesses, or siblings, or go anywhere, characters cut in two among them."""
    target, draft = PAIRS[names]
    drafter, _ = pair(target, draft)
    words = Words(target, TokenizerSpeech(draft))
    tree = DraftTree(target.encode(TEXT)[:2])
    await drafter.begin(tree.tokens, Sampling())
    for _ in range(12):
        node = luck.choice([tree.root, *tree.nodes()])
        for guess in (await drafter.draft([node], 3))[0]:
            assert words.of_target[guess.token]
            assert 0.0 < guess.probability <= 1.0
            tree.add(node, guess.token, guess.probability)
        if luck.random() < 0.4:
            nodes = [*tree.nodes()]
            goal = luck.choice(nodes) if nodes and luck.random() < 0.7 else None
            tokens = [] if goal is None else [step.token for step in goal.path()]
            tokens = tokens or [luck.randrange(1, target.vocab_size)]
            tree.advance(tokens)
            drafter.advance(tokens)
