"""What happened, for whoever wants to draw it, log it or count it.

The session logic reports events to an observer, a plain callable; without one it costs
nothing. ``t_s`` is the loop's clock of the machine that reports: never subtract those of
two machines.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

Value = bool | int | float | str | list[int]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at ``t_s`` seconds at one end (``edge`` or ``cloud``)."""

    t_s: float
    where: str
    session: str
    kind: str
    data: dict[str, Value] = field(default_factory=dict)


Observer = Callable[[Event], None]


def together(*observers: Observer | None) -> Observer:
    """One that tells all of them."""
    told = [one for one in observers if one is not None]

    def observe(event: Event) -> None:
        for tell in told:
            tell(event)

    return observe


LOG_OF_SESSIONS: Final = "foredraft.sessions"
"""The logger of a server's operators: a record for each session that ends and each refusal, with sizes and times as
``fields``, and never a prompt, a token or a key."""

Note = Callable[[str, dict[str, Value]], None]
"""Told the kind and the data of what happened at one place."""
