"""What a draft beside the target says along the text of a recorded live session.

The edge hears of it in two ways. Where it drafted nothing itself, each commit tells how many of the draft's tokens
were right. Afterwards the cloud is asked what its draft guesses in the place of every token; that goes where no commit
tells, and says which token a guess was. The two may differ in a token whose score is nearly that of another.
"""

from collections.abc import Sequence
from typing import Final

from foredraft.observe.record.frames import BEYOND, UNASKED
from foredraft.observe.record.reading import Position, RecordedSession
from foredraft.protocol.ports import Guess
from foredraft_sim.tokens.recorded_times import of_edge

_ANYTHING: Final = Guess(0, 0.0)
"""Beyond the recorded text any guess will do: nothing there is ever accepted."""


class CloudDraft:
    """Its best guess at each position of one text, whose tokens may be stand-ins."""

    def __init__(
        self, session: RecordedSession, tokens: Sequence[int], positions: Sequence[Position], vocab_size: int
    ) -> None:
        start = session.began.prompt_tokens
        self._end = start + len(tokens)
        predictions = {one.position: one for one in positions if one.cloud_rank != UNASKED}
        self._guesses = {
            position: [Guess(*guess) for guess in one.cloud_guesses] for position, one in predictions.items()
        }
        for position, rank in ranks_in_commits(session).items():
            asked = predictions.get(position)
            if asked is None or asked.cloud_rank != rank or not asked.cloud_guesses:
                token = tokens[position - start]
                right, wrong = Guess(token, 1.0), Guess((token + 1) % vocab_size, 0.0)
                self._guesses[position] = [wrong if rank == BEYOND else right]

    def guesses_at(self, position: int) -> list[Guess] | None:
        """Its best guess at a position, empty where it had no idea; None where nobody knows."""
        if position >= self._end and self._guesses:
            return [_ANYTHING]
        return self._guesses.get(position)


def ranks_in_commits(session: RecordedSession) -> dict[int, int]:
    """Position by position 0 where the draft in the cloud was right, BEYOND where wrong, as far as commits tell.

    Nothing where the edge drafted as well: a commit does not say whose tokens were right.
    """
    ranks: dict[int, int] = {}
    if of_edge(session, "draft"):
        return ranks
    for one in of_edge(session, "commit"):
        position, predictions = one.data["position"], one.data["tokens"]
        count = len(predictions) if isinstance(predictions, list) else predictions
        right = min(one.data["accepted"], count)
        ranks |= dict.fromkeys(range(position, position + right), 0)
        if right < min(one.data["drafted"], count):
            ranks[position + right] = BEYOND
    return ranks
