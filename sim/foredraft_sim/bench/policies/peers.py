"""``foredraft bench peers``: what others have published beside ours, on the same tokens.

Each peer runs with its own parameters and with the chain length that pays most for synchronous rounds at that place,
and the better of the two counts. Where ``auto`` is more than 2% slower than the best, the row says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer

from foredraft.bench.result import Figure
from foredraft.protocol.sampling import NOISE
from foredraft_sim.bench.policies.command import Part, run_all, show_parts, storage_for
from foredraft_sim.bench.policies.decisions import ROBOT as ROBOTS_DEVICES
from foredraft_sim.bench.policies.setting import Setting, Shipped
from foredraft_sim.bench.policies.suite import Outcomes, Row, Suite, Trial
from foredraft_sim.bench.policies.suites import (
    ACCEPTANCES,
    QUICK,
    ROBOT,
    ROUND_TRIPS,
    STEPS,
    best_gammas,
    cells_of,
    mean_s,
    per_policy,
    share,
    spread,
)
from foredraft_sim.scenario.scenario_file import Rule
from foredraft_sim.workers.option import Scheduler, StorageFolder

PEERS: Final = {
    "specedge": "foredraft_sim.peers.specedge:SpecEdge",
    "acespec": "foredraft_sim.peers.acespec:AceSpec",
    "saguaro": "foredraft_sim.peers.saguaro:Saguaro",
    "pipesd": "foredraft_sim.peers.pipesd:PipeSD",
    "picospec": "foredraft_sim.peers.picospec:PicoSpec",
    "specstop": "foredraft_sim.peers.specstop:SpecStop",
    "heuristic": "foredraft_sim.peers.heuristic:Heuristic",
}
OURS: Final = ("seed", "ahead", "auto")
WITHIN: Final = 1.02
LINKS: Final = ("lan", "wifi", "5g", "lte", "wan")


def specs(where: Setting) -> dict[str, list[str]]:
    """How each scheme is tried at a place."""
    gamma = best_gammas(where, 1)[0]
    tried = {"cloud": ["cloud"], "sync": ["sync", f"sync:gamma={gamma}"]}
    for name, spec in PEERS.items():
        has_length = name not in ("specedge", "specstop")
        tried[name] = [spec, f"{spec}:gamma={gamma}"] if has_length else [spec]
    return tried | {"seed": ["seed", f"seed:gamma={gamma}"], "ahead": ["ahead"], "auto": ["auto"]}


def trials(places: Sequence[Setting], seeds: Sequence[int]) -> list[Trial]:
    """All schemes at all places."""
    return [
        Trial(where, spec, seed)
        for where in places
        for tried in specs(where).values()
        for spec in tried
        for seed in seeds
    ]


def best_of(outcomes: Outcomes, where: Setting, seeds: Sequence[int]) -> dict[str, tuple[float, str]]:
    """Of each scheme its seconds, and how it was tried when it took these: its better way."""
    return {
        name: min((mean_s(outcomes, where, spec, seeds), spec) for spec in tried)
        for name, tried in specs(where).items()
    }


def point(name: str, says: str, places: Mapping[str, Setting], seeds: Sequence[int], bound: float | None) -> Suite:
    """Places of which every scheme has a row. ``bound``: on auto's time over the cloud's, at each."""

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        figures = []
        for title, where in places.items():
            found = best_of(outcomes, where, seeds)
            ways = [spec for _, spec in found.values()]
            for scheme, row in zip(found, per_policy(outcomes, where, ways, seeds), strict=True):
                kept = {key: row[key] for key in ("ms_per_token", "of_cloud", "bytes_up", "bytes_down", "energy_j")}
                per_pass = 1.0 / row["passes"] if row["passes"] else None
                rows.append({"place": title, "scheme": scheme} | kept | {"tokens_per_pass": per_pass})
            least_s, _ = min(found.values())
            figures.append(Figure(f"{title}: auto over the best", found["auto"][0] / least_s, "x", WITHIN))
            of_cloud = found["auto"][0] / found["cloud"][0]
            figures.append(Figure(f"{title}: auto over the cloud", of_cloud, "x", bound))
        return rows, figures

    return Suite(name, says, trials(list(places.values()), seeds), judge)


def grid(seeds: Sequence[int], axes: Sequence[Sequence[float]], rule: Rule = NOISE) -> Suite:
    """Every cell: who is first, and how far off ``auto`` is."""
    cells = cells_of(axes, new_tokens=256, rule=rule)

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        for (round_trip, acceptance, step), where in cells.items():
            found = best_of(outcomes, where, seeds)
            auto_s = found.pop("auto")[0]
            best = min(found, key=lambda scheme: found[scheme])
            row: Row = {"rtt/pass": round_trip, "acceptance": acceptance, "step/pass": step, "best_other": best}
            rows.append(row | {"auto_of_best": auto_s / found[best][0], "auto_of_cloud": auto_s / found["cloud"][0]})
        of_best = [row["auto_of_best"] for row in rows]
        firsts = Counter(row["best_other"] for row in rows if row["auto_of_best"] > 1.0)
        figures = [
            Figure("cells where auto is first or within 1.02", share(of_best, WITHIN), "%", 95.0, at_least=True),
            *spread("auto of the best other", of_best),
            *(Figure(f"cells where {scheme} is first", float(count), "cells") for scheme, count in firsts.items()),
        ]
        return rows, figures

    says = f"{len(cells)} cells, {len(seeds)} seeds, 256 tokens, pass 30 ms flat to 8"
    return Suite("grid", says, trials(list(cells.values()), seeds), judge, _missed)


def _missed(row: Row) -> str:
    return str(row["best_other"]) if row["auto_of_best"] > WITHIN else ""


def suites(quick: bool, more_links: Sequence[str] = (), rule: Rule = NOISE) -> list[Suite]:
    """All of them; ``quick``: a few cells and links, to see that all is well. ``more_links``: for the robot, too.

    ``rule``: by which drafts are accepted.
    """
    links = LINKS[:2] if quick else LINKS
    jetson = {line: Setting(Shipped("jetson-nano-vicuna-68m", "a100-llama2-7b", line), rule=rule) for line in links}
    axes: Sequence[Sequence[float]] = QUICK if quick else (ROUND_TRIPS, ACCEPTANCES, STEPS)
    seeds: Sequence[int] = (1,) if quick else (1, 2)
    over = {link: Setting(Shipped(*ROBOTS_DEVICES, link), rule=rule) for link in more_links}
    robot_says = "the seed's robot: draft step 72 ms, pass 620 ms, round trip 120 ms (flat shapes ASSUMED); 256 tokens"
    return [
        point("robot", robot_says, {"robot": Setting(ROBOT, rule=rule)}, range(1, 3 if quick else 9), 0.42),
        point("jetson", "shipped profiles, Jetson Nano with an A100 (compiled); 256 tokens", jetson, seeds, None),
        *([point("links", "the seed's robot over these links; 256 tokens", over, seeds, None)] if over else []),
        grid(seeds[:1], axes, rule),
    ]


def peers(
    only: Annotated[list[str] | None, typer.Option(help="robot, jetson, links or grid; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="A few cells, links and seeds, to see that all is well.")] = False,
    link: Annotated[
        list[str] | None, typer.Option(help="Try the robot over this link, too: a link profile; may be repeated.")
    ] = None,
    acceptance: Annotated[
        Rule, typer.Option(help="By which rule drafts are accepted, as often by either; rejection sends more.")
    ] = NOISE,
    processes: Annotated[int, typer.Option(help="How many at a time; 0 for one per core.", min=0)] = 0,
    scheduler: Scheduler = "",
    storage: StorageFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Published schemes beside ours, on the same tokens, in simulated time."""
    from foredraft.errors import UnknownNameError

    known = {suite.name: suite for suite in suites(quick, link or (), acceptance)}
    for name in only or ():
        if name not in known:
            raise UnknownNameError("part of the benchmark", name, known)
    chosen = [suite for suite in known.values() if not only or suite.name in only]
    kept = storage_for(link or (), storage)
    outcomes = run_all([trial for suite in chosen for trial in suite.trials], processes, scheduler, kept)
    show_parts([Part(suite.name, suite.says, *suite.judge(outcomes), suite.missed) for suite in chosen], as_json)
