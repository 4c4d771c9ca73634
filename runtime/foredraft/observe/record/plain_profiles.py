"""Hardware profiles as plain values, the way a record keeps them: whole, since files change."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from foredraft.errors import RecordError
from foredraft.profiles import Profile
from foredraft.profiles.schema import KINDS


def profile_as_plain(profile: Profile) -> dict[str, Any]:
    """The profile with the sources of its numbers, and with the folder that its traces are relative to."""
    bare = msgspec.structs.replace(profile, provenance={}, path=None)
    plain: dict[str, Any] = msgspec.to_builtins(bare)
    plain["provenance"] = {at: msgspec.to_builtins(origin) for at, origin in profile.provenance.items()}
    plain["path"] = "" if profile.path is None else str(profile.path)
    return plain


def profile_from_plain(plain: dict[str, Any], kind: Literal["draft", "target", "link"], where: Path) -> Any:
    """What ``profile_as_plain`` was given; ``where`` is the record, for messages. Raises RecordError."""
    values = dict(plain)
    path = values.pop("path", "")
    try:
        profile = msgspec.convert(values, KINDS[kind])
    except msgspec.ValidationError as error:
        raise RecordError(f"{where}: its {kind} profile does not fit this Foredraft ({error}); name one") from error
    return msgspec.structs.replace(profile, path=Path(path) if path else None)
