"""Clouds whose text is known in advance, with a tokenizer of bytes: no torch, no waiting."""

from collections.abc import Sequence

from tokenizers import Tokenizer as Bytes
from tokenizers import decoders, models, pre_tokenizers

from foredraft.api.cloud import Cloud
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.protocol.ports import Guess
from foredraft.text.tokenizer import Tokenizer

TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 敏捷的棕色狐狸跳过懒狗。 "


def byte_tokenizer(extra: str = "<eos>") -> Tokenizer:
    """Its tokens are the bytes of UTF-8, and one special token, 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Bytes(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([extra])
    return Tokenizer(tokenizer.to_str().encode())


TOKENIZER = byte_tokenizer()
TOKENS = TOKENIZER.encode(TEXT)


def truth(position: int) -> int:
    """The token at a position of the endless text."""
    return TOKENS[position % len(TOKENS)]


def text_between(start: int, end: int) -> str:
    """What a stream shows of the tokens from ``start`` to ``end``."""
    return TOKENIZER.decode([truth(position) for position in range(start, end)])


def target(
    *, exits: bool = True, tokenizer: Tokenizer = TOKENIZER, context: int = 1 << 20, rejects: bool = False
) -> ScriptedTarget:
    """Says the text; its exits are right except at every third position."""
    return ScriptedTarget(
        truth,
        exit_script=(lambda layer, position: (truth(position) if position % 3 else 0, 0.8)) if exits else None,
        exits=(2, 4) if exits else (),
        vocab_size=257,
        context=context,
        tokenizer_digest=tokenizer.digest,
        rejects=rejects,
    )


def cloud(api_key: str = "", policy: str = "") -> Cloud:
    """A cloud for the text, which may recommend a policy."""
    return Cloud(target(), TOKENIZER, api_key=api_key, new_drafter=drafter, policy=policy)


def drafter(digest: str = "") -> ScriptedDrafter:
    """Right except at every fifth position."""

    def guess(position: int, _: int) -> Sequence[Guess]:
        return [Guess(truth(position) if position % 5 else 0, 0.7)]

    return ScriptedDrafter(guess, tokenizer_digest=digest)
