"""Which bytes each token stands for, whatever letters model files write them in."""

import re
from typing import Final

from foredraft.text.tokenizer import Tokenizer

_KEPT: Final = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS: Final = [byte for byte in range(256) if byte not in _KEPT]
_BYTES: Final = {chr(byte): byte for byte in _KEPT} | {chr(256 + at): byte for at, byte in enumerate(_OTHERS)}
"""GPT-2's letters for bytes (Radford et al. 2019, ``bytes_to_unicode`` of their encoder)."""

_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's letter for a space."""


def pieces(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of each token by id; none for special tokens."""
    by_letters = tokenizer.writes_bytes_as_letters
    special, added = tokenizer.special_ids(), tokenizer.added_ids()
    found = {}
    for token, text in tokenizer.tokens():
        if token in special:
            found[token] = b""
        elif token in added:
            found[token] = text.encode()
        else:
            found[token] = _from_letters(text) if by_letters else _from_sentencepiece(text)
    return found


def _from_letters(text: str) -> bytes:
    return b"".join(bytes((_BYTES[letter],)) if letter in _BYTES else letter.encode() for letter in text)


def _from_sentencepiece(text: str) -> bytes:
    if byte := re.fullmatch("<0x([0-9A-Fa-f]{2})>", text):
        return bytes.fromhex(byte[1])
    return text.replace(_SPACE, " ").encode()
