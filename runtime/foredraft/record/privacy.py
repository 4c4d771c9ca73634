"""What a private record leaves out: every token id, and whatever token ids could be found out from."""

import msgspec

from foredraft.record.frames import HIDDEN, Asked, Began, Ended, Frame, Noted, Passed, Told


def hidden(frame: Frame) -> Frame | None:
    """The frame as a private record has it; None where it has none.

    Lists in the data of events are tokens: their lengths are kept. What draft and exits said in the session is
    named by hashes of the text, and goes; what they say of each position stays, without the tokens.
    """
    replaced = msgspec.structs.replace
    match frame:
        case Began():
            return replaced(frame, prompt=b"", stop_strings=tuple("*" * len(text) for text in frame.stop_strings))
        case Noted():
            data = {name: len(value) if isinstance(value, list) else value for name, value in frame.data.items()}
            return replaced(frame, data=data)
        case Asked() | Passed():
            return None
        case Told():
            return replaced(
                frame,
                guesses=tuple((HIDDEN, probability) for _, probability in frame.guesses),
                readings=tuple((HIDDEN, confidence) for _, confidence in frame.readings),
            )
        case Ended():
            return replaced(frame, tokens=b"")
    return frame
