"""The ports: all that the session logic sees of the world.

Behind each stands something real (a socket, torch) or something emulated (a simulated link,
a synthetic model on a simulated device). Time is the running event loop's clock.

What is made anew in every round is a msgspec Struct: as frozen as a dataclass, and much cheaper to make.
It can be in no cycle of references, so the garbage collector is spared it (``gc=False``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from foredraft.protocol.messages import Message
from foredraft.protocol.rejection import Trial
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from foredraft.text.constraint import Constraint


class Link(Protocol):
    """A two-way, ordered, reliable stream of messages; it may break at any time."""

    async def send(self, message: Message) -> None:
        """Send; waits while the link is full. Raises LinkClosedError once it is closed."""

    def post(self, message: Message) -> bool:
        """Send here and now, where that needs no waiting; False if nothing was sent, and it is for ``send``.

        Links within one process can, which spares simulations a turn of the loop per message. A link that inherits
        this one never does; none does once it is closed.
        """
        return False

    async def receive(self) -> Message:
        """The next message. Raises LinkClosedError at the end, ProtocolError for garbage."""

    async def listen(self, take: Callable[[Message], bool]) -> None:
        """Hand each message to ``take`` as it comes, until that says that it wants no more.

        ``take`` never waits; it may be called within a task or by the loop itself. Raises what it
        raises, and as ``receive``. A link that inherits this one receives for it.
        """
        while take(await self.receive()):
            pass

    async def close(self) -> None:
        """Close; pending receives on both ends raise LinkClosedError. Closing twice is fine."""

    @property
    def bytes_sent(self) -> int:
        """Bytes of payload and framing sent so far."""

    @property
    def bytes_received(self) -> int:
        """Bytes of payload and framing received so far."""


class Guess(msgspec.Struct, frozen=True, gc=False):
    """A token that the drafter thinks comes next, and how probable it is that it is right."""

    token: int
    probability: float


class Drafter(Protocol):
    """The edge's engine, serving one session at a time.

    It keeps a cache of the text and of the nodes that it was asked about. One call is one
    draft step, which occupies its device to the end; the event loop stays free meanwhile.
    """

    @property
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer whose ids it speaks; empty if it speaks any."""

    @property
    def max_nodes_per_step(self) -> int:
        """How many nodes one step may expand."""

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins (or begins anew) with these committed tokens."""

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """For each node, up to ``width`` guesses at the token below it, best first.

        A node is the tree's root or lies below it. A node that died meanwhile may come back
        empty. An empty list means that the drafter has no idea.
        """

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``. Never waits: the cache follows at the next step."""

    async def close(self) -> None:
        """Free what the engine holds."""


@runtime_checkable
class BesideImages(Protocol):
    """A drafter that is told of the images in its texts; to others their places are tokens like any."""

    def see(self, images: Sequence[bytes], image_token: int) -> None:
        """Texts that begin from now on have these encoded images, whose places are filled with ``image_token``."""


NewDrafter = Callable[[], Drafter]
"""Makes the drafter of one text; those of one model share its weights."""


class Pass(msgspec.Struct, frozen=True, gc=False):
    """One target pass over the tip of the text and a tree of draft nodes below it.

    ``trunk``: committed tokens that the cache does not hold yet, the tip last; never empty.
    ``tokens[i]`` is a draft node and ``parents[i]`` the index of its parent in ``tokens``, -1
    for the tip; parents come before children. ``exits``: the layers after which to report. ``logprobs``: how many
    log-probabilities the verdict is to tell of each row; None for none. ``masks``: what may come below the tip and
    below each node, where that is limited: bit ``n`` of a mask is token ``n``'s (``Grammar.masks``). ``trials``: what
    of the draft is tried below the tip and below each node, where that is by rejection sampling (``rejection``).
    """

    trunk: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    exits: tuple[int, ...] = ()
    logprobs: int | None = None
    masks: tuple[bytes, ...] = ()
    trials: tuple[Trial, ...] = ()


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """What an exit, or the whole target, says comes next.

    ``tokens[0]`` follows the tip and ``tokens[i + 1]`` follows node i (noise included).
    ``confidence[r]`` is the calibrated probability that ``tokens[r]`` is what the whole target
    will say; 1.0 for the whole target itself. ``layer`` counts the layers that have run. ``logprobs[r]``, where they
    were asked for: (token, log-probability) of ``tokens[r]`` and then of the most probable tokens.
    """

    layer: int
    tokens: tuple[int, ...]
    confidence: tuple[float, ...]
    logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The end of a pass: the whole target's reading and what the pass took.

    ``queue_s``: waiting for the device. ``pass_s``: on the device.
    """

    prediction: Prediction
    queue_s: float
    pass_s: float


class Slot(Protocol):
    """One session's place on the target: its cache and its sampling."""

    @property
    def cached(self) -> int:
        """How many leading tokens of the text the cache holds."""

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Run committed ``tokens`` through the target, cache only; the seconds it took."""

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """Run one pass. ``on_exit`` is called on the loop while later layers still run.

        Afterwards the cache holds the trunk; ``keep`` says which nodes stay. A cancelled pass
        leaves the cache as it was before, and the device as soon as nobody else shares its forward.
        """

    def keep(self, nodes: Sequence[int]) -> None:
        """Of the last pass, keep these nodes (indices, a path from the tip down). Never waits."""

    def close(self) -> None:
        """Give the place up; the engine may keep the cache for a resume. Never waits."""


@runtime_checkable
class Urgent(Protocol):
    """A slot whose calls have their turn by when they are wanted, as not every one's do."""

    def wanted_by(self, due_s: float) -> None:
        """What it is asked from now on is of no use after ``due_s`` of the loop's clock; inf: whenever."""


