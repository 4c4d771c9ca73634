"""The protocol: what the two ends say to each other.

Messages are small, frozen and idempotent: every value is absolute, so a repeated message
changes nothing. On the wire each is one MessagePack array, ``[tag, session, ...]``, in one
binary WebSocket message; token ids are packed as LEB128 varints.

``session`` tells apart the texts that one connection carries one after another. Steer has
a ``serial``: the highest wins, however late the others come.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from foredraft.errors import ProtocolError
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.averages import WIDTHS

PROTOCOL_VERSION: Final = 2
MAX_MESSAGE_BYTES: Final = 1 << 20
MAX_TOKEN_ID: Final = (1 << 28) - 1
MAX_LOGPROBS: Final = 20
MAX_CHAINS: Final = 256
"""Chains in one message."""
MAX_IMAGES: Final = 16
"""Images of one text."""
MAX_IMAGE_BYTES: Final = 8 << 20
MAX_PIECE_BYTES: Final = 256 << 10
"""Of an image, in one message: what a session says meanwhile waits for no more than that."""
MAX_TRACEPARENT: Final = 128
"""Characters of a trace's name: W3C's have 55."""
IMAGE_DIGEST_BYTES: Final = 16
"""BLAKE2b of the encoded image."""
WEIGHT_BYTES: Final = 2
WEIGHTS_BYTES: Final = 64 * WEIGHT_BYTES
"""Of a draft's distribution at one prefix."""

# Codes of Refused. A retry can help where retry_after_s is set.
BUSY: Final = "busy"  # no place free
UNAUTHORIZED: Final = "unauthorized"
VERSION: Final = "version"  # protocol versions differ
MISMATCH: Final = "mismatch"  # tokenizers or models differ
INVALID: Final = "invalid"  # a message that makes no sense; says what
TOO_LONG: Final = "too_long"  # longer than the context
UNKNOWN_ANCHOR: Final = "unknown_anchor"  # Grow below something the cloud does not have
FULL: Final = "full"  # more nodes than the cloud holds
UNSEEN: Final = "unseen"  # an image of the text is not here: show it again, and send it
LATE: Final = "late"  # no pass can be done any more before the edge's deadline; the session is over
INTERNAL: Final = "internal"  # the engine failed; the session is over

# Reasons why a text ended, in Commit.finish.
LENGTH: Final = "length"
STOP: Final = "stop"
CONTEXT: Final = "context"

