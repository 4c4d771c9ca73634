"""What one peer of a server, or all of them together, may take."""

from dataclasses import dataclass

from foredraft.links.websocket import HEARTBEAT_S, STALL_S


@dataclass(frozen=True, slots=True)
class Bounds:
    """``max_sessions``: edges at once. ``stall_s``: how long a peer may take nothing while bytes wait for it.
    ``grace_s``: how long sessions may use to leave after Drain.

    Before a key is shown: ``silence_s``: how long that may take. ``strangers``: connections of one address, and
    ``strangers_per_s``: new ones of it a second; 0 is any number. ``stranger_bytes``: what each may send.
    """

    max_sessions: int = 64
    stall_s: float = STALL_S
    heartbeat_s: float = HEARTBEAT_S
    grace_s: float = 2.0
    silence_s: float = 10.0
    strangers: int = 64
    strangers_per_s: float = 200.0
    stranger_bytes: int = 1 << 16
