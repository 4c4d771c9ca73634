"""An end of an emulated link on the device that its messages take time from."""

from foredraft.engines.device import Device
from foredraft.links.tap import Tap
from foredraft.protocol.messages import Message
from foredraft.protocol.ports import Link


class _HostedLink(Tap):
    """A link whose messages, sent or received here, each take ``message_s`` seconds of ``device``."""

    def __init__(self, link: Link, device: Device, message_s: float) -> None:
        super().__init__(link)
        self._device = device
        self._message_s = message_s

    def _left(self, message: Message, sent_s: float, size_bytes: int) -> None:
        self._device.take(self._message_s)

    def _arrived(self, message: Message, size_bytes: int) -> None:
        self._device.take(self._message_s)


def hosted(link: Link, device: Device, message_s: float) -> Link:
    """The link, with what its messages take of the device, if they do."""
    return _HostedLink(link, device, message_s) if message_s else link
