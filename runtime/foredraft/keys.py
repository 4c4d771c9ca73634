"""The keys of a server: who may come in, what for, how much of it, and until when.

Secrets are drawn, 256 bits each, and kept as their SHA-256 alone: of so much chance nobody guesses the origin. A
file of keys is read again when it has changed; one that is broken changes nothing, and is said once.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from foredraft.errors import ConfigError

_log = logging.getLogger("foredraft.keys")

SERVE, METRICS, PROBE = "serve", "metrics", "probe"
ROLES: Final = (SERVE, METRICS, PROBE)
"""To have texts, to see figures, to measure the link."""

LIMITS: Final = (
    "sessions",
    "connections",
    "tokens_per_minute",
    "bytes_per_minute",
    "image_bytes_per_minute",
    "context",
    "cache",
)
"""What a key may have, where it says so."""

MAX_WEIGHT: Final = 1000.0

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key. ``expires``: when it ends to be one. ``weight``: of its share of the device, beside others that want it.

    Limits, of which 0 is none of its own: ``sessions``: texts at once; ``connections``: edges at once;
    ``tokens_per_minute``: of prompts and texts; ``bytes_per_minute``: of all that its edges send, and
    ``image_bytes_per_minute``: of the images among it; ``context``: the longest prompt with its text; ``cache``: tokens
    that its texts hold at once. What shares the beginning of its texts with others is the name.
    """

    name: str = ""
    hash: str = ""
    roles: tuple[str, ...] = (SERVE,)
    expires: datetime | None = None
    sessions: int = 0
    connections: int = 0
    tokens_per_minute: int = 0
    bytes_per_minute: int = 0
    image_bytes_per_minute: int = 0
    context: int = 0
    cache: int = 0
    weight: float = 1.0


EVERYBODY: Final = Key(roles=ROLES)
"""Who comes where no key is needed, or from within the server's process."""

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class Keys:
    """Some keys, told apart in constant time. Without any, everybody may do everything."""

    may_change = False

    def __init__(self, keys: Mapping[str, Key], *, needed: bool = True, now: Clock = _now) -> None:
        self.needed = needed
        self._keys = dict(keys)
        self._now = now
        self._inside = secrets.token_hex(32)

    @classmethod
    def of(cls, secret: str) -> "Keys":
        """The one key with this secret, which may do everything; none is needed where it is empty."""
        return cls({"": Key(hash=hash_of(secret), roles=ROLES)} if secret else {}, needed=bool(secret))

    def find(self, secret: str) -> Key | None:
        """The key with this secret, if it still is one."""
        if not self.needed:
            return EVERYBODY
        inside, _, name = secret.partition(":")
        if hmac.compare_digest(inside.encode(errors="surrogateescape"), self._inside.encode()):
            return self._valid(self._keys.get(name)) if name else EVERYBODY
        shown, found = hash_of(secret), None
        for key in self._keys.values():  # all of them: how long it takes tells nothing
            if hmac.compare_digest(key.hash, shown):
                found = key
        return self._valid(found)

    def holds(self, key: Key) -> bool:
        """Whether a key that was found before still is one."""
        known = self._valid(self._keys.get(key.name))
        return key is EVERYBODY or (known is not None and known.hash == key.hash)

    def _valid(self, key: Key | None) -> Key | None:
        return None if key is None or (key.expires is not None and key.expires <= self._now()) else key

    def weight_of(self, name: str) -> float:
        """The weight of the key of that name, as it is now."""
        key = self._keys.get(name)
        return 1.0 if key is None else key.weight

    def cache_of(self, name: str) -> int:
        """How many tokens the texts of the key of that name may hold; 0: any number."""
        key = self._keys.get(name)
        return 0 if key is None else key.cache

    def vouch(self, key: Key) -> str:
        """What stands for its secret within this process, where another door has seen it."""
        return f"{self._inside}:{key.name}" if self.needed else ""

    def reload(self) -> bool:
        """Look whether the keys have changed; whether they have."""
        return False


