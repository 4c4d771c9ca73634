"""Thirty-two sessions over real server processes that are killed, stopped, drained, out of disk, or cut off.

Every text is the target's own all the same; every session ends; what was shown stays; nothing is left of it.
Trouble comes when so much of all texts is shown, which a seed says: no test waits for a time to pass.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import aiohttp
import pytest

from chaos.crowd import LENGTH, Crowd, edges_of, shares
from chaos.cutting_proxy import CuttingProxy
from foredraft import read_record
from foredraft.demo_models import bundled_pair
from foredraft.text.tokenizer import Tokenizer
from lossless.oracle import Oracle
from lossless.server_process import ServerProcess
from paths import ROOT

pytestmark = pytest.mark.timeout(600)  # torch is imported by several processes, on a machine that may be busy

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
"""How many storms there are: make chaos ROUNDS=100."""

LOUD = ("--log-format", "json", "--verbose")

FILE_BYTES = 4_000
"""What a file may have where a disk is full: less than a record of a text, and less than the tokenizer."""


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle.of(bundled_pair().target)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(bundled_pair().target)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the second server writes its log, until its disk is full."""
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="module")
def two(log: Path) -> Iterator[list[ServerProcess]]:
    """Two servers of the bundled pair; each test leaves both running. The disk of the second one is full."""
    with log.open("w") as file, ThreadPoolExecutor() as pool:
        full = partial(ServerProcess, "demo", LOUD, stderr=file, file_bytes=FILE_BYTES)
        starting = [pool.submit(ServerProcess, "demo"), pool.submit(full)]
        servers = [one.result() for one in starting]
        try:
            yield servers
        finally:
            for server in servers:
                server.kill()


def check(crowd: Crowd, oracle: Oracle, tokenizer: Tokenizer) -> None:
    """Each session has shown its text, each token once, and it is what the target alone writes."""
    for one in crowd.sessions:
        assert one.report is not None
        assert one.shown == one.report.tokens
        assert len(one.shown) == LENGTH
        oracle.check(one.shown, tokenizer.encode(one.prompt), one.sampling)


async def nothing_left(*servers: ServerProcess) -> None:
    """Wait until the servers have let go of every connection and text."""
    async with aiohttp.ClientSession() as http:
        for server in servers:
            busy = True
            while busy:
                async with http.get(f"{server.url}/metrics") as response:
                    lines = (await response.text()).splitlines()
                busy = not {"foredraft_connections 0.0", "foredraft_num_requests_running 0.0"} <= {*lines}


async def restarted(server: ServerProcess) -> None:
    server.kill()
    await asyncio.to_thread(server.start)


async def test_a_server_that_is_killed_and_restarted_costs_no_token(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer
) -> None:
    server, crowd = two[0], Crowd()
    async with edges_of(server.url) as edges:
        writing = asyncio.create_task(crowd.write(edges))
        await crowd.until_shown(*shares(seed=1, count=1))
        await restarted(server)
        await writing
    check(crowd, oracle, tokenizer)
    assert sum(crowd.reconnects) > 0
    await nothing_left(server)


async def test_of_two_servers_that_are_stopped_in_turn_the_other_goes_on(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer
) -> None:
    first, second = two
    crowd = Crowd()
    early, late = shares(seed=2, count=2)
    async with edges_of(first.url, second.url) as edges:
        writing = asyncio.create_task(crowd.write(edges))
        await crowd.until_shown(early)
        first.pause()
        await crowd.until_shown(max(late, early + 0.2))
        first.go_on()
        second.pause()
        await writing
        second.go_on()
    check(crowd, oracle, tokenizer)
    assert sum(crowd.reconnects) > 0
    await nothing_left(first, second)


async def test_two_servers_that_are_drained_and_replaced_one_after_the_other_end_well_and_so_do_all_texts(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer
) -> None:
    crowd = Crowd()
    async with edges_of(*(server.url for server in two)) as edges:
        writing = asyncio.create_task(crowd.write(edges))
        for share, server in zip(shares(seed=3, count=2), two, strict=True):
            await crowd.until_shown(share)
            assert await asyncio.to_thread(server.drain) == 0
            await asyncio.to_thread(server.start)
        await writing
    check(crowd, oracle, tokenizer)
    assert sum(crowd.reconnects) > 0
    await nothing_left(*two)


async def test_a_link_that_is_cut_at_random_bytes_costs_no_token(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer
) -> None:
    crowd = Crowd()
    async with CuttingProxy(two[0].url, seed=4, cuts=120).run() as proxy, edges_of(proxy.url) as edges:
        await crowd.write(edges)
    check(crowd, oracle, tokenizer)
    assert proxy.cuts >= 40
    assert sum(crowd.reconnects) > 0
    await nothing_left(two[0])


async def test_a_server_that_cannot_write_its_log_any_more_serves_as_ever(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer, log: Path
) -> None:
    crowd = Crowd()
    async with edges_of(two[1].url) as edges:
        await crowd.write(edges)
    check(crowd, oracle, tokenizer)
    assert await asyncio.to_thread(lambda: log.stat().st_size) >= FILE_BYTES  # what it says while it starts may be more
    await nothing_left(two[1])


async def test_edges_whose_disk_is_full_write_their_texts_and_their_records_as_far_as_there_is_room(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.recording_child", two[0].url, str(tmp_path), str(FILE_BYTES)),
        cwd=ROOT,
        env=os.environ | paths,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    for number, (one, tokens) in enumerate(zip(Crowd().sessions, json.loads(out), strict=True)):
        assert len(tokens) == LENGTH
        oracle.check(tokens, tokenizer.encode(one.prompt), one.sampling)
        record = read_record(tmp_path / f"{number}.rec")
        assert record.cut is not None
        assert record.sessions[0].tokens == tokens[: len(record.sessions[0].tokens)]
    await nothing_left(two[0])


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_storm_of_all_that_costs_no_token(
    two: list[ServerProcess], oracle: Oracle, tokenizer: Tokenizer, seed: int
) -> None:
    luck, crowd = Random(f"storm {seed}"), Crowd()
    async with (
        CuttingProxy(two[0].url, seed=seed, cuts=40).run() as one,
        CuttingProxy(two[1].url, seed=seed + 1, cuts=40).run() as other,
        edges_of(one.url, other.url) as edges,
    ):
        writing = asyncio.create_task(crowd.write(edges))
        for share in shares(seed, 3):
            await crowd.until_shown(share)
            server = luck.choice(two)
            match luck.choice(("kill", "drain", "pause", "cut")):
                case "kill":
                    await restarted(server)
                case "drain":
                    assert await asyncio.to_thread(server.drain) == 0
                    await asyncio.to_thread(server.start)
                case "pause":
                    server.pause()
                    await crowd.until_shown(share + 0.05)
                    server.go_on()
                case _:
                    one.cut_all()
                    other.cut_all()
        await writing
    check(crowd, oracle, tokenizer)
    await nothing_left(*two)
