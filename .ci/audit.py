"""Known vulnerabilities of all that `make` installs, by pip-audit: ``python .ci/audit.py``.

Exit code 1 for one that is known. Where no service answers that knows them, one line says so.
"""

import json
import subprocess
import sys
from typing import Any, Final

from lock_file import LOCK

_AUDIT: Final = (sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off")
_MOST_S: Final = 300


def report() -> list[dict[str, Any]] | None:
    """What pip-audit says of each package; None where it says nothing."""
    command = [*_AUDIT, "--format", "json", "--requirement", str(LOCK)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_S, check=False)
        said: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    return said


def judge(said: list[dict[str, Any]] | None) -> tuple[list[str], bool]:
    """What to say, and whether all is well."""
    looked_at = [one for one in said or [] if "skip_reason" not in one]
    if said is None or not looked_at:
        return ["vulnerabilities were not looked for: no service that knows them answers here"], True
    lines = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for one in looked_at
        for flaw in one["vulns"]
    ]
    skipped = len(said) - len(looked_at)
    tail = f"; {skipped} not known to the service" if skipped else ""
    return [*lines, f"vulnerabilities looked for in {len(looked_at)} packages{tail}: {len(lines)}"], not lines


def main() -> int:
    """Print what was found."""
    lines, well = judge(report())
    print("\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
