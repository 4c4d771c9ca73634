"""Fetching what goes with a server's model: its tokenizer, kept on disk by its digest, and its chat template."""

import asyncio
import contextlib
import logging
import os
import re
import ssl as ssl_module
from pathlib import Path
from typing import Final

import aiohttp

from foredraft.errors import ProtocolError, RefusedError, UnreachableError
from foredraft.links.address import CHAT_PATH, TOKENIZER_PATH, auth_headers, endpoint
from foredraft.links.http_proxies import on_the_way, proxy_for, raise_if_refused
from foredraft.protocol.messages import MISMATCH, UNAUTHORIZED
from foredraft.text.chat_card import MAX_CARD_BYTES, ChatCard, parse_chat_card
from foredraft.text.fetched_tokenizer import try_tokenizer
from foredraft.text.tokenizer import tokenizer_digest

MAX_TOKENIZER_BYTES: Final = 64 << 20

log = logging.getLogger("foredraft.text")


def cache_folder() -> Path:
    """Where fetched tokenizers are kept: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "foredraft" / "tokenizers"


async def fetch_tokenizer(
    url: str, digest: str, api_key: str = "", *, ssl: ssl_module.SSLContext | None = None, timeout_s: float = 30.0
) -> bytes:
    """The tokenizer.json with this digest: from the cache on disk, else from the server at ``url``.

    Raises UnreachableError, RefusedError (wrong key, other tokenizer), ProtocolError
    (what came is not what the digest names), or ModelError: it has been tried, and cannot be used within bounds.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", digest):
        raise ProtocolError(f"{digest!r} is no tokenizer digest: 32 hexadecimal digits")
    file = cache_folder() / f"{digest}.json"
    cached = await asyncio.to_thread(_read_cached, file, digest)
    if cached is not None:
        return cached
    what = f"the tokenizer {digest}"
    path = f"{TOKENIZER_PATH}/{digest}"
    data = await _download(url, path, what, api_key, ssl, timeout_s, MAX_TOKENIZER_BYTES)
    if tokenizer_digest(data) != digest:
        raise ProtocolError(f"{url} sent another tokenizer than the {digest} that it promised")
    await asyncio.to_thread(try_tokenizer, data)
    await asyncio.to_thread(_write_cached, file, data)
    return data


async def fetch_chat_card(
    url: str, api_key: str = "", *, ssl: ssl_module.SSLContext | None = None, timeout_s: float = 30.0
) -> ChatCard:
    """The chat template of the server's model, and how its makers sample from it. Raises as ``fetch_tokenizer``."""
    what = "a description of its chat model"
    return parse_chat_card(await _download(url, CHAT_PATH, what, api_key, ssl, timeout_s, MAX_CARD_BYTES))


async def _download(
    url: str, path: str, what: str, api_key: str, ssl: ssl_module.SSLContext | None, timeout_s: float, most_bytes: int
) -> bytes:
    data = bytearray()
    address = endpoint(url, path)
    proxy = proxy_for(address)
    way = None if proxy is None else proxy.url
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s), auto_decompress=False) as session,
            session.get(
                address,
                headers=auth_headers(api_key) | {"Accept-Encoding": "identity"},  # a few bytes may unpack to gigabytes
                proxy=way,
                ssl=True if ssl is None else ssl,
                allow_redirects=False,  # whoever was named is asked, and nobody else
            ) as response,
        ):
            raise_if_refused(proxy, url, response.status)
            if response.status in (401, 403):
                raise RefusedError(UNAUTHORIZED, f"{url} does not accept this API key")
            if response.status == 404:
                raise RefusedError(MISMATCH, f"{url} does not serve {what}")
            if response.status != 200:
                raise UnreachableError(f"{url} answers HTTP {response.status} instead of {what}")
            async for chunk in response.content.iter_chunked(1 << 16):
                data += chunk
                if len(data) > most_bytes:
                    raise ProtocolError(f"what {url} sends as {what} is larger than {most_bytes} bytes")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if isinstance(error, aiohttp.ClientResponseError):
            raise_if_refused(proxy, url, error.status, error)
        why = str(error) or "timed out"
        raise UnreachableError(f"cannot fetch {what} from {on_the_way(url, proxy)}: {why}") from error
    return bytes(data)


def _read_cached(file: Path, digest: str) -> bytes | None:
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return data if tokenizer_digest(data) == digest else None


def _write_cached(file: Path, data: bytes) -> None:
    """Put it there in one step, so that nobody reads half a file; without a cache it works too."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        log.warning("cannot keep the tokenizer in %s: %s", file.parent, error)
        with contextlib.suppress(OSError):
            part.unlink()
