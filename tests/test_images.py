"""Encoded images: what is opened, what is refused, and how they become smaller."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from foredraft.errors import ConfigError, ImageError
from foredraft.images import MAX_PIXELS, image_of, open_image


def encoded(width: int, height: int, kind: str = "PNG", **more: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, kind, **more)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of so many pixels each way, all of one colour: small as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * 64, 9)  # the decoder is not to get this far
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_are_read_and_sent_as_they_are(kind: str) -> None:
    data = encoded(60, 40, kind)
    image = image_of(data)
    assert (image.data, image.size) == (data, (60, 40))
    assert len(image.digest) == 16
    assert image_of(data).digest == image.digest


def test_a_camera_that_was_held_upright_is_turned_back() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encoded(60, 40, "JPEG", exif=exif)
    assert open_image(data).size == (40, 60)
    assert image_of(data).size == (40, 60)
    small = image_of(data, max_side=30)
    assert small.size == open_image(small.data).size == (20, 30)


def test_a_larger_image_becomes_smaller_and_a_smaller_one_stays() -> None:
    data = encoded(400, 100)
    small = image_of(data, max_side=200, quality=50)
    assert small.size == (200, 50)
    assert open_image(small.data).size == (200, 50)
    assert image_of(data, max_side=400).data == data


def test_thirty_thousand_pixels_each_way_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match="pixels"):
        open_image(bomb(30_000))
    with pytest.raises(ImageError, match="pixels"):
        open_image(bomb(6_000))
    assert MAX_PIXELS < 6_000**2


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="3 frames"):
        open_image(file.getvalue())


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"no image", encoded(8, 8, "GIF"), encoded(8, 8, "BMP")])
def test_what_is_no_image_of_the_three_formats_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"formats|broken"):
        open_image(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_half_an_image_is_refused(kind: str) -> None:
    data = encoded(200, 200, kind)
    with pytest.raises(ImageError):
        open_image(data[: len(data) // 2])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.png' cannot be read"):
        image_of(tmp_path / "none.png")
    with pytest.raises(ConfigError, match=r"'a\\x00b' cannot be read"):
        image_of("a\0b")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ImageError, match=r"text\.png': this is no image"):
        image_of(tmp_path / "text.png")


@pytest.mark.parametrize(("side", "quality"), [(-1, 85), (10, 0), (10, 101)])
def test_settings_that_cannot_be_are_refused(side: int, quality: int) -> None:
    with pytest.raises(ConfigError, match="image_quality 1 to 100"):
        image_of(encoded(8, 8), side, quality)


def test_an_image_that_is_too_large_to_send_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foredraft.images.MAX_IMAGE_BYTES", 1_000)
    data = encoded(300, 300, "PNG", compress_level=0)
    with pytest.raises(ImageError, match="--image-max-side"):
        image_of(data)
    assert len(image_of(data, max_side=30).data) < 1_000
