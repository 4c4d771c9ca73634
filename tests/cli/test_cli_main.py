"""The command itself: its verbs, its errors, and how quickly it helps."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import typer
from typer.testing import CliRunner

from foredraft.cli import main
from foredraft.errors import ConfigError, ForedraftError

runner = CliRunner()


def fails() -> None:
    """A verb that fails on purpose."""
    raise ForedraftError("the cloud fell down")


def misused() -> None:
    """A verb that was asked for nonsense."""
    raise ConfigError("no such thing")


def interrupted() -> None:
    """A verb that is interrupted."""
    raise KeyboardInterrupt


group = typer.Typer(help="A group of verbs.")


@group.callback()
def group_callback() -> None:
    """A group of verbs."""


@group.command()
def inner() -> None:
    """A verb in a group."""
    typer.echo("inner ran")


@pytest.fixture
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs of another package, beside one that cannot be imported."""
    homes = {name: f"{__name__}:{name}" for name in ("fails", "misused", "interrupted", "group")}
    sys.modules.setdefault(__name__, sys.modules[fails.__module__])
    points = EntryPoints(EntryPoint(name, home, main.GROUP) for name, home in homes.items())
    points = EntryPoints([*points, EntryPoint("broken", "no_such_package:verb", main.GROUP)])
    monkeypatch.setattr(main, "entry_points", lambda group: points)


def test_help_lists_every_verb_and_imports_no_torch() -> None:
    program = """
import sys
from foredraft.cli.main import app
try:
    app(["--help"], prog_name="foredraft")
except SystemExit as done:
    print("exit", done.code, {"torch", "transformers", "aiohttp", "matplotlib"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for verb in ("bench", "demo", "exits", "generate", "models", "serve"):
        assert f" {verb} " in done.stdout
    assert "exit 0 set()" in done.stdout


def test_an_unknown_verb_names_the_nearest() -> None:
    result = runner.invoke(main.app, ["generat"])
    assert result.exit_code == 2
    assert "unknown verb 'generat': did you mean 'generate'?" in result.stderr


@pytest.mark.usefixtures("_verbs")
@pytest.mark.parametrize(
    ("verb", "code", "message"),
    [
        ("fails", 1, "error: the cloud fell down"),
        ("misused", 2, "error: no such thing"),
        ("interrupted", 130, "interrupted"),
        ("broken", 1, "'broken' (no_such_package:verb) cannot be loaded: No module named 'no_such_package'"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(verb: str, code: int, message: str) -> None:
    result = runner.invoke(main.app, [verb])
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("_verbs")
def test_a_typer_app_is_a_group_of_verbs() -> None:
    assert runner.invoke(main.app, ["group", "inner"]).stdout == "inner ran\n"


@pytest.mark.usefixtures("_verbs")
def test_a_verb_that_cannot_be_loaded_does_not_spoil_the_help() -> None:
    result = runner.invoke(main.app, ["--help"])
    assert result.exit_code == 0
    assert "Not available: No module named 'no_such_package'" in result.stdout


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert runner.invoke(main.app, ["--version"]).stdout == f"foredraft {version('foredraft')}\n"
