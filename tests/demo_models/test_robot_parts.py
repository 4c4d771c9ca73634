"""What the robot's models learn from, and how they are read: against transformers' own ways."""

from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from foredraft.demo_models.robot import batches, precision
from foredraft.demo_models.robot.batches import HIDDEN, Batch, Collator, Draw, image_processor, look, positions, read
from foredraft.demo_models.robot.drive import Driver, drive, expert
from foredraft.demo_models.robot.language import END, GRID, IMAGE, IMAGE_TOKENS, SPECIAL, learn_language, prompt
from foredraft.demo_models.robot.losses import Guide, draft_loss, eyes_loss, target_loss
from foredraft.demo_models.robot.models import Shape, build_model
from foredraft.demo_models.robot.remembered import WINDOW, remember
from foredraft.demo_models.robot.views import QUESTIONS, lesson, lessons, poses
from foredraft.errors import GrammarError
from foredraft.robot.camera import HEIGHT, WIDTH, render
from foredraft.robot.plans import SCHEMA, read_plan
from foredraft.robot.walk import Episode
from foredraft.robot.world import NAMES, ORIGIN, SIDES, bumps, from_side, make_world
from foredraft.text.constraint import constraint_of
from foredraft.text.grammar import Grammars

TINY = Shape(layers=3, hidden=32, intermediate=64, kv_heads=1, eye_layers=1, eye_width=32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn_language(range(40))


@pytest.fixture(scope="module")
def batch(tokenizer: Tokenizer) -> Batch:
    return Collator(tokenizer).collate(list(islice(lessons(iter(range(20))), 4)))


@pytest.fixture
def model(tokenizer: Tokenizer) -> Any:
    torch.manual_seed(1)
    return build_model(TINY, tokenizer.get_vocab_size()).eval()


def test_qwens_marks_come_first_and_digits_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(mark) for mark in SPECIAL] == list(range(len(SPECIAL)))
    text = '{"see":"red box","turn":-40,"walk":1.5,"done":false}'
    assert tokenizer.encode(text).tokens[6:10] == ["turn", '":-', "4", "0"]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode(prompt("go to the red box")).ids.count(SPECIAL.index(IMAGE)) == IMAGE_TOKENS


def test_every_answer_is_a_plan_and_lessons_repeat_themselves() -> None:
    one, other = (list(islice(lessons(iter(range(30))), 20)) for _ in "ab")
    assert [each.asked for each in one] == [each.asked for each in other]
    for taught in one:
        assert len(taught.asked) == QUESTIONS
        for question, answer in taught.asked:
            assert "\nseen: " in question
            assert read_plan(answer)


def test_the_schema_lets_through_every_plan_as_it_is_written(tokenizer: Tokenizer) -> None:
    vocabulary, end = tokenizer.get_vocab_size(), SPECIAL.index(END)
    constraint = constraint_of(json_schema=SCHEMA)
    assert constraint is not None
    grammars = Grammars(tokenizer.to_str().encode(), vocabulary, [end])
    for taught in islice(lessons(iter(range(30))), 40):
        for _, answer in taught.asked:
            grammar = grammars.begin(constraint)
            grammar.follow([*tokenizer.encode(answer).ids, end])
            assert grammar.complete
    with pytest.raises(GrammarError):
        grammars.begin(constraint).follow(tokenizer.encode('{"see":"red chair","turn":90').ids)


def test_views_are_from_the_start_and_from_where_nothing_is_touched() -> None:
    world = make_world(3)
    found = poses(world, Random(1))
    assert found[0] == ORIGIN
    assert len(set(found)) > 3
    assert not any(bumps(world, pose) for pose in found)


def test_the_image_processor_makes_the_views_patches_and_shrinks_what_is_larger(tokenizer: Tokenizer) -> None:
    view = render(make_world(1), ORIGIN)
    ours = Collator(tokenizer).pixels([view])
    theirs = Qwen2VLImageProcessorPil(**image_processor().to_dict())([Image.fromarray(view)], return_tensors="pt")
    assert torch.equal(ours, theirs["pixel_values"])
    assert theirs["image_grid_thw"].tolist() == [list(GRID)]
    large = image_processor()([Image.new("RGB", (4 * WIDTH, 4 * HEIGHT))], return_tensors="pt")
    assert large["image_grid_thw"].tolist() == [list(GRID)]


def test_positions_are_qwens(model: Any, batch: Batch) -> None:
    rows, length = batch.tokens.shape
    theirs, _ = model.model.get_rope_index(
        batch.tokens,
        mm_token_type_ids=(batch.tokens == SPECIAL.index(IMAGE)).int(),
        image_grid_thw=torch.tensor([GRID] * rows),
    )
    start = batch.tokens[0].tolist().index(SPECIAL.index(IMAGE))
    assert all(torch.equal(theirs[:, row], positions(start, length)) for row in range(rows))


@torch.no_grad()
def test_reading_once_for_all_questions_says_what_transformers_says_of_each(model: Any, batch: Batch) -> None:
    ours = model.lm_head(read(model, batch, look(model, batch))[-1])
    rows = len(batch.tokens)
    pixels = batch.pixels.reshape(batch.views, 1, -1).repeat(1, QUESTIONS, 1).reshape(-1, batch.pixels.shape[1])
    theirs = model(
        input_ids=batch.tokens,
        pixel_values=pixels,
        image_grid_thw=torch.tensor([GRID] * rows),
        mm_token_type_ids=(batch.tokens == SPECIAL.index(IMAGE)).int(),
    ).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hidden_states_are_those_after_each_layer(model: Any, batch: Batch) -> None:
    kept: dict[str, Any] = {}
    layer = model.model.language_model.layers[1]
    hook = layer.register_forward_hook(lambda _module, _inputs, output: kept.update(out=output))
    states = read(model, batch, look(model, batch))
    hook.remove()
    out = kept["out"][0] if isinstance(kept["out"], tuple) else kept["out"]
    assert torch.equal(states[2], out)
    assert len(states) == TINY.layers + 1


