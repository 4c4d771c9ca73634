"""A tokenizer that came from a server: its rules are a stranger's, and encode in a process of their own.

The library holds Python's lock while it encodes, and a pre-tokenizer's expression may take any time. What a file takes
to be opened is found out there, too, before it is opened here. Tokens are decoded here, which ``wrong_with`` bounds.
"""

import sys
from array import array
from typing import Final

from foredraft.errors import ModelError
from foredraft.text.confined import Confined, OutOfBoundsError
from foredraft.text.tokenizer import Tokenizer
from foredraft.text.tokenizer_program import PLAIN, SPECIAL, TOKENS

MAX_OPEN_S: Final = 30.0
MAX_ENCODE_S: Final = 10.0
MAX_MEMORY_BYTES: Final = 1 << 30
"""Of the process that opens it: the largest that are in use, of 262,000 tokens, take a third."""


def try_tokenizer(data: bytes) -> None:
    """Raise ModelError for a tokenizer.json that is none, or cannot be opened, or decode, within bounds."""
    program = _program(data)
    try:
        wrong = program.greeted().decode()
    except OutOfBoundsError as error:
        wrong = str(error)
    finally:
        program.close()
    if wrong:
        raise ModelError(f"the server's tokenizer cannot be used: it {wrong}")


class FetchedTokenizer(Tokenizer):
    """A tokenizer that has been tried (``try_tokenizer``). It takes a process with the first text that it encodes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._program = _program(data)

    def encode(self, text: str) -> list[int]:
        """As ``Tokenizer`` does. Raises ModelError where that takes too long, or too much memory."""
        return self._encoded(SPECIAL, text)

    def encode_rendered(self, text: str) -> list[int]:
        """As ``encode``."""
        return self._encoded(PLAIN, text)

    def _encoded(self, how: bytes, text: str) -> list[int]:
        try:
            said = self._program.ask(how + text.encode(errors="surrogatepass"))
        except OutOfBoundsError as error:
            raise ModelError(
                f"the server's tokenizer cannot encode a text of {len(text)} characters: it {error}"
            ) from error
        if said[:1] != TOKENS:
            raise ModelError(said[1:].decode(errors="replace"))
        tokens = array("I", said[1:])
        if sys.byteorder == "big":
            tokens.byteswap()
        return tokens.tolist()

    def close(self) -> None:
        """End its process; another text starts a new one."""
        self._program.close()


def _program(data: bytes) -> Confined:
    module = "foredraft.text.tokenizer_program"
    return Confined(module, MAX_ENCODE_S, MAX_MEMORY_BYTES, greeting=data, greeting_s=MAX_OPEN_S)
