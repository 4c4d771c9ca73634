"""Texts that a pair was not fitted to: each record with the pair of the others (cross-validation)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from foredraft.errors import RecordError
from foredraft.observe.record.reading import Record
from foredraft_sim.fit.fit import fit
from foredraft_sim.tokens.fitted import FittedPair

FOLDS: Final = 5
"""In so many groups texts are held out, if there are as many; the more, the more are left to fit a pair to."""


def held_out(records: Sequence[Record]) -> list[tuple[Record, FittedPair]]:
    """Each record with a pair that was fitted without it, and without others of its group.

    Of one record alone, its texts are divided so. Raises RecordError where too little is left to fit a pair to.
    """
    parts = list(records) if len(records) > 1 else _parts(records[0])
    folds = min(FOLDS, len(parts))
    if folds < 2:
        raise RecordError(f"{records[0].path}: a single text: without it there is none to fit a pair to")
    pairs = [fit([one for number, one in enumerate(parts) if number % folds != fold]) for fold in range(folds)]
    return [(one, pairs[number % folds]) for number, one in enumerate(parts)]


def _parts(record: Record) -> list[Record]:
    """The record as several, each with every n-th of the sessions that have a text."""
    sessions = [session for session in record.sessions if session.tokens]
    folds = min(FOLDS, len(sessions))
    return [replace(record, sessions=tuple(sessions[fold::folds])) for fold in range(folds)]
