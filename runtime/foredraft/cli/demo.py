"""``foredraft demo``: the main job on one machine, with a device, a server and a link emulated."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from foredraft.api.points import ROBOT_5

if TYPE_CHECKING:
    from foredraft.api.edge import Edge
    from foredraft.edge.session_report import SessionReport
    from foredraft.links.shaping import ProxyReport
    from foredraft.observe.record.frames import Noted

PROMPT: Final = '''"""Read and write simple tables."""

import os
import re


class Table:
    """Rows of text, and the names of their columns."""

    def __init__(self, names):
'''
WAYS: Final = {
    "cloud": "cloud (one pass per token, streamed)",
    "sync": "sync (draft, ship, wait for the verdict)",
    "seed": "seed (as sync, and a hint from an early exit lets the edge draft ahead)",
    "auto": "auto (drafts ahead, ships before the verdict, waits where it pays: as it measures)",
}
WINDOW_S: Final = 0.9


@dataclass(slots=True)
class Run:
    """One policy's session: what the edge reported, and what it noted."""

    report: "SessionReport"
    noted: "Sequence[Noted]" = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is generated, with what, and where the picture goes."""

    prompt: str
    model: str
    exits: Path | None
    draft: str
    policies: tuple[str, ...]
    temperature: float
    seed: int
    max_new_tokens: int
    picture: Path
    quiet: bool


def demo(
    prompt: Annotated[str, typer.Option(help="The text to go on from.", show_default=False)] = PROMPT,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate with each policy.", min=2)] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy; greedy text of small models loops.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 1,
    gamma: Annotated[int, typer.Option(help="Tokens drafted per round.")] = 4,
    model: Annotated[str, typer.Option(help="Another target: folder or hub id.")] = "demo",
    exits: Annotated[Path | None, typer.Option(help="Its exit heads.")] = None,
    draft: Annotated[str, typer.Option(help="Another draft: folder, hub id or 'ngram'.")] = "demo",
    picture: Annotated[Path, typer.Option(help="Where to draw where the time went (PNG or SVG).")] = Path(
        "foredraft-demo.png"
    ),
    robot: Annotated[
        bool, typer.Option("--robot", help="Walk a robot by a model that sees, instead: once with each policy.")
    ] = False,
    world: Annotated[int, typer.Option(help="Which of the robot's worlds.", min=0)] = 12,
    animation: Annotated[Path, typer.Option(help="Where to draw its walk, moving (GIF).")] = Path("foredraft-demo.gif"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Generate the same text with cloud, sync, seed and auto, between two processes and an emulated link."""
    import asyncio

    from foredraft.errors import ForedraftError, needs
    from foredraft.loop import new_event_loop

    needs("torch", "transformers")
    policies = ("cloud", f"sync:gamma={gamma}", f"seed:gamma={gamma}", "auto")
    if robot:
        from foredraft.cli.demo_robot import demo_robot

        demo_robot(policies, world, picture.absolute(), animation.absolute(), as_json=as_json)
        return
    plan = Plan(
        prompt, model, exits, draft, policies, temperature, seed, max_new_tokens, picture.absolute(), quiet=as_json
    )
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runs, link = runner.run(_run_all(plan))
    identical = len({tuple(run.report.tokens) for run in runs}) == 1
    drawn = _draw(plan, runs, link)
    if as_json:
        typer.echo(json.dumps(_as_json(plan, runs, link, identical, drawn)))
    else:
        _show(plan, runs, link, identical, drawn)
    if not identical:
        raise ForedraftError("the texts differ, which must never happen; please report it with the output of --json")


async def _run_all(plan: Plan) -> "tuple[list[Run], ProxyReport]":
    from foredraft.api.emulated_pair import emulated_pair

    _say(plan, ROBOT_5.says, "Starting a cloud process and, behind a shaping proxy, an edge (this process) ...")
    async with emulated_pair(plan.model, plan.exits, plan.draft, ROBOT_5) as (edge, proxy):
        _say(plan, "", plan.prompt.rstrip("\n"))
        return [await _generate(plan, edge, policy) for policy in plan.policies], proxy.report()


