"""A model that sees, in simulated time: the texts of real time, and links that carry its images. Needs torch."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("torch")

import foredraft
from engines import tiny_eyes
from foredraft.api.conversation import prompt_about
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.world.connect import connect

FIRST, SECOND = (tiny_eyes.picture(112, 112, seed=seed, kind="JPEG") for seed in (1, 2))
SCENARIO = """
policies = ["auto"]
seeds = [1]

[edge]
profile = "robot-5-draft"

[cloud]
profile = "robot-5-target"

[link]
profile = "{link}"

[pair]
kind = "models"
target = "{model}"
draft = "{model}"

[workload]
prompts = ["x"]
new_tokens = 8
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_eyes.save(tmp_path_factory.mktemp("eyes") / "qwen2_vl")


def scenario(tmp_path: Path, model: Path, link: str) -> Path:
    file = tmp_path / f"{link}.toml"
    file.write_text(SCENARIO.format(model=model, link=link))
    return file


async def described(edge: foredraft.Edge, policy: str, image: bytes) -> foredraft.SessionReport:
    prompt = await prompt_about(edge, "what is it?", 1)
    shown = [foredraft.image_of(image)]
    return await edge.generate(prompt, images=shown, policy=policy, max_new_tokens=16, end_marks=False).finish()


def in_world(file: Path) -> list[foredraft.SessionReport]:
    async def both() -> list[foredraft.SessionReport]:
        async with connect(file, seed=1) as edge:
            return [await described(edge, policy, image) for policy in ("cloud", "seed") for image in (FIRST, SECOND)]

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(both())


def test_texts_about_images_are_those_of_real_time_and_links_carry_them(tmp_path: Path, model: Path) -> None:
    async def really() -> list[list[int]]:
        async with foredraft.Cloud.load(model, exits=None) as cloud, foredraft.connect(cloud) as edge:
            return [(await described(edge, "cloud", image)).tokens for image in (FIRST, SECOND)]

    reports = in_world(scenario(tmp_path, model, "lte"))
    assert [report.tokens for report in reports] == asyncio.run(really()) * 2
    assert [report.image_bytes for report in reports] == [len(FIRST), len(SECOND), 0, 0]
    least_s = 8 * len(FIRST) / 6.3e6  # the bits, at LTE's rate up
    assert reports[0].image_s > least_s + 0.04
    assert reports[2].image_s < reports[0].image_s
    assert reports[0].passes > reports[2].passes
    again = in_world(scenario(tmp_path, model, "lte"))
    assert again == reports
