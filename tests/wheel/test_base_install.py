"""The wheel in an environment with the base packages alone: what works there works, and what does not says why.

The environment is built from what this one has: the base packages are linked into it, so nothing is fetched.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from foredraft.errors import EXTRA_OF
from paths import ROOT, SCENARIOS
from wheel.base_packages import base_packages, closure

PYTEST = ("pytest",)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment: the wheel, its base packages and pytest."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("foredraft-*.whl")
    home = folder / "env"
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    for found in closure([*base_packages(), *PYTEST]).values():
        for file in {path.parts[0] for path in found.files or () if path.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(found.locate_file(file)))
            if not (site / file).exists():
                (site / file).symlink_to(source)
    install = [*pip, "--python", str(home / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return home / "bin"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with the bundled target, in the full environment."""
    command = [sys.executable, "-m", "foredraft", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.terminate()


def run(base: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    home = {"XDG_CACHE_HOME": str(base.parent / "cache"), "XDG_CONFIG_HOME": str(base.parent / "config")}
    command = [str(base / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=clean | home)


def test_no_package_of_an_extra_is_there(base: Path) -> None:
    looking = f"import importlib.util as u; print([p for p in {sorted(EXTRA_OF)} if u.find_spec(p)])"
    assert run(base, "python", "-c", looking).stdout.strip() == "[]"


def test_every_verb_helps(base: Path) -> None:
    assert run(base, "foredraft", "--version").stdout.startswith("foredraft ")
    looking = "from importlib.metadata import entry_points as e; print(*e(group='foredraft.verbs').names)"
    for verb in run(base, "python", "-c", looking).stdout.split():
        done = run(base, "foredraft", verb, "--help")
        assert done.returncode == 0, done.stderr
        assert "Not available" not in done.stdout


def test_a_text_is_generated_by_lookup_with_a_server(base: Path, url: str) -> None:
    asked = ("--server", url, "--draft", "ngram", "--prompt", "def main():", "--max-new-tokens", "12", "--json")
    done = run(base, "foredraft", "generate", *asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new_tokens"] == 12


def test_a_scenario_is_simulated(base: Path) -> None:
    done = run(base, "foredraft", "simulate", str(SCENARIOS / "robot.toml"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_the_pytest_plugin_runs_a_test_in_simulated_time(base: Path, tmp_path: Path) -> None:
    (tmp_path / "test_time.py").write_text(
        "import asyncio, pytest\n"
        "@pytest.mark.simulated\n"
        "async def test_an_hour():\n"
        "    await asyncio.sleep(3600.0)\n"
        "    assert asyncio.get_running_loop().time() == 3600.0\n",
        encoding="utf-8",
    )
    done = run(base, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


REFUSALS = [
    ("torch", ["serve"]),
    ("torch", ["demo"]),
    ("torch", ["generate", "--server", "URL", "--draft", "demo", "--prompt", "x"]),
    ("gguf", ["generate", "--server", "URL", "--draft", "model.gguf", "--prompt", "x"]),
    ("llama-server", ["generate", "--server", "URL", "--draft", "llama-server:http://127.0.0.1:9", "--prompt", "x"]),
    ("torch", ["exits", "train", "--model", "m", "--text", "t", "--layers", "1", "--out", "o"]),
    ("torch", ["profile", "device", "--name", "x"]),
    ("torch", ["simulate", str(SCENARIOS / "bundled-pair.toml")]),
    ("torch", ["bench", "engine"]),
    ("torch", ["validate", "--out", "."]),
    ("openai", ["chat", "--server", "URL"]),
    ("tune", ["tune", str(SCENARIOS / "robot.toml"), "--trials", "2"]),
]


@pytest.mark.parametrize(("extra", "words"), REFUSALS, ids=[" ".join(words[:2]) for _, words in REFUSALS])
def test_what_needs_an_extra_names_it_in_a_line(
    base: Path, url: str, tmp_path: Path, extra: str, words: list[str]
) -> None:
    done = run(base, "foredraft", *[url if word == "URL" else word for word in words], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].endswith(f"pip install 'foredraft[{extra}]'"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("torch", "from foredraft.api.cloud import Cloud; Cloud.load()"),
        ("torch", "from foredraft.api.loading import ModelOptions, load_drafter; load_drafter('demo', ModelOptions())"),
        ("pictures", "from foredraft.observe.picture import draw; draw([], None, title='', caption='', width_s=1.0)"),
    ],
)
def test_the_api_names_the_extra_in_an_error_of_foredraft(base: Path, extra: str, line: str) -> None:
    done = run(base, "python", "-c", line)
    assert "MissingExtraError: this needs" in done.stderr
    assert done.stderr.strip().endswith(f"pip install 'foredraft[{extra}]'")
