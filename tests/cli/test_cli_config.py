"""Options from the environment and from a settings file, and the verb that shows where they come from."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without settings of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    for name in ("FOREDRAFT_API_KEY", "FOREDRAFT_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text("""
[serve]
host = "0.0.0.0"
port = 9000
max-sessions = 3

[generate]
server = ["http://one:1", "http://two:2"]

[profile.link]
name = "site"
""")
    return path


def shown(*words: str) -> dict[str, dict[str, tuple[Any, str]]]:
    """What ``foredraft config --json`` says: by verb and option the value and where it is from."""
    done = runner.invoke(app, list(words))
    assert done.exit_code == 0, done.output
    verbs = json.loads(done.stdout)["verbs"]
    return {verb: {row["option"]: (row["value"], row["from"]) for row in rows} for verb, rows in verbs.items()}


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREDRAFT_SERVE_PORT", "9001")
    monkeypatch.setenv("FOREDRAFT_SERVE_HOST", "127.0.0.2")
    told = shown("--config", str(settings), "config", "--all", "--json", "serve", "--host", "127.0.0.3")["serve"]
    assert told["--host"] == ("127.0.0.3", "flag")
    assert told["--port"] == (9001, "FOREDRAFT_SERVE_PORT")
    assert told["--max-sessions"] == (3, str(settings))
    assert told["--threads"] == (0, "default")


def test_without_a_verb_all_options_that_are_set_are_shown(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREDRAFT_CONFIG", str(settings))
    told = {verb: rows for verb, rows in shown("config", "--json").items() if rows}
    assert told == {
        "generate": {"--server": (["http://one:1", "http://two:2"], str(settings))},
        "profile link": {"--name": ("site", str(settings))},
        "serve": {
            "--host": ("0.0.0.0", str(settings)),
            "--port": (9000, str(settings)),
            "--max-sessions": (3, str(settings)),
        },
    }


def test_the_users_own_file_is_read_where_none_is_named(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = settings.parent / "config"
    (home / "foredraft").mkdir(parents=True)
    settings.rename(home / "foredraft" / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    assert shown("config", "--json", "serve")["serve"]["--port"][0] == 9000


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREDRAFT_API_KEY", "very-secret")
    done = runner.invoke(app, ["config", "serve"])
    assert "serve --api-key = (11 characters)    [FOREDRAFT_API_KEY]" in done.stdout
    assert "very-secret" not in done.output


def test_a_verb_runs_with_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[report]\nout = '/no/such/folder/page.html'\n")
    done = runner.invoke(app, ["--config", str(path), "report", str(path)])
    assert done.exit_code != 0
    assert "/no/such/folder" in done.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[serv]\n", "'serv' is no verb of foredraft; did you mean 'serve'?"),
        ("[serve]\nprot = 1\n", "serve: 'prot' is no option of serve; did you mean 'port'?"),
        ("serve = 1\n", "serve = 1: a verb's options stand in its table: [serve]"),
        ("[serve\n", "not TOML"),
    ],
)
def test_what_a_settings_file_cannot_say_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    done = runner.invoke(app, ["--config", str(path), "serve"])
    assert done.exit_code == 2
    assert str(path) in done.output
    assert reason in done.output


def test_a_wrong_table_of_another_verb_does_not_stop_this_one(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[serve]\nprot = 1\n")
    assert runner.invoke(app, ["--config", str(path), "models"]).exit_code == 0


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = runner.invoke(app, ["--config", str(tmp_path / "none.toml"), "models"])
    assert done.exit_code == 2
    assert "none.toml: cannot be read: No such file" in done.output


def test_an_unknown_verb_is_answered_with_the_nearest() -> None:
    done = runner.invoke(app, ["config", "exits", "tran"])
    assert done.exit_code == 2
    assert "unknown verb 'exits tran'" in done.output
