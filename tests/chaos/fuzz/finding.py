"""One input, read: whether anything but a documented error came of it, in time."""

import hashlib
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.fuzz.subject import Subject

MOST_CPU_S: Final = 8.0
"""What reading one input may take; far more than any does, so that a busy machine finds nothing of its own."""


@dataclass(frozen=True)
class Finding:
    """``place``: the same for inputs that find the same. ``told``: the traceback."""

    subject: str
    place: str
    told: str
    data: bytes

    @property
    def name(self) -> str:
        """What its input is kept as."""
        return f"{self.subject}-{hashlib.sha256(self.data).hexdigest()[:12]}"

    def keep(self, folder: Path) -> Path:
        """Write the input, and beside it what came of it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.txt").write_text(self.told, encoding="utf-8", errors="backslashreplace")
        file = folder / self.name
        file.write_bytes(self.data)
        return file


def find(subject: Subject, data: bytes) -> Finding | None:
    """Read an input; what is wrong with the reader, if anything is."""
    began_s = time.process_time()
    try:
        subject.read(data)
    except subject.errors:
        pass
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # even SystemExit, and what comes from Rust
        return Finding(subject.name, _place(error), "".join(traceback.format_exception(error)), data)
    if (took_s := time.process_time() - began_s) > MOST_CPU_S:
        return Finding(subject.name, "slow", f"it takes {took_s:.1f} s of a processor", data)
    return None


def _place(error: BaseException) -> str:
    """Where it was raised, in our code if it is anywhere there."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/foredraft" in frame.filename] or list(frames)
    last = ours[-1] if ours else None
    where = "" if last is None else f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} at {where}"
