"""Images as they travel: encoded, named by their digest, and opened within bounds.

What somebody sends may be broken, or a small file that decodes into gigabytes: nothing is decoded before its header
has been looked at. JPEG, PNG and WebP, of one frame; a camera's rotation (EXIF) is honoured.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from foredraft.errors import ConfigError, ImageError, extras_named
from foredraft.protocol.messages import IMAGE_DIGEST_BYTES, MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from PIL import Image

FORMATS: Final = ("JPEG", "PNG", "WEBP")
MAX_PIXELS: Final = 32_000_000
"""What a camera of today takes, and what may be decoded: 96 MB."""

QUALITY: Final = 85
"""Of a JPEG or WebP that is encoded again."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file. ``size``: width and height in pixels, as it stands upright."""

    data: bytes
    size: tuple[int, int]

    @property
    def digest(self) -> bytes:
        """Names it: 16 bytes."""
        return digest_of(self.data)


def digest_of(data: bytes) -> bytes:
    """Names an encoded image: 16 bytes."""
    return hashlib.blake2b(data, digest_size=IMAGE_DIGEST_BYTES).digest()


@extras_named()
def open_image(data: bytes) -> "Image.Image":
    """The image in ``data``, upright, its pixels decoded as RGB.

    Raises ImageError for what is broken, too large, of another format, or has several frames; MissingExtraError
    without Pillow. Takes milliseconds to a second.
    """
    from PIL import ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is odd
        try:
            upright = ImageOps.exif_transpose(_opened(data))
            return upright.convert("RGB")
        except ImageError:
            raise
        except Exception as error:  # decoders meet broken files with whatever comes up
            raise ImageError(f"the image is broken: {type(error).__name__}: {error}") from error


def _opened(data: bytes) -> "Image.Image":
    """The image, its pixels still encoded. Raises ImageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(f"this is no image of the formats {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image has too many pixels; at most {MAX_PIXELS:,}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} pixels; at most {MAX_PIXELS:,} pixels: make it smaller")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(f"the image has {frames} frames; give one of them")
    return image


@extras_named()
def image_of(source: str | Path | bytes, max_side: int = 0, quality: int = QUALITY) -> EncodedImage:
    """An image file, ready to be sent: a JPEG, PNG or WebP.

    ``max_side``: the longer side of a larger one becomes so many pixels; 0: it is sent as it is.
    ``quality``: 1 to 100, of what is encoded again, as a JPEG, because it was too large.
    Raises ConfigError for a file that cannot be read and for settings that cannot be, ImageError as ``open_image``.
    Decodes it: where a large one would hold up others, ``await asyncio.to_thread(image_of, ...)``.
    """
    if max_side < 0 or not 1 <= quality <= 100:
        raise ConfigError(f"image_max_side must be 0 or more and image_quality 1 to 100, not {max_side} and {quality}")
    data, name = (source, "") if isinstance(source, bytes) else (_read(Path(source)), f"{str(source)!r}: ")
    try:
        image = open_image(data)
    except ImageError as error:
        raise ImageError(f"{name}{error}") from error
    if 0 < max_side < max(image.size):
        image.thumbnail((max_side, max_side))
        small = io.BytesIO()
        image.save(small, "JPEG", quality=quality)
        data = small.getvalue()
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageError(
            f"{name}an image of {len(data):,} bytes, and at most {MAX_IMAGE_BYTES:,} are sent: make it smaller "
            "(image_max_side, --image-max-side)"
        )
    return EncodedImage(data, image.size)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_IMAGE_BYTES * 8)  # what is larger may still become small enough
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"the image {str(file)!r} cannot be read: {why}") from error
