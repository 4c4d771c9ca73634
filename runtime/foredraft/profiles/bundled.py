"""Measure a pair of models on this machine, the bundled one unless told otherwise, and write its two profiles.

    python -m foredraft.profiles.bundled --machine "2 vCPU of a Xeon at 2.5 GHz" --out FOLDER

``cpu-bundled-draft.toml`` and ``cpu-bundled-target.toml`` are written to FOLDER. ``--machine`` says in
words what class of machine this is. A machine that is busy with other things is refused, unless forced.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import msgspec

from foredraft.demo_models import bundled_pair
from foredraft.engines.loading import DEMO, ModelOptions, load_drafter, load_target
from foredraft.errors import ConfigError, ForedraftError
from foredraft.profiles.measuring import measure_drafter, measure_target
from foredraft.profiles.reading import parse_profile
from foredraft.profiles.schema import DraftProfile, Model, Provenance, Residual, TargetProfile
from foredraft.profiles.writing import render_profile

_NODES = (1, 2, 4, 8, 16)
_NEW_TOKENS = (1, 2, 4, 8, 16, 32)
_REPEATS = 25
_NOISIEST_CV = 0.2
_OPTIONS = ModelOptions(threads=1)
_P = TypeVar("_P", DraftProfile, TargetProfile)


async def measure_draft(draft: str, machine: str) -> DraftProfile:
    """The profile of a draft model on this machine, one thread."""
    folder = bundled_pair().draft if draft == DEMO else Path(draft)
    drafter, _ = load_drafter(draft, _OPTIONS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocab_size, most = config["vocab_size"], config["max_position_embeddings"]
    contexts = _contexts(most)
    try:
        measured = await measure_drafter(
            drafter, _NODES, _prompts(contexts, most), contexts, vocab_size=vocab_size, repeats=_REPEATS
        )
    finally:
        await drafter.close()
    profile = DraftProfile(
        name="cpu-bundled-draft",
        title=f"The bundled draft model on {machine}, one thread",
        notes="Measured as the session sees it: thread hops are in it.\n",
        kind="draft",
        model=Model(name=_name(draft), layers=config["num_hidden_layers"]),
        draft_step=measured.calls,
        prefill=measured.prefill,
        residual=Residual(cv=round(measured.cv, 4)),
    )
    return _sourced(profile, machine)


async def measure_passes(target_name: str, exits: str | None, machine: str) -> TargetProfile:
    """The profile of a target model on this machine, one thread."""
    target, _ = load_target(target_name, exits, _OPTIONS, cache_bytes=1 << 30, max_seats=8)
    try:
        measured = await measure_target(target, _NEW_TOKENS, _contexts(target.card.context), repeats=_REPEATS)
    finally:
        await target.close()
    profile = TargetProfile(
        name="cpu-bundled-target",
        title=f"The bundled target model on {machine}, one thread",
        notes="Measured as the session sees it: thread hops are in it.\n",
        kind="target",
        model=Model(
            name=_name(target_name),
            layers=target.card.layers,
            head_share=round(measured.head_share, 4),
            exit_s=round(measured.exit_s, 7),
        ),
        target_pass=measured.calls,
        prefill=measured.prefill,
        residual=Residual(cv=round(measured.cv, 4)),
    )
    return _sourced(profile, machine)


def _contexts(most: int) -> tuple[int, ...]:
    return 1, most // 4, most * 3 // 4


def _prompts(contexts: tuple[int, ...], most: int) -> list[int]:
    longest = most - max(contexts) - 1
    return [size for size in (1, 32, 128) if size < longest] + [longest]


def _name(model: str) -> str:
    return "the bundled model" if model == DEMO else Path(model).name


def _sourced(profile: _P, machine: str) -> _P:
    """The profile with a provenance for each number: measured, read from the model, or chosen."""
    how = f"on {machine}, torch {version('torch')}, one thread, float32, {datetime.now(UTC).date()}"
    measured = Provenance("measured", f"medians, {how}")
    chosen = Provenance("measured", f"where it was measured, {how}")
    given = Provenance("published", "the model's config.json")
    provenance = {"model.layers": given, "residual.cv": Provenance("measured", f"spread of the calls, {how}")}
    if profile.model.head_share or profile.model.exit_s:
        provenance |= {"model.head_share": measured, "model.exit_s": measured}
    for curve in ("draft_step", "target_pass", "prefill"):
        provenance |= {f"{curve}.{key}": chosen for key in ("new_tokens", "context", "batch")}
        provenance |= {f"{curve}.range.{key}": chosen for key in ("new_tokens", "context", "batch")}
        provenance[f"{curve}.seconds_s"] = measured
    return msgspec.structs.replace(profile, provenance=provenance)


def check_quiet(found: Sequence[DraftProfile | TargetProfile]) -> None:
    """Raise ConfigError if calls varied so much that their medians mean little."""
    for profile in found:
        if profile.residual is not None and profile.residual.cv > _NOISIEST_CV:
            raise ConfigError(
                f"{profile.name}: calls varied by {profile.residual.cv:.0%}, more than {_NOISIEST_CV:.0%}: this "
                "machine is busy with other things; try again when it is idle, or use --force"
            )


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and say what was found."""
    parser = argparse.ArgumentParser(prog="foredraft.profiles.bundled", description=__doc__)
    parser.add_argument("--machine", required=True, help="the class of machine, in words")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the two files")
    parser.add_argument("--target", default=DEMO, help="folder of a target model")
    parser.add_argument("--exits", help="folder of its exits")
    parser.add_argument("--draft", default=DEMO, help="folder of a draft model")
    parser.add_argument("--force", action="store_true", help="write what a noisy machine gave, too")
    asked = parser.parse_args(arguments)
    try:
        found: list[DraftProfile | TargetProfile] = [
            asyncio.run(measure_draft(asked.draft, asked.machine)),
            asyncio.run(measure_passes(asked.target, asked.exits, asked.machine)),
        ]
        if not asked.force:
            check_quiet(found)
    except ForedraftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for profile in found:
        path = asked.out / f"{profile.name}.toml"
        path.write_text(render_profile(parse_profile(render_profile(profile), path)), encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
