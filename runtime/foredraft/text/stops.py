"""Stop strings in a text that comes in pieces. Pure: no tokenizer, no waiting."""

from collections.abc import Sequence

from foredraft.errors import ConfigError


class StopScanner:
    """Passes text on up to the first stop string, wherever the pieces are split.

    ``found`` is set once a stop string was completed. Until then, the end of the text that may
    be the beginning of a stop string is held back. Of several stop strings that the same piece
    completes, the one that begins first counts.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        if "" in strings:
            raise ConfigError("a stop string is empty, so every text would stop at once; leave it out")
        self.found = False
        self._strings = tuple(strings)
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be shown now: text that is certainly before any stop string."""
        if self.found:
            return ""
        text = self._held + text
        starts = [start for string in self._strings if (start := text.find(string)) >= 0]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)]
        shown = len(text) - self._overlap(text)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """The text is over: what was held back is no stop string after all."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, text: str) -> int:
        """Length of the longest end of ``text`` with which a stop string begins."""
        longest = max((len(string) for string in self._strings), default=0) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._strings):
                return length
        return 0
