"""The robot that sees: its example walks against a real server, and its tests pass in simulated time."""

import subprocess
import sys

import pytest

from paths import EXAMPLES

ROBOT = EXAMPLES / "robot"


@pytest.mark.timeout(180)
def test_it_walks_to_its_goal_against_a_server() -> None:
    command = [sys.executable, "-m", "foredraft", "serve", "--model", "demo-robot", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        walk = [sys.executable, str(ROBOT / "walk.py"), url, "14"]
        done = subprocess.run(walk, capture_output=True, text=True, check=False)
        server.terminate()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "“go to the blue box”"
    assert lines[-1] == "stands before its goal"
    assert '"done":true' in lines[-2]


@pytest.mark.timeout(180)
def test_its_tests_pass() -> None:
    command = [sys.executable, "-m", "pytest", str(ROBOT), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
