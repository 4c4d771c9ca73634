"""What a scenario's file says: its tables, strict, with every bound that one value can have by itself."""

import math
from statistics import NormalDist
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from foredraft.edge.deadline import MOST_S
from foredraft_sim.streams import uniform
from foredraft_sim.tokens.fitted import DrawnPair, FittedPair
from foredraft_sim.tokens.synthetic import SyntheticPair

AtLeastOne = Annotated[int, Meta(ge=1, le=10_000_000)]
Seed = Annotated[int, Meta(ge=0)]
DAY_S: Final = 86_400.0
_NORMAL: Final = NormalDist()
_HARDLY: Final = 1e-12
Rule = Literal["noise", "rejection"]
Balance = Literal["least_loaded", "round_robin", "affinity"]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Spread(Table, frozen=True):
    """A whole number from ``least`` to ``most``: each as likely, or, with a ``median``, log-normal about it.

    ``sigma``: how wide that is: one standard deviation up is e to the power of so much.
    """

    least: AtLeastOne
    most: AtLeastOne
    median: AtLeastOne | None = None
    sigma: Annotated[float, Meta(gt=0.0, le=5.0)] = 1.0

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least must be at most most, not {self.least} and {self.most}")
        if self.median is not None and not self.least <= self.median <= self.most:
            raise ValueError(f"median must be from {self.least} to {self.most}, not {self.median}")

    def of(self, luck: float) -> int:
        """The number that a luck between 0 and 1 falls to."""
        if self.median is None:
            return self.least + int(luck * (self.most + 1 - self.least))
        deviations = _NORMAL.inv_cdf(min(1.0 - _HARDLY, max(_HARDLY, luck)))
        return max(self.least, min(self.most, round(self.median * math.exp(self.sigma * deviations))))


Length = AtLeastOne | Annotated[tuple[AtLeastOne, ...], Meta(min_length=1)] | Spread
"""One number for all requests, a list to go through again and again, or a distribution."""


class Override(Table, frozen=True):
    """A profile, and numbers in it that this scenario puts in the place of the profile's."""

    profile: str
    override: dict[str, Any] = {}


class EdgeTable(Override, frozen=True):
    """The devices, all alike. ``retries``: how often a session tries again in a row.

    ``connected``: whether a device connects before its first request and keeps its connection, as an ``Edge`` does;
    else each request makes a connection of its own. ``learns``: whether what a text taught of link and models
    serves the device's next one, as it does within an ``Edge``.
    """

    retries: Annotated[int, Meta(ge=0, le=1_000_000)] = 12
    connected: bool = False
    learns: bool = False


class CloudTable(Override, frozen=True):
    """The servers, all alike. ``balance``: which of them takes a new connection.

    ``least_loaded`` is the one with the fewest open connections, the first of several;
    ``round_robin`` the next in turn; ``affinity`` that of the device: server (n modulo servers) is always device n's,
    after a reconnection, too; what never meets is then simulated apart (``islands``). ``prefill_chunk``: by how many
    rows of long prompts a forward may delay others, of a synthetic pair; models have their own. ``draft``: the profile
    of a draft model on each server's own device, for the policies ``colocated`` and ``both``; it says the tokens that
    the edge's would.
    """

    servers: Annotated[int, Meta(ge=1, le=10_000)] = 1
    balance: Balance = "least_loaded"
    max_pass_nodes: Annotated[int, Meta(ge=1, le=256)] = 32
    prefill_chunk: AtLeastOne = 512
    draft: str = ""


class ModelPair(Table, frozen=True, tag_field="kind", tag="models"):
    """Real models that run here, in no simulated time: ``demo`` is the bundled pair; else folders, hub ids or GGUFs."""

    target: str = "demo"
    draft: str = "demo"
    exits: str = ""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 1


class RecordedPair(Table, frozen=True, tag_field="kind", tag="recorded"):
    """What real models said, from a file that ``foredraft simulate --record`` wrote."""

    file: str


Pair = DrawnPair | ModelPair | RecordedPair