async def _generate(plan: Plan, edge: "Edge", policy: str) -> Run:
    """One policy's session, its text printed as it comes."""
    from foredraft.cli.generated import show
    from foredraft.observe.record.recorder import Recorder

    recorder = Recorder(ask=False)
    generation = edge.generate(
        plan.prompt,
        policy=policy,
        temperature=plan.temperature,
        seed=plan.seed,
        max_new_tokens=plan.max_new_tokens,
        record=recorder,
    )
    _say(plan, "", f"──── {policy} " + "─" * (74 - len(policy)))
    async for piece in generation:
        if not plan.quiet:
            show(piece.text)
    _say(plan, "")
    return Run(generation.report, recorder.record().noted)


def _say(plan: Plan, *lines: str) -> None:
    if not plan.quiet:
        for line in lines:
            typer.echo(line)


def _draw(plan: Plan, runs: list[Run], link: "ProxyReport") -> Path | None:
    """The picture; None, and a word about it, where it cannot be drawn."""
    from foredraft.cli.main import complain
    from foredraft.errors import ConfigError
    from foredraft.observe.picture import draw
    from foredraft.observe.timeline import timeline

    sessions = [
        (WAYS.get(run.report.policy, run.report.policy), timeline(run.noted, link.round_trip_s)) for run in runs
    ]
    caption = (
        f"A window of each session at its mean pace. {ROBOT_5.says}\n"
        "Drawn from the edge's clock alone: the cloud is placed by the durations in its commits and half of the "
        f"measured round trip ({link.round_trip_s * 1e3:.1f} ms)."
    )
    title = "Where the time goes: the same text under each policy"
    try:
        draw(sessions, plan.picture, title=title, caption=caption, width_s=WINDOW_S)
    except ConfigError as error:
        complain(f"no picture: {error}")
        return None
    return plan.picture


def _speed(runs: list[Run], run: Run) -> float:
    """How many times as fast as the cloud alone, end to end."""
    return runs[0].report.e2e_s / run.report.e2e_s


def _as_json(plan: Plan, runs: list[Run], link: "ProxyReport", identical: bool, drawn: Path | None) -> dict[str, Any]:
    return {
        "emulation": ROBOT_5.says,
        "prompt": plan.prompt,
        "runs": [asdict(run.report) | {"speed_against_cloud": _speed(runs, run)} for run in runs],
        "identical": identical,
        "emulated_link": asdict(link) | {"round_trip_s": link.round_trip_s},
        "picture": None if drawn is None else str(drawn),
    }


def _figures(runs: list[Run], run: Run) -> dict[str, str]:
    """A session's figures for the table, by name."""
    report = run.report
    tried = report.predraft_hits + report.predraft_misses
    return {
        "time to first token (TTFT)": f"{report.ttft_s * 1e3:.0f} ms",
        "time per output token (TPOT)": f"{report.tpot_s * 1e3:.1f} ms",
        "end to end": f"{report.e2e_s:.2f} s",
        "target passes": f"{report.passes}",
        "tokens per pass": f"{report.tokens_per_pass:.2f}",
        "hints right": f"{report.hints_right}/{report.hints}" if report.hints else "-",
        "pre-draft hits": f"{report.predraft_hits}/{tried}" if tried else "-",
        "bytes up": f"{report.bytes_up:,}",
        "bytes down": f"{report.bytes_down:,}",
        "speed against cloud": f"{_speed(runs, run):.2f}x",
    }


def _show(plan: Plan, runs: list[Run], link: "ProxyReport", identical: bool, drawn: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{plan.max_new_tokens} tokens at temperature {plan.temperature:g}, seed {plan.seed}")
    table.add_column("")
    for run in runs:
        table.add_column(run.report.policy, justify="right", min_width=9)
    columns = [_figures(runs, run) for run in runs]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    console = Console()
    console.print()
    console.print(table)
    console.print(ROBOT_5.says, str(link), sep="\n", highlight=False)
    console.print(f"All texts are equal: {'yes' if identical else 'NO'}", highlight=False)
    if drawn is not None:
        console.print(f"Where the time went: {drawn}", highlight=False, soft_wrap=True)
