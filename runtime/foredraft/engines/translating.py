"""A draft whose tokenizer is another than the target's: it drafts in its own tokens, and is translated by text.

As transformers' universal assisted generation does (Timor et al. 2025, "Accelerating LLM inference with lossless
speculative decoding algorithms for heterogeneous vocabularies"), but for a tree. The drafter follows the text in
tokens of its own. Below a node it is asked for token after token until the word is over in which the first of the
target's tokens ends that spell the same bytes: more text would not change that token. What was drafted beyond it is
kept for the next node. Special tokens are read where both have them, and never guessed.

The two vocabularies share no noise: the drafter says what is most probable, whatever the session's temperature.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree, Node
from foredraft.text.pieces import pieces
from foredraft.text.tokenizer import Tokenizer

_BROKEN: Final = "\N{REPLACEMENT CHARACTER}"
_CONTEXT_TOKENS: Final = 8
_CONTINUED: Final = {bytes((byte,)) for byte in range(0x80, 0xC0)}
"""Bytes that do not begin a character in UTF-8."""

_MOST_STEPS: Final = 6
"""Steps of the drafter below a node: no word takes more tokens without a boundary among them."""


class Speech(Protocol):
    """How a draft reads and writes."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a whole text, with those that the model wants around it."""

    def pieces(self) -> Mapping[int, bytes]:
        """The bytes of each token; none for special ones."""

    def marks(self) -> Collection[str]:
        """Its special tokens, as a template writes them."""


class TokenizerSpeech:
    """The speech of a draft with a tokenizer.json."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encode = tokenizer.encode
        self._tokenizer = tokenizer

    def pieces(self) -> Mapping[int, bytes]:
        """See ``Speech``."""
        return pieces(self._tokenizer)

    def marks(self) -> Collection[str]:
        """See ``Speech``."""
        return {self._tokenizer.special_text(token) for token in self._tokenizer.special_ids()}


class Words:
    """The target's tokens and the draft's, by the bytes that they stand for. Drafters of one draft share it."""

    def __init__(self, target: Tokenizer, speech: Speech) -> None:
        self.target, self._encode = target, speech.encode
        self.of_target, self.of_draft = pieces(target), speech.pieces()
        marks = speech.marks()
        self._strange = {token for token in target.special_ids() if target.special_text(token) not in marks}

    def read(self, tokens: Sequence[int]) -> list[int]:
        """The draft's tokens of a text in the target's; none within a character. Special ones that it lacks go."""
        text = self.target.written([token for token in tokens if token not in self._strange])
        return [] if text.endswith(_BROKEN) else self._encode(text)

    def next(self, before: Sequence[int], spelled: bytes) -> list[int]:
        """The target's tokens of the whole characters of ``spelled``, after those before; none where they run on."""
        context = list(before[-_CONTEXT_TOKENS:])
        while context and self.of_target.get(context[0], b"")[:1] in _CONTINUED:
            del context[0]  # it goes on with a character
        known = b"".join(self.of_target.get(token, b"") for token in context)
        whole = _whole(known + spelled)
        tokens = self.target.encode_rendered(whole)
        bytes_of = [self.of_target.get(token, b"") for token in tokens]
        left = len(known) + sum(map(len, bytes_of)) - len(whole.encode())  # a space that some put before a text
        for at, piece in enumerate(bytes_of):
            if left <= 0:
                return tokens[at:] if left == 0 else []
            left -= len(piece)
        return []


def _whole(text: bytes) -> str:
    """A text without the character that its end cuts off."""
    for cut in range(4):
        try:
            return text[: len(text) - cut].decode()
        except UnicodeDecodeError:
            continue
    return text.decode(errors="replace")


