"""Training: it learns, it leaves the model alone, it goes on where it stopped, and it refuses what cannot work."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from foredraft.engines.noise import sample
from foredraft.engines.torch_model import LoadedModel, run_layers
from foredraft.errors import ConfigError, ModelError
from foredraft.exits.card import CARD_FILE, ExitCard, read_card
from foredraft.exits.data import batch_rows, find_files
from foredraft.exits.heads import WEIGHTS_FILE, ExitHeads
from foredraft.exits.train import RESUME_FILE, thirds, train_exits
from foredraft.protocol.sampling import Sampling

SMALL: dict[str, Any] = {"rank": 4, "steps": 30, "batch": 4, "window": 64, "learning_rate": 0.01, "save_every": 10}


class InterruptedHereError(Exception):
    pass


def stop_after(step: int) -> Callable[[str, int, int, float], None]:
    def on_progress(what: str, done: int, total: int, loss: float) -> None:
        if what == "training" and done == step:
            raise InterruptedHereError

    return on_progress


@pytest.fixture(scope="module")
def trained(tiny: LoadedModel, texts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExitCard]:
    out = tmp_path_factory.mktemp("trained")
    return out, train_exits(tiny, texts, [1, 2], out, **SMALL)


def test_training_brings_the_heads_nearer_to_the_whole_model(trained: tuple[Path, ExitCard]) -> None:
    for far in trained[1].distance:
        assert far.after < 0.9 * far.before


def test_the_models_own_weights_stay_as_they_are(tiny: LoadedModel, texts: list[Path], tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    train_exits(tiny, texts, [1], tmp_path, **SMALL | {"steps": 3})
    after = tiny.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in tiny.model.parameters())


def test_the_card_says_what_was_trained(tiny: LoadedModel, trained: tuple[Path, ExitCard]) -> None:
    out, card = trained
    assert read_card(out) == card
    assert (card.model_digest, card.layers, card.rank, card.steps) == (tiny.digest, (1, 2), 4, 30)
    assert {(entry.layer, entry.temperature) for entry in card.report} == {
        (layer, temperature) for layer in (1, 2) for temperature in (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)
    }
    assert not (out / RESUME_FILE).exists()


def test_the_reported_confidence_is_honest_and_the_runtimes_own(
    tiny: LoadedModel, trained: tuple[Path, ExitCard]
) -> None:
    """On text that nobody has seen, what `read` says agrees with the card's agreement and with the truth."""
    out, card = trained
    assert card.calibration_error < 0.1  # some 2,000 tokens per half; the error of counting them alone is 0.02 to 0.04
    heads, sampling = ExitHeads.load(out, tiny), Sampling(temperature=0.8, seed=9)
    ids = torch.randint(2, 256, (1, 128), generator=torch.Generator().manual_seed(3))
    states, positions = run_layers(tiny, ids, {2, 3}), torch.arange(128)
    tokens, confidence = heads.read(2, states[2][0], positions, sampling)
    right = tokens == sample(tiny.logits(states[3][0]), positions, sampling)
    assert abs(float(confidence.mean()) - float(right.double().mean())) < 0.15


@pytest.mark.parametrize("stop", [7, 10, 25])
def test_an_interrupted_run_ends_with_the_heads_of_an_uninterrupted_one(
    tiny: LoadedModel, texts: list[Path], trained: tuple[Path, ExitCard], tmp_path: Path, stop: int
) -> None:
    with pytest.raises(InterruptedHereError):
        train_exits(tiny, texts, [1, 2], tmp_path, **SMALL, on_progress=stop_after(stop))
    assert (tmp_path / RESUME_FILE).exists() == (stop >= 10), "saved after every tenth step"
    steps: list[int] = []
    card = train_exits(tiny, texts, [1, 2], tmp_path, **SMALL, on_progress=lambda what, done, *_: steps.append(done))
    assert steps[0] == stop // 10 * 10 + 1
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (trained[0] / WEIGHTS_FILE).read_bytes()
    assert card == trained[1]


def test_going_on_with_other_settings_is_refused(tiny: LoadedModel, texts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InterruptedHereError):
        train_exits(tiny, texts, [1], tmp_path, **SMALL, on_progress=stop_after(11))
    with pytest.raises(ConfigError, match=r"seed 0 there, 1 here.*delete it"):
        train_exits(tiny, texts, [1], tmp_path, **SMALL, seed=1)


def test_a_broken_resume_file_is_named(tiny: LoadedModel, texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / RESUME_FILE).write_bytes(b"not a state")
    with pytest.raises(ConfigError, match=RESUME_FILE):
        train_exits(tiny, texts, [1], tmp_path, **SMALL)


