"""An answer in colours: which tokens the device drafted, and where the target knew better."""

from collections import deque
from collections.abc import Sequence

from foredraft.protocol.events import Event
from foredraft.text.inert import inert
from foredraft.text.tokenizer import Tokenizer

ACCEPTED, CORRECTED, PLAIN = "\x1b[32m", "\x1b[33m", ""
_END = "\x1b[0m"


class Painter:
    """Hears the commits of a text (``observe``), and paints its tokens in their order (``paint``)."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._text = None if tokenizer is None else tokenizer.stream()
        self._colours: deque[str] = deque()  # of tokens that were committed and are not shown yet

    def observe(self, event: Event) -> None:
        """Note which of a commit's tokens were drafted. The last one is the target's own."""
        if event.kind != "commit":
            return
        tokens, drafted, accepted = (event.data[name] for name in ("tokens", "drafted", "accepted"))
        new = len(tokens) if isinstance(tokens, list | tuple) else 0
        right = min(int(accepted) if isinstance(accepted, int) else 0, new)
        wrong = isinstance(drafted, int) and drafted > right
        self._colours += [ACCEPTED] * right + [CORRECTED if wrong else PLAIN] * (new - right)

    def paint(self, tokens: Sequence[int]) -> str:
        """The text of the tokens, each in its colour."""
        painted = ""
        for token in tokens:
            colour = self._colours.popleft() if self._colours else PLAIN
            text = "" if self._text is None else inert(self._text.step(token))
            painted += f"{colour}{text}{_END}" if colour and text else text
        return painted
