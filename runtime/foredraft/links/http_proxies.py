"""The environment's proxies: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in capitals or not.

Not aiohttp's ``trust_env``: that sends loopback addresses to the proxy as well, passes by a proxy that
it cannot use, and takes passwords from .netrc.
"""

import ipaddress
import os
from dataclasses import dataclass
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from foredraft.errors import ConfigError, UnreachableError

LOOPBACK_TOO: Final = "FOREDRAFT_PROXY_LOOPBACK"
"""Set to 1, this sends even this machine's own addresses to the proxy: for looking at the traffic."""

_REFUSALS: Final = (403, 407)  # a server of ours says neither


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """A proxy, and the variable that names it. As text it shows no password."""

    url: URL
    variable: str

    def __str__(self) -> str:
        return f"{self.url.with_user(None)} ({self.variable})"


def proxy_for(address: URL) -> HttpProxy | None:
    """The proxy on the way to ``address`` (http or https), if there is one.

    Raises ConfigError for a variable that names no HTTP proxy.
    """
    value = getproxies_environment().get(address.scheme)
    if not value or _reached_directly(address):
        return None
    variable = f"{address.scheme.upper()}_PROXY"
    try:
        url = URL(value if "://" in value else f"http://{value}")
    except ValueError:
        url = URL()
    if url.scheme != "http" or not url.host:
        shown = value.rpartition("@")[2]
        raise ConfigError(f"{variable} is {shown!r}, which is no HTTP proxy; write it like http://proxy:3128")
    return HttpProxy(url, variable)


def _reached_directly(address: URL) -> bool:
    host = address.host or ""
    if _is_loopback(host) and os.environ.get(LOOPBACK_TOO, "") != "1":
        return True
    return any(map(proxy_bypass, (host, f"{host}:{address.port}")))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def on_the_way(url: str, proxy: HttpProxy | None) -> str:
    """How an error names a server."""
    return url if proxy is None else f"{url} through the proxy {proxy}"


def raise_if_refused(proxy: HttpProxy | None, url: str, status: int, error: Exception | None = None) -> None:
    """Raise UnreachableError where it is the proxy that answered ``status``, and that is a no."""
    if proxy is None or not (status in _REFUSALS or isinstance(error, aiohttp.ClientHttpProxyError)):
        return
    raise UnreachableError(
        f"the proxy {proxy} answers HTTP {status} on the way to {url}; give its credentials as "
        f"http://USER:PASSWORD@HOST:PORT in {proxy.variable}, or name the server's host in NO_PROXY"
    ) from error
