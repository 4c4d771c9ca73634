"""Text from elsewhere, on a terminal: what would move its cursor, colour it or turn it around is shown, not done."""

import re
from typing import Final

_LIVE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and newline; among them escape
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that turn the order of what is shown (Trojan Source, 2021)
)


def inert(text: str) -> str:
    """``text`` with such characters written out, as ``\\x1b``."""
    return _LIVE.sub(lambda found: ascii(found[0])[1:-1], text)
