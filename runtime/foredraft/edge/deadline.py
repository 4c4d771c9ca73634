"""A text that is wanted by some moment, or not at all."""

import asyncio
from dataclasses import dataclass
from typing import Final, NoReturn

from foredraft.errors import ConfigError, DeadlineError, UnknownNameError

DEADLINE: Final = "deadline"
"""Why a text ended that was not complete in time; how it ended then may follow (``ending``)."""

MOST_S: Final = 1e6
STOP, LOCAL, ERROR = "stop", "local", "error"
AT_DEADLINE: Final = (STOP, LOCAL, ERROR)


def missed(finish: str) -> bool:
    """Whether this is why a text ends that was not complete at its deadline."""
    return finish.startswith(DEADLINE)


@dataclass(frozen=True, slots=True)
class Deadline:
    """``within_s``: seconds from the call on. ``then``: what happens, one of ``AT_DEADLINE``.

    ``stop`` ends the text with what is committed by then, ``local`` lets the draft finish it (``ending``), ``error``
    raises DeadlineError. In any case what was committed stays valid, and the cloud is told at once. Raises ConfigError,
    UnknownNameError.
    """

    within_s: float
    then: str = STOP

    def __post_init__(self) -> None:
        if not 0.0 < self.within_s <= MOST_S:
            raise ConfigError(f"a deadline must lie ahead: more than 0 and at most {MOST_S:g} s, not {self.within_s!r}")
        if self.then not in AT_DEADLINE:
            raise UnknownNameError("way to meet a deadline", self.then, AT_DEADLINE)

    async def pass_by(self, began_at_s: float) -> None:
        """Wait for it, by the running loop's clock."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, began_at_s + self.within_s - loop.time()))

    def missed(self, tokens: int) -> NoReturn:
        """Raise DeadlineError: so many tokens were committed."""
        raise DeadlineError(f"the text was not complete within {self.within_s:g} s: {tokens} tokens were committed")