@dataclass(frozen=True, slots=True)
class TargetCard:
    """What an edge must know of a target. ``exits`` are layer counts, shallowest first.

    ``max_pass_nodes``: draft nodes in one pass. ``prefill_chunk``: most trunk tokens in one
    pass or prefill, so that one long prompt does not hold the device for long. ``pass_s`` is a
    typical pass of a few tokens where known, else 0. ``stop_tokens``: the model's own end marks.
    ``exact``: whether a text depends on model, prompt, sampling and seed alone, to the bit; else up to ties.
    ``rejects``: whether a pass may have trials. ``passes_s``: what passes take, by WIDTHS
    (``protocol.averages``), where that is known before the first; 0 where it is not.
    """

    model_digest: str
    tokenizer_digest: str
    vocab_size: int
    context: int
    layers: int
    exits: tuple[int, ...] = ()
    max_pass_nodes: int = 32
    prefill_chunk: int = 512
    pass_s: float = 0.0
    stop_tokens: tuple[int, ...] = ()
    exact: bool = False
    rejects: bool = False
    passes_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a device is. ``waiting``: calls in line; ``batch``: calls in the forward that runs, or ran last.

    ``cache_used``: the share of the cache that sessions hold.
    """

    waiting: int
    batch: int
    cache_used: float


@runtime_checkable
class Loaded(Protocol):
    """A target that says how busy it is, as not every one can."""

    @property
    def load(self) -> Load | None:
        """At the moment; None where it cannot be known."""


@runtime_checkable
class Divided(Protocol):
    """A target that divides its device and its cache among the owners of texts, as not every one does."""

    def divide(self, weight_of: Callable[[str], float], cache_of: Callable[[str], int]) -> None:
        """From now on: by these weights, and with at most so many tokens in the cache; 0 is no limit of its own.

        Both are asked whenever it matters.
        """


class Picture(Protocol):
    """An image as a target sees it; whose it is, only that target knows."""

    @property
    def tokens(self) -> Sequence[int]:
        """What its place in a text becomes."""

    @property
    def held_bytes(self) -> int:
        """What it takes in memory."""


@runtime_checkable
class Seeing(Protocol):
    """A target that may see images, as not every one can."""

    @property
    def image_token(self) -> int | None:
        """The id that holds an image's place in a text; None for a model without eyes."""

    async def look(self, image: bytes) -> Picture:
        """Look at an encoded image. Raises ImageError for one that cannot be read, RefusedError("busy")."""

    async def slot_seeing(
        self, pictures: Sequence[Picture], tokens: Sequence[int], sampling: Sampling, owner: str = ""
    ) -> Slot:
        """As ``Target.slot``, for a text with images in it, in their order.

        Raises RefusedError, also invalid where the text has not the places of these.
        """


class Target(Protocol):
    """The cloud's engine: one model on one device, serving many sessions at once."""

    @property
    def card(self) -> TargetCard:
        """What it is."""

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> Slot:
        """A place for a session over ``tokens``. What is held of their beginning for the same owner is shared.

        Raises RefusedError("busy") when no place is free, with a hint when to retry.
        """

    async def close(self) -> None:
        """Free what the engine holds."""


def load_of(target: Target) -> Load | None:
    """How busy a target is, if it says so."""
    return target.load if isinstance(target, Loaded) else None


def eyes_of(target: Target) -> Seeing | None:
    """A target's eyes, if it has some."""
    return target if isinstance(target, Seeing) and target.image_token is not None else None


class Grammar(Protocol):
    """One text that is held to a constraint: where it is, and what may come next."""

    @property
    def complete(self) -> bool:
        """Whether the text has ended."""

    def follow(self, tokens: Sequence[int], most: int = 0) -> list[int]:
        """The text grew by ``tokens``; the next ones that are forced, up to ``most``, are part of it then, too.

        Raises GrammarError for a token that is forbidden, and where the grammar grows too large.
        """

    def masks(self, tokens: Sequence[int], parents: Sequence[int]) -> tuple[bytes, ...]:
        """What may come at the end of the text, and below each draft node (``Pass``). Takes up to milliseconds.

        Raises GrammarError where the grammar grows too large.
        """


NewGrammar = Callable[[Constraint, str], Grammar]
"""Makes a text's grammar before its first token, for the key of this name. Raises GrammarError; takes up to seconds."""


class Detokenizer(Protocol):
    """Turns tokens into text one by one; used to find stop strings."""

    def step(self, token: int) -> str:
        """The text that became complete with ``token``; empty while a character is incomplete."""
