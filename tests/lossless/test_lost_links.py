"""A real text over a link that breaks: cut by the proxy, its server killed and restarted, another taking over."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import foredraft
from engines.torch_reference import PlainHeads
from foredraft.engines.torch_draft import TorchDrafter
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchTarget
from foredraft.links.proxy import ShapingProxy, run_proxy_in_thread
from foredraft.links.shaping import Shape
from foredraft.protocol.sampling import Sampling
from foredraft.text.tokenizer import Tokenizer
from lossless.oracle import Oracle
from lossless.server_process import ServerProcess

PROMPT = "def f(x):"
LENGTH = 48
QUICK = foredraft.Retry(attempts=300, first_s=0.01, most_s=0.5)
SAMPLING = Sampling(temperature=0.8, seed=4)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def server(target_folder: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(target_folder)
    yield server
    server.kill()


async def write(
    *urls: str, draft: LoadedModel, policy: str, at: dict[int, Callable[[], None]]
) -> tuple[list[int], foredraft.SessionReport]:
    """What was shown and the report; ``at`` so many tokens something happens."""
    drafter, shown = TorchDrafter(draft), list[int]()
    async with foredraft.connect(*urls, draft=drafter, retry=QUICK) as edge:
        asked = edge.generate(
            PROMPT,
            policy=policy,
            temperature=SAMPLING.temperature,
            seed=SAMPLING.seed,
            max_new_tokens=LENGTH,
        )
        async for piece in asked:
            shown += piece.tokens
            for count in [count for count in at if count <= len(shown) < LENGTH]:
                at.pop(count)()
    await drafter.close()
    assert not at, "the text ended before the link was lost"
    return shown, asked.report


def check(oracle: Oracle, model: LoadedModel, shown: list[int], report: foredraft.SessionReport) -> None:
    """Shown once each, and what the target alone writes."""
    assert shown == report.tokens
    assert len(shown) == LENGTH
    oracle.check(shown, Tokenizer.from_folder(model.folder).encode(PROMPT), SAMPLING)


@pytest.mark.parametrize("policy", ["cloud", "sync", "seed", "ahead", "auto"])
async def test_a_link_that_the_proxy_cuts_twice_changes_nothing(
    target_model: LoadedModel, draft_model: LoadedModel, oracle: Oracle, policy: str
) -> None:
    target = TorchTarget(target_model, PlainHeads(target_model))
    async with foredraft.Cloud(target, Tokenizer.from_folder(target_model.folder)) as cloud, cloud.listen() as url:
        address, slow = urlsplit(url), Shape(delay_s=0.002)
        assert address.hostname is not None
        assert address.port is not None
        proxy = ShapingProxy(address.hostname, address.port, up=slow, down=slow)
        with run_proxy_in_thread(proxy):
            front = f"http://{proxy.host}:{proxy.port}"
            shown, report = await write(front, draft=draft_model, policy=policy, at={8: proxy.cut, 24: proxy.cut})
    check(oracle, target_model, shown, report)
    if policy != "cloud":  # which may have sent it all before the cut is noticed
        assert report.reconnects >= 1


@pytest.mark.timeout(180)  # two processes import torch, which takes a while on a busy machine
async def test_a_text_survives_its_server_being_killed_and_restarted_and_then_replaced(
    server: ServerProcess, target_model: LoadedModel, draft_model: LoadedModel, oracle: Oracle
) -> None:
    await check_command_line(server.url, target_model, oracle)
    coming: list[asyncio.Task[None]] = []

    def restart() -> None:
        server.kill()
        coming.append(asyncio.create_task(asyncio.to_thread(server.start)))  # the edge keeps trying meanwhile

    shown, report = await write(server.url, draft=draft_model, policy="seed", at={10: restart})
    await asyncio.gather(*coming)
    check(oracle, target_model, shown, report)
    assert report.reconnects > 1

    other = foredraft.Cloud(TorchTarget(target_model), Tokenizer.from_folder(target_model.folder))
    async with other, other.listen() as url:
        shown, report = await write(server.url, url, draft=draft_model, policy="sync", at={10: server.kill})
        assert other.service.counters.tokens >= LENGTH - 20
    check(oracle, target_model, shown, report)
    assert report.reconnects >= 1


async def check_command_line(url: str, target: LoadedModel, oracle: Oracle) -> None:
    """Two processes over loopback: the server, and an edge that has no torch."""
    words = ["generate", "--server", url, "--prompt", PROMPT, "--policy", "seed", "--json"]
    command = [sys.executable, "-m", "foredraft", *words]
    sampling = ["--temperature", "0.8", "--seed", str(SAMPLING.seed), "--max-new-tokens", str(LENGTH)]
    edge = await asyncio.create_subprocess_exec(*command, *sampling, stdout=subprocess.PIPE)
    out, _ = await edge.communicate()
    assert edge.returncode == 0
    said = json.loads(out)
    oracle.check(said["tokens"], Tokenizer.from_folder(target.folder).encode(PROMPT), SAMPLING)
    assert (said["new_tokens"], said["finish_reason"], said["reconnects"]) == (LENGTH, "length", 0)
