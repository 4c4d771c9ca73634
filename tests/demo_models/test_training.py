"""Training within a budget: its schedule, its checkpoints, growth in depth, and what the parts compute."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foredraft.demo_models.growth import grow
from foredraft.demo_models.losses import draft_loss, rule_breaking, scored_depth, target_loss
from foredraft.demo_models.optim import orthogonalise
from foredraft.demo_models.threads import ThreadChooser
from foredraft.demo_models.train import WINDOWS, Budget, Shape, Stream, build_model, rate_factor, train, window_at

TINY = Shape(layers=4, hidden=32, intermediate=64, heads=2, kv_heads=2, max_positions=64)
TEXTS = ["", "", *(f"word{i}" for i in range(48))]
VOCABULARY = len(TEXTS)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setattr("foredraft.demo_models.train.WINDOWS", ((1.0, 32),))
    monkeypatch.setattr("foredraft.demo_models.train.STEP_TOKENS", 256)
    files = [[0, *(2 + (start + i) % 40 for i in range(90)), 1] for start in range(8)]
    return Stream(files, 1, TEXTS)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    shares = [i / 100 for i in range(101)]
    factors = [rate_factor(share) for share in shares]
    peak = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0)
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] == pytest.approx(0.0)


def test_windows_grow_and_end_at_the_models_context() -> None:
    lengths = [window_at(i / 50) for i in range(51)]
    assert lengths == sorted(lengths)
    assert window_at(1.0) == WINDOWS[-1][1] == Shape(1, 1, 1, 1, 1).max_positions


def test_half_depth_is_scored_most() -> None:
    depths = [scored_depth(12, step)[0] for step in range(8)]
    assert depths.count(6) == 4
    assert {3, 9} < set(depths)


def test_training_learns_and_goes_on_from_its_checkpoint(tmp_path: Path, stream: Stream) -> None:
    torch.manual_seed(1)
    model = build_model(TINY, VOCABULARY)
    budget = Budget(seconds=1.5, seed=1, checkpoint=tmp_path / "target.pt", threads=1)
    first = train(model, stream.at, target_loss(model, stream.ruled_out), budget)
    assert first.tokens > 0
    assert first.loss_nats < 3.8  # a uniform guess costs 3.9
    again = build_model(TINY, VOCABULARY)
    second = train(again, stream.at, target_loss(again, stream.ruled_out), budget)
    assert second.tokens == first.tokens
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_draft_comes_closer_to_its_target(tmp_path: Path, stream: Stream) -> None:
    torch.manual_seed(1)
    target = build_model(TINY, VOCABULARY).eval().requires_grad_(False)
    target.model.norm.weight.fill_(20.0)  # else it says next to nothing
    draft = build_model(replace(TINY, layers=1), VOCABULARY)
    loss_of = draft_loss(draft, target)
    batch = stream.batch(8, 32)
    before = loss_of(batch, 0)[1]
    train(draft, stream.at, loss_of, Budget(seconds=1.0, seed=1, checkpoint=tmp_path / "draft.pt", threads=1))
    assert loss_of(batch, 0)[1] < before


def test_growing_changes_nothing_yet() -> None:
    torch.manual_seed(1)
    model = build_model(TINY, VOCABULARY).eval()
    grown = grow(model, TINY, (1, 3)).eval()
    assert grown.config.num_hidden_layers == len(grown.model.layers) == 6
    tokens = torch.arange(2, 22)[None]
    assert torch.equal(model(input_ids=tokens).logits, grown(input_ids=tokens).logits)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 16), (2, 16, 4)])
def test_orthogonalise_evens_out_singular_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert float(values.max()) < 1.5
    assert float(values.median()) > 0.5


def test_threads_follow_what_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    chooser = ThreadChooser(2)
    for step in range(200):
        chooser.before_step(step)
        fast = 1 if step < 90 else 2
        chooser.after_step(1.0 if chooser.current == fast else 2.0)
    assert set(told[4:60]) == {1}
    assert set(told[124:180]) == {2}


def test_batches_are_windows_of_the_stream(stream: Stream) -> None:
    batch = stream.batch(16, 20)
    assert batch.tokens.shape == batch.states.shape == (16, 21)
    text = stream.tokens.tolist()
    for row in batch.tokens.tolist():
        assert any(text[i : i + 21] == row for i in range(len(text)))


def test_breaking_rules_costs_the_logarithm_of_what_is_left() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    ruled_out = torch.tensor([[True, False, False], [False, False, False]])
    assert rule_breaking(probabilities.log(), ruled_out).item() == pytest.approx(-math.log(0.5) / 2)
