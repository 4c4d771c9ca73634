"""What a hardware profile says, as plain numbers; ``reading`` gets it out of TOML.

Three kinds: ``draft`` (a device with a draft model), ``target`` (a device with a target model)
and ``link``. Units are part of the names: ``_s`` seconds, ``_bps`` bits per second, ``_bytes``,
``_w`` watts, ``_usd_per_hour``. Bounds are wide; they catch a wrong sign or a wrong unit.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(ge=0.0, le=60.0)]
Positive = Annotated[float, Meta(gt=0.0)]
NotNegative = Annotated[float, Meta(ge=0.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
BitRate = Annotated[float, Meta(ge=1_000.0, le=1e13)]
Span = tuple[Count, Count]

ProvenanceKind = Literal["measured", "published", "derived", "assumed"]


class Provenance(Struct, frozen=True):
    """Where a number comes from: how it was come by, and the source in words."""

    provenance: ProvenanceKind
    source: str


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a curve holds: [least, most] of new tokens and context (sums over the batch), and of batch."""

    new_tokens: Span
    context: Span
    batch: Span = (1, 1)

    def __post_init__(self) -> None:
        for name in ("new_tokens", "context", "batch"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [least, most], not [{low}, {high}]")


class Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="shape", tag="line"):
    """Seconds of one call: flat while it is memory-bound, then linear.

    ``host_s + base_s + per_token_s * max(0, new - flat_tokens) + per_context_s * context
    + per_sequence_s * (batch - 1)``, with new tokens and context summed over the batch.
    """

    base_s: Seconds
    flat_tokens: Count = 0
    per_token_s: Seconds = 0.0
    per_context_s: Seconds = 0.0
    per_sequence_s: Seconds = 0.0
    host_s: Seconds = 0.0
    range: Range


class Grid(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="shape", tag="grid"):
    """Seconds of one call, interpolated linearly between measured points.

    ``seconds_s[b][c][n]`` belongs to ``batch[b]``, ``context[c]`` and ``new_tokens[n]``
    (context and new tokens summed over the batch); ``host_s`` is added to each.
    """

    new_tokens: tuple[AtLeastOne, ...]
    context: tuple[Count, ...] = (0,)
    batch: tuple[AtLeastOne, ...] = (1,)
    seconds_s: tuple[tuple[tuple[Seconds, ...], ...], ...]
    host_s: Seconds = 0.0
    range: Range

    def __post_init__(self) -> None:
        for name in ("new_tokens", "context", "batch"):
            axis = getattr(self, name)
            if not axis or any(left >= right for left, right in pairwise(axis)):
                raise ValueError(f"{name} must be a rising list of numbers, not {list(axis)}")
        planes = self.seconds_s
        fits = len(planes) == len(self.batch) and all(
            len(rows) == len(self.context) and all(len(row) == len(self.new_tokens) for row in rows) for rows in planes
        )
        if not fits:
            shape = f"[{len(self.batch)}][{len(self.context)}][{len(self.new_tokens)}]"
            raise ValueError(f"seconds_s must have the shape [batch][context][new_tokens], here {shape}")


Curve = Line | Grid


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model on the device. ``head_share``: part of a pass that comes after the last layer.

    ``exit_s``: what reading one early exit adds to a pass. ``digest``: the stored weights that were
    measured; a profile with one paces no other model, a profile without one any.
    """

    name: str
    digest: str = ""
    layers: AtLeastOne
    head_share: Fraction = 0.0
    exit_s: Seconds = 0.0


class Machine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a profile was measured on, in words: the device, the system, versions, settings, and the day."""

    device: str
    system: str
    software: str
    settings: str
    measured: str


class Memory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device holds: in all, for the weights, and per token of a sequence's cache."""

    device_bytes: AtLeastOne
    weights_bytes: AtLeastOne
    cache_bytes_per_token: Count


class Cost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Power while a call is running and while none is, and the price of the device, busy or not."""

    active_w: NotNegative | None = None
    idle_w: NotNegative | None = None
    price_usd_per_hour: NotNegative | None = None


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the machine around the engine takes of its time.

    ``message_s``: each message that its end of the link sends or takes, from whatever runs on the device just then, or
    begins next; 0 where the engine has a device of its own. ``wake_s``: what a call takes longer after the
    device was idle for long (caches gone, clocks down); half of it after ``wake_half_s`` idle. ``opening_s``: what the
    two ends take to begin a text, from the request to the target's first call, the link left out.
    """

    message_s: Seconds = 0.0
    wake_s: Seconds = 0.0
    wake_half_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 0.01
    opening_s: Seconds = 0.0


