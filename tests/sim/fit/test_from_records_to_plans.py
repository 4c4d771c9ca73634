"""The whole way of the page: real sessions are recorded, a pair is fitted, and plans and tuning rest on it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api import clouds
from foredraft import read_record
from foredraft.api.edge import connect
from foredraft.cli.main import app
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.protocol.ports import Guess
from foredraft_sim.streams import drawn

SCENARIO = """\
pair = "mine.toml"
policies = ["sync:gamma=4"]
seeds = 2

[edge]
profile = "raspberry-pi-5-vicuna-68m"

[cloud]
profile = "a100-llama2-7b-eager"

[link]
profile = "lan"

[workload]
requests = 2
prompt_tokens = 8
new_tokens = 24
arrivals = { kind = "closed", think_s = 0.1 }
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said_by(*arguments: str | Path) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def drafter() -> ScriptedDrafter:
    """Right four times of five, by luck."""

    def guess(position: int, _: int) -> list[Guess]:
        right = drawn(7, position) < 0.8
        return [Guess(clouds.truth(position) if right else 0, 0.8)]

    return ScriptedDrafter(guess)


async def recorded(folder: Path) -> list[Path]:
    """Six texts over a real server's WebSockets, each in a file of its own."""
    files = [folder / f"{number}.rec" for number in range(6)]
    async with clouds.cloud() as cloud, cloud.listen() as url, connect(url, draft=drafter()) as edge:
        for number, file in enumerate(files):
            prompt = clouds.TEXT * (number + 1)
            await edge.generate(prompt, policy="seed", max_new_tokens=40, record=file).finish()
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records, the pair that was fitted to them, and a scenario that names it."""
    folder = tmp_path_factory.mktemp("traffic")
    files = asyncio.run(recorded(folder))
    fitted = run("fit-pair", *files, "--out", folder / "mine.toml", "--policy", "sync", "--tokens", "2000", "--json")
    said = json.loads(fitted.stdout)
    assert said["source"].startswith("6 recorded texts, 240 tokens")
    assert [one["held_out"] for one in said["checked"]] == [False, True]
    assert all(abs(one["simulated_tokens"] / one["replayed_tokens"] - 1.0) < 0.1 for one in said["checked"])
    (folder / "scenario.toml").write_text(SCENARIO)
    return folder


def test_a_simulation_has_the_tokens_per_pass_of_the_records_and_says_what_it_rests_on(folder: Path) -> None:
    seeds = [part for seed in range(8) for part in ("--seed", str(seed))]
    (policy,) = said_by("simulate", folder / "scenario.toml", *seeds)["policies"]
    records = [read_record(file) for file in folder.glob("*.rec")]
    passes, tokens = (
        sum(int(session.figures[name]) for record in records for session in record.sessions)
        for name in ("passes", "new_tokens")
    )
    assert policy["tokens_per_pass"] == pytest.approx(tokens / passes, rel=0.15)
    assert "pair: fitted to 6 recorded texts, 240 tokens" in run("simulate", folder / "scenario.toml").stdout


def test_a_plan_finds_a_fleet_and_says_what_it_rests_on(folder: Path) -> None:
    asked = ("plan", folder / "scenario.toml", "--slo", "p95-tpot=0.06", "--most", "2")
    said = said_by(*asked)
    carried = {row["policy"]: row["devices_per_server"] for row in said["rows"]}
    assert carried == {"cloud": 2, "sync:gamma=4": 2}
    assert said["inputs"][0]["pair"]["source"].startswith("6 recorded texts")
    shown = run(*asked)
    assert shown.exit_code == 0
    assert "pair: fitted to 6 recorded texts, 240 tokens" in shown.stdout
    assert "ASSUMED" in shown.stdout


def test_tuning_writes_a_policy_that_is_simulated_on_the_same_pair(folder: Path) -> None:
    asked = ("--policy", "sync", "--trials", "4", "--seeds", "2", "--held-out", "1", "--out", folder / "tuned")
    tuned = run("tune", folder / "scenario.toml", *asked)
    assert tuned.exit_code == 0, tuned.output
    policy = folder / "tuned" / "policy.toml"
    assert 'policy = "sync"' in policy.read_text()
    assert run("simulate", folder / "scenario.toml", "--policy", policy).exit_code == 0
