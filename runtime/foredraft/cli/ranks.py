"""The ranks of ``foredraft serve --tensor-parallel N``: where they come from, and how they end.

Whoever started the ranks already, torchrun or Slurm, is taken at their word; else torchrun's own launcher
(torch.distributed.elastic) starts them here, and ends them all when one ends.
"""

import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from foredraft.api.loading import ModelOptions, load_target
from foredraft.errors import ConfigError, ForedraftError, extras_named

_SLURM_PORT = 20_000
_FOUND_WITHIN_S = 5
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_THREADS = "OMP_NUM_THREADS"


def is_launched(count: int) -> bool:
    """Whether this process is one of ``count`` ranks that somebody started; Slurm's names are translated.

    Raises ConfigError where they are not as many.
    """
    env = os.environ
    if "RANK" not in env and int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env:
        env.update(RANK=env["SLURM_PROCID"], WORLD_SIZE=env["SLURM_NTASKS"])
        env.setdefault("LOCAL_RANK", env.get("SLURM_LOCALID", "0"))
        env.setdefault("MASTER_ADDR", first_node(env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]))
        env.setdefault("MASTER_PORT", str(_SLURM_PORT + int(env.get("SLURM_JOB_ID", "0")) % 10_000))
    if "RANK" not in env:
        return False
    if env.get("WORLD_SIZE") != str(count):
        raise ConfigError(f"{env.get('WORLD_SIZE')} ranks were started, not the {count} of --tensor-parallel")
    return True


def first_node(nodes: str) -> str:
    """The first of Slurm's list of nodes: ``gpu07`` of ``gpu[07-08],gpu11``."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).partition(",")[0]


def launch(count: int) -> None:
    """Run this command as ``count`` ranks on this machine until rank 0 ends.

    Raises ForedraftError where one ended before its time, typer.Exit where rank 0 said why itself.
    """
    with extras_named():
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, launch_agent

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # what ended is said below, in a line
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault(_THREADS, str(max((os.cpu_count() or 1) // count, 1)))
    with tempfile.TemporaryDirectory(prefix="foredraft-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            # What the others have to say, rank 0 says as well; what ends them comes in a file of its own.
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=dict.fromkeys(range(1, count), Std.ALL)),
        )
        try:
            launch_agent(config, sys.executable, ["-m", "foredraft", *sys.argv[1:]])
        except ChildFailedError as error:
            rank = cause(error.failures)
            failure = error.failures[rank]
            if rank == 0 and failure.exitcode > 0:
                raise typer.Exit(failure.exitcode) from error
            raise ForedraftError(f"rank {rank} of {count} ended, and the server with it: {failure.message}") from error
        except SignalException:
            pass


def cause(failures: Mapping[int, Any]) -> int:
    """The rank that ended first, of those that failed (torch's ``ProcessFailure``), by rank.

    A rank that was killed left no word of when, and is dated by whoever found it: it comes before those that then
    lost it and said so. The launcher itself ends ranks with SIGTERM, and much later those that do not go.
    """
    first = min(failures, key=lambda rank: failures[rank].timestamp)
    for rank, failure in failures.items():
        found_s = failure.timestamp - failures[first].timestamp
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM and found_s <= _FOUND_WITHIN_S:
            return rank
    return first


def follow(model: str, exits: Path | None, options: ModelOptions, cache_gib: float) -> bool:
    """Run what rank 0 runs, until it ends, and say True; on rank 0 do nothing."""
    if int(os.environ["RANK"]) == 0:
        return False
    from foredraft.engines.following import follow as follow_to_the_end

    cache_bytes = int(cache_gib * (1 << 30))
    target, _ = load_target(model, exits, replace(options, pace=""), cache_bytes=cache_bytes, max_slots=1)
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 sees its sessions off first
        signal.signal(number, signal.SIG_IGN)
    follow_to_the_end(target)
    return True


@contextmanager
def failures_told() -> Iterator[None]:
    """Within, what ends this rank is left where the launcher looks for it."""
    try:
        yield
    except Exception as error:
        if file := os.environ.get(_ERROR_FILE):
            reason = str(error) if isinstance(error, ForedraftError) else f"{type(error).__name__}: {error}"
            Path(file).write_text(json.dumps({"message": reason, "timestamp": int(time.time())}), encoding="utf-8")
        raise
