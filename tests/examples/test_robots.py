"""The planner as a node of dora-rs: a dataflow with a real daemon, a robot's node and a server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from paths import EXAMPLES

ROBOTS = EXAMPLES / "robots"
HINT = "needs dora-rs: make dora"


@pytest.mark.skipif(shutil.which("dora", path=str(Path(sys.executable).parent)) is None, reason=HINT)
def test_a_robot_s_node_has_a_command_for_each_goal(tmp_path: Path) -> None:
    for file in ROBOTS.iterdir():
        shutil.copy(file, tmp_path)
    here = Path(sys.executable).parent
    serve = [sys.executable, "-m", "foredraft", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        done = subprocess.run(
            [here / "dora", "run", "dataflow.yml"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{here}:{os.environ['PATH']}",
                "FOREDRAFT_SERVER": url,
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
            },
            capture_output=True,
            text=True,
        )
        server.terminate()
    assert done.returncode == 0, done.stdout + done.stderr
    commands = re.findall(r"does (\{.*\}) after (\d+) pieces", done.stdout + done.stderr)
    assert len(commands) == 3
    for command, pieces in commands:
        assert set(msgspec.json.decode(command)) == {"action", "metres"}
        assert int(pieces) > 0
