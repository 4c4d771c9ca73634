"""Tokenizers that mean harm, as tokenizer.json: each is small, and valid for the library."""

import json
from random import Random
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz! "


def tokenizer_json(**parts: Any) -> bytes:
    """A tokenizer of single characters, with these parts in the place of none."""
    plain = {"type": "BPE", "vocab": {letter: at for at, letter in enumerate(LETTERS)}, "merges": []}
    said: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
    }
    return json.dumps(said | {"decoder": None, "model": plain} | parts).encode()


def split(pattern: str) -> bytes:
    """A pre-tokenizer with this expression."""
    splitting = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer_json(pre_tokenizer=splitting)


def replacing(pattern: dict[str, str], content: str) -> dict[str, Any]:
    """A step that replaces, of a normalizer or a decoder."""
    return {"type": "Replace", "pattern": pattern, "content": content}


def swelling() -> bytes:
    """A text becomes 10**12 times as long before it is split."""
    steps = [replacing({"String": "a"}, "a" * 10)] * 12
    return tokenizer_json(normalizer={"type": "Sequence", "normalizers": steps})


def wide(pieces: int) -> bytes:
    """A trie of pieces that share nothing: a file becomes 270 times as large in memory."""
    luck = Random(1)
    vocabulary = [["".join(luck.choices(LETTERS, k=60)), -1.0] for _ in range(pieces)]
    return tokenizer_json(model={"type": "Unigram", "unk_id": 0, "vocab": vocabulary})


def decoding(*decoders: dict[str, Any]) -> bytes:
    """Tokens become text in these steps."""
    return tokenizer_json(decoder={"type": "Sequence", "decoders": list(decoders)})
