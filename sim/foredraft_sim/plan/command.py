"""``foredraft plan``: how many devices a server carries, and which servers a fleet needs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foredraft.progress import progress
from foredraft_sim.workers.option import Scheduler, StorageFolder

if TYPE_CHECKING:
    from foredraft_sim.plan.capacity import Capacity
    from foredraft_sim.plan.fleets import Replicate
    from foredraft_sim.plan.mix import Mix
    from foredraft_sim.scenario.scenario import Scenario

CLOUD = "cloud"


def plan(
    scenario: Annotated[Path, typer.Argument(help="A scenario: a TOML file.", show_default=False)],
    slo: Annotated[
        list[str], typer.Option(help="METRIC=MOST, as p95-tpot=0.1 or p99-ttft=0.8 (seconds); may be repeated.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Plan with this policy in the place of the scenario's; may be repeated. cloud comes beside."),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="A target profile to plan with beside the scenario's; may be repeated."),
    ] = None,
    traffic: Annotated[
        Path | None, typer.Option(help="Take lengths, and times where it tells them, from this file (CSV, JSONL).")
    ] = None,
    devices: Annotated[int, typer.Option(help="Find the cheapest servers for so many devices; 0: none.", min=0)] = 0,
    most: Annotated[int, typer.Option(help="Try fleets of at most so many devices.", min=1, max=100_000)] = 64,
    scheduler: Scheduler = "",
    storage: StorageFolder = None,
    picture: Annotated[Path | None, typer.Option(help="Draw devices against price (SVG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The most devices under service level objectives, what they cost, and what would move that most."""
    from foredraft.files import written_together
    from foredraft_sim.plan.fleets import fleets
    from foredraft_sim.plan.picture import picture_of
    from foredraft_sim.scenario.replications import storage_for

    wanted, objectives, policies = _question(scenario, slo, policy, traffic)
    servers = [wanted, *(_with_server(wanted, name) for name in server or ())]
    kept = storage_for(wanted, policies, storage)
    with fleets(wanted, scheduler, kept) as measure, progress("planning", count=True) as tell:
        found = _capacities(servers, policies, objectives, most, measure, tell)
        said = _said(servers, found, objectives, devices)
        tell(0, 1, "what would move the largest fleet most")
        said["influences"] = _influences(wanted, found[wanted.target.name], objectives, measure)
    if picture is not None:
        written_together({picture: picture_of(said).encode()})
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(said).decode())
    else:
        _show(said)
    if not any(one.holds for ones in found.values() for one in ones):
        raise typer.Exit(1)


def _question(
    path: Path, slos: Sequence[str], policies: Sequence[str] | None, traffic: Path | None
) -> "tuple[Scenario, dict[str, float], list[str]]":
    """What is asked. Raises ConfigError, UnknownNameError, ScenarioError."""
    from foredraft.policies.policy_file import spec_of
    from foredraft_sim.scenario.scenario import read_scenario, with_traffic
    from foredraft_sim.tune.metrics import check_known_here, limit_of

    wanted = read_scenario(path)
    if traffic is not None:
        wanted = with_traffic(wanted, traffic)
    objectives = dict(limit_of(text, "--slo") for text in slos)
    check_known_here(wanted, objectives)
    chosen = [spec_of(one) for one in policies or wanted.file.policies]
    for one in chosen:
        wanted.policy(one)
    return wanted, objectives, list(dict.fromkeys([CLOUD, *chosen]))


def _with_server(scenario: "Scenario", name: str) -> "Scenario":
    """The scenario with another server. Raises ProfileError, UnknownNameError."""
    from foredraft.profiles import load_profile

    return replace(scenario, target=load_profile(name, "target"))


def _capacities(
    servers: "Sequence[Scenario]",
    policies: Sequence[str],
    objectives: Mapping[str, float],
    most: int,
    measure: "Replicate",
    tell: Any,
) -> "dict[str, list[Capacity]]":
    """What each server carries, policy by policy."""
    from foredraft_sim.plan.capacity import Fleet, capacity, fleet_of, side_by_side, sized

    pairs = [(where, policy) for where in servers for policy in policies]
    tried = 0

    def fleets_of(asked: Sequence[tuple[int, int]]) -> list[Fleet]:
        nonlocal tried
        tell(tried, tried + len(asked), f"fleets of up to {max(devices for _, devices in asked)} devices")
        tried += len(asked)
        sizes = [(sized(pairs[number][0], devices), pairs[number][1]) for number, devices in asked]
        return [fleet_of(fleet, objectives, ones) for (fleet, _), ones in zip(sizes, measure(sizes), strict=True)]

    found = side_by_side([capacity(policy, most) for _, policy in pairs], fleets_of)
    return {
        where.target.name: found[number * len(policies) : (number + 1) * len(policies)]
        for number, where in enumerate(servers)
    }


