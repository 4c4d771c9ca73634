"""Where a study is kept: a database that Optuna writes, a SQLite file or one named by a URL.

What Optuna and SQLAlchemy raise is translated here. A trial has one attribute of ours, ``candidate``.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from foredraft.errors import ConfigError
from foredraft_sim.errors import StorageError
from foredraft_sim.tune.search import Candidate, Search

DRIVERS: Final = {"postgresql": "'psycopg[binary]'", "mysql": "pymysql (and write mysql+pymysql://)"}
CANDIDATE: Final = "candidate"
_ASKED: Final = "asked"
_PLANNED: Final = "planned"
_BUSY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study is: the URL of a database, and the study's name in it.

    ``heartbeat_s``: how often a running trial says that it is alive; after ``grace_s`` of silence
    it counts as lost, and is tried again. Whole seconds.
    """

    url: str
    study: str
    heartbeat_s: int = 5
    grace_s: int = 20

    def __str__(self) -> str:
        """Without the password."""
        try:
            return make_url(self.url).render_as_string(hide_password=True)
        except ArgumentError:
            return self.url


def place_of(storage: str, study: str) -> Place:
    """A URL as it is, a file's name as SQLite's. Raises ConfigError where no file can be."""
    if "://" in storage:
        return Place(storage, study)
    path = Path(storage)
    if not path.parent.is_dir():
        raise ConfigError(f"--storage {storage}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigError(f"--storage {storage}: it is a folder; name a file in it, such as {path / 'study.db'}")
    return Place(f"sqlite:///{path}", study)


@contextmanager
def opened(place: Place) -> Iterator[RDBStorage]:
    """The storage, while the context lasts. Raises ConfigError where there is none, StorageError where it fails."""
    optuna.logging.set_verbosity(logging.CRITICAL)
    try:
        storage = _connected(place)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(f"storage {place}: {_driver(place)}: {error}") from error
    except ArgumentError as error:
        way = "write a file's name, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        raise ConfigError(f"storage {place}: not the URL of a database ({_first_line(error)}); {way}") from error
    except (SQLAlchemyError, RuntimeError, StorageInternalError) as error:
        raise ConfigError(
            f"storage {place} is not there: {_first_line(error)}; start the database, or name another by --storage"
        ) from error
    try:
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        kept = "finished trials are kept, and the same command goes on with them"
        raise StorageError(f"storage {place} failed: {_first_line(error)}; {kept}") from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _connected(place: Place) -> RDBStorage:
    """Two that begin at once may both make the tables: whoever comes second looks again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat has been there since 2021
        try:
            return _storage(place)
        except SQLAlchemyError as error:
            if not any(sign in str(error) for sign in ("already exists", "duplicate key")):
                raise
            return _storage(place)


def _storage(place: Place) -> RDBStorage:
    is_file = place.url.startswith("sqlite")
    storage = RDBStorage(
        place.url,
        engine_kwargs={"connect_args": {"timeout": _BUSY_S}} if is_file else {},
        heartbeat_interval=place.heartbeat_s,
        grace_period=place.grace_s,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3),
    )
    if is_file:
        event.listen(storage.engine, "connect", _quick)
        event.listen(storage.engine, "begin", _alone)
        storage.engine.dispose()  # the connection that made the tables knows nothing of it
    return storage


def _quick(connection: Any, record: object) -> None:
    """SQLite's log ahead of writing: a killed process loses nothing, and not every commit waits for the disk."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.isolation_level = None  # transactions begin as ``_alone`` says


def _alone(connection: Connection) -> None:
    """SQLite locks no rows: without this, two workers that look at once would take up the same trial."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _driver(place: Place) -> str:
    name = place.url.partition("://")[0].partition("+")[0]
    needs = DRIVERS.get(name)
    return f"needs a driver: pip install {needs}" if needs else f"no driver for {name!r}"


def _first_line(error: BaseException) -> str:
    """What the database itself said, without the library's framing."""
    said = getattr(error, "orig", None) or (error.__cause__ if isinstance(error, StorageInternalError) else None)
    said = getattr(said, "orig", None) or said or error
    return (str(said).strip().splitlines() or [type(said).__name__])[0]


def begin(storage: RDBStorage, place: Place, search: Search, trials: int) -> optuna.Study:
    """The study: a new one with its first trials in line, or the one that is there, if it was asked the same.

    In line are each policy as it comes, or all candidates where ``trials`` is enough for them. Raises ConfigError.
    """
    described = search.described()
    try:
        study = optuna.create_study(
            storage=storage, study_name=place.study, directions=["minimize"] * len(search.objectives)
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=place.study, storage=storage)
    asked = study.user_attrs.get(_ASKED, described)
    for name, value in described.items():
        if asked.get(name) != value:
            raise ConfigError(
                f"study {place.study!r} in {place} was for {name} {asked.get(name)!r}, not {value!r}; "
                "ask the same to go on with it, or name another by --study"
            )
    study.set_user_attr(_ASKED, described)
    points = search.points(trials)
    plan = search.defaults() if points is None else points
    if study.user_attrs.get(_PLANNED, 0) < len(plan):
        for point in plan:
            study.enqueue_trial(point, skip_if_exists=True)
        study.set_user_attr(_PLANNED, len(plan))
    return study


def joined(storage: RDBStorage, place: Place) -> optuna.Study:
    """The study that ``begin`` began."""
    return optuna.load_study(study_name=place.study, storage=storage)


def candidates(trials: Sequence[FrozenTrial]) -> list[Candidate]:
    """What was tried so far, failures included, in order."""
    said = [(trial.number, trial.user_attrs[CANDIDATE]) for trial in trials if _is_tried(trial)]
    return [Candidate(number, one["policy"], one["metrics"], one["failure"]) for number, one in said]


def _is_tried(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.FAIL) and CANDIDATE in trial.user_attrs


def lost(trials: Sequence[FrozenTrial]) -> int:
    """How many trials ended with their process, each of which was put in line again."""
    return sum(trial.state is TrialState.FAIL and CANDIDATE not in trial.user_attrs for trial in trials)


__all__ = ["CANDIDATE", "Place", "begin", "candidates", "joined", "lost", "opened", "place_of"]
