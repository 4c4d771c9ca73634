"""Storages that are there, and those that are not: each says what is wrong and the way out."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from foredraft.errors import ConfigError
from foredraft_sim.errors import StorageError
from foredraft_sim.tune.storage import CANDIDATE, Place, begin, joined, opened, place_of
from sim.tune.tuning import place, search, study


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("none/study.db", "there is no folder none"),
        ("sqlite:////none/at/all/study.db", "is not there: unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:1/db", "is not there: .*start the database"),
        ("mysql://me:secret@127.0.0.1:1/db", r"needs a driver: pip install pymysql"),
        ("nosuch://somewhere", "no driver for 'nosuch'"),
        ("://", "not the URL of a database"),
    ],
)
def test_a_storage_that_is_not_there_is_one_clear_error(storage: str, said: str) -> None:
    if storage.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(ConfigError, match=said) as raised, opened(place_of(storage, "study")):
        pass
    assert "secret" not in str(raised.value)


def test_a_folder_is_no_storage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is a folder; name a file in it"):
        place_of(str(tmp_path), "study")


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes, " * 100)
    with pytest.raises(ConfigError, match="file is not a database"), opened(place_of(str(file), "study")):
        pass
    assert file.read_text() == "these are my notes, " * 100


def test_a_storage_that_goes_away_says_that_finished_trials_are_kept(tmp_path: Path) -> None:
    where = place(tmp_path)
    study(search(tmp_path), where, 1)

    def lose_it_while_it_is_open() -> None:
        with opened(where) as storage:
            there = joined(storage, where)
            for name in ("study.db", "study.db-wal", "study.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)
            storage.engine.dispose()
            there.set_user_attr("any", 1)

    with pytest.raises(StorageError, match="finished trials are kept"):
        lose_it_while_it_is_open()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_no_trial_is_taken_up_twice(tmp_path: Path) -> None:
    where, asked, both = (
        place(tmp_path),
        search(tmp_path, policies=("sync", "seed:threshold=0.5")),
        threading.Barrier(2),
    )
    with opened(where) as storage:
        begin(storage, where, asked, 32)

    def take(_: int) -> list[int]:
        with opened(where) as storage:
            there = joined(storage, where)
            both.wait()
            return [there.ask().number for _ in range(16)]

    with ThreadPoolExecutor(2) as pool:
        taken = [number for numbers in pool.map(take, range(2)) for number in numbers]
    assert sorted(taken) == list(range(32))


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of our own, on a socket in a temporary folder."""
    pytest.importorskip("psycopg", reason="needs psycopg")
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path(shutil.which("initdb") or "none").parent]
    programs = next((folder for folder in found if (folder / "initdb").exists()), None)
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = None
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        user = "postgres"
        shutil.chown(folder, user)
    data, environment = folder / "data", os.environ | {"LC_ALL": "C"}
    try:
        for command in (
            ["initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            ["pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", f"-k {folder} -h '' -F", "start"],
        ):
            line = [str(programs / str(command[0])), *map(str, command[1:])]
            subprocess.run(line, check=True, user=user, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        subprocess.run(
            [programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
            user=user,
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        shutil.rmtree(folder)


@pytest.mark.timeout(240)
def test_a_study_in_postgresql_is_shared_by_two_workers_and_gone_on_with(tmp_path: Path, postgres: str) -> None:
    where = Place(postgres, "test", 1, 2)
    found = study(search(tmp_path), where, 20, workers=2)
    assert 20 <= len(found) <= 21
    again = study(search(tmp_path), where, 23)
    assert again[: len(found)] == found
    with opened(where) as storage:
        study_there = begin(storage, where, search(tmp_path), 33)
        assert len({trial.user_attrs[CANDIDATE]["by"] for trial in study_there.get_trials(deepcopy=False)}) >= 2
