"""The first words on a connection, as the edge says them: Hello, and what the cloud makes of it."""

from foredraft.errors import ProtocolError, RefusedError
from foredraft.protocol.messages import BUSY, PROTOCOL_VERSION, Drain, Hello, Ready, Refused
from foredraft.protocol.ports import Link


async def shake_hands(link: Link, api_key: str = "") -> Ready:
    """Introduce ourselves; what the cloud serves.

    Raises RefusedError when it does not let us in, ProtocolError when it answers in no way that
    we understand, LinkClosedError.
    """
    await link.send(Hello(PROTOCOL_VERSION, api_key))
    answer = await link.receive()
    if isinstance(answer, Refused):
        raise RefusedError(answer.code, answer.reason, answer.retry_after_s)
    if isinstance(answer, Drain):
        raise RefusedError(BUSY, "the server is going away", answer.retry_after_s)
    if not isinstance(answer, Ready):
        raise ProtocolError(f"the cloud answered Hello with {type(answer).__name__}")
    if answer.version != PROTOCOL_VERSION:
        raise ProtocolError(f"the cloud speaks protocol {answer.version}, this edge {PROTOCOL_VERSION}")
    return answer
