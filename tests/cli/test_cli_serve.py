"""``foredraft serve`` as a process with a tiny torch model, and edges that are processes, too."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from engines.tiny_models import save_model
from foredraft.cli.main import app
from foredraft.exits.card import Calibration, ExitCard, write_card

runner = CliRunner()
FOREDRAFT = [sys.executable, "-m", "foredraft"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random target that never says its end mark."""
    return save_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=2048, eos_token_id=None)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@contextmanager
def serve(*arguments: str, log_format: str = "text") -> Iterator[tuple["subprocess.Popen[str]", dict[str, object]]]:
    """A server process, and what it says when it is ready."""
    command = [*FOREDRAFT, "--log-format", log_format, "serve", "--port", "0", "--threads", "1", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield process, json.loads(line)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url(tiny: Path) -> Iterator[str]:
    with serve("--model", str(tiny)) as (_, ready):
        yield str(ready["url"])


def text_of(url: str, *arguments: str) -> str:
    result = runner.invoke(app, ["generate", "--server", url, "--prompt", "def f(x):", "--threads", "1", *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_policy_file_is_recommended_to_edges_that_name_none(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('policy = "both"\nparameters = { width = 2, cloud_gamma = 3 }\n')
    with serve("--model", str(tiny), "--draft", "ngram", "--policy", str(file)) as (_, ready):
        said = json.loads(text_of(str(ready["url"]), "--max-new-tokens", "8", "--json"))
    assert ready["policy"] == said["policy_spec"] == "both:width=2,cloud_gamma=3"
    assert said["policy_from"] == "server"


@pytest.mark.parametrize("temperature", ["0", "0.8"])
def test_the_text_is_the_clouds_whoever_drafts(url: str, tiny: Path, temperature: str) -> None:
    sampling = ("--temperature", temperature, "--seed", "3", "--max-new-tokens", "60")
    alone = text_of(url, "--policy", "cloud", *sampling)
    assert alone == text_of(url, "--policy", "sync", "--draft", "ngram", *sampling)
    assert alone == text_of(url, "--policy", "sync", "--draft", str(tiny), *sampling)


def test_a_draft_with_another_tokenizer_is_refused_before_anything_is_generated(url: str, tmp_path: Path) -> None:
    draft = save_model(tmp_path / "draft")
    tokenizer = Tokenizer.from_file(str(draft / "tokenizer.json"))
    tokenizer.add_special_tokens(["<another>"])
    tokenizer.save(str(draft / "tokenizer.json"))
    result = runner.invoke(app, ["generate", "--server", url, "--prompt", "x", "--draft", str(draft)])
    assert result.exit_code == 1
    assert "the tokenizer of the draft" in result.stderr
    assert "use a draft of the same family, or 'ngram', or --translate this one" in result.stderr
    assert result.stdout == ""


def test_ctrl_c_closes_the_server_and_the_edge_says_that_it_is_gone(tiny: Path) -> None:
    with serve("--model", str(tiny), "--host", "0.0.0.0") as (server, ready):
        address = str(ready["url"]).replace("0.0.0.0", "127.0.0.1")
        command = [*FOREDRAFT, "generate", "--server", address, "--prompt", "x", "--max-new-tokens", "2000"]
        edge = subprocess.Popen(
            [*command, "--rtt-ms", "20", "--retries", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with edge:
            assert edge.stdout is not None
            edge.stdout.read(4)
            server.send_signal(signal.SIGINT)
            _, server_says = server.communicate(timeout=30)
            _, edge_says = edge.communicate(timeout=30)
    assert server.returncode == 0
    assert "WITHOUT AN API KEY on 0.0.0.0" in server_says
    assert "Traceback" not in server_says
    assert edge.returncode == 1
    assert b"gave up after 1 retries" in edge_says
    assert b"Traceback" not in edge_says


def test_exits_of_another_model_are_refused(tiny: Path, tmp_path: Path) -> None:
    calibration = Calibration(temperature=0.0, table=(0.5,) * 64)
    card = ExitCard(
        format=1,
        model="another",
        model_digest="0" * 32,
        model_layers=4,
        layers=(2,),
        rank=0,
        weights_digest="",
        text_digest="",
        text_tokens=0,
        held_out_tokens=0,
        steps=0,
        seed=0,
        distance=(),
        calibration=((calibration,),),
        report=(),
    )
    write_card(tmp_path, card)
    result = runner.invoke(app, ["serve", "--model", str(tiny), "--exits", str(tmp_path), "--port", "0"])
    assert result.exit_code == 1
    assert "belong to the model another with digest 000" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile needs --ssl-certfile"),
        (["--ssl-certfile", "no.pem"], "cannot use the certificate in no.pem"),
        (["--max-sessions", "0"], "max_sessions must be 1 or more"),
        (["--cache-gib", "0"], "cache_gib must be above 0"),
        (["--threads", "-1"], "threads must be 0"),
        (["--policy", "sinc"], "did you mean 'sync'?"),
        (["--policy", "sync:gamma=99"], "the policy 'sync:gamma=99' cannot be recommended to edges: gamma must be 1"),
        (["--policy", "own_policy:Confident"], "edges run no other on a server's word: name it there"),
        (["--policy", "colocated"], "this server has no draft model (serve --draft MODEL)"),
        (["--policy", "seed:exits=2"], "no exit after layer 2"),
        (["--policy", "none.toml"], "none.toml: cannot be read"),
        (["--pace", "robot-5-draft"], "a draft profile, where a target profile is needed"),
        (["--dtype", "float8"], "unknown dtype 'float8'"),
    ],
)
def test_bad_input_is_refused_with_a_reason(tiny: Path, arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["serve", "--model", str(tiny), "--port", "0", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    result = runner.invoke(app, ["serve", "--model", str(tmp_path)])
    assert result.exit_code == 1
    assert "config.json is missing" in result.stderr
