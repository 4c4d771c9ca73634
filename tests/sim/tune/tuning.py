"""What the tests of tuning share: a small study of a small scenario."""

from pathlib import Path
from typing import Any

from foredraft_sim.tune.search import Search
from foredraft_sim.tune.storage import Place, begin, candidates, opened
from foredraft_sim.tune.work import Job, run
from sim.scenario.scenario_files import scenario, workload

SHORT = workload(prompt_tokens=8, new_tokens=16)


def search(folder: Path, **other: Any) -> Search:
    """Seed policies on the robot, 16 tokens, one seed; anything of it may be given."""
    given: dict[str, Any] = {
        "scenario": scenario(folder, SHORT),
        "policies": ("seed",),
        "objectives": ("p50-e2e",),
        "limits": {},
        "seeds": (1,),
    }
    return Search(**(given | other))


def place(folder: Path, **other: Any) -> Place:
    """A file in the folder; lost trials are noticed soon."""
    given: dict[str, Any] = {"heartbeat_s": 1, "grace_s": 2}
    return Place(f"sqlite:///{folder / 'study.db'}", "test", **(given | other))


def study(asked: Search, where: Place, trials: int, workers: int = 1) -> list[Any]:
    """All candidates of a study, run to its end."""
    with opened(where) as storage:
        begin(storage, where, asked, trials)
    run(Job(asked, where, trials), workers, lambda done: None)
    with opened(where) as storage:
        return candidates(begin(storage, where, asked, trials).get_trials(deepcopy=False))
