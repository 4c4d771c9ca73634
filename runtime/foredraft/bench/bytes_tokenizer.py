"""Tokenizers for measurements: bytes alone, or grown at random to the size of a real vocabulary."""

import random

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from foredraft.text.tokenizer import Tokenizer


def byte_tokenizer(size: int = 256, seed: int = 0) -> Tokenizer:
    """A byte-level BPE of ``size`` tokens, 256 or more; the merges beyond the bytes are random."""
    rng = random.Random(seed)
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    while len(tokens) < size:
        left, right = rng.choice(tokens), rng.choice(tokens)
        if left + right not in known and len(left + right) <= 12:
            known.add(left + right)
            tokens.append(left + right)
            merges.append((left, right))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Tokenizer(tokenizer.to_str().encode())
