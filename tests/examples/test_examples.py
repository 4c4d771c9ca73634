"""Every example runs as its first lines say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.tiny_gguf import needs_llama
from engines.tiny_models import save_model
from paths import EXAMPLES
from real_model import real_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, so that the examples are quick and need no training."""
    return save_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=2048, eos_token_id=None)


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "foredraft", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.terminate()


def run(name: str, *arguments: str, cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test() -> None:
    tested = {"in_memory.py", "live_session.py", "own_policy.py", "own_server.py", "own_stop_rule.py"}
    tested |= {"read_record.py", "seed_report.py", "gguf_edge.py", "robot_commands.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_live_session_generates_from_a_server(url: str, tmp_path: Path) -> None:
    out = run("live_session.py", url, cache=tmp_path)
    assert out.startswith("import os")
    assert "tokens per pass of the target" in out


def test_in_memory_says_the_same_with_each_policy(tmp_path: Path) -> None:
    lines = run("in_memory.py", cache=tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["cloud", "sync", "seed"]
    assert lines[0].startswith("cloud: 60 passes")


def test_robot_commands_parse_and_cost_fewer_passes_than_they_have_tokens(tmp_path: Path) -> None:
    lines = run("robot_commands.py", cache=tmp_path).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Command(action=") for line in lines)


def test_own_stop_rule_ends_the_text_and_takes_a_second_turn(url: str, tmp_path: Path) -> None:
    out = run("own_stop_rule.py", url, cache=tmp_path)
    assert out.startswith("def parse(line):\n")
    assert "\ndef main():\n" in out


def test_own_server_outlives_its_first_address(model: Path, tmp_path: Path) -> None:
    out = run("own_server.py", str(model), cache=tmp_path)
    assert int(out.rpartition("reconnects: ")[2]) >= 1


def test_read_record_tells_how_often_draft_and_exits_were_right(tmp_path: Path) -> None:
    file, scenario = tmp_path / "session.rec", EXAMPLES / "scenarios" / "robot.toml"
    asked = ["simulate", str(scenario), "--policy", "cloud", "--seed", "1", "--record", str(file)]
    subprocess.run([sys.executable, "-m", "foredraft", *asked], check=True, capture_output=True)
    out = run("read_record.py", str(file), cache=tmp_path)
    assert "the draft's guess number 1 is the target's token: 5" in out
    assert "the exit after layer 24 is right 9" in out


def test_own_policy_runs_beside_sync_in_simulated_time(tmp_path: Path) -> None:
    lines = run("own_policy.py", cache=tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["cloud", "sync", "confident"]


@pytest.mark.timeout(240)
def test_the_seed_report_puts_claims_beside_simulated_figures(tmp_path: Path) -> None:
    out = run("seed_report.py", cache=tmp_path)
    assert "claims [published]: up to 35% lower latency" in out
    assert "ASSUMED" in out


def test_gguf_edge_says_the_same_with_each_policy_over_40_ms(tmp_path: Path) -> None:
    needs_llama()
    lines = run("gguf_edge.py", str(real_gguf()), "6", cache=tmp_path).splitlines()
    assert lines[-1] == "all texts are equal"
    assert [line.split()[0] for line in lines[:-1]] == [
        policy for policy in ("cloud", "sync:gamma=4", "seed:gamma=4", "auto") for _ in range(3)
    ]
    assert "Paris" in lines[0]
