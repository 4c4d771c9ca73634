"""What a record file is made of: a header, then frames, each with its length and checksum.

    foredraft record 1\\n
    <length: 4 bytes> <CRC-32 of the payload: 4 bytes> <payload: a MessagePack array [tag, ...]>
    ...

Integers are big-endian. Frames are only ever appended, so a file that was cut off is good up to the
last whole frame. Fields are only ever added, at the end of a frame; whatever would make an older
reader misread a file raises the number in the header instead. ``docs/recording.md`` says it all.
"""

import struct
import zlib
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from foredraft.protocol.messages import Ready

VERSION: Final = 1
TITLE: Final = b"foredraft record "
HEADER: Final = TITLE + b"%d\n" % VERSION
MAX_FRAME_BYTES: Final = 1 << 28
MAX_TOKENS: Final = 1 << 20
"""Of a text."""

BEYOND: Final = -1
"""As a rank: the draft was asked, and the token is not among the ``RANKED`` that it found likeliest."""
UNASKED: Final = -2
"""As a rank: nobody asked the draft there (the session was cut off, or its recorder was told not to ask)."""
HIDDEN: Final = -1
"""In the place of a token that a private record does not tell."""

_PREFIX: Final = struct.Struct(">II")

Count = Annotated[int, Meta(ge=0)]
Rank = Annotated[int, Meta(ge=UNASKED)]
Token = Annotated[int, Meta(ge=HIDDEN)]
Length = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Said = tuple[Token, float]
"""A token that somebody named, and how probable it was to them."""


class Models(msgspec.Struct, frozen=True, array_like=True):
    """What was served, as the cloud's card and its Ready say, and the draft: as given, and its nodes per step."""

    model_digest: str
    tokenizer_digest: str
    vocab_size: Count
    context: Count
    layers: Count
    exits: tuple[Count, ...]
    stop_tokens: tuple[Count, ...]
    max_pass_nodes: Count
    max_nodes: Count
    max_chain: Count
    prefill_chunk: Count
    draft: str
    draft_nodes: Count


def models_of(ready: Ready, *, prefill_chunk: int, draft: str, draft_nodes: int) -> Models:
    """What a cloud that says ``ready`` serves, and the draft."""
    return Models(
        model_digest=ready.model_digest,
        tokenizer_digest=ready.tokenizer_digest,
        vocab_size=ready.vocab_size,
        context=ready.context,
        layers=ready.layers,
        exits=ready.exits,
        stop_tokens=ready.stop_tokens,
        max_pass_nodes=ready.max_pass_nodes,
        max_nodes=ready.max_nodes,
        max_chain=ready.max_chain,
        prefill_chunk=prefill_chunk,
        draft=draft,
        draft_nodes=draft_nodes,
    )


