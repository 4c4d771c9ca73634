"""Images in the cloud: pieces in order, digests that hold, keys that know nothing of each other, bounded memory."""

import pytest

from foredraft.cloud.gallery import Gallery, Viewing
from foredraft.errors import ImageError, ModelError, RefusedError
from foredraft.images import digest_of
from foredraft.protocol.messages import INTERNAL, INVALID, UNSEEN, Image, Show, Shown, pack
from foredraft.protocol.ports import Picture, Slot
from foredraft.protocol.sampling import Sampling


class Seen:
    """An image whose place becomes as many tokens as its file has bytes."""

    def __init__(self, data: bytes) -> None:
        self.tokens = (7,) * len(data)
        self.held_bytes = 100 * len(data)


class Eyes:
    """Sees whatever is no nonsense, and counts."""

    image_token = 7

    def __init__(self) -> None:
        self.looks = 0

    async def look(self, image: bytes) -> Picture:
        self.looks += 1
        if image == b"broken":
            raise ImageError("the image is broken")
        if image == b"failing":
            raise ModelError("the model failed on its device")
        return Seen(image)

    async def slot_seeing(self, pictures: object, tokens: object, sampling: Sampling, owner: str = "") -> Slot:
        raise AssertionError("no text is opened here")


def pieces(data: bytes, of: int = 3) -> list[Image]:
    return [Image(digest_of(data), len(data), at, data[at : at + of]) for at in range(0, len(data), of)]


class Watched(Viewing):
    """Keeps what is to be said."""

    def __init__(self, gallery: Gallery) -> None:
        super().__init__(gallery)
        self.said: list[Shown] = []

    def show(self, show: Show, key: str) -> Shown | None:
        return self._keep(super().show(show, key))

    async def take(self, piece: Image, key: str) -> Shown | None:
        return self._keep(await super().take(piece, key))

    def _keep(self, shown: Shown | None) -> Shown | None:
        self.said += [] if shown is None else [shown]
        return shown


def viewing(gallery: Gallery) -> tuple[Viewing, list[Shown]]:
    view = Watched(gallery)
    return view, view.said


async def send(view: Viewing, data: bytes, key: str = "k") -> None:
    for piece in pieces(data):
        await view.take(piece, key)


async def test_an_image_in_pieces_is_seen_once_and_found_again() -> None:
    eyes = Eyes()
    gallery = Gallery(eyes)
    view, said = viewing(gallery)
    view.show(Show(1, (digest_of(b"eight..."), digest_of(b"five."))), "k")
    assert said == []
    await send(view, b"eight...")
    assert said == []
    with pytest.raises(RefusedError) as unseen:
        view.pictures(1)
    assert unseen.value.code == UNSEEN
    assert unseen.value.retry_after_s == 0.0
    await send(view, b"five.")
    assert said == [Shown(1, (pack([7] * 8), pack([7] * 5)))]
    assert [len(picture.tokens) for picture in view.pictures(1)] == [8, 5]
    assert view.pictures(2) == []  # another session shows its own, or none
    other, told = viewing(gallery)
    other.show(Show(4, (digest_of(b"five."),)), "k")
    assert told == [Shown(4, (pack([7] * 5),))]
    assert eyes.looks == 2


async def test_another_key_learns_nothing_of_what_was_shown() -> None:
    gallery = Gallery(Eyes())
    view, _ = viewing(gallery)
    view.show(Show(1, (digest_of(b"secret"),)), "k")
    await send(view, b"secret")
    other, said = viewing(gallery)
    other.show(Show(1, (digest_of(b"secret"),)), "other")
    assert said == []
    with pytest.raises(RefusedError):
        other.pictures(1)


async def test_pieces_that_come_twice_or_unasked_change_nothing() -> None:
    eyes = Eyes()
    view, said = viewing(Gallery(eyes))
    await send(view, b"unasked")
    view.show(Show(1, (digest_of(b"eight..."),)), "k")
    await send(view, b"unasked")
    first, second, third = pieces(b"eight...")
    for piece in (first, first, second, first, second, third, third):
        await view.take(piece, "k")
    assert len(said) == eyes.looks == 1


@pytest.mark.parametrize(
    "bad",
    [
        Image(digest_of(b"eight..."), 8, 3, b"ht."),  # one is missing before it
        Image(digest_of(b"eight..."), 2, 0, b"eight"),  # more than it is large
        Image(digest_of(b"eight..."), 8, 0, b"EIGHT..."),  # not what the digest names
    ],
)
async def test_pieces_that_make_no_image_are_refused_and_the_next_try_is_welcome(bad: Image) -> None:
    view, said = viewing(Gallery(Eyes()))
    view.show(Show(1, (digest_of(b"eight..."),)), "k")
    with pytest.raises(RefusedError) as refused:
        await view.take(bad, "k")
    assert refused.value.code == INVALID
    view.show(Show(2, (digest_of(b"eight..."),)), "k")
    await send(view, b"eight...")
    assert len(said) == 1


@pytest.mark.parametrize(("data", "code"), [(b"broken", INVALID), (b"failing", INTERNAL)])
async def test_what_cannot_be_seen_is_refused(data: bytes, code: str) -> None:
    view, _ = viewing(Gallery(Eyes()))
    view.show(Show(1, (digest_of(data),)), "k")
    with pytest.raises(RefusedError) as refused:
        await send(view, data)
    assert refused.value.code == code


async def test_a_model_without_eyes_is_shown_nothing() -> None:
    view, _ = viewing(Gallery(None))
    with pytest.raises(RefusedError, match="sees no images"):
        view.show(Show(1, (digest_of(b"x"),)), "k")


async def test_what_was_longest_of_no_use_goes_when_there_is_too_much() -> None:
    gallery = Gallery(Eyes(), held_bytes=1_000)
    for data in (b"one", b"two", b"three"):  # 300, 300 and 500 bytes as they are held
        await gallery.look("k", data)
        gallery.find("k", digest_of(b"one"))
    assert [gallery.find("k", digest_of(data)) is not None for data in (b"one", b"two", b"three")] == [
        True,
        False,
        True,
    ]
    await gallery.look("k", b"larger than all")
    assert gallery.find("k", digest_of(b"one")) is None
    assert gallery.find("k", digest_of(b"larger than all")) is not None
