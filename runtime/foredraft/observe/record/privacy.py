"""What a private record leaves out: every token id, and whatever token ids could be found out from."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from foredraft.observe.record.frames import HIDDEN, Asked, Began, Ended, Frame, Noted, Passed, Said, TokenPredictions

_DURATIONS: Final = ("draft_us",)
"""Lists in the data of events that are no tokens."""


def hidden(frame: Frame) -> Frame | None:
    """The frame as a private record has it; None where it has none.

    Lists in the data of events are tokens, unless they are durations: their lengths are kept. What draft and exits
    said in the session is named by hashes of the text, and goes; what they say of each position stays, without the
    tokens.
    """
    replaced = msgspec.structs.replace
    match frame:
        case Began():
            return replaced(frame, prompt=b"", stop_strings=tuple("*" * len(text) for text in frame.stop_strings))
        case Noted():
            return replaced(frame, data={name: _without_tokens(name, value) for name, value in frame.data.items()})
        case Asked() | Passed():
            return None
        case TokenPredictions():
            return replaced(
                frame,
                guesses=_hidden(frame.guesses),
                predictions=_hidden(frame.predictions),
                cloud_guesses=_hidden(frame.cloud_guesses),
            )
        case Ended():
            return replaced(frame, tokens=b"")
    return frame


def _hidden(said: Sequence[Said]) -> tuple[Said, ...]:
    return tuple((HIDDEN, sure) for _, sure in said)


def _without_tokens(name: str, value: Any) -> Any:
    return len(value) if isinstance(value, list) and name not in _DURATIONS else value
