"""A look at this machine, and at a server from here: each finding with its way out."""

import asyncio
import os
import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final, Literal

from yarl import URL

from foredraft.api.loading import NGRAM, ModelOptions, load_draft
from foredraft.calibration.machine import this_machine
from foredraft.edge.handshake import shake_hands
from foredraft.errors import ForedraftError
from foredraft.links import websocket
from foredraft.links.http_proxies import proxy_for
from foredraft.links.model_files import fetch_tokenizer
from foredraft.links.probing import probe
from foredraft.protocol.messages import Ready
from foredraft.text.fetched_tokenizer import FetchedTokenizer

State = Literal["ok", "note", "fail"]

_LEAST_DAYS: Final = 14
_GAMMAS: Final = range(1, 9)
_EXTRA = re.compile(r"(?P<package>[\w-]+).*extra == ['\"](?P<extra>[\w-]+)['\"]")
_USERS_EXTRAS: Final = ("torch", "gguf", "gguf-target", "quantization", "pictures", "tune", "postgres")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at. ``note``: works, but somebody may want it otherwise."""

    what: str
    state: State
    said: str
    way_out: str = ""


def look_here() -> list[Finding]:
    """This machine: versions, extras, devices."""
    machine = this_machine(ModelOptions())
    return [
        Finding("system", "ok", f"{machine.system}, {machine.software}"),
        Finding("processor", "ok", machine.device),
        _event_loop(),
        *_extras(),
        *_accelerator(),
    ]


def _event_loop() -> Finding:
    if find_spec("uvloop") is not None:
        return Finding("event loop", "ok", f"uvloop {version('uvloop')}")
    way_out = "" if sys.platform == "win32" else "pip install uvloop halves what a small message costs"
    return Finding("event loop", "note", "asyncio's own", way_out)


def _extras() -> Iterator[Finding]:
    packages: dict[str, list[str]] = {}
    for line in requires("foredraft") or ():
        if found := _EXTRA.match(line):
            packages.setdefault(found["extra"], []).append(found["package"])
    for extra in _USERS_EXTRAS:
        missing = [name for name in packages.get(extra, ()) if not _installed(name)]
        if missing:
            way_out = f"pip install 'foredraft[{extra}]'"
            yield Finding(f"extra {extra}", "note", f"not installed: {', '.join(missing)}", way_out)
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{one} {version(one)}" for one in packages.get(extra, ())))


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _accelerator() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.get_num_threads() > cores:
        way_out = f"set OMP_NUM_THREADS={cores}, or --threads: threads without a core of their own slow each other down"
        yield Finding(
            "threads", "note", f"torch wants {torch.get_num_threads()}, this process has {cores} cores", way_out
        )
    if not torch.cuda.is_available():
        yield Finding("accelerator", "note", "none that torch can use; models run on the processor")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        said = f"{torch.cuda.get_device_name(index)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        yield Finding(f"accelerator cuda:{index}", "ok", said)


async def look_at_server(server: str, draft: str, api_key: str, cafile: Path | None, seconds: float) -> list[Finding]:
    """The way to a server, its certificate, what it serves, and whether ``draft`` goes with that."""
    found: list[Finding] = []
    try:
        context = _context(cafile)
        if URL(server).scheme == "https":
            found.append(await _certificate(server, context))
        ready = await _ready(server, api_key, context)
        found.append(_served(ready))
        found += await _link(server, api_key, context, ready, seconds)
        if draft:
            found.append(await _fits(draft, ready, server, api_key, context))
    except (ForedraftError, OSError) as error:
        way_out = "is it running, and can this machine reach it? foredraft serve prints its URL"
        found.append(Finding(f"server {server}", "fail", str(error), way_out))
    return found


def _context(cafile: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if cafile is None else str(cafile))


async def _certificate(server: str, context: ssl.SSLContext) -> Finding:
    url = URL(server)
    if (proxy := proxy_for(url)) is not None:
        return Finding("certificate", "note", f"its days are not looked at through the proxy {proxy}")
    try:
        _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        way_out = "--ssl-cafile FILE trusts a certificate of one's own"
        return Finding("certificate", "fail", error.verify_message or str(error), way_out)
    certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    days = (ends - datetime.now(UTC)).days
    state: State = "ok" if days >= _LEAST_DAYS else "note"
    return Finding(
        "certificate", state, f"trusted, until {ends.date()} ({days} days)", "" if state == "ok" else "renew it"
    )


async def _ready(server: str, api_key: str, context: ssl.SSLContext) -> Ready:
    link = await websocket.connect(server, api_key=api_key, ssl=context)
    try:
        return await shake_hands(link, api_key)
    finally:
        await link.close()


def _served(ready: Ready) -> Finding:
    exits = f"exits after {', '.join(map(str, ready.exits))} of {ready.layers} layers" if ready.exits else "no exits"
    policy = f", recommends {ready.policy}" if ready.policy else ""
    said = f"model {ready.model_digest}, tokenizer {ready.tokenizer_digest}, {exits}, context {ready.context}{policy}"
    return Finding("served", "ok", said)


async def _link(server: str, api_key: str, context: ssl.SSLContext, ready: Ready, seconds: float) -> list[Finding]:
    samples = await probe(server, seconds=seconds, api_key=api_key, ssl=context)
    round_trip_s = median(samples.round_trips_s)
    ordered = sorted(samples.round_trips_s)
    late_s = ordered[int(0.99 * (len(ordered) - 1))]
    rates = [
        f"{rate[-1] / 1e6:.3g} Mbit/s {way}"
        for way, rate in (("up", samples.up_bps), ("down", samples.down_bps))
        if rate
    ]
    said = f"round trip {round_trip_s * 1e3:.3g} ms (99 of 100 below {late_s * 1e3:.3g} ms), {', '.join(rates)}"
    return [Finding("link", "ok", said), *_worth(round_trip_s, ready.pass_s)]


def _worth(round_trip_s: float, pass_s: float) -> Iterator[Finding]:
    """What a policy would make of the link, as far as that can be said before anything was drafted."""
    if not pass_s:
        return
    least = least_acceptance(round_trip_s, pass_s)
    ratio = f"a round trip is {round_trip_s / pass_s:.2g} target passes of {pass_s * 1e3:.3g} ms"
    if least is None:
        yield Finding("policy", "note", f"{ratio}: waiting for each verdict never pays; auto streams, or ships ahead")
    else:
        said = f"{ratio}: sync pays where the draft's tokens are right {least:.0%} of the time or more; auto finds out"
        yield Finding("policy", "ok", said)


def least_acceptance(round_trip_s: float, pass_s: float) -> float | None:
    """From which acceptance on synchronous rounds beat streaming, drafting taken as free; None: from none below 99%.

    A round of gamma drafts saves (a - a^(gamma + 1)) / (1 - a) passes and costs a round trip (arXiv 2606.25091).
    """
    for percent in range(1, 100):
        right = percent / 100
        if any((right - right ** (gamma + 1)) / (1 - right) * pass_s > round_trip_s for gamma in _GAMMAS):
            return right
    return None


async def _fits(draft: str, ready: Ready, server: str, api_key: str, context: ssl.SSLContext) -> Finding:
    what = f"draft {draft}"
    if draft == NGRAM:
        return Finding(what, "ok", "looks up; goes with any model")
    try:
        loaded = await asyncio.to_thread(load_draft, draft, ModelOptions())
        try:
            if not loaded.speaks(ready.tokenizer_digest):
                data = await fetch_tokenizer(server, ready.tokenizer_digest, api_key, ssl=context)
                await asyncio.to_thread(loaded.speaking, FetchedTokenizer(data), ready.tokenizer_digest)
        finally:
            await loaded.close()
    except ForedraftError as error:
        said, _, way_out = str(error).rpartition("; ")
        return Finding(what, "fail", said, way_out)
    return Finding(what, "ok", "has the target's tokenizer")
