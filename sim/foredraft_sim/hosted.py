"""An end of an emulated link on the device that its messages take time from."""

from foredraft.core.messages import Message
from foredraft.core.ports import Link
from foredraft.engines.device import Device


class HostedLink:
    """A link whose messages, sent or received here, each take ``message_s`` seconds of ``device``."""

    def __init__(self, link: Link, device: Device, message_s: float) -> None:
        self._link = link
        self._device = device
        self._message_s = message_s

    @property
    def bytes_sent(self) -> int:
        """The link's."""
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        """The link's."""
        return self._link.bytes_received

    async def send(self, message: Message) -> None:
        """Send. Raises what the link raises."""
        await self._link.send(message)
        self._device.take(self._message_s)

    def post(self, message: Message) -> bool:
        """Send at once, if that needs no waiting."""
        posted = self._link.post(message)
        if posted:
            self._device.take(self._message_s)
        return posted

    async def receive(self) -> Message:
        """The next message. Raises what the link raises."""
        message = await self._link.receive()
        self._device.take(self._message_s)
        return message

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()


def hosted(link: Link, device: Device, message_s: float) -> Link:
    """The link, with what its messages take of the device, if they do."""
    return HostedLink(link, device, message_s) if message_s else link
