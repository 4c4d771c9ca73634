"""The real link: one aiohttp WebSocket, one binary message per protocol message.

aiohttp's exceptions end here. Both ends are one class; what differs is who masks and how a
connection is torn down when the peer no longer takes anything.

The link reads, and answers pings, while somebody waits in ``receive``, which both ends of a
session always do; models run in worker threads, so the loop is free for it.
"""

import asyncio
import contextlib
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web

from foredraft.errors import ConfigError, LinkClosedError, ProtocolError, RefusedError, UnreachableError
from foredraft.links.address import SESSION_PATH, auth_headers, endpoint
from foredraft.links.framing import framed_bytes
from foredraft.links.http_proxies import HttpProxy, on_the_way, proxy_for, raise_if_refused
from foredraft.protocol.messages import BUSY, MAX_MESSAGE_BYTES, UNAUTHORIZED, Message, decode, encode
from foredraft.protocol.ports import Link

HEARTBEAT_S: Final = 10.0  # a ping after so long a silence; no answer for half of it, and the link is dead
STALL_S: Final = 20.0  # a peer that takes nothing for so long is cut
CLOSE_S: Final = 1.0  # how long the closing handshake may take
# aiohttp refuses a message of max_msg_size bytes and more.
_MAX_MSG_SIZE: Final = MAX_MESSAGE_BYTES + 1

_WebSocket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse
_LOST: Final = (ConnectionError, aiohttp.ClientError)


