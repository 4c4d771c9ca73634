"""The whole recipe, tiny: models of a few thousand numbers, seconds of training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from foredraft.demo_models import recipe, samples, steps, verdict
from foredraft.demo_models.corpus import Corpus, SourceFile, library_root, normalise
from foredraft.demo_models.pair import Pair
from foredraft.demo_models.plan import Plan
from foredraft.demo_models.report import REQUIRED
from foredraft.demo_models.train import Shape

TINY = Shape(layers=4, hidden=32, intermediate=64, heads=2, kv_heads=2, max_positions=256)


def small_corpus() -> Corpus:
    def read(*names: str) -> tuple[SourceFile, ...]:
        sources = ((library_root() / name).read_text(encoding="utf-8") for name in names)
        return tuple(SourceFile(name, normalise(source)) for name, source in zip(names, sources, strict=True))

    return Corpus(
        read("argparse.py", "inspect.py", "typing.py", "ast.py", "tarfile.py"), read("textwrap.py", "mailbox.py")
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHALLOW", TINY)
    monkeypatch.setattr(steps, "GROW_AFTER", (1, 2))
    monkeypatch.setattr(steps, "TARGET", replace(TINY, layers=6))
    monkeypatch.setattr(steps, "DRAFT", replace(TINY, layers=1))
    monkeypatch.setattr(steps, "EXIT_LAYERS", (2, 3))
    monkeypatch.setattr(steps, "VOCABULARY", 320)
    monkeypatch.setattr(verdict, "SAMPLE_LINES", 2)
    monkeypatch.setattr(samples, "TIMED_ROUNDS", 5)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("tiny")
def test_the_recipe_makes_a_pair_and_its_card(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "work", tmp_path / "out", minutes=0.05, threads=1, samples=4)
    corpus = small_corpus()
    pair = recipe.make_pair(plan, corpus)
    assert pair == Pair.below(tmp_path / "out")
    card = json.loads(pair.card.read_text(encoding="utf-8"))
    assert set(card["figures"]) == set(card["required"]) == set(REQUIRED)
    assert card["figures"]["tokens_per_pass"] >= 1
    assert card["figures"]["hint_share"] is not None
    assert set(card["durations_s"]) == {"tokenizer", "target", "draft", "exits", "judge"}
    tokenizer = AutoTokenizer.from_pretrained(pair.draft)
    assert tokenizer.decode(tokenizer("def f():\n    return 1\n")["input_ids"]) == "def f():\n    return 1\n"
    assert AutoModelForCausalLM.from_pretrained(pair.target).config.num_hidden_layers == 6

    weights = (pair.target / "model.safetensors").read_bytes()
    recipe.make_pair(plan, corpus)  # finds every step done
    assert (pair.target / "model.safetensors").read_bytes() == weights


def test_no_more_than_the_promised_time() -> None:
    with pytest.raises(SystemExit):
        recipe.main(["--minutes", "91"])
