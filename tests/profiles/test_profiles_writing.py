"""Writing profiles: what is written reads back as the same profile."""

from pathlib import Path

import pytest

from foredraft.profiles import load_profile, parse_profile, render_profile, shipped_profiles
from foredraft.profiles.schema import Grid, Model, Outage, Provenance, Range, TargetProfile


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_written_profile_reads_back_as_it_was(name: str) -> None:
    profile = load_profile(name)
    assert profile.path is not None
    again = parse_profile(render_profile(profile), profile.path)
    assert again == profile
    assert dict(again.provenance) == dict(profile.provenance)


def test_outages_are_written_as_tables_of_their_own() -> None:
    text = (
        render_profile(load_profile("lan"))
        + """
[[outages]]
start_s = { value = 1.5, provenance = "assumed", source = "a test" }
duration_s = { value = 2.0, provenance = "assumed", source = "a test" }
cuts = true
"""
    )
    profile = parse_profile(text, Path("x.toml"))
    again = parse_profile(render_profile(profile), Path("x.toml"))
    assert again == profile
    assert again.outages == (Outage(start_s=1.5, duration_s=2.0, cuts=True),)  # type: ignore[union-attr]


def test_a_measured_grid_and_awkward_texts_survive() -> None:
    here = Provenance("measured", 'on a "board", 5 °C\\x')
    paths = [f"target_pass.{key}" for key in ("new_tokens", "context", "seconds_s")]
    paths += ["model.layers", "target_pass.range.new_tokens", "target_pass.range.context"]
    profile = TargetProfile(
        name="grid",
        title='A "grid"',
        notes='two lines\nand """ a quote\n',
        kind="target",
        model=Model(name="m", layers=6),
        target_pass=Grid(
            new_tokens=(1, 4),
            context=(0, 64),
            seconds_s=(((0.001, 0.002), (0.003, 1e-05)),),
            range=Range(new_tokens=(1, 4), context=(0, 64)),
        ),
        provenance=dict.fromkeys(paths, here),
        path=Path("grid.toml"),
    )
    again = parse_profile(render_profile(profile), Path("grid.toml"))
    assert again == profile
