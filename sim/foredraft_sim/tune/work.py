"""Trying candidates until there are enough of them: in this process, or in several that share the storage.

A worker looks at the storage before each trial, so that any number of them, here or on other machines,
make one study. One that is killed leaves a running trial behind, which falls silent and is tried again.
"""

import multiprocessing
import os
import platform
import signal
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import TrialState

from foredraft.errors import ForedraftError
from foredraft_sim.errors import ScenarioError
from foredraft_sim.streams import key
from foredraft_sim.tune.search import Candidate, Search
from foredraft_sim.tune.storage import CANDIDATE, Place, candidates, joined, opened

Tell = Callable[[Sequence[Candidate]], None]
"""Told all candidates that there are so far."""

Measure = Callable[[str], Mapping[str, float]]
"""The metrics of a policy. Raises ScenarioError where it cannot be run to its end."""

_LOOK_S: Final = 0.25
_DEATHS: Final = 3


class _FailedError(Exception):
    """A candidate that could not be run to its end; the reason is in the trial."""


@dataclass(frozen=True, slots=True)
class Job:
    """One worker's: what is searched, where it is kept, how many candidates there are to be."""

    search: Search
    place: Place
    trials: int
    worker: int = 0


def run(job: Job, workers: int, tell: Tell) -> None:
    """Try until there are ``job.trials`` candidates. Raises StorageError, ConfigError, ForedraftError."""
    if workers == 1:
        work(job, tell)
    else:
        _in_processes(job, workers, tell)


def work(job: Job, tell: Tell, measure: Measure | None = None) -> None:
    """One worker, in this process. ``measure``: in the place of the search's own."""
    with opened(job.place) as storage:
        study = joined(storage, job.place)
        study.sampler = _sampler(job, len(study.get_trials(deepcopy=False)))
        idle_s = 0.0
        while not _orphaned():
            trials = study.get_trials(deepcopy=False)
            done = candidates(trials)
            tell(done)
            if len(done) >= job.trials:
                return
            running = sum(trial.state is TrialState.RUNNING for trial in trials)
            if len(done) + running >= job.trials and idle_s <= 1.5 * job.place.grace_s:
                threading.Event().wait(_LOOK_S)  # others have taken the last ones up; should they die, we go on
                idle_s += _LOOK_S
                _give_up_silent(study)
                continue
            idle_s = 0.0
            try:
                study.optimize(
                    partial(_try, job.search, measure or job.search.measure, study, done),
                    n_trials=1,
                    catch=(_FailedError,),
                )
            except (UpdateFinishedTrialError, ValueError) as error:
                if isinstance(error, ValueError) and "Cannot tell" not in str(error):
                    raise
                # others took us for dead and try it again, or have done so


def _sampler(job: Job, before: int) -> optuna.samplers.BaseSampler:
    """Its luck is its own, and another after a resumption: the same draws again would be the same candidates."""
    seed = key(job.search.seeds[0], f"worker {job.worker} after {before} trials") % (1 << 32)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _give_up_silent(study: optuna.Study) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _try(
    search: Search, measure: Measure, study: optuna.Study, done: Sequence[Candidate], trial: optuna.Trial
) -> list[float]:
    """One candidate; one that was tried before is not run again."""
    policy = search.suggested(trial)
    known = next((one for one in done if one.policy == policy), None)
    try:
        one = replace(known, number=trial.number) if known else _measured(measure, policy, trial.number)
    except KeyboardInterrupt:
        study.enqueue_trial(trial.params)
        raise
    said = {"policy": policy, "metrics": dict(one.metrics), "failure": one.failure}
    trial.set_user_attr(CANDIDATE, said | {"by": f"{platform.node()} {os.getpid()}"})
    if one.failure:
        raise _FailedError
    for name, share in search.excess(one.metrics).items():
        trial.set_constraint(name, share)
    return list(search.values(one))


def _measured(measure: Measure, policy: str, number: int) -> Candidate:
    try:
        return Candidate(number, policy, measure(policy))
    except ScenarioError as error:
        return Candidate(number, policy, {}, str(error))


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


class _Workers:
    """Processes, each with a pipe for what goes wrong."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._context = multiprocessing.get_context("spawn")
        self._begun = 0
        self._running: dict[BaseProcess, Connection] = {}

    def begin(self) -> None:
        """One more."""
        ours, theirs = self._context.Pipe(duplex=False)
        job = replace(self._job, worker=self._begun)
        self._begun += 1
        process = self._context.Process(target=_begin, args=(job, theirs), daemon=True)
        process.start()
        theirs.close()
        self._running[process] = ours

    def ended(self, timeout_s: float) -> list[tuple[int, str]]:
        """Exit codes and messages of those that have ended; waits a while for one."""
        wait([process.sentinel for process in self._running], timeout_s)
        gone = [process for process in self._running if not process.is_alive()]
        said = []
        for process in gone:
            pipe = self._running.pop(process)
            message = ""
            with suppress(EOFError, OSError):
                message = pipe.recv()
            pipe.close()
            process.join()
            said.append((process.exitcode or 0, message))
        return said

    def __len__(self) -> int:
        return len(self._running)

    def stop(self) -> None:
        """End them; what they were at is put in line again."""
        for process in self._running:
            process.terminate()
        for process, pipe in self._running.items():
            process.join()
            pipe.close()


def _begin(job: Job, pipe: Connection) -> None:
    """A worker process. Ctrl-C is the parent's to hear; it ends workers by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work(job, lambda done: None)
    except ForedraftError as error:
        pipe.send(str(error))
        os._exit(error.exit_code)
    except KeyboardInterrupt:
        os._exit(130)


def _in_processes(job: Job, count: int, tell: Tell) -> None:
    workers, deaths = _Workers(job), 0
    try:
        for _ in range(count):
            workers.begin()
        with opened(job.place) as storage:
            study = joined(storage, job.place)
            while len(workers):
                for code, message in workers.ended(_LOOK_S):
                    if message:
                        raise ForedraftError(message)
                    if code > 0:
                        raise ForedraftError(f"a worker ended with code {code}; why is said above")
                    if code < 0:
                        deaths += 1
                        workers.begin()
                tell(candidates(study.get_trials(deepcopy=False)))
                if deaths > _DEATHS * count:
                    raise ForedraftError(
                        f"{deaths} workers were killed before their trials ended (out of memory?); finished trials "
                        "are kept; go on with fewer --workers"
                    )
    finally:
        workers.stop()


__all__ = ["Job", "Tell", "run", "work"]