def test_spots_say_which_token_of_the_image_shows_a_thing(tokenizer: Tokenizer) -> None:
    taught = list(islice(lessons(iter(range(20))), 4))
    batch = Collator(tokenizer).collate(taught)
    assert len(batch.spots) == len(batch.places) == sum(len(one.spots) for one in taught) > 0
    wide = WIDTH // 28
    for (_, at, _), (column, _) in zip(batch.spots.tolist(), batch.places.tolist(), strict=True):
        assert int((column + 1) / 2 * wide) == at % wide


def test_spots_say_which_of_its_kind_a_thing_is_from_either_side(tokenizer: Tokenizer) -> None:
    worlds = [make_world(seed, counted_share=1.0) for seed in range(12)]
    taught = [lesson(world, ORIGIN, Random(1)) for world in worlds]
    counted = Collator(tokenizer).collate(taught).counted
    assert counted.tolist() == [list(spot.counted or (HIDDEN, HIDDEN)) for one in taught for spot in one.spots]
    for world, one in zip(worlds, taught, strict=True):
        named = {NAMES[spot.name]: spot.counted for spot in one.spots}
        for column, side in enumerate(SIDES):
            for number, thing in enumerate(from_side(world, ORIGIN, world.goal.kind, side)):
                of_both = named[thing.name]
                assert of_both is not None
                assert of_both[column] == number


def test_the_guide_asks_the_eyes_for_the_order_and_nothing_of_what_is_hidden(batch: Batch) -> None:
    torch.manual_seed(1)
    guide = Guide(TINY.hidden)
    seen = torch.randn(batch.views, IMAGE_TOKENS, TINY.hidden, requires_grad=True)
    guide.loss(seen, batch).backward()  # type: ignore[no-untyped-call]
    assert guide.order.weight.grad is not None
    assert guide.order.weight.grad.abs().sum() > 0
    guide.zero_grad()
    guide.loss(seen, batch._replace(counted=torch.full_like(batch.counted, HIDDEN))).backward()  # type: ignore[no-untyped-call]
    assert guide.order.weight.grad is None or guide.order.weight.grad.abs().sum() == 0


def test_losses_fall(tokenizer: Tokenizer, model: Any, batch: Batch) -> None:
    target = build_model(TINY, tokenizer.get_vocab_size()).eval().requires_grad_(False)
    model.guide = Guide(TINY.hidden)
    for loss_of in (eyes_loss(model), target_loss(model, (1, 2)), draft_loss(model, target)):
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        said = []
        for step in range(6):
            loss, plain = loss_of(batch, step)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            said.append(plain.item())
        assert said[-1] < said[0]


def test_in_16_bit_the_loss_is_nearly_the_same(model: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    model.guide = Guide(TINY.hidden)
    loss_of = target_loss(model, (1, 2))
    monkeypatch.setattr(precision, "_product_s", lambda dtype: 1.0 if dtype == torch.float32 else 0.1)
    fast = precision.quickest(loss_of)
    assert fast is not loss_of
    assert fast(batch, 0)[0].item() == pytest.approx(loss_of(batch, 0)[0].item(), rel=0.02)
    monkeypatch.setattr(precision, "_product_s", lambda dtype: 1.0)
    assert precision.quickest(loss_of) is loss_of


def test_a_resumed_training_goes_on_to_other_worlds(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_VIEWS", 2)
    first, again, later = (Draw(Collator(tokenizer))(share) for share in (0.0, 0.0, 0.5))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, later.pixels)


def test_states_are_remembered_by_the_numbers_of_the_answers_tokens(
    tokenizer: Tokenizer, model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    read_model, windows = remember(model, tmp_path, Collator(tokenizer), (1, 2), 8, lambda *_: None)
    assert windows.train.shape[1] == windows.held_out.shape[1] == WINDOW
    states, final = read_model.states(windows.held_out[:2], (1, 2))
    assert final.shape == states[1].shape == (2 * WINDOW, TINY.hidden)
    assert read_model.depth == TINY.layers
    assert set(windows.train.flatten().tolist()).isdisjoint(windows.held_out.flatten().tolist())


def test_the_expert_drives_many_worlds_at_once_and_an_untrained_model_none(tokenizer: Tokenizer, model: Any) -> None:
    worlds = [make_world(seed) for seed in range(3)]
    assert all(one.succeeded for one in drive(worlds, expert))
    driver = Driver(model, tokenizer)
    assert driver([Episode(world) for world in worlds]) == [None] * 3
    assert [one.view.tolist() for one in driver.said] == [render(world, ORIGIN).tolist() for world in worlds]


def test_a_blind_driver_is_shown_the_same_whatever_there_is(tokenizer: Tokenizer, model: Any) -> None:
    driver = Driver(model, tokenizer, blind=True)
    driver([Episode(make_world(seed)) for seed in range(2)])
    assert np.array_equal(driver.said[0].view, driver.said[1].view)
    assert END not in driver.said[0].asked[0][1]
