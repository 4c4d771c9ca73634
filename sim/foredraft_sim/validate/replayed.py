"""One more run of each session, recorded, and what its record makes of it in simulated time.

A replay has the durations of the run's own calls and of its link. So what it is off by is the simulation's own, however
the speed of the machine has changed since its profiles were made.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from foredraft.observe.record.reading import read_record
from foredraft_sim.replay.replay import replay
from foredraft_sim.validate.plan import SEED, Plan
from foredraft_sim.validate.sessions import Profiles, Stage, scenario_of
from foredraft_sim.validate.verdict import Pair


def recorded_and_replayed(
    plan: Plan, running: Stage, profiles: Profiles, tell: Callable[[str, float], None]
) -> list[Pair]:
    """Each session to report on, once, with its replay. Raises ForedraftError.

    ``tell`` is told what is being done, and which share of it is behind.
    """
    asked = list(product(plan.ways, plan.policies, range(len(plan.report_prompts))))
    scenario = scenario_of(plan, profiles, next(iter(plan.ways)), plan.report_prompts)
    pairs: list[Pair] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "session.rec"
        for way, policy, number in asked:
            tell(f"recording and replaying {policy} over {way}", len(pairs) / len(asked))
            seed = scenario.sampling(SEED, number).seed
            one = running.run(way, policy, plan.report_prompts, number, seed=seed, record=path)
            said = replay(read_record(path)).replayed
            again = replace(one, ttft_s=said["ttft_s"], tpot_s=said["tpot_s"], e2e_s=said["e2e_s"])
            pairs.append((one, again))
            path.unlink()
    return pairs
