"""One model shared by two processes: what they say is what one says, and when one dies the server ends."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import foredraft
from engines.conftest import TinyModel
from engines.ranks_program import told
from engines.tiny_models import save_model
from engines.torch_reference import PlainHeads
from foredraft.cli import ranks
from foredraft.cli.ranks import cause
from foredraft.engines.exact import is_exact
from foredraft.engines.ngram import NgramDrafter
from foredraft.engines.ranks import LAUNCHED, Ranks
from foredraft.engines.torch_model import load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.engines.weights import read_config, read_share, stored
from foredraft.errors import ConfigError
from foredraft.text.tokenizer import Tokenizer

PROGRAM = Path(__file__).with_name("ranks_program.py")
FOREDRAFT = [sys.executable, "-m", "foredraft"]


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHED, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def environment(rank: int) -> dict[str, str]:
    """What torchrun leaves in it."""
    said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    return os.environ | {name: str(value) for name, value in said.items()}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The model, and what two ranks of it said."""
    folder, out = (
        save_model(tmp_path_factory.mktemp("model"), vocab_size=300),
        tmp_path_factory.mktemp("out") / "said.json",
    )
    ports = [str(free_port()), str(free_port())]
    command = [sys.executable, str(PROGRAM), str(folder), str(out), *ports]
    both = [subprocess.Popen(command, env=environment(rank)) for rank in range(2)]
    try:
        assert [process.wait(200) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    return folder, json.loads(out.read_text())


async def test_two_ranks_say_what_one_process_says(together: tuple[Path, dict[str, Any]]) -> None:
    folder, said = together
    model = load_model(folder)
    target = TorchTarget(model, PlainHeads(model), cache_bytes=1 << 22, prefill_chunk=16)
    alone = json.loads(json.dumps(await told(target)))
    await target.close()
    for mine, theirs in zip(alone.pop("exits"), said["float32"].pop("exits"), strict=True):
        assert theirs[:2] == mine[:2]
        assert theirs[2] == pytest.approx(mine[2], abs=1e-5)
    assert said["float32"] == alone
    assert said["heads"] == model.kv.planes[0][0] // 2


def test_over_two_ranks_rows_are_equal_to_the_bit_whatever_shares_a_forward(
    together: tuple[Path, dict[str, Any]],
) -> None:
    assert together[1]["bfloat16"] == [True, True]


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server in processes of its own, and its URL."""
    command = [*FOREDRAFT, "serve", "--model", str(folder), "--port", "0", "--json", "--threads", "1", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield process, json.loads(line)["url"] if line else ""
        finally:
            process.kill()


def child_of(process: "subprocess.Popen[str]", rank: int) -> int:
    """The process of a rank."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError("no such rank")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find the ranks")
async def test_a_rank_that_dies_ends_the_server_and_the_edge_goes_on_elsewhere(tiny_model: TinyModel) -> None:
    folder = tiny_model("llama", eos_token_id=None, max_position_embeddings=2048)
    target = TorchTarget(load_model(folder))
    retry = foredraft.Retry(attempts=300, first_s=0.01, most_s=0.5)
    with serving(folder, "--tensor-parallel", "2") as (process, url):
        async with foredraft.Cloud(target, Tokenizer.from_folder(folder)) as cloud, cloud.listen() as other:
            async with foredraft.connect(other, draft=NgramDrafter()) as edge:
                wanted = await edge.generate("ab", policy="sync", max_new_tokens=400).finish()
            async with foredraft.connect(url, other, draft=NgramDrafter(), retry=retry) as edge:
                asked = edge.generate("ab", policy="sync", max_new_tokens=400)
                shown: list[int] = []
                async for piece in asked:
                    shown += piece.tokens
                    if len(shown) >= 20 and process.poll() is None:
                        os.kill(child_of(process, 1), signal.SIGKILL)
                        await asyncio.to_thread(process.wait, 60)
        assert process.stderr is not None
        assert process.returncode == 1
        assert "rank 1 of 2 ended, and the server with it: Signal 9 (SIGKILL)" in process.stderr.read()
    assert shown == wanted.tokens
    assert asked.report.reconnects >= 1


