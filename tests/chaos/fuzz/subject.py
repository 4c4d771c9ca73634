"""What is fuzzed: something that reads what others wrote, valid examples of it, and the errors it may raise."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from chaos.fuzz.forms import Form
from foredraft.errors import ForedraftError


@dataclass(frozen=True)
class Subject:
    """``examples``: valid inputs. ``read``: takes one input; whatever else than ``errors`` it raises is a bug."""

    name: str
    form: Form
    examples: Sequence[bytes]
    read: Callable[[bytes], object]
    errors: tuple[type[BaseException], ...] = (ForedraftError,)


class Unseen(logging.Handler):
    """Errors that somebody caught and told the log alone: on a server, what nobody expected."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first."""
        if record.exc_info and self.error is None:
            self.error = record.exc_info[1]

    def heard(self, loop: Any, context: dict[str, Any]) -> None:
        """The same for an event loop."""
        self.error = self.error or context.get("exception") or RuntimeError(context.get("message"))

    def raised(self) -> None:
        """Raise what was kept, and forget it."""
        error, self.error = self.error, None
        if error is not None and not isinstance(error, ForedraftError):
            raise error


UNSEEN = Unseen()


@contextmanager
def heard() -> Iterator[None]:
    """Until the block ends, what is told to the log is heard, and printed nowhere."""
    loggers = [logging.getLogger(name) for name in ("foredraft", "asyncio", "aiohttp")]
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(UNSEEN)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(UNSEEN)
            logger.propagate = True