def _influences(
    scenario: "Scenario", found: "Sequence[Capacity]", objectives: Mapping[str, float], measure: "Replicate"
) -> list[dict[str, Any]]:
    """What would move the largest fleet most, by the policy that carries it."""
    from foredraft_sim.plan.capacity import sized
    from foredraft_sim.plan.influences import influences
    from foredraft_sim.tune.metrics import metrics_of

    best = max((one for one in found if one.holds), key=lambda one: one.holds.devices if one.holds else 0, default=None)
    if best is None or best.holds is None:
        return []
    policy, devices = best.policy, best.holds.devices

    def metrics(changed: "Sequence[Scenario]") -> list[dict[str, float]]:
        sizes = [(sized(one, devices), policy) for one in changed]
        return [metrics_of(fleet, ones) for (fleet, _), ones in zip(sizes, measure(sizes), strict=True)]

    return [
        {"better": says, "policy": policy, "devices": devices, "metrics_over_before": ratios}
        for says, ratios in influences(scenario, objectives, metrics)
    ]


def _said(
    servers: "Sequence[Scenario]",
    found: "Mapping[str, Sequence[Capacity]]",
    objectives: Mapping[str, float],
    devices: int,
) -> dict[str, Any]:
    from foredraft_sim.plan.mix import Offer, cheapest
    from foredraft_sim.scenario.results import inputs_of

    rows: list[dict[str, Any]] = []
    mixes: dict[str, Mix | None] = {}
    prices = {where.target.name: where.target.cost.price_usd_per_hour for where in servers}
    each = servers[0].file.cloud.servers
    for name, capacities in found.items():
        for one in capacities:
            rows.append(_row(name, prices[name], each, one, objectives))
    for policy in dict.fromkeys(row["policy"] for row in rows):
        offers = [
            Offer(row["server"], row["devices_per_server"], price)
            for row in rows
            if row["policy"] == policy and (price := prices[row["server"]]) is not None
        ]
        if devices:
            mixes[policy] = cheapest(offers, devices)
    return {
        "scenario": str(servers[0].path),
        "objectives": dict(objectives),
        "seeds": list(servers[0].seeds),
        "inputs": [inputs_of(where) for where in servers],
        "rows": rows,
        "devices": devices,
        "mixes": {policy: None if mix is None else asdict(mix) for policy, mix in mixes.items()},
    }


def _row(
    server: str, price: float | None, servers: int, one: "Capacity", objectives: Mapping[str, float]
) -> dict[str, Any]:
    fleet = one.holds or one.breaks
    assert fleet is not None
    carried = one.holds.devices // servers if one.holds else 0
    limiting = one.breaks.broken if one.breaks else ()
    return {
        "server": server,
        "policy": one.policy,
        "devices_per_server": carried,
        "limited_by": list(limiting),
        "usd_per_device_hour": None if price is None or not carried else price / carried,
        "usd_per_million_tokens": fleet.usd_per_million_tokens if one.holds else None,
        "edge_j_per_token": fleet.edge_j_per_token if one.holds else None,
        "utilisation": fleet.utilisation if one.holds else None,
        "nearest": {name: fleet.metrics[name] for name in objectives},
        "intervals": {name: fleet.interval(name) for name in objectives},
    }


def _show(said: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from foredraft_sim.scenario.input_lines import input_lines

    wanted = ", ".join(f"{name} at most {most:g}" for name, most in said["objectives"].items())
    seeds = f"{len(said['seeds'])} seed(s); ± is half of a mean's 95% confidence interval"
    table = Table(title=f"The most devices with {wanted}", caption=seeds)
    for title in ("server", "policy", "devices", "limited by", "USD/million tokens", "edge J/token"):
        side: Literal["left", "right"] = "left" if title in ("server", "policy", "limited by") else "right"
        table.add_column(title, justify=side, no_wrap=True)
    for name in said["objectives"]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in said["rows"]:
        limited = ", ".join(row["limited_by"]) or "--most"
        cells = [row["server"], row["policy"], str(row["devices_per_server"]), limited]
        cells += [_number(row["usd_per_million_tokens"]), _number(row["edge_j_per_token"])]
        cells += [_with_interval(row["nearest"][name], row["intervals"][name]) for name in said["objectives"]]
        table.add_row(*cells)
    console = Console(soft_wrap=True)
    console.width = max(console.width, 104 + 18 * len(said["objectives"]))
    console.print(table)
    for row in said["rows"]:
        if not row["devices_per_server"]:
            nearest = ", ".join(f"{name} {value:.3g}" for name, value in row["nearest"].items())
            console.print(f"{row['server']} with {row['policy']} carries not one device: {nearest}", highlight=False)
    for policy, mix in said["mixes"].items():
        console.print(f"{said['devices']} devices with {policy}: {_mix(mix)}", highlight=False)
    for one in said["influences"]:
        ratios = ", ".join(f"{name} x{ratio:.2f}" for name, ratio in one["metrics_over_before"].items())
        console.print(f"{one['better']}: {ratios} ({one['policy']}, {one['devices']} devices)", highlight=False)
    for line in dict.fromkeys(line for inputs in said["inputs"] for line in input_lines(inputs)):
        console.print(line, highlight=False, markup=False)


def _mix(mix: dict[str, Any] | None) -> str:
    if mix is None:
        return "no server whose price is known carries one"
    servers = " and ".join(f"{count} {name}" for name, count in mix["servers"].items())
    return f"{servers}, {mix['usd_per_hour']:.2f} USD an hour"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    return f"{value:.3g}" if bounds is None else f"{value:.3g} ±{(bounds[1] - bounds[0]) / 2:.2g}"
