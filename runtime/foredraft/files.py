"""Output files that are there completely or not at all."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from foredraft.errors import ConfigError


def check_folders(files: Iterable[Path]) -> None:
    """Whether files could be written, before the work is done that they are for. Raises ConfigError."""
    for path in files:
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise ConfigError(f"cannot write {path}: it is a folder")


def made_folder(path: Path) -> Path:
    """The folder that ``--out`` names, made if it is not there. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be made a folder: {error.strerror or error}") from error
    return path


@contextmanager
def made_room(what: str, file: Path) -> Iterator[None]:
    """Its folder is there while a library writes the file. Raises ConfigError where that goes wrong."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {what} to {file}: {error}") from error


def written_together(files: Mapping[Path, bytes]) -> None:
    """Write all files, or none of them. Raises ConfigError."""
    with ExitStack() as cleared:
        ready: list[tuple[str, Path]] = []
        for path, data in files.items():
            try:
                handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
                cleared.callback(Path(name).unlink, missing_ok=True)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
            except OSError as error:
                raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
            ready.append((name, path))
        for name, path in ready:
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
