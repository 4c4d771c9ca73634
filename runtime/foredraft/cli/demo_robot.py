"""``foredraft demo --robot``: a walking robot whose planner sees, between two processes and an emulated link."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from foredraft.api.points import ROBOT_5

if TYPE_CHECKING:
    from foredraft.api.robot_planner import Walk
    from foredraft.links.shaping import ProxyReport
    from foredraft.observe.robot_picture import Pictured, Policy

MODEL: Final = "demo-robot"
WAYS: Final = {
    "cloud": "one pass per token, streamed",
    "sync": "draft, ship, wait for the verdict",
    "seed": "as sync, and an early exit's hint lets the edge draft ahead",
    "auto": "as it measures",
}


def demo_robot(policies: Sequence[str], number: int, picture: Path, animation: Path, *, as_json: bool) -> None:
    """Walk one world once with each policy; show what each took, and draw it."""
    import asyncio

    from foredraft.errors import ForedraftError, needs
    from foredraft.loop import new_event_loop

    needs("PIL", "jinja2")
    if not as_json:
        typer.echo(ROBOT_5.says)
        typer.echo("Starting a cloud process and, behind a shaping proxy, an edge (this process) ...")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        walks, link = runner.run(_walk_all(policies, number, quiet=as_json))
    identical = all(walk.tokens == walks[0].tokens for walk in walks)
    drawn = _draw(policies, walks, picture, animation)
    if as_json:
        typer.echo(json.dumps(_as_json(policies, walks, link, identical, drawn)))
    else:
        _show(policies, walks, link, identical, drawn)
    if not identical:
        raise ForedraftError("the plans differ, which must never happen; please report it with the output of --json")


async def _walk_all(policies: Sequence[str], number: int, *, quiet: bool) -> "tuple[list[Walk], ProxyReport]":
    """The walk with each policy, between an edge and a server that have not seen it before."""
    from foredraft.api.emulated_pair import emulated_pair
    from foredraft.api.robot_planner import RobotPlanner, plan_rule
    from foredraft.robot.world import make_world

    world, walks = make_world(number), []
    for policy in policies:
        async with emulated_pair(MODEL, None, MODEL, ROBOT_5) as (edge, proxy):
            if not quiet:
                typer.echo(f"\n──── {policy}: “{world.instruction}”")
            planner = RobotPlanner(edge, await edge.chat_card(), rule=plan_rule(), policy=policy)
            await planner.warm_up()
            walks.append(await planner.walk(world))
            if not quiet:
                _tell(walks[-1])
            link = proxy.report()
    return walks, link


def _tell(walk: "Walk") -> None:
    """Each decision of a walk, and how it ended."""
    for decision in walk.decisions:
        typer.echo(f"{decision.report.e2e_s * 1e3:6.0f} ms  {decision.report.text}")
    typer.echo("           stands before its goal" if walk.end.succeeded else "           did not get there")


def _policies(names: Sequence[str], walks: "Sequence[Walk]") -> "list[Policy]":
    from foredraft.observe.robot_picture import Policy

    parts = []
    for walk in walks:
        reports = [decision.report for decision in walk.decisions]
        rests = [max(0.0, one.e2e_s - one.image_s - one.target_s) for one in reports]
        parts.append([(one.image_s, one.target_s, rest) for one, rest in zip(reports, rests, strict=True)])
    return [Policy(name, of) for name, of in zip(names, parts, strict=True)]


def _pictured(walk: "Walk") -> "Pictured":
    from foredraft.observe.robot_picture import Pictured

    poses = [*(decision.episode.pose for decision in walk.decisions), walk.end.pose]
    says = [_in_words(decision.plan) for decision in walk.decisions]
    return Pictured(walk.decisions[0].episode.world, poses, [decision.view for decision in walk.decisions], says)


def _in_words(plan: Any) -> str:
    if plan is None:
        return "no plan"
    if plan.done:
        return "done"
    return f"{plan.turn_deg:+d} deg, {plan.walk_m:+.1f} m"


def _draw(names: Sequence[str], walks: "Sequence[Walk]", picture: Path, animation: Path) -> list[Path]:
    """The picture and the animation, as far as they can be drawn; a word about the rest."""
    from foredraft.cli.main import complain
    from foredraft.errors import ConfigError
    from foredraft.observe.robot_picture import animate, draw_walk

    walk, policies, drawn = _pictured(walks[0]), _policies(names, walks), []
    try:
        draw_walk(walk, policies, picture, ROBOT_5.says)
        drawn.append(picture)
        animate(walk, [policies[0], policies[-1]], animation)
        drawn.append(animation)
    except ConfigError as error:
        complain(f"no picture: {error}")
    return drawn


def _figures(walks: "Sequence[Walk]", walk: "Walk") -> dict[str, str]:
    """A walk's figures for the table, by name; those of decisions are means."""
    reports = [decision.report for decision in walk.decisions]

    def mean(name: str) -> float:
        return float(sum(getattr(report, name) for report in reports)) / len(reports)

    return {
        "decisions": f"{len(reports)}",
        "time per decision": f"{walk.decision_s * 1e3:.0f} ms",
        "of it, the image": f"{mean('image_s') * 1e3:.0f} ms",
        "tokens": f"{mean('new_tokens'):.1f}",
        "forced by the form": f"{mean('forced'):.1f}",
        "target passes": f"{mean('passes'):.1f}",
        "image bytes": f"{mean('image_bytes'):,.0f}",
        "bytes up": f"{mean('bytes_up'):,.0f}",
        "over the cloud": f"{walk.decision_s / walks[0].decision_s:.2f}",
    }


def _show(
    names: Sequence[str], walks: "Sequence[Walk]", link: "ProxyReport", identical: bool, drawn: Sequence[Path]
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="A walk with each policy; figures are means per decision")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", min_width=9)
    columns = [_figures(walks, walk) for walk in walks]
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    console = Console()
    console.print()
    console.print(table)
    for name, way in WAYS.items():
        console.print(f"{name}: {way}", highlight=False)
    console.print(ROBOT_5.says, str(link), sep="\n", highlight=False)
    console.print(f"All plans are equal: {'yes' if identical else 'NO'}", highlight=False)
    for file in drawn:
        console.print(f"Drawn: {file}", highlight=False, soft_wrap=True)


def _as_json(
    names: Sequence[str], walks: "Sequence[Walk]", link: "ProxyReport", identical: bool, drawn: Sequence[Path]
) -> dict[str, Any]:
    runs = [
        {
            "policy": name,
            "decision_s": walk.decision_s,
            "over_cloud": walk.decision_s / walks[0].decision_s,
            "succeeded": walk.end.succeeded,
            "decisions": [asdict(decision.report) for decision in walk.decisions],
        }
        for name, walk in zip(names, walks, strict=True)
    ]
    return {
        "emulation": ROBOT_5.says,
        "instruction": walks[0].end.world.instruction,
        "runs": runs,
        "identical": identical,
        "emulated_link": asdict(link) | {"round_trip_s": link.round_trip_s},
        "drawn": list(map(str, drawn)),
    }
