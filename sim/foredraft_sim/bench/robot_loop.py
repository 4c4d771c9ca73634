"""A robot that sees, from view to plan: how often it arrives, and how long a decision takes.

The pair with eyes that comes with the package, in the worlds that it was not trained on.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import foredraft
from foredraft.api.emulated_pair import emulated_pair
from foredraft.api.points import ROBOT_5
from foredraft.api.robot_planner import RobotPlanner, Walk, plan_rule
from foredraft.bench.result import Figure, Result
from foredraft.loop import new_event_loop
from foredraft.robot.world import make_world
from foredraft.text.constraint import Constraint
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.world.connect import connect as connect_simulated

MODEL: Final = "demo-robot"
POLICIES: Final = ("cloud", "sync:gamma=4", "seed:gamma=4", "auto")
BOUNDS: Final = {"seed:gamma=4": 0.80, "auto": 0.60}
"""Of a decision's time over the cloud's; the seed's paper has 0.79."""

SEEDS_ROBOT: Final = Path(__file__).with_name("robot.toml")
HELD_OUT: Final = 200
AT_ONCE: Final = 16
PACED_WORLDS: Final = (7, 12)
SIMULATED_WORLDS: Final = range(20)
"""Numbers of worlds that nothing was trained on."""

_T = TypeVar("_T")


def success(worlds: int = HELD_OUT) -> Result:
    """How many of the held-out worlds the target walks to the end; and how many blind."""
    shares = _run(_shares(worlds))
    return Result(
        "success",
        f"{worlds} worlds that nothing was trained on, greedy, answers held to the form of a plan; the same for "
        "every policy, since the text is the same",
        (
            Figure("worlds walked to the end", shares["sees"], "of all", 0.80, at_least=True),
            Figure("the same, shown grey", shares["blind"], "of all"),
        ),
    )


async def _shares(worlds: int) -> dict[str, float]:
    found = {}
    async with foredraft.Cloud.load(MODEL) as cloud, foredraft.connect(cloud) as edge:
        card, places = await edge.chat_card(), asyncio.Semaphore(AT_ONCE)
        for name, blind in (("sees", False), ("blind", True)):
            planner = RobotPlanner(edge, card, rule=plan_rule(), blind=blind, policy="cloud")

            async def walk(number: int, planner: RobotPlanner = planner) -> bool:
                async with places:
                    return (await planner.walk(make_world(number))).end.succeeded

            found[name] = sum(await asyncio.gather(*map(walk, range(worlds)))) / worlds
    return found


def paced() -> Result:
    """Time per decision over the cloud alone, on the wall clock, with and without the form of a plan."""
    figures: list[Figure] = []
    for form, rule in (("any answer", None), ("held to the form", plan_rule())):
        walks = {policy: _run(_paced(policy, rule)) for policy in POLICIES}
        _check_equal(walks)
        figures += _figures(form, walks, bounds=BOUNDS if rule is None else {})
    return Result("paced", f"worlds {PACED_WORLDS}, two processes. {ROBOT_5.says}", tuple(figures))


async def _paced(policy: str, rule: Constraint | None) -> list[Walk]:
    async with emulated_pair(MODEL, None, MODEL, ROBOT_5) as (edge, _):
        planner = RobotPlanner(edge, await edge.chat_card(), rule=rule, policy=policy)
        await planner.warm_up()
        return [await planner.walk(make_world(number)) for number in PACED_WORLDS]


def simulated() -> Result:
    """The same loop at the seed's own times, in simulated time."""
    figures: list[Figure] = []
    for form, rule in (("any answer", None), ("held to the form", plan_rule())):
        walks = {policy: _simulate(policy, rule) for policy in POLICIES}
        _check_equal(walks)
        figures += _figures(form, walks, bounds={})
    worlds = f"{len(SIMULATED_WORLDS)} worlds, the seed's own times simulated"
    return Result("simulated", worlds, tuple(figures))


def _simulate(policy: str, rule: Constraint | None) -> list[Walk]:
    async def walk() -> list[Walk]:
        async with connect_simulated(SEEDS_ROBOT) as edge:
            planner = RobotPlanner(edge, await edge.chat_card(), rule=rule, policy=policy)
            return [await planner.walk(make_world(number)) for number in SIMULATED_WORLDS]

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(walk())


def _figures(form: str, walks: Mapping[str, Sequence[Walk]], bounds: Mapping[str, float]) -> list[Figure]:
    """Of each policy: the mean time of a decision, over the cloud's, its passes and its bytes up."""
    cloud_s = _mean(walks["cloud"], "e2e_s")
    figures = [Figure(f"{form}: cloud, a decision", cloud_s, "s")]
    for policy, of in walks.items():
        if policy != "cloud":
            figures.append(
                Figure(f"{form}: {policy} over cloud", _mean(of, "e2e_s") / cloud_s, "of its time", bounds.get(policy))
            )
        figures.append(Figure(f"{form}: {policy}, passes per decision", _mean(of, "passes"), "passes"))
        figures.append(Figure(f"{form}: {policy}, bytes up per decision", _mean(of, "bytes_up"), "bytes"))
    return figures


def _mean(walks: Sequence[Walk], name: str) -> float:
    values = [float(getattr(decision.report, name)) for walk in walks for decision in walk.decisions]
    return sum(values) / len(values)


def _check_equal(walks: Mapping[str, Sequence[Walk]]) -> None:
    """Every policy says the same. Raises ForedraftError."""
    said = [[walk.tokens for walk in of] for of in walks.values()]
    if any(one != said[0] for one in said):
        raise foredraft.ForedraftError("the plans differ between policies, which must never happen; please report it")


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
