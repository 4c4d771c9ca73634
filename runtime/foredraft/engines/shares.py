"""Shares of a device: weighted fair queueing of those who own its calls, the API keys.

Each owner has a virtual time up to which it was served: its rows over its weight. The one who is behind comes first,
with at most a chunk of rows; the others come along in the same forward, as far as the virtual time that this brings the
first one to, and a few rows further among them, which cost next to nothing: those first who want least, and at most a
chunk in all. So nobody's floods make another's passes
longer than its share says, what one does not use the others get, and who was away is not owed for it. An owner alone
has the device to itself, by ``batching.choose``. Within an owner calls run in the order in which they are given: the
most urgent first (``urgency``).

Start-time fair queueing (Goyal, Vin and Cheng, 1996), of batches instead of packets.
"""

from collections.abc import Callable, Sequence
from typing import Final

from foredraft.engines.batching import Share, Waiting, choose

SPARE_ROWS: Final = 8
"""So many rows of others, in all, may come along beyond their shares."""


class Shares:
    """Who runs next on one device. ``weight_of``: an owner's weight, above 0."""

    def __init__(self, weight_of: Callable[[str], float] = lambda owner: 1.0) -> None:
        self.weight_of = weight_of
        self._now = 0.0
        self._served: dict[str, float] = {}  # up to which virtual time; who is not there is at ``_now``

    def choose(self, waiting: Sequence[Waiting], chunk: int) -> list[Share]:
        """Which of the calls, in their order, run in the next forward. Never empty where something waits."""
        if not waiting:
            return []
        by_owner: dict[str, list[int]] = {}
        for number, call in enumerate(waiting):
            by_owner.setdefault(call.owner, []).append(number)
        ranked = sorted(by_owner, key=self._start)
        first, others = ranked[0], ranked[1:]
        if not others:
            shares = choose(waiting, chunk)
            self._charge({first: _rows(waiting, shares)})
            return shares
        shares = _within(waiting, by_owner[first], chunk, at_least_one=True)
        rows, room, spare = {first: _rows(waiting, shares)}, chunk, SPARE_ROWS
        until = self._start(first) + rows[first] / self.weight_of(first)
        for owner in sorted(others, key=lambda owner: sum(waiting[call].rows for call in by_owner[owner])):
            fair = max(0, int((until - self._start(owner)) * self.weight_of(owner)))
            own = _within(waiting, by_owner[owner], min(room, fair + spare))
            rows[owner] = _rows(waiting, own)
            room -= rows[owner]
            spare -= max(0, rows[owner] - fair)
            shares += own
        self._charge(rows)
        return shares

    def _start(self, owner: str) -> float:
        """The virtual time up to which an owner was served."""
        return self._served.get(owner, self._now)

    def _charge(self, rows: dict[str, int]) -> None:
        """So many rows run of each owner, of whom the first was furthest behind."""
        starts = {owner: self._start(owner) for owner in rows}
        self._now = max(self._now, min(starts.values()))
        for owner, start in starts.items():
            self._served[owner] = start + rows[owner] / self.weight_of(owner)
        self._served = {owner: until for owner, until in self._served.items() if until > self._now}


def _within(waiting: Sequence[Waiting], calls: Sequence[int], most: int, *, at_least_one: bool = False) -> list[Share]:
    """Of these calls, what fits into ``most`` rows; trunks may be cut. ``at_least_one``: the first runs in any case."""
    shares: list[Share] = []
    left = most
    for number in calls:
        call = waiting[number]
        if call.rows <= left or (at_least_one and not shares and call.trunk == 1):
            shares.append(Share(number, call.trunk, whole=True))
        elif part := min(call.trunk - call.tip, left):  # the tip waits for its tree
            shares.append(Share(number, part, whole=False))
        else:
            continue
        left = max(0, left - _rows(waiting, shares[-1:]))
    return shares


def _rows(waiting: Sequence[Waiting], shares: Sequence[Share]) -> int:
    return sum(share.trunk + (waiting[share.call].tree if share.whole else 0) for share in shares)
