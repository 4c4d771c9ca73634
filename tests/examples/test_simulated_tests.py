"""The example suite for users passes as they would run it."""

import subprocess
import sys

from paths import EXAMPLES

EXAMPLES = EXAMPLES / "simulated_tests"


def test_the_example_suite_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(EXAMPLES), "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "warning" not in done.stdout
