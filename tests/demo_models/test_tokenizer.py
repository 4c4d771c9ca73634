"""The tokenizer gives back any text, and keeps a newline with its dent."""

import json
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from foredraft.demo_models.corpus import library_root, normalise
from foredraft.demo_models.tokenizer import BOS, EOS, learn_tokenizer, save_tokenizer, tokenizer_digest

VOCABULARY = 400


def sources() -> list[str]:
    names = ("bisect.py", "textwrap.py", "contextlib.py")
    return [normalise((library_root() / name).read_text(encoding="utf-8")) for name in names]


@cache
def tokenizer() -> Tokenizer:
    return learn_tokenizer(sources(), VOCABULARY)


@given(st.text())
def test_any_text_survives(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text).ids, skip_special_tokens=False) == text


@given(st.text(alphabet="a\n é→", max_size=40))
def test_streaming_gives_the_same_text(text: str) -> None:
    stream = DecodeStream(skip_special_tokens=True)
    pieces = [stream.step(tokenizer(), token) or "" for token in tokenizer().encode(text).ids]
    assert "".join(pieces) == text


def test_a_newline_and_its_dent_are_one_token() -> None:
    tokens = tokenizer().encode("def f():\n    return 1\n").tokens
    assert [token for token in tokens if token.startswith("Ċ")] == ["ĊĠĠĠĠ", "Ċ"]


def test_the_marks_come_first_and_the_size_is_as_asked() -> None:
    assert tokenizer().token_to_id(BOS) == 0
    assert tokenizer().token_to_id(EOS) == 1
    assert tokenizer().get_vocab_size() == VOCABULARY


def test_learning_again_gives_the_same_file(tmp_path: Path) -> None:
    save_tokenizer(tokenizer(), tmp_path / "a", 1024)
    save_tokenizer(learn_tokenizer(sources(), VOCABULARY), tmp_path / "b", 1024)
    assert tokenizer_digest(tmp_path / "a") == tokenizer_digest(tmp_path / "b")
    settings = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["bos_token"] == BOS
