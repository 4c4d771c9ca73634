"""What is said on stderr: as JSON a line for each session and each refusal, and nobody's texts, tokens or keys."""

import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.test_cli_serve import FOREDRAFT, serve
from engines.tiny_models import save_model
from foredraft.cli.logs import JsonLines
from foredraft.cli.main import app
from foredraft.text.tokenizer import Tokenizer

KEY, PROMPT = "sesame-open-4711", "the xylophone of Quetzalcoatl"


def logged(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines()]


def test_a_server_tells_of_each_session_and_each_refusal_and_of_no_prompt_token_or_key(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tiny", max_position_embeddings=2048, eos_token_id=None)
    command = ["generate", "--prompt", PROMPT, "--max-new-tokens", "9", "--policy", "sync", "--api-key"]
    command = [*FOREDRAFT, *command]
    with serve("--model", str(folder), "--api-key", KEY, log_format="json") as (process, ready):
        url = str(ready["url"])
        done = subprocess.run([*command, KEY, "--server", url], capture_output=True, text=True, check=True)
        wrong = subprocess.run([*command, "not-it", "--server", url], capture_output=True, text=True, check=False)
        assert wrong.returncode == 1
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/nothing?secret={KEY}")
        bad = json.dumps({"messages": [{"role": "user", "content": PROMPT}], "temperature": 99}).encode()
        request = urllib.request.Request(f"{url}/v1/chat/completions", bad, {"Authorization": f"Bearer {KEY}"})
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request)
        process.terminate()
        assert process.stderr is not None
        stderr = process.stderr.read()
    lines = logged(stderr)
    [session] = [line for line in lines if line.get("event") == "session"]
    encoded = Tokenizer.from_folder(folder).encode(PROMPT)
    assert (session["ended"], session["new_tokens"], session["prompt_tokens"]) == ("length", 9, len(encoded))
    assert session["passes"] > 0
    assert session["took_s"] >= session["pass_s"] > 0.0
    refusals = [(line["status"], line["path"]) for line in lines if line.get("event") == "refusal"]
    assert refusals == [(401, "/v1/session"), (401, "/nothing"), (400, "/v1/chat/completions")]
    text = done.stdout.strip()
    for secret in (KEY, "not-it", PROMPT, "xylophone", "Quetzalcoatl", text, str(encoded)):
        assert secret not in stderr


def test_what_a_session_is_refused_for_is_told_by_its_code_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from foredraft.cloud import session_log

    with caplog.at_level(logging.INFO, session_log.log.name):
        session_log.refused(3, 1, "invalid", "robot-7")
    [record] = caplog.records
    said = json.loads(JsonLines().format(record))
    assert (said["event"], said["session"], said["code"], said["key"]) == ("refusal", "3.1", "invalid", "robot-7")
    assert (said["level"], said["logger"], said["message"]) == ("INFO", "foredraft.sessions", "refused 3.1: invalid")
    assert said["time"].endswith("+00:00")


def test_an_exception_is_in_its_line_and_what_json_does_not_know_is_written_as_text() -> None:
    try:
        raise ValueError("oh")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "", 1, "it %s", ("failed",), sys.exc_info())
    record.fields = {"where": Path("x")}
    said = json.loads(JsonLines().format(record))
    assert (said["message"], said["where"]) == ("it failed", "x")
    assert said["exception"].endswith("ValueError: oh")


def test_without_being_asked_for_sessions_are_not_told_of(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tiny", max_position_embeddings=2048, eos_token_id=None)
    with serve("--model", str(folder)) as (process, ready):
        words = ["generate", "--prompt", "x", "--max-new-tokens", "3", "--server", str(ready["url"])]
        subprocess.run([*FOREDRAFT, *words], capture_output=True, check=True)
        process.terminate()
        assert process.stderr is not None
        assert "session" not in process.stderr.read()


def test_an_unknown_format_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["--log-format", "jsno", "models"])
    assert result.exit_code == 2
    assert "unknown log format 'jsno': did you mean 'json'" in result.output
