"""Tokenizers made for a test."""

import json
from collections.abc import Sequence

from foredraft.text.tokenizer import Tokenizer


def word_tokenizer(tokens: Sequence[str]) -> Tokenizer:
    """A tokenizer of these tokens, one to a word; the first two are special."""
    marks = [
        {"id": number, "content": tokens[number], "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number in range(2)
    ]
    plain = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": marks,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "unk_token": tokens[2],
        },
    }
    return Tokenizer(json.dumps(plain).encode())
