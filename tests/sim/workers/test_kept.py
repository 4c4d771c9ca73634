"""What is finished is kept in a folder: a second run takes it, makes the rest, and comes to what one run makes."""

import pickle
import resource
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from foredraft_sim.errors import ScenarioError, StorageError, WorkersError
from foredraft_sim.workers import storage as storage_module
from foredraft_sim.workers.processes import Processes
from foredraft_sim.workers.storage import Storage, sources_of
from sim.workers.keeping import keeping, kept_in, summary
from sim.workers.tasks import killed_at_each_try, last_first, noted, refused_at_two_but_noted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_a_second_run_takes_what_is_there_and_runs_only_the_rest(tmp_path: Path, folder: Path) -> None:
    log = tmp_path / "log"
    for tasks, ran in ((range(3), "0\n1\n2\n"), (range(1, 6), "0\n1\n2\n3\n4\n5\n")):
        with keeping(folder) as (workers, _):
            assert list(workers.map(noted, log, tasks)) == [task / 3 for task in tasks]
        assert log.read_text() == ran


def test_what_is_missing_between_results_that_are_there_is_run_and_all_come_in_order(
    tmp_path: Path, folder: Path
) -> None:
    log = tmp_path / "log"
    with keeping(folder) as (workers, _):
        list(workers.map(noted, log, [1, 3, 6]))
    with keeping(folder) as (workers, storage):
        assert list(workers.map(noted, log, range(8))) == [task / 3 for task in range(8)]
    assert storage.summary() == summary(folder, 3, 5)
    assert log.read_text().split() == ["1", "3", "6", "0", "2", "4", "5", "7"]


def test_what_is_there_comes_before_anything_runs(tmp_path: Path, folder: Path) -> None:
    log = tmp_path / "log"
    with keeping(folder) as (workers, _):
        list(workers.map(noted, log, range(2)))
        log.unlink()
        assert list(islice(workers.map(noted, log, count()), 2)) == [0.0, 1 / 3]
    assert not log.exists()


def test_what_is_done_before_its_turn_is_kept_before_its_turn(tmp_path: Path, folder: Path) -> None:
    with Processes(2) as two, keeping(folder, two) as (workers, _):
        done = workers.as_done(last_first, tmp_path / "log", range(3))
        assert [next(done)[0] for _ in range(3)] == [1, 2, 0]
    assert len(kept_in(folder)) == 3


def test_what_is_refused_is_not_kept_and_what_was_done_before_it_is(tmp_path: Path, folder: Path) -> None:
    with Processes(1) as one, keeping(folder, one) as (workers, _), pytest.raises(ScenarioError, match="two is too"):
        list(workers.map(refused_at_two_but_noted, tmp_path / "log", range(3)))
    assert len(kept_in(folder)) == 2


def test_where_processes_die_the_line_says_how_much_is_kept(folder: Path) -> None:
    with (
        Processes(1) as one,
        keeping(folder, one) as (workers, _),
        pytest.raises(WorkersError, match=rf"died 4 times at the same tasks .*; 1 result\(s\) are kept in {folder}$"),
    ):
        list(workers.map(killed_at_each_try, None, range(3)))


class _Code:
    """As a pickle it would make a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self._file,)


def spoiled(how: str, data: bytes, ran: Path) -> bytes:
    if how == "cut off":
        return data[:-1]
    if how == "empty":
        return b""
    if how == "a bit is another":
        return data[:-1] + bytes([data[-1] ^ 1])
    other = pickle.dumps(_Code(ran)) if how == "a pickle" else b"\xa3abc"
    return other if how == "a pickle" else sha256(other).digest() + other


@pytest.mark.parametrize("how", ["cut off", "empty", "a bit is another", "a pickle", "another type of result"])
def test_a_file_that_is_no_result_is_made_again_and_counted_and_never_run(
    tmp_path: Path, folder: Path, how: str
) -> None:
    with keeping(folder) as (workers, _):
        list(workers.map(noted, tmp_path / "log", range(3)))
    file = kept_in(folder)[1]
    right = file.read_bytes()
    file.write_bytes(spoiled(how, right, tmp_path / "ran"))
    (folder / "notes.txt").write_text("of somebody")
    with keeping(folder) as (workers, storage):
        assert list(workers.map(noted, tmp_path / "log", range(3))) == [0.0, 1 / 3, 2 / 3]
    assert storage.summary() == summary(folder, 2, 1, " (1 were damaged)")
    assert file.read_bytes() == right
    assert not (tmp_path / "ran").exists()


def test_a_disk_that_takes_no_more_ends_the_run_and_keeps_what_there_is(tmp_path: Path, folder: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    with keeping(folder) as (workers, _):
        done = workers.map(noted, tmp_path / "log", range(3))
        next(done)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, usual[1]))
        try:
            with pytest.raises(StorageError) as refused:
                next(done)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert f"File too large; 1 result(s) are kept in {folder}: make room, and run the same" in str(refused.value)
    assert len(list(folder.iterdir())) == 1


def test_another_build_takes_nothing_of_this_one_s(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(folder) as (workers, _):
        list(workers.map(noted, tmp_path / "log", range(3)))
        monkeypatch.setattr(storage_module, "build", lambda: "Foredraft 0.1.0")
    with keeping(folder) as (workers, storage):
        list(workers.map(noted, tmp_path / "log", range(3)))
    assert storage.summary() == summary(folder, 0, 3)


POLICY = """
from foredraft.policies.sync import SyncPolicy
from {helper} import FIRST

class Mine(SyncPolicy):
    pass
"""


def test_of_a_policy_of_one_s_own_the_code_counts_and_that_beside_it(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, helper = tmp_path / "policy_of_a_test.py", tmp_path / "helper_of_a_test.py"
    mine.write_text(POLICY.format(helper=helper.stem))
    helper.write_text("FIRST = 1")
    monkeypatch.syspath_prepend(tmp_path)
    policies = ["sync", "seed:gamma=2", f"{mine.stem}:Mine"]
    assert sources_of(policies[:2]) == []
    assert sources_of(policies) == [helper, mine]

    def name() -> str:
        return Storage(folder, sources_of(policies)).names(noted, tmp_path)(1)

    first = name()
    assert name() == first
    helper.write_text("FIRST = 2")
    assert name() != first
