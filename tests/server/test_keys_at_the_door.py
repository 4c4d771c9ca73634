"""A server with a file of keys: roles, limits, owners of caches, and a key that is revoked while a text is written."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import foredraft
from api import clouds
from foredraft.edge.connections import Retry
from foredraft.engines.paced import PacedTarget
from foredraft.engines.scripted import ScriptedSlot, ScriptedTarget
from foredraft.errors import ConfigError, RefusedError
from foredraft.keys import METRICS, PROBE, Key, KeyFile, hash_of, parse_keys, with_key
from foredraft.links.proxy import ShapingProxy, run_proxy_in_thread
from foredraft.links.shaping import Shape
from foredraft.links.websocket import connect as link_to
from foredraft.profiles import load_profile
from foredraft.protocol.messages import PROTOCOL_VERSION, UNAUTHORIZED, Drain, Hello, Open, Refused, Steer, pack
from foredraft.protocol.sampling import Sampling
from foredraft.server.bounds import Bounds

KEYS = (
    Key(name="ada", hash=hash_of("a")),
    Key(name="bob", hash=hash_of("b"), connections=1),
    Key(name="graph", hash=hash_of("g"), roles=(METRICS,)),
    Key(name="ruler", hash=hash_of("r"), roles=(PROBE,)),
)


def write(file: Path, keys: Sequence[Key]) -> None:
    text = ""
    for key in keys:
        text = with_key(text, key)
    file.write_text(text, encoding="utf-8")


class Owned(ScriptedTarget):
    """Remembers whose texts it was given."""

    owners: list[str]

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        self.owners.append(owner)
        return await super().slot(tokens, sampling, owner)


def owned() -> Owned:
    target = Owned(clouds.truth, vocab_size=257, context=1 << 20, tokenizer_digest=clouds.TOKENIZER.digest)
    target.owners = []
    return target


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[str, Path, Owned]]:
    """A server's URL, its file of keys, and its target."""
    file = tmp_path / "keys.toml"
    write(file, KEYS)
    target = owned()
    async with foredraft.Cloud(target, clouds.TOKENIZER, keys=KeyFile(file)) as cloud, cloud.listen() as url:
        yield url, file, target


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def status(url: str, secret: str) -> int:
    async with aiohttp.ClientSession(headers=bearing(secret)) as http, http.get(url) as response:
        return response.status


async def test_a_key_opens_what_its_roles_are_for_and_nothing_else(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, _, _):
        opened = {
            (path, secret): await status(f"{url}/{path}", secret)
            for path in ("v1/model", "metrics", "v1/probe")
            for secret in ("a", "g", "r", "x", "")
        }
    assert opened == {
        **{("v1/model", secret): code for secret, code in zip("agrx", (200, 403, 403, 401), strict=True)},
        **{("metrics", secret): code for secret, code in zip("agrx", (403, 200, 403, 401), strict=True)},
        **{("v1/probe", secret): code for secret, code in zip("agrx", (403, 403, 400, 401), strict=True)},
        **{(path, ""): 401 for path in ("v1/model", "metrics", "v1/probe")},
    }


async def test_a_key_that_is_revoked_ends_its_texts_within_a_second_and_those_of_others_go_on(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as (url, file, _),
        foredraft.connect(url, draft=clouds.drafter, api_key="a") as ada,
        foredraft.connect(url, draft=clouds.drafter, api_key="b") as bob,
    ):
        going_on = asyncio.create_task(_endless(bob))
        texts = ada.generate("Boxer", max_new_tokens=10**6, policy="cloud")
        await anext(texts)
        write(file, KEYS[1:])
        began_s = time.monotonic()
        with pytest.raises(RefusedError, match="revoked"):
            await texts.finish()
        assert time.monotonic() - began_s < 5.0  # a second, on a machine that is not busy
        with pytest.raises(RefusedError, match="does not accept this API key"):
            await link_to(url, api_key="a")
        assert not going_on.done()
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)


