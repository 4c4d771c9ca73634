"""Several runs of one session: which of them counts, and how many are enough.

What else happens on a machine, or on the one that it is a part of, only ever adds time. And where a branch comes
just in time or just too late, by chance, a session takes one of several ways from there on, in reality as in
simulation. So the fastest counts, of as many runs in both; and a session runs until its two fastest agree.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from foredraft_sim.validate.sessions import Session
from foredraft_sim.validate.verdict import Pair

SETTLED: Final = 0.01
"""Two runs agree when one does not take longer, end to end, than the other by more than this share."""

Key = tuple[str, str, int]
"""Link, policy and prompt of a session."""


def by_session(ran: Iterable[Session]) -> dict[Key, list[Session]]:
    """The runs of each session, the fastest first."""
    runs: dict[Key, list[Session]] = {}
    for one in ran:
        runs.setdefault((one.way, one.policy, one.prompt), []).append(one)
    return {key: sorted(ones, key=lambda one: one.e2e_s) for key, ones in runs.items()}


def fastest_of(runs: Mapping[Key, Sequence[Session]]) -> tuple[list[Session], list[Pair]]:
    """Of the runs ``by_session`` the fastest, end to end; and where there is one, that with the next."""
    return [ones[0] for ones in runs.values()], [(ones[0], ones[1]) for ones in runs.values() if len(ones) > 1]


def settled(runs: Sequence[Session]) -> bool:
    """Whether the two fastest of these runs, the fastest first, agree."""
    return len(runs) > 1 and runs[1].e2e_s <= runs[0].e2e_s * (1.0 + SETTLED)
