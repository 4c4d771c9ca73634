"""Recorded pairs: what real models said, position by position, to be said again without them.

A recording is a file of JSON lines: first what the target is, then one text per line with, for each
of its tokens, what the draft would have guessed there and what each exit said. Like a synthetic
pair it depends on the position alone: beside the recorded text, where nothing can be accepted, a
draft guesses what it guessed on it.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from foredraft.core.ports import Drafter, Guess, Pass, Reading, Target, TargetCard
from foredraft.core.sampling import Sampling
from foredraft.core.tree import DraftTree, Node
from foredraft.engines.scripted import ScriptedSeat
from foredraft_sim.errors import ScenarioError

Said = tuple[int, float]
"""A token, and how sure somebody was of it."""


class RecordedModels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was recorded: the first line of the file."""

    model_digest: str
    tokenizer_digest: str
    vocab_size: int
    layers: int
    exits: tuple[int, ...]
    stop_tokens: tuple[int, ...]


class RecordedText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text. ``guesses[i]`` and ``readings[i]`` (one per exit) are about ``tokens[i]``."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    guesses: tuple[tuple[Said, ...], ...]
    readings: tuple[tuple[Said, ...], ...]

    def __post_init__(self) -> None:
        if not self.prompt or not self.tokens:
            raise ValueError("a text needs a prompt and tokens")
        if not len(self.tokens) == len(self.guesses) == len(self.readings):
            raise ValueError("tokens, guesses and readings must be as many")

    def truth(self, position: int) -> int:
        """The target's token."""
        index = position - len(self.prompt)
        return self.tokens[index] if 0 <= index < len(self.tokens) else 0

    def guesses_at(self, position: int, width: int) -> list[Guess]:
        """The draft's first ``width`` guesses; none beyond the recorded text."""
        index = position - len(self.prompt)
        return [Guess(*said) for said in self.guesses[index][:width]] if 0 <= index < len(self.guesses) else []


class Recording(msgspec.Struct, frozen=True):
    """A whole file."""

    models: RecordedModels
    texts: tuple[RecordedText, ...]


def read_recording(path: Path) -> Recording:
    """The recording in a file. Raises ScenarioError naming the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}") from error
    number = 1
    try:
        models = msgspec.json.decode(lines[0] if lines else b"", type=RecordedModels)
        texts = []
        for number, line in enumerate(lines[1:], 2):
            texts.append(msgspec.json.decode(line, type=RecordedText))
            if any(len(said) != len(models.exits) for said in texts[-1].readings):
                raise ScenarioError(f"{path}:{number}: each token needs a reading of each exit, {len(models.exits)}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}:{number}: not a recording: {error}") from error
    if not texts:
        raise ScenarioError(f"{path}: a recording without a text")
    return Recording(models, tuple(texts))


def write_recording(recording: Recording) -> bytes:
    """The file's bytes."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in (recording.models, *recording.texts))


def models_of(card: TargetCard) -> RecordedModels:
    """What a recording keeps of a target's card."""
    return RecordedModels(
        card.model_digest, card.tokenizer_digest, card.vocab_size, card.layers, card.exits, card.stop_tokens
    )


async def record_text(
    target: Target, drafter: Drafter, prompt: Sequence[int], sampling: Sampling, most: int, width: int = 8
) -> RecordedText:
    """Let the target write up to ``most`` tokens alone, and ask the draft and the exits about each of them."""
    card = target.card
    tree = DraftTree(prompt)
    await drafter.begin(prompt, sampling)
    seat = await target.seat(prompt, sampling)
    tokens: list[int] = []
    guesses: list[tuple[Said, ...]] = []
    readings: list[tuple[Said, ...]] = []
    try:
        while len(tokens) < most and (not tokens or tokens[-1] not in card.stop_tokens):
            while tree.position - seat.cached > card.prefill_chunk:
                await seat.prefill(tree.tokens[seat.cached : seat.cached + card.prefill_chunk])
            heard: list[Reading] = []
            batch = Pass(trunk=tuple(tree.tokens[seat.cached :]), exits=card.exits)
            verdict = await seat.verify(batch, heard.append)
            seat.keep(())
            said = (await drafter.draft([tree.root], width))[0]
            guesses.append(tuple((guess.token, guess.probability) for guess in said))
            readings.append(tuple((one.tokens[0], one.confidence[0]) for one in heard))
            tokens.append(verdict.reading.tokens[0])
            tree.advance(tokens[-1:])
            drafter.advance(tokens[-1:])
    finally:
        seat.close()
    return RecordedText(tuple(prompt), tuple(tokens), tuple(guesses), tuple(readings))


class Replays:
    """Which text belongs to which request, by the seed of the request's sampling."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._by_seed: dict[int, RecordedText] = {}

    def assign(self, seed: int, request: int) -> RecordedText:
        """A request takes the next text, again and again."""
        text = self.recording.texts[request % len(self.recording.texts)]
        self._by_seed[seed] = text
        return text

    def text(self, sampling: Sampling) -> RecordedText:
        """The text of the request that has this sampling."""
        return self._by_seed[sampling.seed]


class RecordedTarget:
    """The recorded target: it takes no time; ``PacedTarget`` around it does."""

    def __init__(self, replays: Replays, *, max_pass_nodes: int = 32, prefill_chunk: int = 512) -> None:
        self._replays = replays
        models = replays.recording.models
        self._card = TargetCard(
            model_digest=models.model_digest,
            tokenizer_digest=models.tokenizer_digest,
            vocab_size=models.vocab_size,
            context=1 << 30,
            layers=models.layers,
            exits=models.exits,
            max_pass_nodes=max_pass_nodes,
            prefill_chunk=prefill_chunk,
            stop_tokens=models.stop_tokens,
        )

    @property
    def card(self) -> TargetCard:
        """What it was."""
        return self._card

    async def seat(self, tokens: Sequence[int], sampling: Sampling) -> ScriptedSeat:
        """A place for the request whose seed ``sampling`` carries."""
        text, exits = self._replays.text(sampling), self._card.exits

        def foresight(layer: int, position: int) -> Said:
            index = position - len(text.prompt)
            return text.readings[index][exits.index(layer)] if 0 <= index < len(text.readings) else (0, 0.0)

        return ScriptedSeat(self._card.layers, text.truth, foresight if exits else None)

    async def close(self) -> None:
        """Nothing to free."""


class RecordedDrafter:
    """The recorded draft: it takes no time; ``PacedDrafter`` around it does."""

    def __init__(self, replays: Replays, *, max_nodes_per_step: int = 8) -> None:
        self._replays = replays
        self._max_nodes_per_step = max_nodes_per_step
        self._text: RecordedText | None = None

    @property
    def tokenizer_digest(self) -> str:
        """The recorded one."""
        return self._replays.recording.models.tokenizer_digest

    @property
    def max_nodes_per_step(self) -> int:
        """How many nodes one step may expand."""
        return self._max_nodes_per_step

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A request begins; its seed says which text it is."""
        self._text = self._replays.text(sampling)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """What was guessed at each node's position."""
        text = self._text
        return [[] if text is None else text.guesses_at(node.anchor.position, width) for node in nodes]

    def advance(self, tokens: Sequence[int]) -> None:
        """Nothing to keep."""

    async def close(self) -> None:
        """Nothing to free."""
