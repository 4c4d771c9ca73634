"""Everything that is fuzzed, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.fuzz import files, requests, wire
from chaos.fuzz.subject import Subject, heard


@contextmanager
def opened(folder: Path) -> Iterator[dict[str, Subject]]:
    """The subjects, with what they need, until the block ends; ``folder`` is for their files."""
    asking = requests.Asking()
    try:
        with heard():
            found = [*wire.subjects(), *requests.subjects(asking), *files.subjects(folder)]
            yield {subject.name: subject for subject in found}
    finally:
        asking.close()
