"""Every query of the dashboard in examples/grafana finds something in a real Prometheus that scrapes real servers."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import foredraft
from api import clouds
from examples.test_deploy import free_port
from foredraft.openai_api.server import EdgeServer
from foredraft.protocol.ports import Load
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard
from paths import EXAMPLES

BOARD = json.loads((EXAMPLES / "grafana" / "foredraft.json").read_text(encoding="utf-8"))
KEY = "secret"


class BusyCloud(foredraft.Cloud):
    """A cloud whose scripted target says how busy it is, as a real one does."""

    def _load(self) -> Load:
        return Load(1, 2, 0.5)


@asynccontextmanager
async def prometheus(folder: Path, *targets: str) -> AsyncIterator[str]:
    """A real one that scrapes these; its URL."""
    scrape = {"job_name": "foredraft", "authorization": {"credentials": KEY}, "static_configs": [{"targets": targets}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    process = await asyncio.create_subprocess_exec(
        "prometheus", *words, f"--web.listen-address={address}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def found(http: aiohttp.ClientSession, url: str, expression: str) -> list[dict[str, Any]]:
    """What a query finds; nothing while Prometheus begins."""
    query = expression.replace("$__rate_interval", "10s").replace("$instance", ".*")
    try:
        async with http.get(f"{url}/api/v1/query", params={"query": query}) as response:
            said = await response.json()
    except aiohttp.ClientConnectionError:
        return []
    assert said.get("status") == "success" or response.status == 503, said
    return [one for one in said.get("data", {}).get("result", []) if one["value"][1] != "NaN"]


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")
async def test_every_query_of_the_dashboard_finds_something(tmp_path: Path) -> None:
    cloud = BusyCloud(clouds.target(), clouds.TOKENIZER, api_key=KEY)
    async with (
        cloud,
        cloud.listen() as cloud_url,
        foredraft.connect(cloud_url, draft=clouds.drafter, api_key=KEY) as edge,
        serving(EdgeServer(edge, ChatCard("boxer"), api_key=KEY)) as url,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http,
        prometheus(tmp_path, cloud_url.removeprefix("http://"), url.removeprefix("http://")) as metrics,
    ):

        async def write() -> None:
            while True:
                asked = {"prompt": clouds.TEXT[:13], "max_tokens": 50, "foredraft": {"policy": "seed"}}
                async with http.post(f"{url}/v1/completions", json=asked) as response:
                    assert response.status == 200
                await asyncio.sleep(0.1)

        writing = asyncio.create_task(write())
        expressions = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
        assert len(expressions) > 12
        for expression in expressions:
            while not await found(http, metrics, expression):
                assert not writing.done(), writing
                await asyncio.sleep(0.2)
        both = await found(http, metrics, "sum by (instance) (foredraft_generation_tokens_total)")
        assert len(both) == 2
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
