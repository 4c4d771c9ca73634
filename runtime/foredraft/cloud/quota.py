"""How many tokens a key may have a minute: a bucket that fills as time goes by, and holds a minute's worth.

Plain state; the time is told. A text that has begun is never stopped: it may overdraw the bucket, and the next one
waits until that is paid back.
"""

from foredraft.keys import Key

MINUTE_S = 60.0


class Quota:
    """The buckets of all keys that have such a limit."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and the moment at which they were so many

    def wait_s(self, key: Key, now_s: float) -> float:
        """How long until the key may begin a text; 0: now."""
        if not key.tokens_per_minute:
            return 0.0
        left = self._now(key, now_s)
        return 0.0 if left > 0.0 else (1.0 - left) * MINUTE_S / key.tokens_per_minute

    def spend(self, key: Key, tokens: int, now_s: float) -> None:
        """The key has had so many more."""
        if key.tokens_per_minute:
            self._left[key.name] = self._now(key, now_s) - tokens, now_s

    def _now(self, key: Key, now_s: float) -> float:
        left, then_s = self._left.get(key.name, (float(key.tokens_per_minute), now_s))
        return min(float(key.tokens_per_minute), left + (now_s - then_s) * key.tokens_per_minute / MINUTE_S)
