"""The images that the cloud has seen, of which a resumed text, a second turn and the next robot need send nothing.

An image is known by the digest of its file, within one API key: nobody learns what others have shown. What is held
is what the target made of it, not the file; when there is too much, what was longest of no use goes.
"""

from collections import OrderedDict

from foredraft.errors import ImageError, ModelError, RefusedError
from foredraft.images import digest_of
from foredraft.protocol import messages
from foredraft.protocol.messages import Image, Show, Shown
from foredraft.protocol.ports import Picture, Seeing

HELD_BYTES = 256 << 20
"""What all images may take, as the target sees them."""


class Gallery:
    """The images of all keys, as one target sees them."""

    def __init__(self, eyes: Seeing | None, held_bytes: int = HELD_BYTES) -> None:
        self.eyes = eyes
        self._most_bytes, self._held_bytes = held_bytes, 0
        self._pictures: OrderedDict[tuple[str, bytes], Picture] = OrderedDict()

    def find(self, key: str, digest: bytes) -> Picture | None:
        """What this key has shown by that digest, if it is still here."""
        picture = self._pictures.get((key, digest))
        if picture is not None:
            self._pictures.move_to_end((key, digest))
        return picture

    async def look(self, key: str, data: bytes) -> Picture:
        """Look at an encoded image and keep it. Raises RefusedError."""
        if self.eyes is None:
            raise RefusedError(messages.INVALID, "the model here sees no images")
        try:
            picture = await self.eyes.look(data)
        except ImageError as error:
            raise RefusedError(messages.INVALID, str(error)) from error
        except ModelError as error:
            raise RefusedError(messages.INTERNAL, str(error)) from error
        self._keep((key, digest_of(data)), picture)
        return picture

    def _keep(self, name: tuple[str, bytes], picture: Picture) -> None:
        if (before := self._pictures.pop(name, None)) is not None:
            self._held_bytes -= before.held_bytes
        self._pictures[name] = picture
        self._held_bytes += picture.held_bytes
        while self._held_bytes > self._most_bytes and len(self._pictures) > 1:
            _, oldest = self._pictures.popitem(last=False)
            self._held_bytes -= oldest.held_bytes


class Viewing:
    """What one connection shows: the images of the session that it opens next, and the one that is on its way."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._show: Show | None = None
        self._pictures: dict[bytes, Picture] = {}
        self._coming = b""
        self._data = bytearray()

    def show(self, show: Show, key: str) -> Shown | None:
        """The text of a session is to have these images. What to say, where none is lacking.

        Raises RefusedError where the model sees none.
        """
        if self._gallery.eyes is None:
            raise RefusedError(messages.INVALID, "the model here sees no images")
        self._show = show
        found = {digest: self._gallery.find(key, digest) for digest in show.images}
        self._pictures = {digest: picture for digest, picture in found.items() if picture is not None}
        return self._shown()

    async def take(self, piece: Image, key: str) -> Shown | None:
        """A piece of an image. What nobody asked for, or came before, is passed over. What to say, if it was the last.

        Raises RefusedError for pieces that make no image that can be read.
        """
        if self._show is None or piece.digest not in self._show.images or piece.digest in self._pictures:
            return None
        if piece.digest != self._coming:
            self._coming, self._data = piece.digest, bytearray()
        if piece.offset < len(self._data):
            return None
        if piece.offset > len(self._data) or piece.offset + len(piece.data) > piece.size:
            raise RefusedError(messages.INVALID, f"a piece of an image at {piece.offset}, not at {len(self._data)}")
        self._data += piece.data
        if len(self._data) < piece.size:
            return None
        data, self._data, self._coming = bytes(self._data), bytearray(), b""
        if digest_of(data) != piece.digest:
            raise RefusedError(messages.INVALID, "an image is not what its digest names")
        self._pictures[piece.digest] = await self._gallery.look(key, data)
        return self._shown()

    @property
    def session(self) -> int:
        """Whose images are being shown; 0 before the first."""
        return 0 if self._show is None else self._show.session

    def pictures(self, session: int) -> list[Picture]:
        """The images of that session's text. Raises RefusedError("unseen") where one has not come."""
        if self._show is None or self._show.session != session:
            return []
        missing = [digest for digest in self._show.images if digest not in self._pictures]
        if missing:
            raise RefusedError(messages.UNSEEN, f"{len(missing)} images of the text are not here", 0.0)
        return [self._pictures[digest] for digest in self._show.images]

    def _shown(self) -> Shown | None:
        """What the images' places become, once all are here."""
        show = self._show
        if show is None or not all(digest in self._pictures for digest in show.images):
            return None
        return Shown(show.session, tuple(messages.pack(self._pictures[digest].tokens) for digest in show.images))
