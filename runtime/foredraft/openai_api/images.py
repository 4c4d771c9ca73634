"""The images of a request: given in it, or files in a folder that whoever runs the server has named.

Nothing is ever fetched from the network: a client's word would choose what the server connects to.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from foredraft.errors import ConfigError
from foredraft.images import QUALITY, EncodedImage, image_of
from foredraft.openai_api.errors import invalid


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where images may come from, and how large they go on. ``folder``: whose files may be named; None: none may."""

    folder: Path | None = None
    max_side: int = 0
    quality: int = QUALITY

    def load(self, urls: Sequence[tuple[str, str]]) -> list[EncodedImage]:
        """The images behind these URLs, each with its name in the request. Decodes them. Raises ApiError."""
        images = []
        for url, where in urls:
            try:
                images.append(image_of(self._data(url, where), self.max_side, self.quality))
            except ConfigError as error:
                raise invalid(f"{where}: {error}", where) from error
        return images

    def _data(self, url: str, where: str) -> bytes | Path:
        scheme, _, rest = url.partition(":")
        if scheme == "data":
            head, _, body = rest.partition(",")
            if not head.endswith(";base64"):
                raise invalid(f"{where}: a data URL of an image is in base64", where)
            try:
                return base64.b64decode(body, validate=True)
            except ValueError as error:  # of letters beyond ASCII, too
                raise invalid(f"{where} is not base64: {error}", where) from error
        if scheme == "file" and self.folder is not None:
            try:
                file = Path(unquote(urlsplit(url).path)).resolve()
            except (OSError, ValueError) as error:  # no URL, or a name that no file can have
                raise invalid(f"{where} names no file: {error}", where) from error
            if not file.is_relative_to(self.folder.resolve()):
                raise invalid(f"{where} is not in the folder of images of this server", where)
            return file
        files = "" if self.folder is None else " or file:// in its folder of images"
        raise invalid(f"{where} must be a data: URL{files}: nothing is fetched here", where, "unsupported_value")