class AtOnce(Table, frozen=True, tag_field="kind", tag="at_once"):
    """All requests are there at the start; each device takes its own one after another."""


class Poisson(Table, frozen=True, tag_field="kind", tag="poisson"):
    """Requests come at random, ``rate_per_s`` on average over all devices."""

    rate_per_s: Annotated[float, Meta(gt=0.0, le=1e6)]


class Closed(Table, frozen=True, tag_field="kind", tag="closed"):
    """Each device begins a request some time after its last one: exponential, ``think_s`` on average."""

    think_s: Annotated[float, Meta(ge=0.0, le=DAY_S)]

    def pause_s(self, seed: int, request: int) -> float:
        """How long before this request."""
        return -self.think_s * math.log1p(-uniform(seed, "think", request))


class AsRecorded(Table, frozen=True, tag_field="kind", tag="traffic"):
    """Requests come when those of ``workload.traffic`` came, ``speed`` times as fast."""

    speed: Annotated[float, Meta(gt=0.0, le=1e6)] = 1.0


class Workload(Table, frozen=True):
    """What is asked. Request r is device (r modulo devices)'s.

    ``traffic``: a file of requests (see ``traffic.py``): row r tells the lengths of request r, again and again, in the
    place of ``prompt_tokens`` and ``new_tokens``.

    A synthetic pair takes ``prompt_tokens``; a recorded one has its prompts. Models take ``prompts``,
    or ``prompts_file``: the lines of a .jsonl file (their "prompt", or the first of their "turns"),
    or one text. ``deadline_s``: by when a text is wanted, from its request's arrival on; it ends there.
    """

    requests: AtLeastOne = 1
    devices: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    prompt_tokens: Length = 32
    prompts: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    prompts_file: str = ""
    new_tokens: Length = 128
    end_marks: bool = True
    traffic: str = ""
    arrivals: AtOnce | Poisson | Closed | AsRecorded = AtOnce()
    deadline_s: Annotated[float, Meta(gt=0.0, le=MOST_S)] | None = None


class KeyTable(Table, frozen=True):
    """An API key: how many devices have it, the next ones in order, and the weight of its share of each server.

    ``prompt_tokens``, ``new_tokens``: of its requests, where they are not the workload's.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    devices: AtLeastOne = 1
    weight: Annotated[float, Meta(gt=0.0, le=1000.0)] = 1.0
    prompt_tokens: Length | None = None
    new_tokens: Length | None = None


class SamplingTable(Table, frozen=True):
    """How the target samples; each request has a seed of its own, from the scenario's.

    ``acceptance``: the rule by which drafts are accepted. Of a synthetic pair temperature and filters are of no
    account: its ranks say by ``noise`` which of the draft's choices is right, and by ``rejection`` which of the
    candidates that are tried is accepted (``tokens/synthetic_slot.py``).
    """

    temperature: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    acceptance: Rule = "noise"


class ScenarioFile(Table, frozen=True, kw_only=True):
    """What the file says. ``outside``: what happens to a call outside the range of its profile.

    ``keys``: whose devices they are, if not everybody's; servers then divide their time among the keys.
    """

    title: str = ""
    notes: str = ""
    policies: Annotated[tuple[str, ...], Meta(min_length=1)]
    seeds: AtLeastOne | Annotated[tuple[Seed, ...], Meta(min_length=1)] = 5
    outside: Literal["warn", "error"] = "warn"
    edge: EdgeTable
    cloud: CloudTable
    link: Override
    pair: str | SyntheticPair | FittedPair | ModelPair | RecordedPair
    workload: Workload = Workload()
    sampling: SamplingTable = SamplingTable()
    keys: tuple[KeyTable, ...] = ()


def length_of(length: Length, seed: int, name: str, request: int) -> int:
    """A request's length, by its number alone."""
    if isinstance(length, int):
        return length
    if isinstance(length, Spread):
        return length.of(uniform(seed, name, request))
    return length[request % len(length)]


def most_of(length: Length) -> int:
    """The longest that may come."""
    if isinstance(length, int):
        return length
    return length.most if isinstance(length, Spread) else max(length)
