"""What `make` installs, as a CycloneDX document on standard output: ``python .ci/sbom.py``.

Names and versions are the lock's, licences those of what is installed. The same lock gives the same document.
"""

import json
import sys
from typing import Any, Final

from licences import licences
from lock_file import ROOT, locked

SPEC: Final = "1.6"
_VERSION_FILE: Final = ROOT / "runtime" / "foredraft" / "version.py"


def document() -> dict[str, Any]:
    """The document."""
    known = licences()
    made: dict[str, str] = {}
    exec(_VERSION_FILE.read_text(), made)
    about = {
        "type": "application",
        "bom-ref": "foredraft",
        "name": "foredraft",
        "version": made["__version__"],
        "licenses": [{"expression": "Apache-2.0"}],
    }
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": about},
        "components": [_component(name, version, known[name]) for name, version in sorted(locked().items())],
    }


def _component(name: str, version: str, licence: str | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    said: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return said | ({"licenses": [{"expression": licence}]} if licence else {})


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
    print()
