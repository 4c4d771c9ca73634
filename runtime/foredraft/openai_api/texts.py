"""Where texts come from: what the routes need of an edge (``foredraft.api.edge.Edge`` is one)."""

from collections.abc import Sequence
from typing import Protocol, Self

from foredraft.edge.local import LocalText
from foredraft.edge.session_report import SessionReport
from foredraft.edge.state import Scored
from foredraft.images import EncodedImage
from foredraft.protocol.events import Observer
from foredraft.protocol.messages import Ready
from foredraft.text.constraint import Constraint
from foredraft.text.tokenizer import Tokenizer


class Piece(Protocol):
    """What one commit added."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens."""

    @property
    def text(self) -> str:
        """The text that they made certain."""

    @property
    def logprobs(self) -> tuple[Scored, ...]:
        """The tokens' log-probabilities, where they were asked for."""


class Text(Protocol):
    """One text on its way."""

    @property
    def report(self) -> SessionReport:
        """What happened so far."""

    @property
    def policy_spec(self) -> str:
        """The policy that runs."""

    def __aiter__(self) -> Self:
        """Its pieces."""

    async def __anext__(self) -> Piece:
        """The next one."""

    async def aclose(self) -> None:
        """End it here."""


class Texts(Protocol):
    """Makes texts, several at once."""

    @property
    def ready(self) -> Ready:
        """What is served."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The target's."""

    @property
    def round_trip_s(self) -> float:
        """To the cloud and back, as far as it is known."""

    def generate(
        self,
        prompt: Sequence[int],
        *,
        policy: str | None,
        temperature: float,
        top_k: int,
        top_p: float,
        seed: int | None,
        max_new_tokens: int,
        stop: Sequence[str],
        end_marks: bool,
        logprobs: int | None,
        observer: Observer | None,
        local: LocalText | None,
        constraint: Constraint | None,
        images: Sequence[EncodedImage],
    ) -> Text:
        """Begin a text. Raises ConfigError."""
