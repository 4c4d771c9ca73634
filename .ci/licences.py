"""The licences of all that `make` installs, from what is installed: ``python .ci/licences.py``.

Exit code 1 for a package whose licence is not among those that are allowed, or that says none.
"""

import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from typing import Final

from lock_file import locked

ALLOWED: Final = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("CNRI-Python", "ISC", "MIT", "MIT-CMU", "PSF-2.0", "LicenseRef-Public-Domain", "Zlib"),
    "MPL-2.0",  # of files: what is changed in them stays under it, and we change none
}

ALLOWED_FOR: Final = {
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
}
"""For one package alone: the extra ``postgres``, a library that is imported and not changed."""

READ_BY_HAND: Final = {"torchao": "BSD-3-Clause"}
"""Of packages whose metadata say nothing: what their licence files say."""

_NAMES: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Public Domain": "LicenseRef-Public-Domain",
    "Python Software Foundation License": "PSF-2.0",
}
"""Names of older metadata. A BSD licence there may have two clauses or three: both are allowed."""

_CLASSIFIER: Final = "License :: "
_NO_LICENCE: Final = {"DFSG approved", "OSI Approved"}


def licence_of(fields: Callable[[str], list[str]]) -> str:
    """As an SPDX expression, from what the metadata say under a field's name; a name that nobody knows, as it is.

    Empty where they say nothing.
    """
    if expression := fields("License-Expression"):
        return expression[0]
    said = [one.rpartition(" :: ")[2] for one in fields("Classifier") if one.startswith(_CLASSIFIER)]
    if names := sorted({_NAMES.get(name, name) for name in said if name not in _NO_LICENCE}):
        return " AND ".join(names)
    first, *_ = [*"".join(fields("License")).strip().splitlines(), ""]  # the rest is a licence's text
    return _NAMES.get(first, first)


def wrong_with(name: str, licence: str) -> str:
    """Why a package may not be used; empty where it may. Of alternatives each must be allowed: that is simpler."""
    if not licence:
        return "says no licence; read its files, and write it into READ_BY_HAND"
    parts = {part.strip() for part in re.split(r"\b(?:AND|OR)\b|[()]", licence)} - {""}
    strange = sorted(parts - ALLOWED - {ALLOWED_FOR.get(name)})
    return f"{', '.join(strange)} is not among the licences that are allowed" if strange else ""


def licences() -> dict[str, str | None]:
    """Of each package that is locked; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in locked():
        try:
            found[name] = READ_BY_HAND.get(name) or licence_of(_fields(metadata(name)))
        except PackageNotFoundError:
            found[name] = None
    return found


def _fields(said: PackageMetadata) -> Callable[[str], list[str]]:
    return lambda name: said.get_all(name) or []


def main() -> int:
    """Print what is wrong, or how many were looked at."""
    found = licences()
    known = {name: licence for name, licence in found.items() if licence is not None}
    wrong = {name: said for name, licence in known.items() if (said := wrong_with(name, licence))}
    for name, said in wrong.items():
        print(f"{name}: {said}", file=sys.stderr)
    absent = sorted(found.keys() - known.keys())
    print(f"licences of {len(known)} packages looked at" + (f"; not installed: {', '.join(absent)}" if absent else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
