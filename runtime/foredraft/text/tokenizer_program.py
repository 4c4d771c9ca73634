"""The program in which a tokenizer from a server is tried, and encodes: in a process that ``confined`` bounds.

The first question is the tokenizer.json, and the answer what is wrong with it, if something is. Each other one is a
byte that says whether special tokens are put around the text, and the text in UTF-8; the answer, a byte that says
whether it succeeded, and tokens of four bytes each, or what went wrong.
"""

import json
import sys
from array import array
from collections.abc import Iterator
from typing import Any, Final

from foredraft.errors import ModelError
from foredraft.text.confined import serve
from foredraft.text.tokenizer import Tokenizer

MOST_TOKEN_CHARS: Final = 4096
MOST_DECODERS: Final = 8
TOKENS, _WENT_WRONG = b"\0", b"\1"
PLAIN, SPECIAL = b"\0", b"\1"


def wrong_with(tokenizer: Tokenizer) -> str:
    """Why decoding might not end, or swell; empty where it cannot. The edge decodes in its own process, at each token.

    A decoder's steps take time and make text in proportion to what they are given, without expressions and
    replacements that lengthen: of these there may be a few, each of which doubles the text at most.
    """
    longest = max((len(text) for _, text in tokenizer.tokens()), default=0)
    if longest > MOST_TOKEN_CHARS:
        return f"has a token of {longest} characters, more than {MOST_TOKEN_CHARS}"
    steps = list(_steps(json.loads(tokenizer.decoder_json() or b"null")))
    if len(steps) > MOST_DECODERS:
        return f"decodes in {len(steps)} steps, more than {MOST_DECODERS}"
    for step in steps:
        pattern = step.get("pattern", {}).get("String")
        if step["type"] == "Replace" and (pattern is None or len(step["content"].encode()) > len(pattern.encode())):
            return "decodes with a replacement that is an expression, or lengthens the text"
    return ""


def _steps(said: Any) -> Iterator[dict[str, Any]]:
    if isinstance(said, dict) and said.get("type") == "Sequence":
        for one in said["decoders"]:
            yield from _steps(one)
    elif isinstance(said, dict):
        yield said


class _Program:
    _tokenizer: Tokenizer | None = None

    def answer(self, question: bytes) -> bytes:
        if self._tokenizer is None:
            try:
                self._tokenizer = Tokenizer(question)
                return wrong_with(self._tokenizer).encode()
            except ModelError as error:
                return f"is {error}"[:1000].encode(errors="replace")
        encode = self._tokenizer.encode if question[:1] == SPECIAL else self._tokenizer.encode_rendered
        try:
            tokens = array("I", encode(question[1:].decode(errors="surrogatepass")))
        except ModelError as error:
            return _WENT_WRONG + str(error)[:1000].encode(errors="replace")
        if sys.byteorder == "big":
            tokens.byteswap()
        return TOKENS + tokens.tobytes()


if __name__ == "__main__":
    serve(_Program().answer)
