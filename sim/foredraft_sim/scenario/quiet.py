"""Running very many sessions: what they say is gathered, and the garbage collector comes less often."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from foredraft_sim.errors import ProfileRangeWarning


class _Said(logging.Handler):
    """Keeps what the pacing says about ranges; what else the sessions log is in the results."""

    def __init__(self, said: set[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "foredraft.engines.pace":
            self._said.add(record.getMessage())


@contextmanager
def collected() -> Iterator[set[str]]:
    """Gather what was said about profiles used outside of their range."""
    said: set[str] = set()
    logger, handler = logging.getLogger("foredraft"), _Said(said)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ProfileRangeWarning)
            yield said
        said.update(str(one.message) for one in caught if issubclass(one.category, ProfileRangeWarning))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cyclic garbage less often: of what a thousand sessions hold, hardly any is."""
    usual = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
