"""The same scenario and seed is the same event log, byte for byte, in every process."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foredraft_sim.scenario.replications import replicate
from sim.scenario.scenario_files import scenario, workload, write

NOISY = (
    "[pair]",
    """[link.override]
up = { jitter_s = 0.02, rate_bps = 20_000.0, queue_bytes = 400 }
loss = { good_s = 5.0, bad_s = 0.5, bad_loss = 0.5, rto_s = 0.2, rto_max_s = 3.0 }
outages = [{ start_s = 4.0, duration_s = 0.7, cuts = true }]
[pair]""",
)
FLEET = workload(
    prompt_tokens=8, new_tokens=16, devices=4, requests=6, arrivals='{ kind = "poisson", rate_per_s = 1.0 }'
)
PROGRAM = """
import hashlib, sys
from pathlib import Path
waste = [object() for _ in range(int(sys.argv[2]))]  # other allocations, other addresses
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import read_scenario
for policy in ("cloud", "sync", "seed", "ahead", "auto"):
    print(policy, hashlib.sha256(replicate(read_scenario(Path(sys.argv[1])), policy, 1, log=True).log).hexdigest())
"""


def digests(file: Path, waste: str, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), waste],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_event_log_is_the_same_in_other_processes_hash_seeds_and_after_other_allocations(tmp_path: Path) -> None:
    file = write(tmp_path, NOISY, FLEET)
    first = digests(file, "0", "1")
    assert first.count("\n") == 5
    assert digests(file, "54321", "2") == first


def test_another_seed_is_another_log(tmp_path: Path) -> None:
    read = scenario(tmp_path, NOISY, FLEET)
    logs = [replicate(read, "seed", seed, log=True).log for seed in (1, 2, 1)]
    assert logs[0] == logs[2] != logs[1]


GOLDEN = {
    "cloud": "9fec9b7a1d2d2daa",
    "sync": "f42bfff55c1996f0",
}


@pytest.mark.parametrize("policy", GOLDEN)
def test_the_log_is_the_one_that_it_was(tmp_path: Path, policy: str) -> None:
    """A golden digest. When a change of the protocol, a policy or the devices is meant, it changes here, too."""
    log = replicate(scenario(tmp_path), policy, 1, log=True).log
    assert hashlib.sha256(log).hexdigest()[:16] == GOLDEN[policy]
