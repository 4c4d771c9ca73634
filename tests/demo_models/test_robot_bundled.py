"""The pair with eyes that comes with the package: its size, its type, its card, and that it finds its way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText

from foredraft.demo_models.pair import FOLDERS, bundled_pair
from foredraft.demo_models.robot import ROBOT
from foredraft.demo_models.robot.card import file_digest, weights
from foredraft.demo_models.robot.drive import Driver, drive
from foredraft.demo_models.robot.models import load
from foredraft.demo_models.robot.report import MEANINGS, REQUIRED
from foredraft.demo_models.tokenizer import tokenizer_digest
from foredraft.engines.model_files import model_digest
from foredraft.errors import ModelError
from foredraft.exits.card import read_card
from foredraft.robot.world import make_world

MAX_BYTES = 12_000_000
WORLDS = range(16)
SLACK = 0.25
"""How far the share of a few worlds may be below that of all: 16 of them say little."""


def card() -> dict[str, float]:
    figures: dict[str, float] = json.loads(bundled_pair("demo-robot").card.read_text(encoding="utf-8"))["figures"]
    return figures


def share(folder: Path, blind: bool = False) -> float:
    torch.set_num_threads(1)
    driver = Driver(load(folder), Tokenizer.from_file(str(folder / "tokenizer.json")), blind)
    return sum(one.succeeded for one in drive([make_world(seed) for seed in WORLDS], driver)) / len(WORLDS)


def test_it_is_small_and_in_16_bit_and_both_speak_the_same_tokens() -> None:
    pair = bundled_pair("demo-robot")
    assert pair.size_bytes <= MAX_BYTES
    for folder in (pair.target, pair.draft):
        with safe_open(folder / "model.safetensors", framework="numpy") as stored:
            assert {stored.get_slice(name).get_dtype() for name in stored.keys()} == {"F16"}  # noqa: SIM118
    assert tokenizer_digest(pair.target) == tokenizer_digest(pair.draft)


def test_transformers_loads_both_and_their_rotary_sections_fill_half_a_head() -> None:
    pair = bundled_pair("demo-robot")
    for folder in (pair.target, pair.draft):
        text = AutoModelForImageTextToText.from_pretrained(folder).config.text_config
        assert 2 * sum(text.rope_parameters["mrope_section"]) == text.hidden_size // text.num_attention_heads


def test_the_exits_are_the_targets_after_a_third_and_two_thirds_of_it() -> None:
    pair = bundled_pair("demo-robot")
    exits = read_card(pair.exits)
    assert exits.model_digest == model_digest(pair.target)
    assert [3 * layer for layer in exits.layers] == [exits.model_layers, 2 * exits.model_layers]


def test_the_card_says_what_was_reached_with_which_files() -> None:
    pair = bundled_pair("demo-robot")
    body = json.loads(pair.card.read_text(encoding="utf-8"))
    readme = (ROBOT / "README.md").read_text(encoding="utf-8")
    assert body["files"] == {path.relative_to(ROBOT).as_posix(): file_digest(path) for path in weights(pair)}
    assert all(meaning in readme for meaning in MEANINGS.values())
    for name, (low, high) in REQUIRED.items():
        assert (name in body["missed"]) == (not low <= body["figures"][name] <= high)
    assert body["conditions"]["held_out_worlds"].startswith("200,")
    assert body["durations_s"]["target"] > 0


def test_the_target_finds_its_way_as_often_as_the_card_says_and_blind_it_does_not() -> None:
    assert share(bundled_pair("demo-robot").target) >= card()["success_target"] - SLACK
    assert share(bundled_pair("demo-robot").target, blind=True) <= card()["success_blind"] + SLACK


def test_a_missing_pair_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FOLDERS, "demo-robot", tmp_path)
    with pytest.raises(ModelError, match="make demo-robot-models"):
        bundled_pair("demo-robot")


def test_finding_it_loads_no_torch() -> None:
    code = "import sys, foredraft.demo_models.robot as m; m.ROBOT; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
