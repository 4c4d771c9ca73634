"""Profiles that ``foredraft profile`` measures in a process on one core."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from foredraft.errors import ConfigError, ForedraftError
from foredraft.profiles import Profile, load_profile


def measured_profile(core: int | None, command: Sequence[str], name: str) -> Profile:
    """What ``foredraft profile`` writes in a process on one core. Raises ConfigError where it refuses."""
    pinned = [sys.executable, "-m", "foredraft.bench.child", "-" if core is None else str(core), "foredraft", "profile"]
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [*pinned, *command, "--name", name, "--out", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = done.stderr.strip().removeprefix("error: ")
            raise (ConfigError if done.returncode == ConfigError.exit_code else ForedraftError)(reason)
        return load_profile(Path(folder) / f"{name}.toml")
