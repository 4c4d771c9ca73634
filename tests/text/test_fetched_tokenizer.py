"""Tokenizers from a server that means harm: an edge opens, encodes and decodes within bounds, or says why not."""

import pytest

from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.demo_models import bundled_pair
from foredraft.errors import ModelError
from foredraft.text import fetched_tokenizer
from foredraft.text.fetched_tokenizer import FetchedTokenizer, try_tokenizer
from foredraft.text.tokenizer import Tokenizer
from text.hostile_tokenizers import LETTERS, decoding, replacing, split, swelling, tokenizer_json, wide

STRIP = {"type": "Strip", "content": "a", "start": 0, "stop": 5}


def test_an_honest_one_encodes_as_in_this_process_in_one_that_ends_with_it() -> None:
    for data in (byte_tokenizer(1000).json, (bundled_pair().target / "tokenizer.json").read_bytes()):
        try_tokenizer(data)
        here, there = Tokenizer(data), FetchedTokenizer(data)
        for text in ("", "def main():\n    pass", "Grüße, 世界 🍕", "<|endoftext|>"):
            assert there.encode(text) == here.encode(text)
            assert there.encode_rendered(text) == here.encode_rendered(text)
        assert there.decode(there.encode("and back")) == here.decode(here.encode("and back"))
        there.close()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{}", "not a tokenizer.json"),
        (b"[" * 100_000, "not a tokenizer.json"),
        (tokenizer_json(model={"type": "BPE", "vocab": {"a" * 5000: 0}, "merges": []}), "a token of 5000 characters"),
        (decoding(*[{"type": "BPEDecoder", "suffix": ""}] * 30), "decodes in 30 steps"),
        (decoding(replacing({"String": "a"}, "aa")), "lengthens the text"),
        (decoding(replacing({"Regex": "(a*)*b"}, "")), "an expression"),
    ],
)
def test_one_that_cannot_be_trusted_to_decode_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        try_tokenizer(data)


def test_one_that_fills_the_memory_as_it_is_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched_tokenizer, "MAX_MEMORY_BYTES", 256 << 20)
    data = wide(20_000)
    assert len(data) < 2_000_000
    with pytest.raises(ModelError, match="takes more than 256 MB"):
        try_tokenizer(data)


def test_one_that_is_not_open_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched_tokenizer, "MAX_OPEN_S", 0.05)
    with pytest.raises(ModelError, match=r"takes more than 0\.05 s"):
        try_tokenizer(wide(10_000))


@pytest.mark.parametrize(
    ("data", "text", "limit_s", "said"),
    [
        (split("a*a*[!?]|."), "a" * 4000, 2.0, "4000 characters: it takes more than 2 s"),  # of about 35
        (split("(a+)+$"), "a" * 40 + "!", 60.0, "fails at this text"),
        (swelling(), "a", 60.0, "takes more than 512 MB"),
    ],
)
def test_a_text_that_does_not_end_or_swells_is_given_up_and_the_next_one_encoded(
    data: bytes, text: str, limit_s: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched_tokenizer, "MAX_ENCODE_S", limit_s)
    monkeypatch.setattr(fetched_tokenizer, "MAX_MEMORY_BYTES", 512 << 20)
    try_tokenizer(data)  # nothing is wrong with it until it meets the text
    tokenizer = FetchedTokenizer(data)
    with pytest.raises(ModelError, match=said):
        tokenizer.encode(text)
    assert tokenizer.encode("b c") == [LETTERS.index(letter) for letter in "b c"]
    tokenizer.close()


def test_a_decoder_that_breaks_the_library_is_an_error_of_ours() -> None:
    tokenizer = FetchedTokenizer(decoding(STRIP))
    with pytest.raises(ModelError, match="fails at these tokens"):
        tokenizer.decode([0])
    with pytest.raises(ModelError, match="fails at these tokens"):
        tokenizer.stream().step(0)
