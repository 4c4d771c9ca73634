"""What an address to listen on means, and the certificate to show there."""

import ipaddress
import ssl
from pathlib import Path

from foredraft.errors import ConfigError


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """A server's TLS from PEM files. Raises ConfigError when they cannot be used."""
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
