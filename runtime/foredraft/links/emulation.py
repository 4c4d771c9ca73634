"""An emulated link in front of servers, for verbs that draft: a shaping proxy per server."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from yarl import URL

from foredraft.errors import ConfigError
from foredraft.links.address import endpoint
from foredraft.links.proxy_process import ProxyProcess, proxy_process
from foredraft.links.shaping import Shape
from foredraft.profiles import Direction, LinkProfile, LinkRange
from foredraft.protocol.messages import MAX_MESSAGE_BYTES


def shape_of(rtt_ms: float, jitter_ms: float, rate_mbps: float | None) -> Shape | None:
    """One direction of the link that the options describe; None where they ask for nothing.

    Half of the round trip each way, the jitter and the rate of each way. Raises ConfigError.
    """
    if rtt_ms == 0.0 and jitter_ms == 0.0 and rate_mbps is None:
        return None
    return Shape(
        delay_s=rtt_ms / 2e3,
        jitter_s=jitter_ms / 1e3,
        rate_bps=None if rate_mbps is None else rate_mbps * 1e6,
    )


def link_profile(shape: Shape) -> LinkProfile:
    """The same link as a hardware profile, whose jitter is never negative."""
    way = Direction(
        delay_s=max(0.0, shape.delay_s - shape.jitter_s),
        jitter_s=shape.jitter_s,
        jitter_shape="uniform",
        rate_bps=shape.rate_bps,
    )
    title = "the link that a shaping proxy emulated"
    return LinkProfile(name="emulated", title=title, kind="link", up=way, down=way, range=_ANY_MESSAGE)


_ANY_MESSAGE = LinkRange(message_bytes=(0, MAX_MESSAGE_BYTES))


@contextmanager
def proxies(
    servers: Sequence[str], up: Shape, down: Shape, core: int | None = None
) -> Iterator[list[tuple[str, ProxyProcess]]]:
    """A proxy in front of each server, on ``core`` (None: any): its URL, and the proxy itself."""
    with ExitStack() as stack:
        yield [_proxy(stack, server, up, down, core) for server in servers]


def _proxy(stack: ExitStack, server: str, up: Shape, down: Shape, core: int | None) -> tuple[str, ProxyProcess]:
    url: URL = endpoint(server, "")
    if url.scheme == "https":
        raise ConfigError(f"an emulated link cannot be put in front of {server}: TLS names the real host; use http")
    if url.host is None or url.port is None:
        raise ConfigError(f"server {server!r} is not an address; write it like http://host:8471")
    proxy = stack.enter_context(proxy_process(url.host, url.port, up=up, down=down, core=core))
    return str(url.with_host(proxy.host).with_port(proxy.port)), proxy
