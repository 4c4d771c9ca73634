"""The page to look at, and the stream behind it: it needs the key, shows no text, and costs the server nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import foredraft
from api import clouds
from browser import browser, needs_chromium
from foredraft.openai_api.server import EdgeServer
from foredraft.server import watching
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard

KEY = {"Authorization": "Bearer secret"}
PROMPT = clouds.TEXT[:13]
SECRET = "jagen Viktor"


class Slow(ThreadPoolExecutor):
    """A device on which a pass takes 10 ms."""

    def submit(self, job: Callable[..., Any], /, *words: Any, **options: Any) -> "Future[Any]":
        def slowly() -> Any:
            time.sleep(0.01)
            return job(*words, **options)

        return super().submit(slowly)


@asynccontextmanager
async def both(*, show_text: bool = False) -> AsyncIterator[tuple[str, str]]:
    """The URLs of a cloud's server and of an edge's in front of it, while a long text is written."""
    target = clouds.target()
    target.worker = Slow(1)
    async with (
        foredraft.Cloud(target, clouds.TOKENIZER, api_key="secret") as cloud,
        cloud.listen(show_text=show_text) as cloud_url,
        foredraft.connect(cloud_url, draft=clouds.drafter, api_key="secret") as edge,
        serving(EdgeServer(edge, ChatCard("boxer"), api_key="secret", show_text=show_text)) as url,
        aiohttp.ClientSession(headers=KEY) as http,
    ):
        asked = {"prompt": PROMPT, "max_tokens": 10**6, "stream": True, "foredraft": {"policy": "seed"}}
        async with http.post(f"{url}/v1/completions", json=asked) as response:
            reading = asyncio.create_task(_read(response))
            try:
                yield cloud_url, url
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


async def _read(response: aiohttp.ClientResponse) -> None:
    async for _ in response.content:
        pass


async def watched(url: str, events: int, tokens: int = 0) -> list[dict[str, Any]]:
    """At least so many events of the stream, the last of them with at least so many tokens written."""
    said: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(headers=KEY) as http, http.get(f"{url}/v1/watch") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        while len(said) < events or said[-1]["tokens"] < tokens:
            line = await response.content.readuntil(b"\n\n")
            said.append(json.loads(line.removeprefix(b"data: ")))
    return said


async def test_both_servers_tell_their_figures_as_they_change() -> None:
    async with both() as urls:
        for url, end in zip(urls, ("cloud", "edge"), strict=True):
            first, *_, last = await watched(url, 3)
            assert last["end"] == end
            assert last["running"] == 1
            assert last["tokens"] > first["tokens"] >= 0
            assert last["accepted_at"]
            assert last["hints"].keys() == {"2", "4"}
            assert last["watched"] == last["texts"][0]["name"]
            assert last["lanes"]["spans"]


async def test_no_text_is_told_unless_that_was_asked_for() -> None:
    for show in (False, True):
        async with both(show_text=show) as urls:
            for url in urls:
                said = json.dumps(await watched(url, 2, tokens=len(clouds.TOKENS)), ensure_ascii=False)
                assert (SECRET in said) == show
                assert ('"shown"' in said) == show


async def test_the_page_is_open_and_what_it_shows_needs_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both() as urls, aiohttp.ClientSession() as http:
        for url in urls:
            async with http.get(f"{url}/") as response:
                page = await response.text()
                assert response.status == 200
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                assert "http" not in page.replace("http-equiv", "")  # nothing comes from elsewhere
            async with http.get(f"{url}/v1/watch") as response:
                assert response.status == 401
        monkeypatch.setattr(watching, "MOST_WATCHERS", 1)
        async with http.get(f"{urls[0]}/v1/watch", headers=KEY) as response:
            await response.content.readuntil(b"\n\n")
            async with http.get(f"{urls[0]}/v1/watch", headers=KEY) as second:
                assert second.status == 503
                assert "Retry-After" in second.headers
        async with asyncio.timeout(10):
            while True:  # the place of a watcher that went is free again
                async with http.get(f"{urls[0]}/v1/watch", headers=KEY) as third:
                    if third.status == 200:
                        break
                await asyncio.sleep(0.05)


async def test_a_server_that_closes_ends_the_streams() -> None:
    async with clouds.cloud() as cloud, aiohttp.ClientSession() as http:
        async with cloud.listen() as url:
            response = await http.get(f"{url}/v1/watch")
            await response.content.readuntil(b"\n\n")
        async with asyncio.timeout(5):
            rest = await response.content.read()
    assert rest == b"" or rest.startswith(b"data: ")


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
async def test_the_page_lives_in_a_browser(width: int, dark: bool, tmp_path: Path) -> None:
    async with both(show_text=True) as urls, browser(tmp_path) as page:
        for url, end in zip(urls, ("cloud with", "edge in front of boxer"), strict=True):
            await page.open("about:blank", width=width, dark=dark)
            await page.open(f"{url}/#key=secret", width=width, dark=dark)
            await page.until("document.getElementById('state').textContent === 'live'")
            assert str(await page.run("document.getElementById('what').textContent")).startswith(end)
            await page.until("Number(document.getElementById('rate').textContent) > 0")
            await page.until("document.querySelectorAll('#positions .bar').length > 0")
            assert await page.run("document.querySelectorAll('#layers .bar').length") == 2
            await page.until(f"document.getElementById('shown').textContent.includes('{SECRET}')")
            await page.until(f"({_INK})('pass')")
            assert await page.run("document.documentElement.scrollWidth <= innerWidth")
            assert not await page.run("location.hash")  # the key does not stay in the address
            background = await page.run("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(20, 24, 30)" if dark else "rgb(255, 255, 255)")
        assert page.errors == []
        assert all(asked.startswith((*urls, "data:", "about:")) for asked in page.asked)


_INK = """kind => {
  const canvas = document.getElementById('lanes'), pen = canvas.getContext('2d');
  const hex = getComputedStyle(document.body).getPropertyValue('--' + kind);
  const [r, g, b] = [1, 3, 5].map(place => parseInt(hex.slice(place, place + 2), 16));
  const {data} = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.length; i += 4) if (data[i] === r && data[i + 1] === g && data[i + 2] === b) return true;
  return false;
}"""


@needs_chromium
async def test_the_page_asks_for_the_key_and_says_when_it_is_wrong(tmp_path: Path) -> None:
    async with both() as (url, _), browser(tmp_path) as page:
        await page.open(url, width=1280, dark=False)
        await page.until("!document.getElementById('key').hidden")
        assert await page.run("document.getElementById('main').hidden")
        enter = "document.getElementById('secret').value = '{}'; document.querySelector('#key button').click()"
        await page.run(enter.format("wrong"))
        await page.until("document.getElementById('state').textContent.includes('not the server')")
        await page.run(enter.format("secret"))
        await page.until("document.getElementById('state').textContent === 'live'")
