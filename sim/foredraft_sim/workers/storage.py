"""A folder that keeps what tasks came to, a file for each, so that it is there when the run that made it is not.

A file's name is the digest of all that a result depends on: the build, the function and what travels to a worker, and
the contents of files that do not travel, such as the code of somebody's policy. In it are plain data (MessagePack),
which are read as what the function says that it returns, behind a checksum. Nothing in it is ever run.
"""

import os
import pickle
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import msgspec

from foredraft.errors import ConfigError
from foredraft.files import written_together
from foredraft.policies import policy_class
from foredraft_sim.errors import StorageError
from foredraft_sim.workers.workers import build

_SUM_BYTES: Final = 32


class Storage:
    """Results of tasks by what they depend on. ``files``: what they depend on beside what is sent to a worker.

    Raises ConfigError: nothing can be written to the folder, or a file cannot be read.
    """

    def __init__(self, folder: Path, files: Iterable[Path] = ()) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--storage {folder}: no folder can be made there ({error.strerror})") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--storage {folder}: nothing can be written there; name another folder")
        self._folder = folder
        self._files = [_digest(file) for file in files]
        self._found = self._added = self._damaged = 0

    def names(self, function: Callable[..., Any], shared: object) -> Callable[[object], str]:
        """What the file of a task's result is called, by the task."""
        same = (build(), self._files, function.__module__, function.__qualname__, shared)
        common = sha256(_plain(same)).digest()
        return lambda task: sha256(common + _plain(task)).hexdigest() + ".result"

    def read(self, name: str, kind: Any) -> Any:
        """The result of this type in a file, never None; None where there is none, or none any more."""
        try:
            data = (self._folder / name).read_bytes()
            if sha256(data[_SUM_BYTES:]).digest() != data[:_SUM_BYTES]:
                raise ValueError("the checksum is another")
            result = msgspec.msgpack.decode(data[_SUM_BYTES:], type=kind)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # msgspec's errors, too
            self._damaged += 1
            return None
        self._found += 1
        return result

    def write(self, name: str, result: object) -> None:
        """Keep a result: completely or not at all. Raises StorageError."""
        data = msgspec.msgpack.encode(result)
        try:
            written_together({self._folder / name: sha256(data).digest() + data})
        except (ConfigError, OSError) as error:
            raise StorageError(f"{error}; {self.told()}: make room, and run the same command again") from error
        self._added += 1

    def told(self) -> str:
        """How much is kept, of what was asked for so far."""
        return f"{self._found + self._added} result(s) are kept in {self._folder}"

    def summary(self) -> str:
        """How many results were found and how many came, in a line."""
        damaged = f" ({self._damaged} were damaged)" if self._damaged else ""
        return f"{self._folder}: {self._found} result(s) were there, {self._added} are new{damaged}"


def _plain(value: object) -> bytes:
    """All that a value is made of. Without a memo, which tells which of its parts are one object: that is chance."""
    data = BytesIO()
    pickler = pickle.Pickler(data)
    pickler.fast = True
    pickler.dump(value)
    return data.getvalue()


def sources_of(policies: Iterable[str]) -> list[Path]:
    """The code of policies that are not Foredraft's: of the package of each class, or of the folder it lies in.

    What that imports from elsewhere is not looked at. Raises UnknownNameError, ConfigError.
    """
    classes = [one for spec in policies for factory in policy_class(spec)[:1] for one in _with_bases(factory)]
    packages = {one.__module__.partition(".")[0] for one in classes} - _KNOWN
    return sorted({file for package in packages for file in _files_of(package)})


_KNOWN: Final = {"foredraft", "foredraft_sim", *sys.stdlib_module_names}
"""The build says what is in Foredraft, and which Python it is."""


def _with_bases(factory: Any) -> tuple[Any, ...]:
    return getattr(factory, "__mro__", (factory,))


def _files_of(package: str) -> list[Path]:
    found = sys.modules.get(package)
    folders = [Path(folder) for folder in getattr(found, "__path__", ())]
    if folders:
        return [file for folder in folders for file in folder.rglob("*.py")]
    file = getattr(found, "__file__", None)
    if file is None:
        raise ConfigError(f"--storage: nothing tells where the code of a policy in {package!r} lies; leave it out")
    return [Path(file), *Path(file).parent.glob("*.py")]


def _digest(file: Path) -> bytes:
    try:
        return sha256(file.read_bytes()).digest()
    except OSError as error:
        raise ConfigError(f"--storage: {file} cannot be read ({error.strerror})") from error
