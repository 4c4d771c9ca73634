"""What a key may have a minute: buckets that fill as time goes by, and hold a minute's worth.

Plain state; the time is told. A text that has begun is never stopped: it may overdraw a bucket, and the next one
waits until that is paid back.
"""

from typing import Final

from foredraft.errors import RefusedError
from foredraft.keys import Key
from foredraft.protocol.messages import BUSY

MINUTE_S = 60.0
MOST_WAIT_S: Final = 3600.0
"""As long as the protocol lets an edge be told to wait."""

TOKENS, BYTES, IMAGE_BYTES = "tokens_per_minute", "bytes_per_minute", "image_bytes_per_minute"
"""Of prompts and texts; of all that edges send; of images among it. As the limits of keys are called."""

_WORDS: Final = {TOKENS: "tokens", BYTES: "bytes", IMAGE_BYTES: "bytes of images"}


class Quota:
    """The buckets of all keys, one for each such limit that they have."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], tuple[float, float]] = {}  # how much, and the moment at which it was so much

    def check(self, key: Key, limit: str, now_s: float) -> None:
        """Raise RefusedError("busy") where the key has had what it may have, with the time until it may go on."""
        if wait_s := self.wait_s(key, limit, now_s):
            most, words = getattr(key, limit), _WORDS[limit]
            reason = f"the key {key.name!r} has had its {most} {words} a minute (limit: {limit})"
            raise RefusedError(BUSY, reason, min(wait_s, MOST_WAIT_S))

    def wait_s(self, key: Key, limit: str, now_s: float) -> float:
        """How long until the key may have more; 0: now."""
        most = getattr(key, limit)
        if not most:
            return 0.0
        left = self._now(key, limit, most, now_s)
        return 0.0 if left > 0.0 else (1.0 - left) * MINUTE_S / most

    def spend(self, key: Key, limit: str, amount: int, now_s: float) -> None:
        """The key has had so much more."""
        if most := getattr(key, limit):
            self._left[key.name, limit] = self._now(key, limit, most, now_s) - amount, now_s

    def _now(self, key: Key, limit: str, most: int, now_s: float) -> float:
        left, then_s = self._left.get((key.name, limit), (float(most), now_s))
        return min(float(most), left + (now_s - then_s) * most / MINUTE_S)
