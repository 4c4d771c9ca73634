"""Which blocks of a memory nobody uses: as gaps, for what is taken should lie in one piece and have room to grow."""

from bisect import bisect_left, bisect_right


class Gaps:
    """Free numbers from 0 to ``count``, as intervals that do not touch."""

    def __init__(self, count: int) -> None:
        self._starts, self._ends = ([0], [count]) if count else ([], [])
        self.free = count

    def take(self, count: int, after: int | None = None) -> list[int]:
        """``count`` free numbers: ``after`` and those behind it where they are free, else from the largest gap.

        There must be as many. What others hold before a gap may want to grow into it, so a new beginning
        is made in the middle of what is left over.
        """
        taken: list[int] = []
        while len(taken) < count:
            at = self._gap_at(taken[-1] + 1 if taken else after)
            wanted = count - len(taken)
            if at is not None:
                place, first = at
            else:
                place = max(range(len(self._starts)), key=lambda gap: self._ends[gap] - self._starts[gap])
                first, spare = self._starts[place], self._ends[place] - self._starts[place] - wanted
                first += spare // 2 if spare > 0 and first else 0
            last = min(self._ends[place], first + wanted)
            self._cut(place, first, last)
            taken += range(first, last)
        return taken

    def _gap_at(self, number: int | None) -> tuple[int, int] | None:
        if number is None:
            return None
        place = bisect_left(self._starts, number)
        found = place < len(self._starts) and self._starts[place] == number
        return (place, number) if found else None

    def _cut(self, place: int, first: int, last: int) -> None:
        start, end = self._starts[place], self._ends[place]
        pieces = [(low, high) for low, high in ((start, first), (last, end)) if low < high]
        self._starts[place : place + 1] = [low for low, _ in pieces]
        self._ends[place : place + 1] = [high for _, high in pieces]
        self.free -= last - first

    def give(self, number: int) -> None:
        """It is free again."""
        place = bisect_right(self._starts, number)
        joins_left = place > 0 and self._ends[place - 1] == number
        joins_right = place < len(self._starts) and self._starts[place] == number + 1
        if joins_left and joins_right:
            self._ends[place - 1] = self._ends.pop(place)
            del self._starts[place]
        elif joins_left:
            self._ends[place - 1] += 1
        elif joins_right:
            self._starts[place] = number
        else:
            self._starts.insert(place, number)
            self._ends.insert(place, number + 1)
        self.free += 1
