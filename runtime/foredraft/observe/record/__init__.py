"""Records of sessions: one file format, written by live and simulated sessions alike, read by ``read_record``."""

from foredraft.observe.record.frames import BEYOND, HIDDEN, UNASKED, VERSION, Models, Noted, Said, Setup
from foredraft.observe.record.reading import Cut, Position, Record, RecordedSession, read_record

__all__ = [
    "BEYOND",
    "HIDDEN",
    "UNASKED",
    "VERSION",
    "Cut",
    "Models",
    "Noted",
    "Position",
    "Record",
    "RecordedSession",
    "Said",
    "Setup",
    "read_record",
]
