"""GGUF files that cannot draft, and what is wrong with options, each in a line that says the way out."""

import logging
from pathlib import Path

import pytest

from engines.tiny_gguf import VOCABULARY, needs_llama, tiny_gguf, words
from foredraft.api.loading import ModelOptions, load_cloud_drafter, load_draft
from foredraft.engines.llama_options import LlamaOptions, changed
from foredraft.errors import ConfigError, ModelError
from foredraft.protocol.ports import TargetCard
from tokens_of import word_tokenizer

needs_llama()

from foredraft.engines.llama_model import LlamaContext, LlamaModel  # noqa: E402


def refused(file: Path) -> str:
    with pytest.raises(ModelError) as error:
        LlamaModel(file, LlamaOptions())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_is_not_there_or_no_gguf_is_refused(tmp_path: Path) -> None:
    assert "cannot read" in refused(tmp_path / "gone.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    assert "is no GGUF file: it begins with b'hell'" in refused(tmp_path / "text.gguf")
    (tmp_path / "short.gguf").write_bytes(b"GGUF")
    assert "cannot be loaded by llama.cpp" in refused(tmp_path / "short.gguf")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_refused(part: float, tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "part.gguf").write_bytes(whole[: int(len(whole) * part)])
    assert "use a whole GGUF file" in refused(tmp_path / "part.gguf")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    assert "unknown model architecture: 'nonsense'" in refused(tiny_gguf(tmp_path / "odd.gguf", arch="nonsense"))


def test_a_model_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    assert "has no vocabulary" in refused(tiny_gguf(tmp_path / "bare.gguf", vocabulary=False))


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("is_recurrent", "its state cannot be rolled back"),
        ("is_hybrid", "its state cannot be rolled back"),
        ("has_encoder", "need a model that only decodes"),
        ("is_diffusion", "from left to right"),
    ],
)
def test_what_cannot_draft_is_refused_with_the_reason(
    question: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"foredraft.engines.llama_model.lib.llama_model_{question}", lambda _: True)
    assert why in refused(tiny_gguf(tmp_path / "tiny.gguf"))


def test_an_embedding_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = LlamaModel.metadata
    monkeypatch.setattr(
        LlamaModel, "metadata", lambda self, key: "false" if key.endswith("causal") else said(self, key)
    )
    assert "makes embeddings and no text" in refused(tiny_gguf(tmp_path / "tiny.gguf"))


def test_llama_cpp_speaks_through_our_log_and_not_on_stderr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [caplog.handler])  # others' may write to streams that are closed
    with caplog.at_level(logging.DEBUG, "foredraft.llama"):
        LlamaContext(LlamaModel(tiny_gguf(tmp_path / "tiny.gguf"), LlamaOptions(threads=1))).close()
    assert any("general.architecture" in record.getMessage() for record in caplog.records)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("context", r"'context' is no NAME=VALUE"),
        ("contxt=5", r"unknown draft option 'contxt': did you mean 'context'"),
        ("context=many", r"context=many: a whole number from 16"),
        ("branches=300", r"branches=300: a whole number from 1 to 255"),
        ("cache_type=f8", r"'f8'.*known: f16, f32"),
        ("flash_attention=1", r"'1'.*known: auto, off, on"),
    ],
)
def test_options_that_are_wrong_are_refused_by_name(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        changed(LlamaOptions(), [given])


def test_options_are_taken_with_dashes_or_underscores() -> None:
    found = changed(LlamaOptions(), ["cache-type=q8_0", "gpu_layers=-1", "flash_attention=on"])
    assert (found.cache_type, found.gpu_layers, found.flash_attention) == ("q8_0", -1, 1)


def test_draft_options_are_for_gguf_drafts_alone() -> None:
    with pytest.raises(ConfigError, match=r"'context=9' is for drafts on llama.cpp, not for 'ngram'"):
        load_draft("ngram", ModelOptions(draft=("context=9",)))


def card(tokenizer_digest: str) -> TargetCard:
    return TargetCard("model", tokenizer_digest, VOCABULARY, 256, 2)


def test_a_draft_beside_the_target_speaks_the_targets_tokens(tmp_path: Path) -> None:
    file, tokenizer = tiny_gguf(tmp_path / "tiny.gguf"), word_tokenizer(words())
    new = load_cloud_drafter(file, ModelOptions(threads=1), card(tokenizer.digest), tokenizer)
    assert new().tokenizer_digest == tokenizer.digest


def test_a_draft_of_another_vocabulary_is_refused_and_the_first_differences_are_named(tmp_path: Path) -> None:
    tokens = words()
    tokens[10:17] = [f"other{number}" for number in range(7)]
    file, tokenizer = tiny_gguf(tmp_path / "tiny.gguf", tokens), word_tokenizer(words())
    with pytest.raises(ModelError, match=r"7 tokens differ: 10 is .*, here 'other0'; .*; 14 is .*, here 'other4'; use"):
        load_cloud_drafter(file, ModelOptions(threads=1), card(tokenizer.digest), tokenizer)


def test_tokens_beyond_the_targets_are_padding_and_are_never_guessed(tmp_path: Path) -> None:
    model = LlamaModel(tiny_gguf(tmp_path / "tiny.gguf"), LlamaOptions(threads=1))
    tokenizer = word_tokenizer(words()[:200])
    model.speak(tokenizer)
    assert (model.spoken, model.tokenizer_digest) == (200, tokenizer.digest)