_Pending = tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node of the target's tree is in the draft's: at ``node``, which says ``pending`` more than it does.

    Of each pending part: its bytes, and its probability, 1 once that has been counted.
    """

    node: Node
    pending: _Pending = ()

    @property
    def ahead(self) -> bytes:
        return b"".join(part for part, _ in self.pending)

    def after(self, piece: bytes, chosen: int) -> tuple["_Place", float]:
        """The place behind ``piece``, which is how ``pending`` begins, and the probability of what that uses.

        The part of number ``chosen`` was one of several, and counts in any case.
        """
        left, probability = len(piece), 1.0
        rest: list[tuple[bytes, float]] = []
        for at, (part, chance) in enumerate(self.pending):
            if left > 0 or at == chosen:
                probability *= chance
            if left < len(part):
                rest.append((part[max(left, 0) :], 1.0 if left > 0 else chance))
            left -= len(part)
        return _Place(self.node, tuple(rest)), probability


class TranslatingDrafter:
    """One session's drafter, around one that speaks other tokens."""

    max_nodes_per_step = 1

    def __init__(self, inner: Drafter, words: Words) -> None:
        self._inner, self._words = inner, words
        self._text: list[int] = []
        self._tip = ORIGIN
        self._followed = False  # the inner drafter knows the text
        self._tree: DraftTree | None = None
        self._places: dict[Anchor, _Place] = {}
        self._children: dict[Anchor, list[Node]] = {}  # of nodes that were asked about, best first

    @property
    def tokenizer_digest(self) -> str:
        """The target's: it speaks its tokens."""
        return self._words.target.digest

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins with these tokens. The sampling is the target's alone."""
        self._text, self._tip = list(tokens), ORIGIN.after(tokens)
        self._places, self._followed = {}, False

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``. Never waits."""
        self._text.extend(tokens)
        self._tip = self._tip.after(tokens)
        self._followed = False

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """For each node up to ``width`` guesses, best first; none where the two sides' tokens do not meet.

        Raises what the inner drafter raises.
        """
        recent = self._text[-_CONTEXT_TOKENS:]
        if not self._followed:
            await self._follow(tuple(self._text), self._tip)
        found = []
        for node in nodes:
            place = self._places.get(node.anchor) if node.alive else None
            found.append([] if place is None else await self._guesses(recent, node, place, width))
        return found

    async def _follow(self, text: Sequence[int], tip: Anchor) -> None:
        """The inner drafter's text grows with the target's: along what it drafted, where that was right."""
        self._followed = True
        place = self._places.get(tip)
        if self._tree is not None and place is not None and place.node.alive:
            grown = self._committed(place)
        else:
            tokens = self._words.read(text)
            known = [] if self._tree is None else self._tree.tokens
            if not tokens:
                return
            if self._tree is None or tokens[: len(known)] != known:
                await self._inner.begin(tokens, Sampling())
                self._tree, self._children = DraftTree(tokens), {}
                known = tokens
            grown = tokens[len(known) :]
        if grown:
            self._tree.advance(grown)
            self._inner.advance(grown)
        self._places = {anchor: one for anchor, one in self._places.items() if one.node.alive}
        self._places.setdefault(tip, _Place(self._tree.root))
        alive = {id(node) for node in (self._tree.root, *self._tree.live)}
        self._children = {
            anchor: kept
            for anchor, children in self._children.items()
            if (kept := [child for child in children if id(child) in alive])
        }

    def _committed(self, place: _Place) -> list[int]:
        """The draft's tokens down to a place, but those that the text has not reached."""
        path = [step.token for step in place.node.path()]
        ahead = len(place.ahead)
        while path and ahead > 0:
            ahead -= len(self._words.of_draft.get(path.pop(), b""))
        return path

    async def _guesses(self, recent: Sequence[int], node: Node, place: _Place, width: int) -> list[Guess]:
        before = [*recent, *(step.token for step in node.path())]
        siblings: list[_Place] = []
        chosen = len(place.pending)
        for _ in range(_MOST_STEPS):
            if self._first(before, place, certain=True) is not None:
                break
            children = await self._expanded(place.node, width)
            if not children:
                break
            if not siblings:
                siblings = [self._with(place, child) for child in children[1:]]
            place = self._with(place, children[0])
        found: dict[int, float] = {}
        for one in (place, *siblings):
            token = self._first(before, one, certain=False)
            if token is None:
                continue
            behind, probability = one.after(self._words.of_target[token], chosen)
            if token not in found:
                self._places[node.anchor.then(token)] = behind
            found[token] = found.get(token, 0.0) + probability
        ranked = sorted(found, key=lambda token: -found[token])
        return [Guess(token, min(1.0, found[token])) for token in ranked[:width]]

    def _first(self, before: Sequence[int], place: _Place, *, certain: bool) -> int | None:
        """The target's first token of what is drafted beyond a node. ``certain``: only if more would not change it."""
        ahead = place.ahead
        tokens = self._words.next(before, ahead) if ahead else []
        piece = self._words.of_target.get(tokens[0], b"") if tokens else b""
        if not piece or (certain and not _is_over(piece, ahead[len(piece) :])):
            return None
        return tokens[0]

    def _with(self, place: _Place, child: Node) -> _Place:
        return _Place(child, (*place.pending, (self._words.of_draft[child.token], child.probability)))

    async def _expanded(self, node: Node, width: int) -> list[Node]:
        """The draft's guesses below one of its nodes, as nodes; asked for once."""
        known = self._children.get(node.anchor)
        if known is None and self._tree is not None and node.alive:
            guesses = (await self._inner.draft([node], width))[0]
            said = [guess for guess in guesses if self._words.of_draft.get(guess.token)]
            known = [self._tree.add(node, guess.token, guess.probability) for guess in said]
            self._children[node.anchor] = known
        return known or []

    async def close(self) -> None:
        """Close the inner drafter."""
        await self._inner.close()


def _is_over(piece: bytes, rest: bytes) -> bool:
    """Whether the word, with the space before it, is over in which ``piece`` ends; ``rest``: what follows."""
    last, after = _kinds(piece)[-1], _kinds(rest).rstrip("?")
    if last == " " and after[:1] not in ("", " "):
        last = after[0]  # a space belongs to the word behind it
    return bool(after.lstrip(last))


def _kinds(text: bytes) -> str:
    """A letter for each character: of a word, a space, a mark, or a piece of a character."""
    shown = text.decode(errors="replace")
    return "".join("?" if one == _BROKEN else " " if one.isspace() else "a" if one.isalnum() else "." for one in shown)