class WebSocketLink(Link):
    """``protocol.ports.Link`` over an open WebSocket; from ``connect`` or ``accept``.

    ``client``: whether this end connected. ``abort``: cuts the connection at once.
    ``release``: frees what belongs to the connection, once it is closed.
    """

    def __init__(
        self,
        ws: _WebSocket,
        *,
        client: bool,
        abort: Callable[[], None],
        release: Callable[[], Awaitable[None]] | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self._ws = ws
        self._client = client
        self._abort = abort
        self._release = release
        self._stall_s = stall_s
        self._closed = False  # by this end
        self._over = False  # whoever ended it
        self._bytes_sent = 0
        self._bytes_received = 0
        # aiohttp lets concurrent senders wait on one future, which breaks when one is cancelled.
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._writing_since: float | None = None
        # One slow timer per link, since a timeout around each send costs more than the send.
        self._watchdog = self._loop.call_later(stall_s / 4, self._watch)

    @property
    def bytes_sent(self) -> int:
        """Payload and framing of all messages sent so far; handshake and pings are left out."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Payload and framing of all messages received so far; handshake and pings are left out."""
        return self._bytes_received

    async def send(self, message: Message) -> None:
        """Send; waits while the peer does not keep up, and cuts the link after ``stall_s`` of that.

        Raises LinkClosedError once the link is closed, ProtocolError for an oversize message.
        A send that is cancelled while it waits cuts the link.
        """
        data = _sized(encode(message))
        await self._write(self._ws.send_bytes, data)
        self._bytes_sent += framed_bytes(len(data), masked=self._client)

    async def _write(self, write: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
        """Let ``write`` send ``data`` when its turn comes."""
        async with self._turn:
            if self._closed:
                raise LinkClosedError("the link is closed")
            self._writing_since = self._loop.time()
            try:
                await write(data)
            except _LOST as error:
                raise LinkClosedError(f"the link is lost: {error}") from error
            except asyncio.CancelledError:
                self._abort()  # aiohttp cannot wait for room again after this
                raise
            finally:
                self._writing_since = None

    def _watch(self) -> None:
        since = self._writing_since
        if since is not None and self._loop.time() - since > self._stall_s:
            self._abort()
        else:
            self._watchdog = self._loop.call_later(self._stall_s / 4, self._watch)

    async def receive(self) -> Message:
        """The next message.

        Raises ProtocolError for anything that is not one (the link stays open where it can),
        LinkClosedError at the end.
        """
        while not self._over:
            message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self._bytes_received += framed_bytes(len(message.data), masked=not self._client)
                return decode(message.data)
            if message.type is aiohttp.WSMsgType.PING:
                await self._write(self._ws.pong, message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                raise ProtocolError("a text message; the protocol is binary")
            elif message.type is aiohttp.WSMsgType.ERROR:
                self._raise_broken(message.data)
            elif message.type is not aiohttp.WSMsgType.PONG:
                self._over = True
        raise LinkClosedError(f"the link is closed{self._why()}")

    def _raise_broken(self, error: object) -> None:
        """aiohttp has closed the WebSocket because of what came in, or because nothing did."""
        self._over = True
        if isinstance(error, aiohttp.WebSocketError):
            raise ProtocolError(f"broken WebSocket traffic: {error}")
        raise LinkClosedError(f"the link is lost: {error}")

    def _why(self) -> str:
        code = self._ws.close_code
        return "" if code is None or code == aiohttp.WSCloseCode.OK else f" (WebSocket code {code})"

    async def close(self) -> None:
        """Close, within about a second even when the peer is gone. Closing twice is fine."""
        if self._closed:
            return
        self._closed = self._over = True
        self._watchdog.cancel()
        if self._writing_since is not None:
            self._abort()  # a send waits for a peer that does not keep up; so would the handshake
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._ws.close()
        except (TimeoutError, *_LOST):
            self._abort()
        except asyncio.CancelledError:
            self._abort()
            raise
        finally:
            if self._release is not None:
                await self._release()


def _sized(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    return data


def _abort_socket(ws: aiohttp.ClientWebSocketResponse) -> Callable[[], None]:
    """Cuts the client's connection. aiohttp has no call for that which does not wait for the peer."""
    endpoint = ws.get_extra_info("socket")

    def abort() -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(endpoint.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    return abort


async def connect(
    url: str,
    *,
    api_key: str = "",
    ssl: ssl_module.SSLContext | None = None,
    timeout_s: float = 10.0,
    heartbeat_s: float = HEARTBEAT_S,
) -> WebSocketLink:
    """A link to the server at ``url`` (http, https, ws or wss), or within ``timeout_s`` an error.

    Raises ConfigError for an impossible URL or key, UnreachableError when nobody answers,
    RefusedError when the server does not let us in, ProtocolError when it is no Foredraft server.
    """
    address, headers = endpoint(url, SESSION_PATH), auth_headers(api_key)
    proxy = proxy_for(address)
    session = aiohttp.ClientSession(trace_configs=[no_redirects()])
    try:
        async with asyncio.timeout(timeout_s):
            ws = await session.ws_connect(
                address,
                headers=headers,
                proxy=None if proxy is None else proxy.url,
                ssl=True if ssl is None else ssl,
                compress=0,
                heartbeat=heartbeat_s,
                autoping=False,
                max_msg_size=_MAX_MSG_SIZE,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            )
    except BaseException as error:
        await session.close()
        raise_unreachable(error, url, timeout_s, proxy)
        raise
    return WebSocketLink(ws, client=True, abort=_abort_socket(ws), release=session.close)


def no_redirects() -> aiohttp.TraceConfig:
    """For sessions whose WebSockets go to whoever was named, and nowhere else: aiohttp would follow."""

    async def refuse(_: object, __: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        raise ProtocolError(f"{params.url} answers HTTP {params.response.status}: not a Foredraft server")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


def raise_unreachable(error: BaseException, url: str, timeout_s: float, proxy: HttpProxy | None = None) -> None:
    """Translate what aiohttp raised while connecting; returns for what is not aiohttp's."""
    if isinstance(error, aiohttp.ClientResponseError):
        raise_if_refused(proxy, url, error.status, error)
    url = on_the_way(url, proxy)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        _raise_answered(error, url, proxy)
    if isinstance(error, TimeoutError):
        raise UnreachableError(f"no answer from {url} within {timeout_s:g} s") from error
    if isinstance(error, aiohttp.InvalidURL):
        raise ConfigError(f"server {url!r} is not an address") from error
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error.os_error, ssl_module.SSLError):
        number = error.os_error.errno or 0
        reason = os.strerror(number) if number > 0 else error.os_error.strerror
        raise UnreachableError(f"cannot reach {url}: {reason or error}") from error
    if isinstance(error, (aiohttp.ClientError, OSError)):
        raise UnreachableError(f"cannot reach {url}: {error}") from error


def _raise_answered(error: aiohttp.WSServerHandshakeError, url: str, proxy: HttpProxy | None) -> None:
    """Somebody answered, but not with a WebSocket."""
    if error.status in (401, 403):
        raise RefusedError(UNAUTHORIZED, f"{url} does not accept this API key") from error
    retry_after = error.headers.get("Retry-After", "") if error.headers else ""
    if error.status in (429, 503) and retry_after.isdecimal():
        raise RefusedError(BUSY, f"{url} is busy", float(retry_after)) from error
    if error.status >= 500:
        raise UnreachableError(f"{url} answers HTTP {error.status}") from error
    hint = ""
    if proxy is not None and error.request_info.url.scheme == "http":
        hint = ", or a proxy that passes no WebSockets on; an https server is reached through a tunnel"
    raise ProtocolError(f"{url} answers HTTP {error.status}: not a Foredraft server{hint}") from error


async def accept(
    request: web.Request, *, heartbeat_s: float = HEARTBEAT_S, stall_s: float = STALL_S
) -> tuple[WebSocketLink, web.WebSocketResponse]:
    """The server's end: answer an upgrade request; the response is what the handler returns.

    Raises aiohttp's HTTPBadRequest for a request that is not a WebSocket upgrade: its router answers.
    """
    ws = web.WebSocketResponse(
        compress=False,
        heartbeat=heartbeat_s,
        autoping=False,
        max_msg_size=_MAX_MSG_SIZE,
        timeout=CLOSE_S,
    )
    await ws.prepare(request)

    def abort() -> None:
        if request.transport is not None:
            request.transport.abort()

    return WebSocketLink(ws, client=False, abort=abort, stall_s=stall_s), ws