async def test_a_key_that_is_revoked_while_the_server_drains_ends_its_texts_before_the_others_have_to_leave(
    tmp_path: Path,
) -> None:
    """Edges go when they are told that a server drains; these peers stay for as long as they may."""
    write(file := tmp_path / "keys.toml", KEYS)
    leave, urls = asyncio.Event(), asyncio.Queue[str]()
    async with foredraft.Cloud(owned(), clouds.TOKENIZER, keys=KeyFile(file)) as cloud, asyncio.TaskGroup() as group:

        async def serve() -> None:
            async with cloud.listen(bounds=Bounds(grace_s=20.0)) as url:
                urls.put_nowait(url)
                await leave.wait()

        serving, url = group.create_task(serve()), await urls.get()
        links = {secret: await link_to(url, api_key=secret) for secret in "ab"}
        for secret, link in links.items():
            await link.send(Hello(PROTOCOL_VERSION, secret))
            await link.send(Open(1, pack([1]), 1, 0.0, 0, 1.0, 0, 10**6, (), (), Steer(1, 1)))
        leave.set()
        for link in links.values():
            while not isinstance(await link.receive(), Drain):
                pass
        write(file, KEYS[1:])
        try:
            while not isinstance(refused := await links["a"].receive(), Refused):
                pass
            assert not serving.done()
        finally:
            for link in links.values():
                await link.close()
    assert refused.code == UNAUTHORIZED


async def _endless(edge: foredraft.Edge) -> None:
    await edge.generate("Boxer", max_new_tokens=10**6, policy="cloud").finish()


async def test_one_connection_beyond_a_keys_limit_is_told_when_to_try_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, _, _):
        held = await link_to(url, api_key="b")
        async with (
            aiohttp.ClientSession(headers=bearing("b")) as http,
            http.get(f"{url}/v1/session") as response,
        ):
            assert response.status == 429
            assert response.headers["Retry-After"].isdecimal()
            assert "limit: connections" in await response.text()
        others = await link_to(url, api_key="a")
        await others.close()
        await held.close()
        async with asyncio.timeout(10):
            while True:  # until the server has seen it go
                try:
                    again = await link_to(url, api_key="b")
                    break
                except RefusedError:
                    await asyncio.sleep(0.01)
        await again.close()


async def test_texts_are_their_keys_whichever_way_they_come(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, _, target):
        asked = {"prompt": "Boxer", "max_tokens": 3}
        for secret in ("a", "b", "a"):
            async with (
                aiohttp.ClientSession(headers=bearing(secret)) as http,
                http.post(f"{url}/v1/completions", json=asked) as response,
            ):
                assert response.status == 200
        async with foredraft.connect(url, draft=clouds.drafter, api_key="b") as edge:
            await edge.generate("Boxer", max_new_tokens=3).finish()
        assert target.owners == ["ada", "bob", "ada", "bob"]


async def test_texts_at_once_beyond_a_keys_limit_wait_and_the_limit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write(file, [Key(name="ada", hash=hash_of("a"), sessions=1), KEYS[1]])
    async with (
        foredraft.Cloud(owned(), clouds.TOKENIZER, keys=KeyFile(file)) as cloud,
        cloud.listen() as url,
        foredraft.connect(url, draft=clouds.drafter, api_key="a", retry=Retry(attempts=0)) as ada,
        foredraft.connect(url, draft=clouds.drafter, api_key="b") as bob,
    ):
        first = ada.generate("Boxer", max_new_tokens=10**6, policy="cloud")
        await anext(first)
        with pytest.raises(RefusedError, match=r"'ada' has its 1 texts at once \(limit: sessions\)"):
            await ada.generate("Deich", max_new_tokens=3).finish()
        assert (await bob.generate("Boxer", max_new_tokens=3).finish()).new_tokens == 3
        await first.aclose()
        async with asyncio.timeout(10):
            while True:  # until the cloud has heard that the first is over
                try:
                    report = await ada.generate("Deich", max_new_tokens=3).finish()
                    break
                except RefusedError:
                    await asyncio.sleep(0.01)
        assert report.new_tokens == 3


