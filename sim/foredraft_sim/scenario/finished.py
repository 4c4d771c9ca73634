"""What one replication leaves behind."""

from dataclasses import dataclass
from pathlib import Path

from foredraft.edge.deadline import missed
from foredraft.edge.session_report import SessionReport
from foredraft.observe.record.event_lines import event_lines
from foredraft.observe.record.reading import Record, parse_record


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that has its text.

    ``arrived_s``: when it came, since the start; ``began_s``: when its device took it up. The
    report's tokens and text are left out unless asked for; ``digest`` stands for the tokens.
    """

    request: int
    arrived_s: float
    began_s: float
    report: SessionReport
    digest: str

    @property
    def missed(self) -> bool:
        """Whether its text was not complete at its deadline."""
        return missed(self.report.finish_reason)


@dataclass(frozen=True, slots=True)
class Replication:
    """What one policy did with one seed. Seconds are simulated.

    ``duration_s``: until the last text was complete. ``servers_busy_s``, ``devices_busy_s``: sums
    of what their engines were occupied. ``recorded``: the bytes of a record, if asked for.
    """

    policy: str
    seed: int
    finished: list[Finished]
    duration_s: float
    servers_busy_s: float
    devices_busy_s: float
    warnings: tuple[str, ...] = ()
    recorded: bytes = b""

    @property
    def record(self) -> Record:
        """The record that was asked for."""
        return parse_record(self.recorded, Path(f"{self.policy}, seed {self.seed}"))

    @property
    def log(self) -> bytes:
        """Its events and messages as JSON lines."""
        return event_lines(self.record)
