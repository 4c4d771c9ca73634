"""What `make` installs: the lines of requirements.lock, and those of `requirements.hashes` beside this."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
LOCK, HASHES = ROOT / "requirements.lock", Path(__file__).with_name("requirements.hashes")
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pinned(text: str) -> dict[str, str]:
    """Version by name, as indexes write names."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _PINNED.findall(text)}


def locked() -> dict[str, str]:
    """Version by name of all that `make` installs."""
    return pinned(LOCK.read_text())
