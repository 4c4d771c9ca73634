"""What one key's texts leave behind is of use to that key alone: another's first token costs as if nobody had been
there.

Counted in the work that is done before the first token, by which the device is charged, and not in time.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

import foredraft
from api import clouds
from foredraft.api.own_edge import OwnEdge
from foredraft.edge.connections import Retry
from foredraft.keys import Key, Keys, hash_of
from foredraft.protocol.events import Event
from foredraft.server.door import key_of_request
from foredraft.text.constraint import Constraint
from foredraft.text.grammar import Grammars

ADA, BOB = (Key(name=name, hash=hash_of(name)) for name in ("ada", "bob"))
KEYS = {key.name: key for key in (ADA, BOB)}
SCHEMA = {"type": "object", "properties": {"wheels": {"type": "integer"}}}


class Work:
    """How many tokens of prompts the target ran before each text's first token."""

    def __init__(self) -> None:
        self._so_far: dict[str, int] = {}
        self.before_first: list[int] = []

    def observe(self, event: Event) -> None:
        """The cloud's observer."""
        if event.kind == "begin":
            self._so_far[event.session] = 0
        elif event.session in self._so_far and event.kind in ("prefill", "pass"):
            done = event.data["count" if event.kind == "prefill" else "trunk"]
            assert isinstance(done, int)
            self._so_far[event.session] += done
        elif event.kind == "verdict" and event.session in self._so_far:
            self.before_first.append(self._so_far.pop(event.session))


@pytest_asyncio.fixture
async def tiny(tmp_path: Path) -> AsyncIterator[tuple[foredraft.Cloud, Work]]:
    """A cloud on a small model of torch, whose engine remembers the beginnings of texts; and the work that it does."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from engines.tiny_models import save_model

    work = Work()
    async with foredraft.Cloud.load(save_model(tmp_path), keys=Keys(KEYS), observer=work.observe) as cloud:
        yield cloud, work


async def asks(cloud: foredraft.Cloud, key: Key, prompt: list[int]) -> None:
    async with foredraft.connect(cloud, api_key=key.name, retry=Retry(attempts=0)) as edge:
        await edge.generate(prompt, policy="cloud", max_new_tokens=2, end_marks=False).finish()


async def test_how_soon_a_first_token_comes_tells_nothing_of_what_another_key_has_asked(
    tiny: tuple[foredraft.Cloud, Work],
) -> None:
    cloud, work = tiny
    rng = Random(1)
    secret, other = ([rng.randrange(256) for _ in range(200)] for _ in range(2))
    await asks(cloud, ADA, secret)
    await asks(cloud, ADA, secret)
    await asks(cloud, BOB, secret)  # guesses right
    await asks(cloud, BOB, other)  # and wrong
    await asks(cloud, BOB, secret)
    first, again, right, wrong, known = work.before_first
    assert first == right == wrong == 200
    assert again == known < 100  # within a key it is remembered


async def test_a_grammar_that_another_key_has_used_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llguidance")
    made: list[Constraint] = []
    whole = Grammars._compiled

    def compiled(self: Grammars, constraint: Constraint) -> object:
        made.append(constraint)
        return whole(self, constraint)

    monkeypatch.setattr(Grammars, "_compiled", compiled)
    rule = foredraft.constraint_of(json_schema=SCHEMA)
    cloud = foredraft.Cloud(clouds.target(), clouds.TOKENIZER, keys=Keys(KEYS))
    counts = []
    async with cloud:
        for key in (ADA, ADA, BOB, BOB):
            async with foredraft.connect(cloud, api_key=key.name, draft=clouds.drafter) as edge:
                edge.tokenizer = None  # the draft is not held to it: its grammars are the edge's own
                with pytest.raises(foredraft.ForedraftError):  # the target has its text by heart, and no JSON
                    await edge.generate(clouds.TOKENS, max_new_tokens=3, constraint=rule).finish()
            counts.append(len(made))
    assert counts == [1, 1, 2, 2]


async def test_openais_routes_of_a_cloud_know_of_images_by_key() -> None:
    async with clouds.cloud() as cloud, OwnEdge(cloud, cloud.keys) as edge:
        known = []
        for key in (ADA, BOB, ADA):
            key_of_request.set(key)
            known.append(edge._known_images())
    assert known[0] is known[2] is not known[1]
