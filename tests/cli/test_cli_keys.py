"""``foredraft keys``: a secret is shown once and kept nowhere; the file is edited, and all else in it stays."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.keys import Keys, read_keys

runner = CliRunner()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def keys(*words: str, file: Path) -> str:
    result = runner.invoke(app, ["keys", *words, "--file", str(file)])
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_what_add_prints_opens_the_server_and_is_not_in_the_file(file: Path) -> None:
    secret = keys("add", "robot-7", "--role", "serve", "--role", "probe", "--sessions", "4", "--days", "90", file=file)
    assert secret not in file.read_text(encoding="utf-8")
    found = Keys(read_keys(file)).find(secret)
    assert found is not None
    assert (found.name, found.roles, found.sessions, found.connections) == ("robot-7", ("serve", "probe"), 4, 0)
    assert found.expires is not None


def test_list_tells_names_roles_and_limits(file: Path) -> None:
    secret = keys("add", "robot-7", "--sessions", "4", "--tokens-per-minute", "900", "--weight", "2.5", file=file)
    keys("add", "prometheus", "--role", "metrics", file=file)
    none = {
        "sessions": 0,
        "connections": 0,
        "tokens_per_minute": 0,
        "bytes_per_minute": 0,
        "image_bytes_per_minute": 0,
        "context": 0,
        "cache": 0,
    }
    limits = none | {"sessions": 4, "tokens_per_minute": 900}
    assert json.loads(keys("list", "--json", file=file)) == {
        "robot-7": {"roles": ["serve"], "expires": None, "weight": 2.5} | limits,
        "prometheus": {"roles": ["metrics"], "expires": None, "weight": 1.0} | none,
    }
    shown = keys("list", file=file)
    assert "serve, sessions 4, tokens_per_minute 900, weight 2.5" in shown
    assert secret not in shown


def test_revoke_takes_one_key_out_and_leaves_the_rest_as_it_is(file: Path) -> None:
    keys("add", "one", file=file)
    file.write_text("# ours\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    before = file.read_text(encoding="utf-8")
    keys("add", "two", file=file)
    keys("revoke", "two", file=file)
    assert file.read_text(encoding="utf-8").strip() == before.strip()
    keys("revoke", "one", file=file)
    assert file.read_text(encoding="utf-8").startswith("# ours")
    assert read_keys(file) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "a b"], "a key's name"),
        (["add", "one"], "has a key 'one' already"),
        (["add", "two", "--role", "cook"], "known: serve, metrics, probe"),
        (["revoke", "oen"], "did you mean 'one'?"),
    ],
)
def test_what_cannot_be_is_said_and_the_file_stays(file: Path, words: list[str], said: str) -> None:
    keys("add", "one", file=file)
    before = file.read_text(encoding="utf-8")
    result = runner.invoke(app, ["keys", *words, "--file", str(file)])
    assert result.exit_code == 2
    assert said in result.stderr
    assert file.read_text(encoding="utf-8") == before


def test_a_table_written_in_another_way_is_for_a_person_to_edit(file: Path) -> None:
    keys("add", "one", file=file)
    (key,) = read_keys(file).values()
    file.write_text(f'keys.one = {{ hash = "{key.hash}" }}\n', encoding="utf-8")
    result = runner.invoke(app, ["keys", "revoke", "one", "--file", str(file)])
    assert result.exit_code == 2
    assert "by hand" in result.stderr


def test_one_key_and_a_file_of_keys_are_not_taken_together(file: Path) -> None:
    keys("add", "one", file=file)
    result = runner.invoke(app, ["serve", "--api-key", "k", "--api-keys", str(file)])
    assert result.exit_code == 2
    assert "not both" in result.stderr
