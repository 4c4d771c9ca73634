"""Workers that keep what they finish, and what is said and there of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foredraft_sim.workers.kept import Kept
from foredraft_sim.workers.storage import Storage
from foredraft_sim.workers.workers import Here, Workers


@contextmanager
def keeping(folder: Path, workers: Workers | None = None) -> Iterator[tuple[Kept, Storage]]:
    storage = Storage(folder)
    yield Kept(workers or Here(), storage), storage


def summary(folder: Path, found: int, new: int, damaged: str = "") -> str:
    return f"{folder}: {found} result(s) were there, {new} are new{damaged}"


def kept_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.result"))
