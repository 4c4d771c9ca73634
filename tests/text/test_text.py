"""Tokenizer, incremental text and stop strings, on byte-level and byte-fallback tokenizers."""

import json
from collections.abc import Sequence

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from foredraft.errors import ConfigError, ModelError
from foredraft.text.stops import StopScanner
from foredraft.text.tokenizer import Tokenizer, tokenizer_digest

CORPUS = ["def f(x):\n    return x + 1\n", "Straße, café, 中文 text, 日本語, emoji 🙂🙃", "the cat the hat"] * 5


def byte_level() -> Tokenizer:
    """As in GPT-2, Llama 3, Qwen: any text, several bytes of a character in one token or in many."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|bos|>", "<|eos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    bos = ("<|bos|>", 0)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[bos])
    return Tokenizer(tokenizer.to_str().encode())


def byte_fallback() -> Tokenizer:
    """As in Llama 2 and Mistral: a space is a mark, unknown characters are byte tokens."""
    vocab = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    for token in ("▁", "a", "b", "中", "▁the", "▁cat"):
        vocab[token] = len(vocab)
    merges: list[tuple[str, str]] = []
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(tokenizer.to_str().encode())


BYTE_LEVEL, BYTE_FALLBACK = byte_level(), byte_fallback()
BOTH = pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"])

# Byte-fallback tokenizers spell a space as "▁", so that character alone does not survive them.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="▁")).filter(lambda text: "<|" not in text)
"""Without the names of special tokens, which are shown as nothing; Hypothesis finds them in our sources."""


def streamed(tokenizer: Tokenizer, tokens: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    stream = tokenizer.stream(context)
    return [*(stream.step(token) for token in tokens), stream.flush()]


@BOTH
@given(text=TEXT)
def test_any_text_survives_encoding_and_decoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@BOTH
@given(text=TEXT)
def test_streamed_pieces_join_to_the_text_without_broken_characters(tokenizer: Tokenizer, text: str) -> None:
    pieces = streamed(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(tokens=st.lists(st.integers(0, BYTE_LEVEL.vocab_size - 1), max_size=15))
def test_streaming_arbitrary_tokens_equals_decoding_them_at_once(tokens: list[int]) -> None:
    assert "".join(streamed(BYTE_LEVEL, tokens)) == BYTE_LEVEL.decode(tokens)


@BOTH
@given(tokens=st.lists(st.integers(0, 255), max_size=80))
def test_bytes_that_are_no_text_never_stop_the_stream(tokenizer: Tokenizer, tokens: list[int]) -> None:
    letter = tokenizer.encode("a")[-1]
    pieces = streamed(tokenizer, [*tokens, letter])
    assert "".join(pieces).endswith("a")


def test_a_run_of_broken_bytes_comes_out_before_the_end() -> None:
    (first_byte_of_many,) = BYTE_LEVEL.encode("\xe4")[1:2]
    stream = BYTE_LEVEL.stream()
    pieces = [stream.step(first_byte_of_many) for _ in range(40)]
    assert any(pieces)


def test_a_character_of_four_tokens_appears_with_the_last() -> None:
    tokens = BYTE_LEVEL.encode("🦑")[1:]
    stream = BYTE_LEVEL.stream()
    assert [stream.step(token) for token in tokens] == [""] * (len(tokens) - 1) + ["🦑"]
    assert len(tokens) > 1


def test_a_space_after_the_prompt_is_kept() -> None:
    prompt, word = BYTE_FALLBACK.encode("a"), BYTE_FALLBACK.encode(" b")[1:]
    assert "".join(streamed(BYTE_FALLBACK, word, context=prompt)) == " b"
    assert "".join(streamed(BYTE_FALLBACK, word)) == "b"


def test_a_prompt_that_ends_within_a_character_is_not_repeated() -> None:
    tokens = BYTE_LEVEL.encode("x🦑y")
    cut = len(tokens) - 2
    text = "".join(streamed(BYTE_LEVEL, tokens[cut:], context=tokens[:cut]))
    assert "x" not in text
    assert text.endswith("y")


def test_the_prompt_gets_the_special_tokens_of_the_model() -> None:
    assert BYTE_LEVEL.encode("x")[0] == 0
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode("x")) == "x"


def test_truncation_and_padding_of_the_file_are_ignored() -> None:
    content = json.loads(BYTE_LEVEL.json)
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer = Tokenizer(json.dumps(content).encode())
    assert tokenizer.decode(tokenizer.encode("much longer than that")) == "much longer than that"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[1, 2]"])
def test_bytes_that_are_no_tokenizer_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"not a tokenizer\.json"):
        Tokenizer(data)


def test_the_digest_tells_tokenizers_apart() -> None:
    assert BYTE_LEVEL.digest == tokenizer_digest(BYTE_LEVEL.json)
    assert BYTE_LEVEL.digest != BYTE_FALLBACK.digest
    assert len(BYTE_LEVEL.digest) == 32


STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


@given(text=st.text("ab\n", max_size=30), stops=STOPS, data=st.data())
def test_text_ends_before_the_first_completed_stop_string_however_it_is_split(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    scanner, shown, seen = StopScanner(stops), "", ""
    for piece in pieces:
        shown += scanner.feed(piece)
        seen += piece
        found = [seen.find(stop) for stop in stops if stop in seen]
        assert scanner.found == bool(found)
        if found:
            assert shown == seen[: min(found)]
            return
        assert seen.startswith(shown)
    assert shown + scanner.flush() == text


def test_nothing_is_held_back_that_cannot_begin_a_stop_string() -> None:
    scanner = StopScanner(["\n\n"])
    assert scanner.feed("one\n") == "one"
    assert scanner.feed("two") == "\ntwo"
    assert not scanner.found


def test_nothing_comes_after_a_stop_string() -> None:
    scanner = StopScanner(["END"])
    assert scanner.feed("text EN") == "text "
    assert scanner.feed("D more") == ""
    assert scanner.feed("still more") + scanner.flush() == ""
    assert scanner.found


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        StopScanner(["x", ""])


@BOTH
@given(before=st.text("ab 中🙂", max_size=10), after=st.text("ab 中🙂", max_size=10))
def test_stop_string_is_found_wherever_tokens_split_it(tokenizer: Tokenizer, before: str, after: str) -> None:
    stop = "<中🦑>"
    stream = tokenizer.stream(stops=[stop])
    shown = ""
    for token in tokenizer.encode(before + stop + after):
        shown += stream.step(token)
        if stream.stopped:
            break
    assert stream.stopped
    assert shown == before
    assert stream.flush() == ""