def test_time_ends_a_training(tiny: LoadedModel, texts: list[Path], tmp_path: Path) -> None:
    card = train_exits(tiny, texts, [1], tmp_path, **SMALL | {"steps": 10**6, "minutes": 1e-3})
    assert 1 <= card.steps < 10**6


def test_bfloat16_models_get_heads_too(tiny_folder: Path, texts: list[Path], tmp_path: Path) -> None:
    card = train_exits(tiny_folder, texts, [2], tmp_path, **SMALL, dtype="bfloat16")
    assert card.distance[0].after < card.distance[0].before


def test_text_may_be_given_as_strings_and_held_out_by_name(
    tiny: LoadedModel, texts: list[Path], tmp_path: Path
) -> None:
    strings = [file.read_text(encoding="utf-8") for file in texts]
    sources: tuple[Sequence[Path | str], ...] = (texts, strings)
    cards = [
        train_exits(tiny, source[:1], [1], tmp_path / str(number), held_out=source[1:], **SMALL | {"steps": 2})
        for number, source in enumerate(sources)
    ]
    assert cards[0] == cards[1]
    assert cards[0].held_out_tokens > cards[0].text_tokens * 0.9


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([3], "the model has 3 layers"),
        ([0, 1], "after layer 1"),
        ([2, 1], "ascend"),
        ([1, 1], "ascend"),
        ([], "ascend"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    tiny: LoadedModel, texts: list[Path], tmp_path: Path, layers: list[int], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        train_exits(tiny, texts, layers, tmp_path, **SMALL)


@pytest.mark.parametrize(
    "change",
    [{"rank": -1}, {"steps": 0}, {"batch": 0}, {"window": 1}, {"seed": -1}, {"minutes": 0.0}, {"learning_rate": 0.0}],
)
def test_settings_out_of_range_are_refused_by_name(
    tiny: LoadedModel, texts: list[Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    name = next(iter(change)).replace("_", " ")
    with pytest.raises(ConfigError, match=name):
        train_exits(tiny, texts, [1], tmp_path, **SMALL | change)


def test_too_little_text_says_how_much_is_needed(tiny: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"too little text.*4096.*32768"):
        train_exits(tiny, ["only this"], [1], tmp_path, **SMALL)


def test_a_folder_with_the_exits_of_another_model_is_left_alone(
    other: LoadedModel, texts: list[Path], trained: tuple[Path, ExitCard]
) -> None:
    before = (trained[0] / CARD_FILE).read_bytes()
    with pytest.raises(ConfigError, match="another model"):
        train_exits(other, texts, [1], trained[0], **SMALL)
    assert (trained[0] / CARD_FILE).read_bytes() == before


def test_a_file_that_is_no_text_is_left_out_with_a_warning_and_counted(
    tiny: LoadedModel, texts: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    card = train_exits(tiny, [tmp_path / "picture", *texts], None, tmp_path / "out", **SMALL)
    assert card.layers == thirds(len(tiny.layers))
    assert "picture is not UTF-8 text" in caplog.text
    assert f"1 of {len(texts) + 1} files were left out" in caplog.text


@pytest.mark.parametrize(("depth", "layers"), [(32, (11, 21)), (12, (4, 8)), (3, (1, 2)), (2, (1,)), (1, (1,))])
def test_by_default_exits_are_after_a_third_and_two_thirds(depth: int, layers: tuple[int, ...]) -> None:
    assert thirds(depth) == layers


def test_a_text_that_is_missing_is_named(tiny: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        train_exits(tiny, [tmp_path / "missing"], [1], tmp_path, **SMALL)


def test_a_model_that_is_not_there_is_named(texts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        train_exits(tmp_path, texts, [1], tmp_path / "out", **SMALL)


def test_every_epoch_visits_each_window_once_in_an_order_of_its_own() -> None:
    epochs = [torch.cat([batch_rows(7, step, 12, 4) for step in range(e * 3, e * 3 + 3)]) for e in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(12)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_files_are_found_by_name_folder_and_pattern_once_each(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "notes.txt", ".hidden", "deep/c.py", "__pycache__/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = ["a.py", "b.py", "deep/c.py", "notes.txt"]
    assert find_files([str(tmp_path)]) == [tmp_path / name for name in names]
    assert find_files([str(tmp_path / "b.py"), str(tmp_path / "*.py")]) == [tmp_path / "b.py", tmp_path / "a.py"]
    assert find_files([str(tmp_path / "**" / "c.py")]) == [tmp_path / "deep/c.py"]
    with pytest.raises(ConfigError, match="no text files"):
        find_files([str(tmp_path / "*.rs")])