# What a number may be is part of the protocol: decode refuses the rest, NaN included.
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
Wait = Annotated[float, Meta(ge=0.0, le=3600.0)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
TraceParent = Annotated[str, Meta(max_length=MAX_TRACEPARENT)]
LogProbability = Annotated[float, Meta(ge=-1e9, le=0.0)]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Edge to cloud, once per connection."""

    version: Count
    api_key: str = ""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Cloud to edge, the answer to Hello: what is served here, and its limits.

    ``policy`` is the specification that an edge without a policy of its own may take up; free text, which
    nobody has to follow. ``cloud_drafts``: how deep a drafter in the cloud may fill the tree; 0 where there is none.
    ``exact``: whether texts depend on model, prompt, sampling and seed alone, to the bit; else up to ties.
    ``image_token``: the id that holds an image's place in a text; None where the model sees no images.
    ``passes_s``: what passes with so many draft nodes (WIDTHS) took of late; 0 where that is not known.
    """

    version: Count
    model_digest: str
    tokenizer_digest: str
    vocab_size: Count
    context: Count
    layers: Count
    exits: tuple[Count, ...]
    max_nodes: Count
    max_pass_nodes: Count
    max_chain: AtLeastOne
    stop_tokens: tuple[Count, ...]
    pass_s: Seconds = 0.0
    policy: str = ""
    cloud_drafts: Count = 0
    exact: bool = False
    image_token: Count | None = None
    passes_s: Annotated[tuple[Seconds, ...], Meta(max_length=len(WIDTHS))] = ()


class Chain(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Draft tokens, one below the other, below the prefix (position, hash)."""

    position: Count
    hash: Count
    tokens: bytes

    @property
    def anchor(self) -> Anchor:
        """The prefix below which the chain is attached."""
        return Anchor(self.position, self.hash)


Chains = Annotated[tuple[Chain, ...], Meta(max_length=MAX_CHAINS)]


class Open(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Edge to cloud: here is the text so far, go on from there. Also how a session resumes.

    ``start`` is where generation began in ``tokens``, so a resumed text keeps its limits. ``chains``
    is what was drafted before there was a session: it comes with it, so that the first pass has it.
    ``traceparent``: W3C's name of the trace, and of the edge's part in it, which the session is to be part of; empty
    where nobody traces. One that is none is passed over.
    """

    session: Count
    tokens: bytes
    start: Count
    temperature: float
    top_k: Count
    top_p: float
    seed: Count
    max_new_tokens: Count
    stop_tokens: tuple[Count, ...]
    stop_strings: tuple[str, ...]
    steer: "Steer"
    chains: Chains = ()
    traceparent: TraceParent = ""


class Grow(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Edge to cloud: chains of draft tokens, each below the text, or below a chain that came before it."""

    session: Count
    chains: Chains


class Steer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Edge to cloud: how to walk.

    ``alone_until``: decode alone up to this position (never below a live branch).
    ``patience_s``: after a commit, wait so long for a branch before decoding alone or
    verifying fewer than ``min_nodes`` nodes. ``max_branches``: most leaves in one pass.
    ``exits``: layers that may hint. ``threshold``: least confidence of a hinted token.
    ``max_nodes``: most draft nodes in one pass; 0 for as many as the target takes.
    ``cloud_drafts``: how deep a drafter in the cloud fills the tree before a pass; 0 for not at all. ``left_ms``: from
    the moment this comes, so long commits are of use to the edge; 0 for as long as it takes.
    """

    session: Count
    serial: Count
    alone_until: Count = 0
    patience_s: Seconds = 0.0
    min_nodes: Count = 1
    max_branches: Count = 1
    exits: tuple[Count, ...] = ()
    threshold: Probability = 1.0
    max_nodes: Count = 0
    cloud_drafts: Count = 0
    left_ms: Count = 0


class Close(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Edge to cloud: the text is no longer wanted."""

    session: Count


class Hint(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Cloud to edge, in the middle of a pass: the tokens that will probably commit at ``position``.

    ``confidence`` is the calibrated probability that all of ``tokens`` are right.
    ``after_s`` is how long after the start of the pass the hint left.
    """

    session: Count
    position: Count
    layer: Count
    tokens: bytes
    confidence: Probability
    after_s: Seconds


class Commit(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """Cloud to edge: the text now has ``tokens`` at ``position``. ``finish`` is set on the last.

    ``drafted`` and ``accepted`` count the pass's draft nodes. Durations are the cloud's own;
    ``waited_s`` was spent waiting for the edge between the commit before and this pass. ``heard`` counts
    the Grow and Steer messages of this session that had come, and ``heard_s`` is how long ago
    the last one came (or Open, if none did): what the edge needs to measure a round trip.
    ``draft_us``: microseconds of each draft step in the cloud since the commit before, none where the edge drafts.
    Beyond the accepted tokens and the bonus token come those that the text's grammar leaves no choice about; where all
    are such, there was no pass, and ``pass_s`` is 0.
    """

    session: Count
    position: Count
    tokens: bytes
    drafted: Count
    accepted: Count
    queue_s: Seconds
    prefill_s: Seconds
    pass_s: Seconds
    finish: str = ""
    waited_s: Seconds = 0.0
    heard: Count = 0
    heard_s: Seconds = 0.0
    draft_us: tuple[Count, ...] = ()


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Cloud to edge: no, and why. ``position`` and ``hash`` name the chain that was refused, if any."""

    session: Count
    code: str
    reason: str
    retry_after_s: Wait | None = None
    position: Count = 0
    hash: Count = 0


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Cloud to edge: going away; reconnect, here or elsewhere, after ``retry_after_s``."""

    retry_after_s: Wait = 0.0


class Read(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Edge to cloud: what do exits and draft there say of ``tokens`` from ``start`` on, a text that is finished?

    It takes the place of a session. A cloud of before there was Read refuses it as ``invalid``.
    """

    session: Count
    tokens: bytes
    start: Count
    temperature: float
    top_k: Count
    top_p: float
    seed: Count


class Predictions(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Cloud to edge, in answer to Read: what each exit says of the tokens from ``position`` on.

    ``exits``: per exit its layer, the tokens that it says, and how sure it is of each, calibrated. ``drafted``: what
    the draft model in the cloud guesses in the place of each token, None where it has no idea; empty without one.
    """

    session: Count
    position: Count
    exits: tuple[tuple[Count, bytes, tuple[Probability, ...]], ...]
    drafted: tuple[tuple[Count, Probability] | None, ...] = ()


class Score(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Edge to cloud, before the Open of ``session``: with each commit, tell how probable its tokens were to the target.

    ``logprobs``: of each token and of so many of the most probable ones. A cloud of before there was Score refuses it.
    """

    session: Count
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]


class Scores(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Cloud to edge, before the Commit at ``position``: for each of its tokens (id, log-probability), itself first.

    After it come the most probable ones, as many as Score asked for. Log-probabilities are natural logarithms of the
    target's softmax, before temperature and filters.
    """

    session: Count
    position: Count
    tokens: tuple[tuple[tuple[Count, LogProbability], ...], ...]


class Constrain(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Edge to cloud, before the Open of ``session``: its text must be of a JSON schema, a regex or a grammar.

    ``kind``: json_schema, regex or grammar; ``rule``: that itself. A cloud of before there was Constrain refuses it.
    """

    session: Count
    kind: str
    rule: str


ImageDigest = Annotated[bytes, Meta(min_length=IMAGE_DIGEST_BYTES, max_length=IMAGE_DIGEST_BYTES)]


class Show(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Edge to cloud, before the Open of ``session``: the images of its text, in the order of their places.

    What the cloud lacks of them comes in ``Image``. A cloud of before there was Show refuses it.
    """

    session: Count
    images: Annotated[tuple[ImageDigest, ...], Meta(max_length=MAX_IMAGES)]


class Image(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Edge to cloud, after Show: a piece of an encoded image of ``size`` bytes, from ``offset`` on."""

    digest: ImageDigest
    size: Annotated[int, Meta(ge=1, le=MAX_IMAGE_BYTES)]
    offset: Count
    data: Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES)]


class Shown(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Cloud to edge, in answer to Show, once all of its images are here: the tokens that each one's place becomes."""

    session: Count
    places: tuple[bytes, ...]


Weights = Annotated[bytes, Meta(max_length=WEIGHTS_BYTES)]


class Proposed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the draft thinks comes after the prefix (position, hash): tokens, and as many weights, as packed."""

    position: Count
    hash: Count
    tokens: bytes
    weights: Weights

    @property
    def anchor(self) -> Anchor:
        """The prefix."""
        return Anchor(self.position, self.hash)


class Propose(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=18):
    """Edge to cloud: the draft's distributions. Before the Open of ``session``: it is held to rejection sampling.

    Later, before the Grow whose tokens they are about, if not earlier. The first one about a prefix counts. A cloud
    of before there was Propose refuses it.
    """

    session: Count
    proposals: Annotated[tuple[Proposed, ...], Meta(max_length=MAX_CHAINS)]


ToCloud = Hello | Open | Grow | Steer | Close | Read | Score | Constrain | Show | Image | Propose
ToEdge = Ready | Hint | Commit | Refused | Drain | Predictions | Scores | Shown
Message = ToCloud | ToEdge

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The message's bytes."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """The message in ``data``. Raises ProtocolError for anything else."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec lets bad UTF-8 out as UnicodeDecodeError
        raise ProtocolError(f"not a message of protocol {PROTOCOL_VERSION}: {error}") from error


def pack(tokens: Sequence[int]) -> bytes:
    """Token ids as LEB128 varints: one byte below 128, two below 16,384, three below 2,097,152.

    Raises ProtocolError for an id that the wire cannot carry.
    """
    packed: list[int] = []
    for token in tokens:
        if not 0 <= token <= MAX_TOKEN_ID:
            raise ProtocolError(f"token id {token} is outside 0 to {MAX_TOKEN_ID}")
        while token > 0x7F:
            packed.append(token & 0x7F | 0x80)
            token >>= 7
        packed.append(token)
    return bytes(packed)


def unpack(packed: bytes) -> list[int]:
    """The token ids in ``packed``. Raises ProtocolError for a cut or oversized varint."""
    tokens: list[int] = []
    value = shift = 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 21:
                raise ProtocolError(f"a token id above {MAX_TOKEN_ID}")
        else:
            tokens.append(value)
            value = shift = 0
    if shift:
        raise ProtocolError("a token id is cut off")
    return tokens


def pack_weights(weights: Sequence[int]) -> bytes:
    """Weights of 16 bits, big-endian."""
    return b"".join([weight.to_bytes(WEIGHT_BYTES) for weight in weights])


def unpack_weights(packed: bytes) -> list[int]:
    """The weights in ``packed``. Raises ProtocolError where one is cut off, or 0."""
    starts = range(0, len(packed), WEIGHT_BYTES)
    weights = [int.from_bytes(packed[start : start + WEIGHT_BYTES]) for start in starts]
    if len(packed) % WEIGHT_BYTES or 0 in weights:
        raise ProtocolError("weights are of 16 bits each, and above 0")
    return weights
