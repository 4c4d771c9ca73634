"""The tokenizer that target and draft share: byte-level BPE, learned from the corpus.

A newline and the dent after it are one piece, so that a line's depth is a single decision of the model. Any text
survives a round trip, because the alphabet is bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BOS = "<|bos|>"
"""Starts every file, and every prompt."""

EOS = "<|eos|>"
"""Ends every file."""

MARKS: Final = {"bos_token": BOS, "eos_token": EOS}

VOCABULARY = 1024
"""Tokens in the vocabulary. Small, because every exit pays for an output layer of this width."""

PIECES = r"\n *| ?[^\W\d]+|\d| ?[^\s\w]+|\s"
"""What BPE may merge within: a newline with its dent, a name, one digit, a run of signs."""


def learn_tokenizer(
    texts: Iterable[str], vocabulary: int = VOCABULARY, special: Sequence[str] = (BOS, EOS)
) -> Tokenizer:
    """A byte-level BPE tokenizer with `vocabulary` tokens (`special` ones included), learned from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_positions: int, said: Mapping[str, str] = MARKS) -> None:
    """Write `tokenizer.json` and what `transformers.AutoTokenizer` wants beside it into `folder`.

    `said`: the marks, and what else its settings say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **said,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the folder's `tokenizer.json`, in hexadecimal: equal for both models of a pair."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
