"""The images of a text, as the edge shows them to the cloud.

The cloud says what an image's place in a text becomes; an edge remembers it by the image's size, so that the next
image of the same camera is sent with the text, without a question before it. What was sent once is not sent again;
a cloud that lacks it says so ("unseen"), and then it is.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from foredraft.errors import ConfigError, ProtocolError, RefusedError
from foredraft.images import EncodedImage
from foredraft.protocol import messages
from foredraft.protocol.messages import BUSY, MAX_IMAGES, MAX_PIECE_BYTES, Drain, Image, Message, Refused, Show, Shown
from foredraft.protocol.ports import Link

Place = tuple[int, ...]
"""The tokens that an image's place in a text becomes."""

Size = tuple[int, int]
Name = TypeVar("Name")
Known = TypeVar("Known")

MOST_SIZES: Final = 64
MOST_SENT: Final = 1024
"""So many sizes and images are remembered: a camera that shows ten a second would fill any memory in the end."""


class Shows:
    """What an edge knows from earlier texts: what images of a size become here, and which ones the cloud has.

    The latest alone: what was longest of no use is forgotten, and then asked, or sent, once more.
    """

    def __init__(self) -> None:
        self.place_of: dict[Size, Place] = {}
        self.sent: dict[bytes, None] = {}

    def seen(self, place_of: Mapping[Size, Place], digests: Iterable[bytes]) -> None:
        """The cloud has seen these images, and said what their places become."""
        _remember(self.place_of, place_of, MOST_SIZES)
        _remember(self.sent, dict.fromkeys(digests), MOST_SENT)


def _remember(known: dict[Name, Known], latest: Mapping[Name, Known], most: int) -> None:
    """The latest go to the end, and from the beginning goes what is too much."""
    for name, value in latest.items():
        known.pop(name, None)
        known[name] = value
    while len(known) > most:
        del known[next(iter(known))]


class Images:
    """The images of one text. ``sent_bytes``: what was sent of them; ``took_s``: until the cloud had seen them all."""

    def __init__(self, images: Sequence[EncodedImage], prompt: Sequence[int], image_token: int, shows: Shows) -> None:
        """``prompt``: with ``image_token`` once for each image. Raises ConfigError where it is not so."""
        if len(images) > MAX_IMAGES:
            raise ConfigError(f"{len(images)} images; a text may have {MAX_IMAGES}")
        if (places := sum(token == image_token for token in prompt)) != len(images):
            raise ConfigError(f"the prompt has {places} places for images, and there are {len(images)} images")
        self.sent_bytes, self.took_s = 0, 0.0
        self._images, self._prompt, self._image_token, self._shows = images, prompt, image_token, shows
        self._places: list[Place] | None = None
        self._began_s: float | None = None

    @property
    def placed(self) -> bool:
        """Whether it is known what their places become."""
        return self._known() is not None

    def _known(self) -> list[Place] | None:
        """What their places become; once known, this text keeps it, whatever the edge forgets."""
        if self._places is None:
            found = [place for image in self._images if (place := self._shows.place_of.get(image.size)) is not None]
            self._places = found if len(found) == len(self._images) else None
        return self._places

    @property
    def text(self) -> list[int]:
        """The prompt, each image's place as what it becomes; as it was given while that is not known."""
        known = self._known()
        if known is None:
            return list(self._prompt)
        places = iter(known)
        return [token for given in self._prompt for token in (next(places) if given == self._image_token else (given,))]

    def messages(self, session: int) -> Iterator[Message]:
        """What shows them to the cloud, for the text of this session; what the cloud has is named alone."""
        if self._began_s is None:
            self._began_s = asyncio.get_running_loop().time()
        yield Show(session, tuple(image.digest for image in self._images))
        for digest, data in {image.digest: image.data for image in self._images}.items():
            if digest not in self._shows.sent:
                self.sent_bytes += len(data)
                for offset in range(0, len(data), MAX_PIECE_BYTES):
                    yield Image(digest, len(data), offset, data[offset : offset + MAX_PIECE_BYTES])

    async def ask(self, link: Link, session: int) -> None:
        """Show them, and wait until the cloud has said what their places become.

        Raises RefusedError, ProtocolError, LinkClosedError.
        """
        for message in self.messages(session):
            await link.send(message)
        while not self.placed:
            match await link.receive():
                case Shown() as shown if shown.session == session:
                    self.shown(shown)
                case Refused() as refused if refused.session in (0, session):
                    raise RefusedError(refused.code, refused.reason, refused.retry_after_s)
                case Drain() as drain:
                    raise RefusedError(BUSY, "the server is going away", drain.retry_after_s)

    def shown(self, shown: Shown) -> None:
        """The cloud has seen them. Raises ProtocolError where that is not what it said before."""
        places = [tuple(messages.unpack(place)) for place in shown.places]
        if len(places) != len(self._images) or not all(places):
            raise ProtocolError(f"the cloud has seen {len(places)} images, and {len(self._images)} were shown")
        before = self._known()
        place_of = dict(zip((image.size for image in self._images), places, strict=True))
        self._shows.seen(place_of, (image.digest for image in self._images))
        if before is not None and places != before:
            raise ProtocolError("an image of this size had a place of another length before; begin the text anew")
        self._places = places
        if self._began_s is not None:
            self.took_s = asyncio.get_running_loop().time() - self._began_s

    def forget(self) -> None:
        """The cloud has not what was sent; to another one, all is new."""
        self._shows.sent.clear()
