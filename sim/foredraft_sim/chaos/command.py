"""``foredraft chaos``: the command."""

import json
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foredraft.errors import ConfigError, UnknownNameError
from foredraft.progress import Show, progress
from foredraft_sim.workers.option import Scheduler
from foredraft_sim.workers.workers import Workers, opened

if TYPE_CHECKING:
    from foredraft_sim.chaos.plan import Plan
    from foredraft_sim.chaos.worlds import Only, Outcome

NOTHING = "nothing"
"""What ``--keep`` is where a world is broken with none of its items."""
ENOUGH = 10
"""After so many broken worlds it ends."""


def chaos(
    sessions: Annotated[int, typer.Option(help="Texts in all; with --forever, of each seed.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same worlds.", min=0)] = 1,
    forever: Annotated[bool, typer.Option("--forever", help="Seed after seed, until it is stopped.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; one by default.", min=1)] = None,
    scheduler: Scheduler = "",
    only: Annotated[list[str] | None, typer.Option(help="An invariant, or what may go wrong; may be repeated.")] = None,
    world: Annotated[int | None, typer.Option(help="This world of the seed alone.", min=0)] = None,
    keep: Annotated[str, typer.Option(help="Of that world these items alone, such as 0,3.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each failure, and one more.")
    ] = False,
) -> None:
    """Break everything that may break around texts, in simulated time, and look whether they are right all the same.

    Links that are cut and stall, servers that are killed, drained, out of memory or serve another model, keys that are
    revoked, edges that crash, peers that are hostile. What is broken is shrunk to the least that breaks it, with the
    command that repeats it; the exit code is 1 then. --forever is for the night: it ends when it is interrupted, or
    after ten broken worlds, as the others do.
    """
    from foredraft_sim.chaos.worlds import NAMES, Only

    for name in only or ():
        if name not in NAMES:
            raise UnknownNameError("invariant, fault or peer", name, NAMES)
    if keep and world is None:
        raise ConfigError(f"--keep {keep!r} is of one world: name it with --world")
    wanted, tell = Only.of(only or ()), _Teller(as_json)
    if world is not None:
        tell.one_world(seed, world, keep, wanted)
    else:
        with opened(workers, scheduler, worth=1) as found, progress("chaos", count=True) as show:
            _all(tell, show, sessions, seed, found, wanted, forever=forever)
    tell.end()


def _all(
    tell: "_Teller", show: Show, sessions: int, seed: int, workers: Workers, only: "Only", *, forever: bool
) -> None:
    """Seed after seed, or one."""
    from foredraft_sim.chaos.worlds import outcomes

    try:
        for one in count(seed) if forever else (seed,):
            before = tell.sessions
            for outcome in outcomes(one, sessions, workers, only):
                tell.take(one, outcome, only)
                if tell.enough:
                    return
                show(tell.sessions - before, sessions, f"seed {one}, world {outcome.number}")
    except KeyboardInterrupt:
        if not forever:
            raise


class _Teller:
    """Counts, and tells of what is broken."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.sessions = self._worlds = self._failures = 0

    @property
    def enough(self) -> bool:
        """Whether there is so much to mend that looking further is of no use."""
        return self._failures >= ENOUGH

    def take(self, seed: int, outcome: "Outcome", only: "Only") -> None:
        """One world of many."""
        from foredraft_sim.chaos.plan import plan_of

        self.sessions += outcome.sessions
        self._worlds += 1
        if outcome.broken:
            self._tell_least(only.of_plan(plan_of(seed, outcome.number)), outcome)

    def one_world(self, seed: int, number: int, keep: str, only: "Only") -> None:
        """One world, or some of it. Raises ConfigError for items that it does not have."""
        from foredraft_sim.chaos.plan import plan_of
        from foredraft_sim.chaos.worlds import Outcome, lived

        plan = plan_of(seed, number)
        plan = plan.keep(_numbers(keep)) if keep else only.of_plan(plan)
        outcome = Outcome(number, len(plan.sessions), tuple(lived(plan, only)))
        self.sessions += outcome.sessions
        self._worlds += 1
        if outcome.broken:
            self._failures += 1
            self._tell(plan, outcome)

    def _tell_least(self, plan: "Plan", outcome: "Outcome") -> None:
        """Shrink it, and tell what is broken then."""
        from foredraft_sim.chaos.worlds import Outcome, least, lived

        self._failures += 1
        fewer = least(plan, outcome.broken[0].name)
        self._tell(fewer, Outcome(plan.number, len(fewer.sessions), tuple(lived(fewer))))

    def _tell(self, plan: "Plan", outcome: "Outcome") -> None:
        plain = failure(plan, outcome)
        if self._as_json:
            typer.echo(json.dumps(plain))
            return
        typer.echo(f"world {plan.number} of the seed {plan.seed}:")
        for one in plain["broken"]:
            typer.echo(f"  BROKEN {one['invariant']}: {one['what']}")
        for item in plain["items"]:
            typer.echo(f"  {item}")
        typer.echo(f"  repeat it: {plain['repeat']}")

    def end(self) -> None:
        """The count; exit code 1 where anything was broken."""
        plain = {"sessions": self.sessions, "worlds": self._worlds, "broken": self._failures}
        words = f"something was broken in {self._failures}" if self._failures else "nothing was broken"
        line = f"{self.sessions} sessions in {self._worlds} worlds: {words}"
        typer.echo(json.dumps(plain) if self._as_json else line)
        if self._failures:
            raise typer.Exit(1)


def failure(plan: "Plan", outcome: "Outcome") -> dict[str, Any]:
    """What is told of a world that was broken."""
    from foredraft_sim.chaos.plan import said

    kept = ",".join(str(number) for number, _ in plan.items) or NOTHING
    return {
        "seed": plan.seed,
        "world": plan.number,
        "broken": [{"invariant": one.name, "what": one.what} for one in outcome.broken],
        "items": [f"{number}: {said(item)}" for number, item in plan.items],
        "repeat": f"foredraft chaos --seed {plan.seed} --world {plan.number} --keep {kept}",
    }


def _numbers(keep: str) -> list[int]:
    try:
        return [] if keep == NOTHING else [int(one) for one in keep.split(",")]
    except ValueError as error:
        raise ConfigError(f"--keep {keep!r} is no list of items: write numbers, such as 0,3") from error
