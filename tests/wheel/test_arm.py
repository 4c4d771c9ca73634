"""What the base install needs has wheels for Arm, told by pip's resolver: no Arm machine takes part.

A wheel's name says which C library it needs; what is built for an older one runs on newer ones.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from wheel.base_packages import base_packages, closure

GLIBC_OF = {"JetPack 4": 27, "JetPack 5": 31}
OLDEST = 17
PATIENCE_S = 100
SYSTEM_TIED = ("hf-xet",)
"""Built for newer systems alone; where it is missing pip takes an older hub client, which does without it."""
NO_WAY = ("Could not fetch URL", "connection", "Temporary failure in name resolution", "ProxyError", "Max retries")


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", GLIBC_OF)
def test_every_base_package_has_a_wheel_for_arm(system: str, python: str, tmp_path: Path) -> None:
    needed = closure(base_packages())
    assert {"aiohttp", "msgspec", "tokenizers", "uvloop", "yarl"} <= set(needed)
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in range(OLDEST, GLIBC_OF[system] + 1))]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    command += ["--quiet", "--no-deps", "--retries", "1", "--target", str(tmp_path / "target")]
    command += ["--implementation", "cp", "--python-version", python]
    command += [word for platform in platforms for word in ("--platform", platform)]
    packages = [f"{name}=={found.version}" for name, found in needed.items() if name not in SYSTEM_TIED]
    try:
        done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package registry did not answer in {PATIENCE_S} s")
    if done.returncode and any(word in done.stderr for word in NO_WAY):
        pytest.skip("needs a package registry in reach")
    assert done.returncode == 0, done.stderr
