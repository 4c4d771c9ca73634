"""The pair that comes with the package: its size, its type, its tokenizer, its card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from foredraft.demo_models import BUNDLED, Pair, bundled_pair
from foredraft.demo_models.pair import FOLDERS
from foredraft.demo_models.report import MEANINGS, REQUIRED
from foredraft.demo_models.tokenizer import tokenizer_digest
from foredraft.errors import ModelError

MAX_BYTES = 20_000_000


def test_it_is_small_and_in_16_bit() -> None:
    pair = bundled_pair()
    assert pair.size_bytes <= MAX_BYTES
    for folder in (pair.target, pair.draft):
        with safe_open(folder / "model.safetensors", framework="numpy") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118


def test_both_speak_the_same_tokens() -> None:
    pair = bundled_pair()
    assert tokenizer_digest(pair.target) == tokenizer_digest(pair.draft)


def test_the_card_says_what_was_reached_where_and_in_how_long() -> None:
    card = json.loads(bundled_pair().card.read_text(encoding="utf-8"))
    readme = (BUNDLED / "README.md").read_text(encoding="utf-8")
    assert set(card["figures"]) == set(REQUIRED)
    assert card["conditions"]["samples"] >= 100
    assert card["conditions"]["temperature"] == 0.8
    assert card["machine"]["cores"] >= 1
    assert card["durations_s"]["target"] > 0
    for name, meaning in MEANINGS.items():
        assert meaning in readme
        value, (low, high) = card["figures"][name], card["required"][name]
        assert (name in card["missed"]) == (value is None or not low <= value <= high)


def test_a_missing_pair_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FOLDERS, "demo", tmp_path)
    with pytest.raises(ModelError, match="make demo-models"):
        bundled_pair()


def test_finding_it_loads_no_torch() -> None:
    code = "import sys, foredraft.demo_models as m; m.BUNDLED; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_parts_lie_side_by_side(tmp_path: Path) -> None:
    pair = Pair.below(tmp_path)
    assert {pair.target.name, pair.exits.name, pair.draft.name} == {"target", "exits", "draft"}
    assert pair.size_bytes == 0