@pytest.mark.parametrize(
    ("failures", "first"),
    [
        ({0: (1, 100), 1: (-signal.SIGKILL, 101)}, 1),  # rank 0 lost the other, which was found dead later
        ({0: (1, 100), 1: (-signal.SIGTERM, 100)}, 0),  # the launcher ended the other
        ({0: (1, 100), 1: (-signal.SIGKILL, 131)}, 0),  # which did not go
        ({0: (1, 101), 1: (1, 100)}, 1),
        ({1: (-signal.SIGSEGV, 100)}, 1),
    ],
)
def test_the_rank_that_ended_first_is_named_whoever_spoke_first(
    failures: dict[int, tuple[int, int]], first: int
) -> None:
    found = {rank: SimpleNamespace(exitcode=code, timestamp=at) for rank, (code, at) in failures.items()}
    assert cause(found) == first


def test_a_server_of_two_ranks_stops_when_it_is_told_to(tiny_model: TinyModel) -> None:
    with serving(tiny_model(), "--tensor-parallel", "2") as (process, url):
        assert url
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_what_ranks_cannot_share_is_refused(tiny_model: TinyModel) -> None:
    where = stored(tiny_model())
    config = read_config(where)
    three = Ranks(0, 3, torch.device("cpu"), None)
    with pytest.raises(ConfigError, match="has 4 attention heads, which 3 ranks cannot share evenly: take a --tensor"):
        read_share(where, config, torch.float32, three, "")
    with pytest.raises(ConfigError, match="quantization 'int8' cannot be shared among ranks"):
        read_share(where, config, torch.float32, three, "int8")
    config.base_model_tp_plan = None
    with pytest.raises(ConfigError, match="of the 'llama' family, which has no tensor-parallel plan"):
        read_share(where, config, torch.float32, three, "")


def test_more_than_two_ranks_have_no_sum_in_one_order(tiny_model: TinyModel) -> None:
    model = replace(load_model(tiny_model()), ranks=Ranks(0, 3, torch.device("cpu"), None))
    with pytest.raises(ConfigError, match="exact texts need a sum in one order: at most 2 ranks, not 3"):
        is_exact(model, "on")
    assert not is_exact(model, "auto")


def test_ranks_that_somebody_else_started_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ranks.is_launched(2)
    for name, value in environment(0).items():
        monkeypatch.setenv(name, value)
    assert ranks.is_launched(2)
    with pytest.raises(ConfigError, match="2 ranks were started, not the 4 of --tensor-parallel"):
        ranks.is_launched(4)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu[07-08],gpu11", "gpu07"), ("gpu-3,gpu-4", "gpu-3"), ("one", "one"), ("a[1,3]-x", "a1-x")],
)
def test_slurm_has_started_the_ranks(monkeypatch: pytest.MonkeyPatch, nodes: str, host: str) -> None:
    slurm = {"PROCID": "1", "NTASKS": "2", "LOCALID": "0", "STEP_NODELIST": nodes, "JOB_ID": "1234"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert ranks.is_launched(2)
    said = {name: os.environ[name] for name in (*LAUNCHED, "LOCAL_RANK")}
    assert said == {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": host, "MASTER_PORT": "21234",
    }  # fmt: skip


def test_without_a_launcher_there_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no RANK in the environment: start the ranks with torchrun or foredraft"):
        Ranks.join(2, torch.device("cpu"))
    for name, value in environment(0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="2 ranks were launched, not 3"):
        Ranks.join(3, torch.device("cpu"))
    with pytest.raises(ConfigError, match="ranks share the model on 'cpu' here, each a device of its own"):
        Ranks.join(2, torch.device("cuda:1"))
