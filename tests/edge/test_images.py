"""What an edge remembers of images: the latest, so that no camera fills its memory, and no text suffers from it."""

import pytest

from foredraft.edge.images import MOST_SENT, MOST_SIZES, Images, Shows
from foredraft.errors import ProtocolError
from foredraft.images import EncodedImage
from foredraft.protocol.messages import Image, Shown, pack

MARK = 7


def of(number: int, size: tuple[int, int] = (64, 48)) -> EncodedImage:
    return EncodedImage(number.to_bytes(4, "big"), size)


def text_with(images: list[EncodedImage], shows: Shows) -> Images:
    return Images(images, [1, *[MARK] * len(images), 2], MARK, shows)


def see(images: list[EncodedImage], shows: Shows, tokens: int = 3) -> int:
    """Show images to a cloud, which makes so many tokens of each; how many were sent."""
    text = text_with(images, shows)
    sent = sum(isinstance(message, Image) for message in text.messages(1))
    text.shown(Shown(1, tuple(pack([MARK] * tokens) for _ in images)))
    return sent


async def test_what_an_edge_remembers_of_images_does_not_grow_with_their_number() -> None:
    shows = Shows()
    for number in range(2 * MOST_SENT):
        assert see([of(number, (64 + number % (2 * MOST_SIZES), 48))], shows) == 1
    assert len(shows.sent) == MOST_SENT
    assert len(shows.place_of) == MOST_SIZES


async def test_an_image_that_was_forgotten_is_sent_again_and_one_that_is_in_use_is_not() -> None:
    shows = Shows()
    see([of(0)], shows)
    see([of(1)], shows)
    for number in range(2, MOST_SENT + 1):
        see([of(number)], shows)
        assert see([of(1)], shows) == 0
    assert see([of(0)], shows) == 1


async def test_a_text_keeps_the_places_of_its_images_when_their_sizes_are_forgotten() -> None:
    shows = Shows()
    see([of(0, (1, 1))], shows)
    text = text_with([of(0, (1, 1))], shows)
    whole = text.text
    for width in range(2, MOST_SIZES + 2):
        see([of(0, (width, 1))], shows)
    assert not text_with([of(0, (1, 1))], shows).placed
    assert text.placed
    assert text.text == whole == [1, MARK, MARK, MARK, 2]
    text.shown(Shown(1, (pack([MARK] * 3),)))  # a resumed text is shown its images again
    with pytest.raises(ProtocolError, match="a place of another length before"):
        text.shown(Shown(1, (pack([MARK] * 4),)))