class Residual(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a call's duration varies by: a lognormal factor with mean 1 and this coefficient of variation."""

    cv: Annotated[float, Meta(ge=0.0, le=2.0)]


class _Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all profiles have; ``provenance`` and ``path`` are filled in by ``reading``."""

    name: str
    title: str
    notes: str = ""
    provenance: Mapping[str, Provenance] = {}
    path: Path | None = None


class _DeviceProfile(_Profile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Model
    machine: Machine | None = None
    prefill: Curve | None = None
    memory: Memory | None = None
    cost: Cost = Cost()
    host: Host = Host()
    residual: Residual | None = None


class DraftProfile(_DeviceProfile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device with a draft model. ``draft_step``: one step, by the nodes it expands."""

    kind: Literal["draft"]
    draft_step: Curve


class TargetProfile(_DeviceProfile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device with a target model. ``target_pass``: one pass, by the tokens it runs."""

    kind: Literal["target"]
    target_pass: Curve


class Direction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One direction of a link.

    ``delay_s`` is the least one-way delay; each message has a jitter of mean ``jitter_s`` on
    top, never negative: spread evenly over [0, 2 * mean], exponential, or lognormal with a
    coefficient of variation of 1. Without ``rate_bps`` the rate is unlimited. ``queue_bytes``
    bounds what waits for the rate; a sender waits beyond it. ``trace``: a file of packet
    opportunities in Mahimahi's format that takes the place of the rate.
    """

    delay_s: Annotated[float, Meta(ge=0.0, le=10.0)]
    jitter_s: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    jitter_shape: Literal["uniform", "exponential", "lognormal"] = "exponential"
    rate_bps: BitRate | None = None
    queue_bytes: AtLeastOne | None = None
    trace: str | None = None


class Loss(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bursts of loss (Gilbert 1960, Elliott 1963), as delay on a stream that stays in order.

    The state changes with time: on average ``good_s`` good, then ``bad_s`` bad. A message that
    leaves is lost with the state's probability and comes a retransmission timeout later, which
    starts at ``rto_s`` and doubles with each further loss, up to ``rto_max_s``.
    """

    good_s: Positive
    bad_s: Positive
    good_loss: Fraction = 0.0
    bad_loss: Fraction
    rto_s: Seconds
    rto_max_s: Seconds


class Framing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes on the wire beside the payload.

    ``message_bytes`` per message (WebSocket, TLS), ``segment_bytes`` per TCP segment (IP and
    TCP headers), of which each carries at most ``mss_bytes``.
    """

    message_bytes: Count
    segment_bytes: Count
    mss_bytes: AtLeastOne


class Setup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Round trips before the first message of a new connection can leave."""

    round_trips: NotNegative


class Outage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From ``start_s`` after the beginning nothing gets through for ``duration_s``.

    ``cuts``: it also breaks the connections, and none can be made before it ends.
    """

    start_s: NotNegative
    duration_s: Positive
    cuts: bool = False


class LinkRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a link's model holds: [least, most] bytes of one message's payload."""

    message_bytes: Span


class LinkProfile(_Profile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link between an edge and a cloud. ``up`` is from the edge to the cloud."""

    kind: Literal["link"]
    up: Direction
    down: Direction
    loss: Loss | None = None
    framing: Framing | None = None
    setup: Setup | None = None
    outages: tuple[Outage, ...] = ()
    range: LinkRange

    @property
    def round_trip_s(self) -> float:
        """The mean round trip of a message of no bytes, losses left out."""
        return self.up.delay_s + self.up.jitter_s + self.down.delay_s + self.down.jitter_s


Profile = DraftProfile | TargetProfile | LinkProfile
DeviceProfile = DraftProfile | TargetProfile

KINDS: Mapping[str, type[DraftProfile] | type[TargetProfile] | type[LinkProfile]] = {
    "draft": DraftProfile,
    "target": TargetProfile,
    "link": LinkProfile,
}