async def test_a_limit_of_tokens_a_minute_lets_a_text_end_and_the_next_one_wait(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, file, _):
        write(file, [Key(name="ada", hash=hash_of("a"), tokens_per_minute=60), Key(name="bob", hash=hash_of("b"))])
        await asyncio.sleep(1.0)
        hasty = Retry(attempts=0)
        async with (
            foredraft.connect(url, api_key="a", retry=hasty) as ada,
            foredraft.connect(url, api_key="b", retry=hasty) as bob,
        ):
            report = await ada.generate(clouds.TEXT[:13], max_new_tokens=70).finish()
            assert report.new_tokens == 70
            with pytest.raises(RefusedError, match=r"60 tokens a minute \(limit: tokens_per_minute\)") as caught:
                await ada.generate(clouds.TEXT[:13], max_new_tokens=4).finish()
            assert caught.value.retry_after_s is not None
            assert 15.0 < caught.value.retry_after_s < 30.0
            assert (await bob.generate(clouds.TEXT[:13], max_new_tokens=4).finish()).new_tokens == 4


async def test_a_limit_of_bytes_a_minute_lets_a_text_end_and_the_next_one_wait(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, file, _):
        write(file, [Key(name="ada", hash=hash_of("a"), bytes_per_minute=100)])
        await asyncio.sleep(1.0)
        async with foredraft.connect(url, api_key="a", retry=Retry(attempts=0)) as ada:
            report = await ada.generate(clouds.TEXT * 10, policy="sync", max_new_tokens=20).finish()
            assert report.new_tokens == 20
            assert report.bytes_up > 100
            with pytest.raises(RefusedError, match=r"100 bytes a minute \(limit: bytes_per_minute\)"):
                await ada.generate(clouds.TEXT[:13], max_new_tokens=4).finish()


async def test_a_limit_of_the_context_is_told_at_the_handshake_and_ends_the_text(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, file, _):
        write(file, [Key(name="ada", hash=hash_of("a"), context=40)])
        await asyncio.sleep(1.0)
        async with foredraft.connect(url, api_key="a") as ada:
            assert ada.ready.context == 40
            report = await ada.generate(clouds.TEXT[:13], max_new_tokens=200).finish()
            assert (report.prompt_tokens + report.new_tokens, report.finish_reason) == (40, "context")
            with pytest.raises(RefusedError, match="leaves no room in the context of 40"):
                await ada.generate(clouds.TEXT[:60], max_new_tokens=4).finish()


async def test_the_device_is_divided_by_the_weights_of_the_file_as_they_are_now(tmp_path: Path) -> None:
    write(file := tmp_path / "keys.toml", [Key(name="ada", hash=hash_of("a"), weight=3.0)])
    keys = KeyFile(file)
    assert (keys.weight_of("ada"), keys.weight_of("nobody")) == (3.0, 1.0)
    write(file, [Key(name="ada", hash=hash_of("a"), weight=0.5)])
    keys.reload()
    assert keys.weight_of("ada") == 0.5
    paced = PacedTarget(owned(), load_profile("robot-5-target", "target"))
    async with foredraft.Cloud(paced, clouds.TOKENIZER, keys=keys):
        assert paced.device.shares.weight_of("ada") == 0.5
    with pytest.raises(ConfigError, match=r"key 'ada' has the weight 0\.0: it must be above 0"):
        parse_keys(with_key("", Key(name="ada", hash=hash_of("a"), weight=0.0)), file)


async def test_a_text_over_its_tokens_a_minute_goes_on_after_its_link_was_cut(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, file, _):
        write(file, [Key(name="ada", hash=hash_of("a"), tokens_per_minute=10)])
        await asyncio.sleep(1.0)
        slow = Shape(delay_s=0.005)
        proxy = ShapingProxy("127.0.0.1", int(url.rpartition(":")[2]), up=slow, down=slow)
        hasty = Retry(attempts=100, first_s=0.01, most_s=0.1)
        near = f"http://127.0.0.1:{proxy.port}"
        with run_proxy_in_thread(proxy):
            async with foredraft.connect(near, draft="ngram", api_key="a", retry=hasty) as ada:
                generation = ada.generate(clouds.TEXT[:13], policy="sync", max_new_tokens=60)
                async for _ in generation:
                    if not generation.report.reconnects and generation.report.new_tokens > 20:
                        proxy.cut()
                assert generation.report.new_tokens == 60
                assert generation.report.reconnects > 0
