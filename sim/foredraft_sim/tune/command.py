"""``foredraft tune``: the command."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foredraft.errors import ConfigError, needs
from foredraft.progress import progress
from foredraft_sim.workers.option import Scheduler

if TYPE_CHECKING:
    from rich.table import Table

    from foredraft_sim.scenario.scenario import Scenario
    from foredraft_sim.tune.outcome import Outcome, Scored
    from foredraft_sim.tune.search import Candidate, Search
    from foredraft_sim.tune.work import Tell
    from foredraft_sim.workers.workers import Workers


def tune(
    scenario: Annotated[Path, typer.Argument(help="A scenario: a TOML file.", show_default=False)],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Tune this policy; parameters given stay. May be repeated; default: all that the scenario can run."
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="p50-tpot, p95-e2e, cost, energy ...; may be repeated.", show_default="p50-tpot"),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="Keep a metric under a limit: p99-tpot=0.2; may be repeated.")
    ] = None,
    trials: Annotated[int, typer.Option(help="How many candidates the study is to have in all.", min=1)] = 100,
    workers: Annotated[int | None, typer.Option(help="Processes; by default as many as are worth it.", min=1)] = None,
    scheduler: Scheduler = "",
    seeds: Annotated[
        str, typer.Option(help="A count, or a list such as 3,7,9, in the place of the scenario's; all meet the same.")
    ] = "",
    held_out: Annotated[int, typer.Option(help="How many other seeds the front is scored on again.", min=1)] = 5,
    storage: Annotated[
        str | None, typer.Option(help="File or URL of a database; by default study.db in --out.", show_default=False)
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Its name in the storage; the scenario's by default.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; SCENARIO-tuned by default.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the best parameters of policies for a scenario; the same command again goes on where it ended."""
    from foredraft.files import made_folder, written_together
    from foredraft_sim.tune.outcome import outcome_of, policy_files
    from foredraft_sim.tune.picture import picture_of

    needs("optuna", "sqlalchemy")
    from foredraft_sim.tune.measures import Measures
    from foredraft_sim.tune.storage import begin, candidates, lost, opened, place_of
    from foredraft_sim.tune.work import Job, run, work

    search = search_of(scenario, policy or [], objective or [], limit or [], seeds)
    folder = made_folder(out or Path(f"{scenario.stem}-tuned"))
    place = place_of(storage or str(folder / "study.db"), study or scenario.stem)
    most = min(trials, search.count() or trials)
    with opened(place) as kept:
        before = {one.policy for one in candidates(begin(kept, place, search, trials).get_trials(deepcopy=False))}
    job = Job(search, place, most)
    with _there(search, workers, scheduler) as there, _progress(search, most) as tell:
        if there is None:
            run(job, workers or _worth(search, most), tell)
        else:
            planned = [policy for policy in search.planned(most) if policy not in before]
            work(job, tell, Measures(search, there, planned).of)
        with opened(place) as kept:
            tried = begin(kept, place, search, trials).get_trials(deepcopy=False)
        held_out_seeds = _others(search.seeds, held_out)
        outcome = outcome_of(search, place.study, candidates(tried), lost(tried), held_out_seeds, there)
    files = policy_files(outcome, folder)
    files[folder / "front.svg"] = picture_of(outcome).encode()
    written_together(files)
    if as_json:
        import msgspec

        said = outcome.said() | {"storage": str(place), "files": [str(path) for path in files]}
        typer.echo(msgspec.json.encode(said).decode())
    else:
        _show(outcome, list(files))


def search_of(
    path: Path, policies: Sequence[str], objectives: Sequence[str], limits: Sequence[str], seeds: str
) -> "Search":
    """What the options ask for. Raises ConfigError, UnknownNameError, ScenarioError."""
    from foredraft.policies import policy_names
    from foredraft.policies.parameters import tunable
    from foredraft_sim.scenario.scenario import read_scenario
    from foredraft_sim.tune.metrics import check_known_here, known, limit_of
    from foredraft_sim.tune.search import Search

    scenario = read_scenario(path)
    chosen = tuple(policies or (name for name in policy_names() if runs_in(scenario, name)))
    for name, values in (("--policy", chosen), ("--objective", objectives), ("--limit", limits)):
        _refuse_repeats(name, [value.partition("=")[0] if name == "--limit" else value for value in values])
    for policy in chosen:
        tunable(policy)
        scenario.policy(policy)
        if not runs_in(scenario, policy):
            way = 'give it one, [cloud] draft = "PROFILE", or leave the policy out'
            raise ConfigError(f"--policy {policy}: {path} has no draft model in the cloud to tune it with: {way}")
    minimised = tuple(known(name) for name in objectives or ("p50-tpot",))
    limited = dict(limit_of(text) for text in limits)
    check_known_here(scenario, (*minimised, *limited))
    return Search(scenario, chosen, minimised, limited, _seeds(scenario, seeds))