class Setup(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The first frame: under which circumstances.

    ``policy``: a specification, as ``--policy`` takes it. ``edge``, ``cloud``, ``link`` and ``cloud_draft``:
    hardware profiles as plain values (those that were simulated, or paced to); None: the real thing.
    ``scenario``: the other tables of the simulated scenario, and ``seed`` its seed. ``written_at``: UTC; empty
    if simulated, so that the same simulation gives the same bytes.
    """

    foredraft: str
    simulated: bool
    private: bool
    policy: str
    models: Models
    seed: Count = 0
    edge: dict[str, Any] | None = None
    cloud: dict[str, Any] | None = None
    link: dict[str, Any] | None = None
    scenario: dict[str, Any] | None = None
    written_at: str = ""
    cloud_draft: dict[str, Any] | None = None


class Began(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A session begins, on device ``place``; seconds are of the recording machine's clock, or simulated.

    ``prompt`` is packed as on the wire (``protocol.messages.pack``), and empty in a private record, where
    stop strings are as many ``*`` as they are long. ``arrived_s``: when the request came. ``estimates``: what
    the edge knew of link and models already (``learned.estimates_as_plain``); None: nothing.
    """

    session: Count
    place: Count
    arrived_s: float
    began_s: float
    prompt_tokens: Count
    prompt: bytes
    temperature: float
    top_k: Count
    top_p: float
    seed: Count
    max_new_tokens: Count
    stop_tokens: tuple[Count, ...]
    stop_strings: tuple[str, ...]
    estimates: dict[str, Any] | None = None


class Noted(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Something happened at ``t_s`` of the clock of whoever noted it.

    ``where``: ``edge`` or ``cloud`` for the events of ``protocol.events``; ``uplink`` or ``downlink`` for a
    message (``kind`` is its name). ``place``: which device, which server.
    """

    session: Count
    place: Count
    t_s: float
    where: str
    kind: str
    data: dict[str, Any]


class Asked(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What a draft said: up to ``width`` guesses at what follows the prefix (position, hash), best first.

    ``where``: ``edge``, or ``cloud`` for a draft beside the target. ``t_s``: when it had said so.
    """

    session: Count
    t_s: float
    where: str
    position: Count
    hash: Count
    width: Count
    guesses: tuple[Said, ...]


class Passed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """What the exits said in a pass whose tip is at ``position``, over these draft nodes (see ``protocol.ports.Pass``).

    ``predictions``: per exit its layer, and the token and confidence after the tip and after each node.
    """

    session: Count
    position: Count
    tokens: tuple[Count, ...]
    parents: tuple[int, ...]
    predictions: tuple[tuple[Count, tuple[Said, ...]], ...]


class TokenPredictions(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """One committed position, told after the text was finished: what draft and exits say of its token.

    ``rank``: which of the draft's guesses the token is, from 0 (BEYOND, UNASKED). ``guesses``: the
    draft's likeliest. ``predictions``: what each exit says, shallowest first, with its calibrated
    confidence; ``right``: which of them say the token. ``cloud_rank``, ``cloud_guesses``: as ``rank`` and
    ``guesses``, of a draft beside the target, which is asked for its likeliest token alone. A private record
    has HIDDEN for tokens.
    """

    session: Count
    position: Count
    rank: Rank
    guesses: tuple[Said, ...]
    predictions: tuple[Said, ...] = ()
    right: tuple[bool, ...] = ()
    cloud_rank: Rank = UNASKED
    cloud_guesses: tuple[Said, ...] = ()


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A session is over: its text (packed; empty in a private record), and its report's other figures."""

    session: Count
    new_tokens: Length
    tokens: bytes
    finish: str
    figures: dict[str, bool | float | int | str]


class Closed(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The last frame: nothing was cut off. ``notes``: what could not be recorded, in words."""

    notes: tuple[str, ...] = ()


Frame = Setup | Began | Noted | Asked | Passed | TokenPredictions | Ended | Closed

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


class FrameError(Exception):
    """No whole, undamaged frame here; for ``reading`` alone."""


def encode_frame(frame: Frame) -> bytes:
    """The frame's bytes, length and checksum included."""
    payload = _encoder.encode(frame)
    return _PREFIX.pack(len(payload), zlib.crc32(payload)) + payload


def decode_frame(data: memoryview, at: int) -> tuple[Frame, int]:
    """The frame at byte ``at``, and where the next begins. Raises FrameError."""
    begin = at + _PREFIX.size
    if begin > len(data):
        raise FrameError("the file ends within a frame")
    length, checksum = _PREFIX.unpack_from(data, at)
    if not 0 < length <= MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes")
    if begin + length > len(data):
        raise FrameError("the file ends within a frame")
    payload = data[begin : begin + length]
    if zlib.crc32(payload) != checksum:
        raise FrameError("the checksum does not fit")
    try:
        return _decoder.decode(payload), begin + length
    except (ValueError, RecursionError) as error:  # msgspec lets bad UTF-8 out as UnicodeDecodeError
        raise FrameError(f"not a frame: {error}") from error
