"""Files that came with a task: they are read in the place of those of the same name, which may not be here."""

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

_copies: dict[Path, Path] = {}


def bring(files: Mapping[Path, bytes]) -> None:
    """Contents of files, by the paths under which they will be looked for."""
    for path, content in files.items():
        copy = Path(_folder().name) / f"{sha256(content).hexdigest()[:16]}-{path.name}"
        if not copy.exists():
            copy.write_bytes(content)
        _copies[path] = copy


def brought(path: Path) -> Path:
    """Where a file is read: its copy, or the path itself. Another content has another name, so readers may cache."""
    return _copies.get(path, path)


@cache
def _folder() -> "TemporaryDirectory[str]":
    """For as long as the process lives."""
    return TemporaryDirectory(prefix="foredraft-")
