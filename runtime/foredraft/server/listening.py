"""What an address to listen on means, and the certificate to show there."""

import ipaddress
import ssl
from pathlib import Path

from foredraft.errors import ConfigError


def tls_context(certificate: Path | None, key: Path | None = None) -> ssl.SSLContext | None:
    """A server's TLS from PEM files; None without any. Raises ConfigError when they cannot be used."""
    if certificate is None:
        if key is not None:
            raise ConfigError("--ssl-keyfile needs --ssl-certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        files = f"{certificate}" if key is None else f"{certificate} and {key}"
        raise ConfigError(f"cannot use the certificate in {files}: {error}") from error
    return context


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
