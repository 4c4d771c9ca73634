"""What the benches say, on little work: the figures that do not depend on the machine are held to their bounds."""

import json

import pytest
from typer.testing import CliRunner

from engines.llama_servers import llama_server
from engines.tiny_gguf import HINT
from foredraft.bench import edge_memory, first_token, overhead, uplink
from foredraft.bench.result import Figure, Result
from foredraft.cli.main import app
from foredraft.text.tokenizer import Tokenizer
from real_model import real_gguf


def figures(result: Result) -> dict[str, Figure]:
    return {figure.name: figure for figure in result.figures}


async def test_a_round_of_sync_sends_at_most_40_bytes() -> None:
    said = figures(await uplink.measure(tokens=1000))
    for size in uplink.VOCABULARIES:
        sent = said[f"up per round, vocabulary of {size}"]
        assert sent.holds
        assert sent.value > 4  # four tokens do not fit into less


async def test_the_overhead_is_the_round_less_the_echo_and_two_hops() -> None:
    said = figures(await overhead.measure(rounds=50))
    parts = [figure.value for figure in said.values()]
    assert said["overhead"].value == parts[0] - parts[1] - 2 * parts[2]
    assert min(parts[:3]) > 0


async def test_first_tokens_are_timed_over_new_and_kept_connections_and_take_a_round_trip_at_least() -> None:
    said = figures(await first_token.measure(texts=1))
    assert list(said)[:3] == ["a new connection", "a new connection to a known server", "a kept connection"]
    assert all(figure.value >= 1.0 for figure in said.values())


async def test_noise_is_measured_beside_the_output_layer_for_few_rows_and_for_many() -> None:
    torch = pytest.importorskip("torch")
    from foredraft.bench import noise

    threads = torch.get_num_threads()
    result = await noise.measure(turns=1)
    assert [figure.name for figure in result.figures if figure.bound is None] == ["sampling 5 rows", "sampling 33 rows"]
    assert all(figure.value > 0.0 for figure in result.figures)
    assert torch.get_num_threads() == threads


async def test_a_gguf_draft_is_measured_beside_torch_which_drafts_for_itself_without_a_miss() -> None:
    pytest.importorskip("llama_cpp", reason=HINT)
    from foredraft.bench import drafters

    with llama_server(real_gguf()) as running:
        said = figures(await drafters.measure(real_gguf(), turns=1, new_tokens=4, server=running.url))
    assert [said[f"acceptance of torch at T = {temperature:g}"].value for temperature in (0.0, 0.8)] == [1.0, 1.0]
    for name in ("GGUF", "GGUF, translated", "llama-server"):
        assert said[f"acceptance of {name} at T = 0"].value >= 0.5
    assert said["GGUF over torch, 1 node at T = 0"].bound == drafters.MOST_RATIO
    assert all(figure.value > 0.0 for figure in said.values())


async def test_an_ngram_edge_stays_below_80_mb_and_imports_no_model_library() -> None:
    result = await edge_memory.measure(vocabularies=(1 << 15,), tokens=200)
    assert [figure.holds for figure in result.figures if figure.bound is not None] == [True, True]


def test_a_bound_that_does_not_hold_is_said_and_is_an_exit_code() -> None:
    assert "DOES NOT HOLD" in str(Figure("slowness", 2.0, "s", bound=1.0))
    assert Figure("speed", 2.0, "x", bound=1.0, at_least=True).holds
    assert Figure("colour", 2.0, "").holds is None


def test_json_names_each_measurement_and_its_figures() -> None:
    result = CliRunner().invoke(app, ["bench", "uplink", "--json"])
    said = json.loads(result.stdout)
    assert result.exit_code == 0
    assert said["uplink"]["figures"][0]["holds"] is True
    assert said["machine"]["cores"] > 0


def test_the_tokenizer_of_the_benches_has_the_size_asked_for() -> None:
    from foredraft.bench.bytes_tokenizer import byte_tokenizer

    tokenizer: Tokenizer = byte_tokenizer(1000)
    assert tokenizer.vocab_size == 1000
    assert tokenizer.decode(tokenizer.encode("Grüße, 世界")) == "Grüße, 世界"


async def test_both_rules_of_acceptance_are_measured_in_chains_and_in_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from foredraft.bench import acceptance

    monkeypatch.setattr(acceptance, "TEMPERATURES", (0.8,))
    monkeypatch.setattr(acceptance, "CODE", acceptance.CODE[:1])
    said = figures(await acceptance.measure(threads=1, new_tokens=12, seeds=1))
    for shape in ("chains of 4", "trees of 12"):
        by_noise, by_rejection, ratio = (
            said[f"{shape}, T = 0.8: {what}"] for what in ("noise", "rejection", "rejection over noise")
        )
        assert min(by_noise.value, by_rejection.value) >= 1.0
        assert ratio.value == pytest.approx(by_rejection.value / by_noise.value)
