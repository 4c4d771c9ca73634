"""Where a server's resources are, and how a request shows that it may have them."""

import ssl
from pathlib import Path
from typing import Final

from yarl import URL

from foredraft.errors import ConfigError

SESSION_PATH: Final = "v1/session"
MODEL_PATH: Final = "v1/model"
TOKENIZER_PATH: Final = "v1/tokenizer"
PROBE_PATH: Final = "v1/probe"
CHAT_PATH: Final = "v1/chat"

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def endpoint(base: str, path: str) -> URL:
    """The address of ``path`` below a server's base URL (http, https, ws or wss).

    Raises ConfigError for a base that is not an address.
    """
    try:
        url = URL(base)
    except ValueError as error:
        raise ConfigError(f"server {base!r} is not an address: {error}") from error
    if url.scheme not in _SCHEMES or not url.host:
        raise ConfigError(f"server {base!r} is not an address; write it like http://host:8471")
    return url.with_scheme(_SCHEMES[url.scheme]).with_query(None).with_fragment(None) / path


def auth_headers(api_key: str) -> dict[str, str]:
    """The header that carries the key; raises ConfigError for one that no header can carry."""
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key has characters that a header cannot carry; use printable ASCII")
    return {"Authorization": f"Bearer {api_key}"}


def trusting(cafile: Path | None) -> ssl.SSLContext | None:
    """What trusts the authority in a PEM file; None for what the system trusts. Raises ConfigError."""
    if cafile is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(cafile))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the certificate in {cafile}: {error}") from error
