"""Heads by themselves: how they start, what they read, and whose they are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foredraft.engines.noise import Noise, sample
from foredraft.engines.torch_model import LoadedModel, run_layers
from foredraft.errors import ModelError
from foredraft.exits.calibrate import TEMPERATURES
from foredraft.exits.card import (
    CARD_FILE,
    CARD_FORMAT,
    TABLE_SIZE,
    Calibration,
    Distance,
    ExitCard,
    read_card,
    write_card,
)
from foredraft.exits.heads import WEIGHTS_FILE, ExitHead, ExitHeads, merged, save_heads, weights_digest
from foredraft.protocol.sampling import Sampling

SAMPLINGS = [Sampling(), Sampling(temperature=0.8, seed=5), Sampling(temperature=1.1, top_k=3, top_p=0.9, seed=6)]


def make_card(model: LoadedModel, heads: dict[int, ExitHead], rank: int) -> ExitCard:
    table = tuple((bin + 0.5) / TABLE_SIZE for bin in range(TABLE_SIZE))
    return ExitCard(
        format=CARD_FORMAT,
        model="tiny",
        model_digest=model.digest,
        model_layers=len(model.layers),
        layers=tuple(heads),
        rank=rank,
        weights_digest=weights_digest(heads),
        text_digest="",
        text_tokens=0,
        held_out_tokens=0,
        steps=0,
        seed=0,
        distance=(Distance(1, 1.0, 0.5),),
        calibration=tuple(tuple(Calibration(t, table) for t in TEMPERATURES) for _ in heads),
        report=(),
    )


@pytest.fixture
def saved(tiny: LoadedModel, tmp_path: Path) -> Path:
    heads = {layer: ExitHead(tiny.norm, 4, torch.Generator().manual_seed(layer)) for layer in (1, 2)}
    with torch.no_grad():
        for head in heads.values():
            head.weight.mul_(1.5)
            assert head.up is not None
            head.up.fill_(0.25)
    save_heads(tmp_path / "heads", heads, make_card(tiny, heads, 4))
    return tmp_path / "heads"


@pytest.mark.parametrize("rank", [0, 4])
def test_an_untrained_head_is_the_models_own_norm(tiny: LoadedModel, rank: int) -> None:
    hidden = run_layers(tiny, torch.arange(40).unsqueeze(0), {2})[2][0]
    torch.testing.assert_close(ExitHead(tiny.norm, rank)(hidden), tiny.norm(hidden))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_merged_head_gives_what_head_and_output_layer_give(tiny: LoadedModel, rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    head = ExitHead(tiny.norm, rank, generator)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    output = torch.nn.Linear(32, 50, bias=False)
    for scale in (0.0, 1e-4, 1.0, 100.0):  # where the norm's epsilon counts, and where it does not
        hidden = scale * torch.randn(6, 32, generator=generator)
        torch.testing.assert_close(merged(head, output.weight)(hidden), output(head(hidden)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_head_that_sees_the_last_layer_says_what_the_model_says(tiny: LoadedModel, sampling: Sampling) -> None:
    heads = {2: ExitHead(tiny.norm, 0)}
    reader = ExitHeads(tiny, heads, make_card(tiny, heads, 0))
    hidden = run_layers(tiny, torch.arange(60).unsqueeze(0), {3})[3][0]
    positions = torch.arange(100, 160)
    tokens, confidence = reader.read(2, hidden, positions, sampling)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, sample(tiny.logits(hidden), positions, sampling))
    assert confidence.shape == (60,)
    assert bool(((confidence > 0) & (confidence < 1)).all())
    if sampling.temperature:
        elsewhere, _ = reader.read(2, hidden, positions + 7, sampling)
        assert not torch.equal(elsewhere, tokens), "the noise belongs to the position"


def test_noise_that_is_given_is_the_noise_that_would_be_drawn(tiny: LoadedModel, saved: Path) -> None:
    reader = ExitHeads.load(saved, tiny)
    hidden, positions = torch.randn(9, 32, generator=torch.Generator().manual_seed(1)), torch.arange(9)
    noise = Noise(positions, tiny.vocab_size, 5)
    drawn, given = (reader.read(1, hidden, positions, SAMPLINGS[1], n) for n in (None, noise))
    assert torch.equal(drawn[0], given[0])
    assert torch.equal(drawn[1], given[1])


def test_only_one_token_left_by_top_k_is_as_sure_as_can_be(tiny: LoadedModel, saved: Path) -> None:
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    reader = ExitHeads.load(saved, tiny)
    _, confidence = reader.read(1, hidden, torch.arange(5), Sampling(temperature=0.8, top_k=1))
    assert confidence.tolist() == pytest.approx([1 - 0.5 / TABLE_SIZE] * 5)


def test_many_temperatures_do_not_pile_up(tiny: LoadedModel, saved: Path) -> None:
    reader = ExitHeads.load(saved, tiny)
    for step in range(200):
        reader.read(1, torch.ones(1, 32), torch.zeros(1, dtype=torch.int64), Sampling(temperature=0.1 + step / 100))
    assert len(reader._maps) <= 64


def test_saved_heads_read_the_same_after_loading(tiny: LoadedModel, saved: Path) -> None:
    reader = ExitHeads.load(saved, tiny)
    assert reader.layers == (1, 2)
    again = ExitHeads.load(saved, tiny)
    hidden = torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
    plain = torch.arange(7), Sampling(temperature=0.8, seed=1)
    assert torch.equal(reader.read(2, hidden, *plain)[0], again.read(2, hidden, *plain)[0])
    untrained = {1: ExitHead(tiny.norm, 0), 2: ExitHead(tiny.norm, 0)}
    fresh = ExitHeads(tiny, untrained, make_card(tiny, untrained, 0))
    assert not torch.equal(reader.read(2, hidden, *plain)[1], fresh.read(2, hidden, *plain)[1])


def test_weights_are_stored_in_16_bit(saved: Path) -> None:
    numbers = 2 * (32 + 2 * 4 * 32)
    assert (saved / WEIGHTS_FILE).stat().st_size < 2 * numbers + 1024


def test_heads_of_another_model_are_refused_with_both_digests(
    tiny: LoadedModel, other: LoadedModel, saved: Path
) -> None:
    with pytest.raises(ModelError, match=f"{tiny.digest}.*{other.digest}"):
        ExitHeads.load(saved, other)


def test_a_missing_card_is_named(tiny: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"card\.json is missing"):
        ExitHeads.load(tmp_path, tiny)


def test_missing_weights_are_named(tiny: LoadedModel, saved: Path) -> None:
    (saved / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelError, match=WEIGHTS_FILE):
        ExitHeads.load(saved, tiny)


def test_damaged_weights_are_refused(tiny: LoadedModel, saved: Path) -> None:
    data = bytearray((saved / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (saved / WEIGHTS_FILE).write_bytes(bytes(data))
    with pytest.raises(ModelError, match="damaged"):
        ExitHeads.load(saved, tiny)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe"])
def test_a_card_that_is_none_is_refused(tiny: LoadedModel, saved: Path, data: bytes) -> None:
    (saved / CARD_FILE).write_bytes(data)
    with pytest.raises(ModelError, match=r"card\.json"):
        ExitHeads.load(saved, tiny)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "format 99"),
        ({"layers": (2, 1)}, "do not ascend"),
        ({"layers": ()}, "do not ascend"),
        ({"calibration": ()}, "calibration"),
        ({"layers": (1, 3)}, "the model has 3"),
        ({"rank": 5}, "does not hold what its card says"),
        ({"rank": 0}, "does not hold what its card says"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    tiny: LoadedModel, saved: Path, change: dict[str, object], says: str
) -> None:
    from msgspec.structs import replace as changed

    write_card(saved, changed(read_card(saved), **change))
    with pytest.raises(ModelError, match=says):
        ExitHeads.load(saved, tiny)


def test_a_table_of_the_wrong_size_is_refused(tiny: LoadedModel, saved: Path) -> None:
    from msgspec.structs import replace as changed

    write_card(saved, changed(read_card(saved), calibration=((Calibration(0.0, (0.5,)),),) * 2))
    with pytest.raises(ModelError, match="calibration"):
        ExitHeads.load(saved, tiny)


def test_a_norm_that_is_no_rms_norm_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ModelError, match="RMS norm"):
        ExitHead(replace(tiny, norm=torch.nn.LayerNorm(32)).norm, 0)
