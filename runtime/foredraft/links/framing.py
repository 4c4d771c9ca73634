"""How many bytes a message takes on the wire, so that every link counts alike."""

from typing import Final

MASK_BYTES: Final = 4


def framed_bytes(payload_bytes: int, *, masked: bool) -> int:
    """Payload plus the header of one WebSocket frame (RFC 6455, 5.2); clients mask, servers do not."""
    if payload_bytes < 126:
        header = 2
    elif payload_bytes < 65536:
        header = 4
    else:
        header = 10
    return payload_bytes + header + (MASK_BYTES if masked else 0)
