"""What was seen of one world: plain records, made while it lives, judged afterwards (``invariants``)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from foredraft.protocol.events import Value
from foredraft_sim.chaos.plan import Session

# How a text ended, beside the names of errors.
COMPLETE = "complete"
LEFT = "left"
"""Its user had enough."""


@dataclass
class Written:
    """One text as its user saw it. ``parts``: at which lengths of ``shown`` its edge crashed.

    ``ending``: COMPLETE, LEFT, an error's name, or nothing while it is written. ``ahead``: by how many tokens what was
    shown was ahead of all that any server had committed, at worst. ``reported``: the edge's own account of it.
    """

    session: Session
    shown: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    ending: str = ""
    what: str = ""
    finish: str = ""
    ahead: int = 0
    reported: list[int] = field(default_factory=list)
    took_s: float = 0.0


@dataclass
class Opened:
    """A text as a server heard of it, and what it committed of it: positions, tokens and why the text ended.

    ``late``: a later one had been opened before, so that nobody needs to answer.
    """

    number: int
    tokens: list[int]
    start: int
    seed: int
    late: bool = False
    commits: list[tuple[int, list[int], str]] = field(default_factory=list)


@dataclass
class Conversation:
    """All that was said on one connection to a server."""

    number: int
    key: str
    opened: list[Opened] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Stay:
    """One place at the target: what its calls took there, waiting included, and would have taken alone.

    ``anew``: how many of them came when it had none there before, so that a forward of others was under way.
    """

    key: str
    took_s: float = 0.0
    alone_s: float = 0.0
    anew: int = 0


@dataclass
class Process:
    """A server's process, from its start to its end. ``left``: what was left of it when nobody needed it any more.

    ``most`` and ``connected``: per key, how many places and connections it had at once; ``late``: how many calls ran
    for it when it was none any more.
    """

    server: int
    model: str
    killed: bool = False
    conversations: list[Conversation] = field(default_factory=list)
    lines: list[Mapping[str, Value]] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    connected: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


@dataclass
class Seen:
    """One world. ``left``: tasks and drafters; ``failure``: why it came to no end."""

    written: list[Written] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failure: str = ""
    took_s: float = 0.0