def runs_in(scenario: "Scenario", policy: str) -> bool:
    """Whether the scenario has the draft model in the cloud that the policy may want. Raises ConfigError."""
    from foredraft.policies import make_policy
    from foredraft.policies.colocated import drafts_in_cloud

    return scenario.cloud_draft is not None or not drafts_in_cloud(make_policy(policy))


def _seeds(scenario: "Scenario", text: str) -> tuple[int, ...]:
    if not text:
        return scenario.seeds
    try:
        values = [int(part) for part in text.split(",")]
        seeds = tuple(range(1, values[0] + 1)) if len(values) == 1 else tuple(values)
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text!r}: write a count (5: seeds 1 to 5) or different seeds with commas (3,7,9)")
    return seeds


def _others(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    return tuple(range(max(seeds) + 1, max(seeds) + 1 + count))


def _refuse_repeats(name: str, values: Sequence[str]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise ConfigError(f"{name} {value} is there twice; once is enough")


def _worth(search: "Search", trials: int) -> int:
    from foredraft_sim.scenario.replications import worthwhile_processes

    return min(worthwhile_processes(search.scenario, trials * len(search.seeds)), trials)


def _there(search: "Search", processes: int | None, scheduler: str) -> "AbstractContextManager[Workers | None]":
    """The workers of a scheduler, where one was named."""
    from foredraft_sim.scenario.replications import workers_for

    if not scheduler:
        return nullcontext()
    return workers_for(search.scenario, len(search.seeds), processes, scheduler)


@contextmanager
def _progress(search: "Search", trials: int) -> "Iterator[Tell]":
    """The best so far, while it is searched."""
    with progress("tuning", count=True) as show:

        def tell(done: "Sequence[Candidate]") -> None:
            show(min(len(done), trials), trials, best_so_far(search, done))

        yield tell


def best_so_far(search: "Search", done: "Sequence[Candidate]") -> str:
    """In a few words."""
    front = search.front(done)
    if not front:
        return "none within the limits yet" if done else ""
    name = search.objectives[0]
    more = f", {len(front)} on the front" if len(search.objectives) > 1 else ""
    return f"best {name} {front[0].metrics[name]:.4g}: {front[0].policy}{more}"


def _show(outcome: "Outcome", files: Sequence[Path]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True)
    console.print(table_of(outcome))
    for number, one in enumerate(outcome.front, 1):
        console.print(f"{number:>3}  {one.candidate.policy}", highlight=False, markup=False)
    search, tried = outcome.search, len(outcome.candidates)
    whole = ", which are all there are" if tried >= (search.count() or tried + 1) else ""
    lines = [
        f"{tried} candidates{whole}, seeds {_numbers(search.seeds)}; held out: seeds {_numbers(outcome.held_out_seeds)}"
    ]
    failed = [one for one in outcome.candidates if one.failure]
    if failed:
        lines.append(f"{len(failed)} could not be run to their end, such as {failed[0].policy}: {failed[0].failure}")
    if outcome.lost:
        lines.append(f"{outcome.lost} trial(s) ended with their process and were put in line again")
    lines.append(f"written: {', '.join(map(str, files))}")
    for line in lines:
        console.print(line, highlight=False, markup=False)


def table_of(outcome: "Outcome") -> "Table":
    """The front, and the policies as they come, by the seeds of the search and by others."""
    from rich.table import Table

    from foredraft_sim.tune.metrics import UNITS

    search = outcome.search
    names = list(dict.fromkeys((*search.objectives, *search.limits)))
    table = Table(title=search.scenario.file.title or str(search.scenario.path))
    table.add_column("")
    for name in names:
        most = f", at most {search.limits[name]:g}" if name in search.limits else ""
        table.add_column(f"{name}, {UNITS[name]}{most}", justify="right")
        table.add_column("held out", justify="right")
    for number, one in enumerate(outcome.front, 1):
        table.add_row(str(number), *_cells(search, one, names))
    for one in outcome.defaults:
        table.add_row(f"{one.candidate.policy.partition(':')[0]} as it comes", *_cells(search, one, names), style="dim")
    return table


def _cells(search: "Search", one: "Scored", names: Sequence[str]) -> list[str]:
    cells: list[str] = []
    for name in names:
        for metrics in (one.candidate.metrics, one.held_out):
            if metrics is None:
                cells.append("failed")
            else:
                over = " (over)" if metrics[name] > search.limits.get(name, metrics[name]) else ""
                cells.append(f"{metrics[name]:.4g}{over}")
    return cells


def _numbers(seeds: Sequence[int]) -> str:
    run = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if run else ", ".join(map(str, seeds))
