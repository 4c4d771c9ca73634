"""The whole recipe of the pair with eyes, tiny: models of a few thousand numbers, seconds of training."""

import json
from pathlib import Path

import pytest
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from foredraft.demo_models.pair import Pair
from foredraft.demo_models.plan import Plan
from foredraft.demo_models.robot import batches, recipe, steps
from foredraft.demo_models.robot.models import Shape
from foredraft.demo_models.robot.report import MEANINGS, REQUIRED
from foredraft.engines.model_files import model_digest
from foredraft.exits.card import read_card

TINY = Shape(layers=3, hidden=32, intermediate=64, kv_heads=1, eye_layers=1, eye_width=32)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TARGET": TINY, "DRAFT": TINY, "EXIT_LAYERS": (1, 2), "LANGUAGE_WORLDS": 40}.items():
        monkeypatch.setattr(steps, name, value)
    monkeypatch.setattr(steps, "LESSONS", 32)
    monkeypatch.setattr(batches, "BATCH_VIEWS", 2)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("tiny")
def test_the_recipe_makes_a_pair_with_eyes_and_its_card(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "work", tmp_path / "out", minutes=0.05, threads=1, samples=2)
    pair = recipe.make_pair(plan)
    assert pair == Pair.below(tmp_path / "out")
    card = json.loads(pair.card.read_text(encoding="utf-8"))
    assert set(card["figures"]) == set(MEANINGS)
    assert card["missed"] == ["success_target"]
    assert card["figures"]["success_expert"] == 1.0
    assert set(card["required"]) == set(REQUIRED)
    assert set(card["durations_s"]) == {"tokenizer", "target", "draft", "exits", "judge"}
    assert read_card(pair.exits).model_digest == model_digest(pair.target)
    assert "What they are not" in pair.card.with_name("README.md").read_text(encoding="utf-8")
    for folder in (pair.target, pair.draft):
        model = AutoModelForImageTextToText.from_pretrained(folder)
        assert (model.config.model_type, model.config.text_config.num_hidden_layers) == ("qwen2_vl", TINY.layers)
        assert not hasattr(model, "guide")
        assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(folder).eos_token_id
        assert AutoImageProcessor.from_pretrained(folder, backend="pil").patch_size == 14

    weights = (pair.target / "model.safetensors").read_bytes()
    recipe.make_pair(plan)  # finds every step done
    assert (pair.target / "model.safetensors").read_bytes() == weights


def test_no_more_than_the_promised_time() -> None:
    with pytest.raises(SystemExit):
        recipe.main(["--minutes", "76"])
