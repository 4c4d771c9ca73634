"""The demo as a user runs it, shorter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foredraft.demo_models import bundled_pair
from foredraft.errors import ModelError


def bundled() -> bool:
    try:
        bundled_pair()
    except ModelError:
        return False
    return True


@pytest.mark.skipif(not bundled(), reason="the bundled models are not there; make them with `make demo-models`")
@pytest.mark.timeout(180)
def test_the_demo_says_the_same_text_four_times_and_draws_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "where.png"
    command = [sys.executable, "-m", "foredraft", "demo", "--max-new-tokens", "10", "--picture", str(picture), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    runs = {run["policy"]: run for run in said["runs"]}
    assert list(runs) == ["cloud", "sync", "seed", "auto"]
    assert said["identical"]
    assert len({run["text"] for run in said["runs"]}) == 1
    assert runs["cloud"]["passes"] == 10 > runs["sync"]["passes"]
    assert runs["cloud"]["target_s"] >= 10 * 0.124
    assert runs["sync"]["draft_s"] >= 0.0144
    assert runs["seed"]["hints"] > 0
    assert said["emulated_link"]["round_trip_s"] >= 0.024
    assert "divided by 5" in said["emulation"]
    assert Path(said["picture"]) == picture
    assert picture.stat().st_size > 20_000


@pytest.mark.timeout(180)
def test_the_robots_demo_walks_the_same_way_four_times_and_draws_it(tmp_path: Path) -> None:
    picture, animation = tmp_path / "walk.png", tmp_path / "walk.gif"
    command = [sys.executable, "-m", "foredraft", "demo", "--robot", "--world", "14", "--json"]
    command += ["--picture", str(picture), "--animation", str(animation)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["instruction"] == "go to the blue box"
    assert [run["policy"] for run in said["runs"]] == ["cloud", "sync:gamma=4", "seed:gamma=4", "auto"]
    assert said["identical"]
    assert all(run["succeeded"] for run in said["runs"])
    cloud, sync = (run["decisions"] for run in said["runs"][:2])
    assert [one["passes"] for one in cloud] > [one["passes"] for one in sync]
    assert all(one["image_bytes"] > 0 and one["target_s"] >= one["passes"] * 0.124 for one in cloud)
    assert said["drawn"] == [str(picture), str(animation)]
    assert picture.stat().st_size > 20_000
    assert animation.stat().st_size > 20_000
