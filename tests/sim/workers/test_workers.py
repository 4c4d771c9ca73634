"""Tasks here and in processes: in order, without end, and whatever happens to the processes."""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from foredraft.errors import ConfigError, ForedraftError
from foredraft.profiles.lookup import shipped_profiles
from foredraft_sim.workers import workers as workers_module
from foredraft_sim.workers.processes import Processes
from foredraft_sim.workers.workers import AHEAD, Here, Workers, build, opened
from sim.workers.tasks import added, killed_at_each_try, killed_once_at_two, refused_at_two, whose


@pytest.fixture(scope="module", params=[1, 2])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    with opened(request.param, "", worth=1) as found:
        yield found


def test_results_come_in_the_order_of_the_tasks(workers: Workers) -> None:
    assert list(workers.map(added, 100, range(40))) == list(range(100, 140))


def test_there_may_be_no_end_of_tasks_and_no_more_of_them_are_taken_than_wait(workers: Workers) -> None:
    taken = count()
    assert list(islice(workers.map(added, 0, taken), 5)) == [0, 1, 2, 3, 4]
    assert next(taken) <= AHEAD + 5


def test_there_may_be_no_task(workers: Workers) -> None:
    assert list(workers.map(added, 0, [])) == []


def test_what_a_task_raises_on_purpose_is_said_and_what_was_done_before_it_is_there(workers: Workers) -> None:
    done = workers.map(refused_at_two, None, range(9))
    assert [next(done), next(done)] == [0, 1]
    with pytest.raises(ConfigError, match="two is too many"):
        next(done)
    assert list(workers.map(added, 1, [1])) == [2]


def test_a_process_that_is_killed_costs_its_task_a_second_try(tmp_path: Path) -> None:
    mark = tmp_path / "killed"
    with Processes(2) as workers:
        assert list(workers.map(killed_once_at_two, mark, range(6))) == [0, 10, 20, 30, 40, 50]
    assert mark.exists()


def test_a_task_that_kills_each_process_is_given_up_and_what_was_done_before_it_is_there() -> None:
    with Processes(1) as workers:
        done = workers.map(killed_at_each_try, None, range(3))
        assert next(done) == 0
        with pytest.raises(
            ForedraftError, match=r"died 4 times at the same tasks \(out of memory\?\); go on with fewer"
        ):
            next(done)
        assert list(workers.map(added, 1, [1])) == [2]


def test_as_many_processes_as_pay_where_nothing_is_said(tmp_path: Path) -> None:
    with opened(None, "", worth=1) as alone, opened(None, "", worth=3) as several:
        assert isinstance(alone, Here)
        assert (several.count, len(set(several.map(whose, None, range(20))))) >= (3, 1)


def test_a_scheduler_has_its_own_workers() -> None:
    with pytest.raises(ConfigError, match=r"--scheduler tcp://127.0.0.1:1 has its own workers: leave the number"):
        opened(2, "tcp://127.0.0.1:1", worth=1)


def test_a_build_with_another_shipped_profile_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, shipped = build.__wrapped__(), shipped_profiles()
    assert build.__wrapped__() == before
    changed = tmp_path / "robot.toml"
    changed.write_text(shipped["robot"].read_text() + "\n")
    monkeypatch.setattr(workers_module, "shipped_profiles", lambda: shipped | {"robot": changed})
    assert build.__wrapped__() != before