class KeyFile(Keys):
    """The keys of a file, which may change meanwhile. Raises ConfigError."""

    may_change = True

    def __init__(self, path: Path, *, now: Clock = _now) -> None:
        self._path = path
        self._seen = _stamp(path)  # before it is read: what is written meanwhile is seen later
        super().__init__(read_keys(path), now=now)

    def reload(self) -> bool:
        """Read the file again if it has changed, and tell operators what has. May be called from any thread."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            keys = read_keys(self._path)
        except ConfigError as error:
            _log.error("%s; the keys stay as they were", error)
            return False
        before, self._keys = self._keys, keys
        for verb, names in (
            ("added", keys.keys() - before.keys()),
            ("revoked", before.keys() - keys.keys()),
            ("changed", {name for name in keys.keys() & before.keys() if keys[name] != before[name]}),
        ):
            for name in sorted(names):
                _log.warning("key %s %s", name, verb, extra={"fields": {"event": "key", "key": name, "change": verb}})
        return keys != before


def _stamp(path: Path) -> tuple[int, int, int]:
    """What differs when a file was written; zeros where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def hash_of(secret: str) -> str:
    """What a file of keys has in the place of a secret."""
    return "sha256:" + hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def new_secret() -> str:
    """A secret that nobody guesses."""
    return "fd_" + secrets.token_urlsafe(32)


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file, by name. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a name that no file can have
        raise ConfigError(f"cannot read the keys in {path}: {getattr(error, 'strerror', None) or error}") from error
    return parse_keys(text, path)


def parse_keys(text: str, path: Path) -> dict[str, Key]:
    """The keys that a file's text names. Raises ConfigError."""
    try:
        found = tomllib.loads(text)
        tables = found.pop("keys", {})
        if found:
            raise ConfigError(f"{path}: {next(iter(found))!r} is no table of keys; write [keys.NAME]")
        return {name: _key(name, table) for name, table in _tables(tables).items()}
    except (ValueError, RecursionError) as error:  # tomllib raises more than its own for numbers and depth
        raise ConfigError(f"{path} is no file of keys: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _tables(tables: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError("keys are tables: write [keys.NAME]")
    return tables


def _key(name: str, table: dict[str, Any]) -> Key:
    check_name(name)
    key = msgspec.convert(table | {"name": name}, Key)
    unknown = set(key.roles) - set(ROLES)
    if not _HASH.fullmatch(key.hash):
        raise ConfigError(f"key {name!r} has no hash such as sha256:0123...; foredraft keys add makes one")
    if unknown or not key.roles:
        raise ConfigError(f"key {name!r} has the roles {list(key.roles)}; known: {', '.join(ROLES)}")
    if min(getattr(key, limit) for limit in LIMITS) < 0:
        raise ConfigError(f"key {name!r} has a limit below 0; 0 is none")
    if not 0.0 < key.weight <= MAX_WEIGHT:
        raise ConfigError(f"key {name!r} has the weight {key.weight}: it must be above 0 and at most {MAX_WEIGHT:g}")
    if key.expires is not None and key.expires.tzinfo is None:
        key = msgspec.structs.replace(key, expires=key.expires.replace(tzinfo=UTC))
    return key


def check_name(name: str) -> None:
    """Raise ConfigError for a name that a key cannot have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a key's name has up to 64 letters, digits, - and _, and not {name!r}")


def with_key(text: str, key: Key) -> str:
    """A file's text with one more key at its end."""
    lines = [f"[keys.{key.name}]", f'hash = "{key.hash}"']
    if key.roles != (SERVE,):
        lines.append(f"roles = {json.dumps(key.roles)}")
    if key.expires is not None:
        lines.append(f"expires = {key.expires.isoformat()}")
    lines += [f"{name} = {count}" for name in LIMITS if (count := getattr(key, name))]
    if key.weight != 1.0:
        lines.append(f"weight = {key.weight!r}")
    return "\n".join([*([text.rstrip("\n"), ""] if text.strip() else []), *lines, ""])


def without_key(text: str, name: str) -> str:
    """A file's text without a key's table; all else stays as it is."""
    table = re.compile(rf"^\[keys\.(?:{name}|\"{name}\")\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.MULTILINE)
    return table.sub("", text)
