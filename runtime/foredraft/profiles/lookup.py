"""Where profiles are found: an explicit path always wins, then the profiles that are shipped.

Shipped profiles lie in the package (``foredraft/hardware_profiles``, as installed) or in the
checkout's ``hardware_profiles`` (as developed). A profile's name is its file's name without
``.toml``.
"""

from pathlib import Path
from typing import Literal, overload

from foredraft.errors import ProfileError, UnknownNameError
from foredraft.profiles.reading import read_profile
from foredraft.profiles.schema import DeviceProfile, DraftProfile, LinkProfile, Profile, TargetProfile

_PACKAGE = Path(__file__).resolve().parent.parent
_SUFFIX = ".toml"


def shipped_folder() -> Path:
    """The folder of the profiles that come with Foredraft. Raises ProfileError if there is none."""
    for folder in (_PACKAGE / "hardware_profiles", _PACKAGE.parent.parent / "hardware_profiles"):
        if folder.is_dir():
            return folder
    raise ProfileError("the shipped hardware profiles are missing; give the path of a profile file instead")


def shipped_profiles() -> dict[str, Path]:
    """The shipped profiles by name, in order of their names."""
    return {path.stem: path for path in sorted(shipped_folder().glob(f"*{_SUFFIX}"))}


@overload
def load_profile(name_or_path: str | Path, kind: Literal["draft"]) -> DraftProfile: ...
@overload
def load_profile(name_or_path: str | Path, kind: Literal["target"]) -> TargetProfile: ...
@overload
def load_profile(name_or_path: str | Path, kind: Literal["link"]) -> LinkProfile: ...
@overload
def load_profile(name_or_path: str | Path, kind: None = None) -> Profile: ...
def load_profile(name_or_path: str | Path, kind: Literal["draft", "target", "link"] | None = None) -> Profile:
    """The profile of that name or in that file; ``kind`` says which kind is wanted, if it matters.

    A name with a folder or with ``.toml`` is a path. Raises UnknownNameError (with the nearest
    name) or ProfileError.
    """
    path = Path(name_or_path)
    if path.suffix != _SUFFIX and len(path.parts) <= 1:
        known = shipped_profiles()
        if str(name_or_path) not in known:
            raise UnknownNameError("hardware profile", str(name_or_path), known)
        path = known[str(name_or_path)]
    profile = read_profile(path)
    if kind is not None and profile.kind != kind:
        raise ProfileError(f"{path}: a {profile.kind} profile, where a {kind} profile is needed")
    return profile


def check_model(profile: DeviceProfile, digest: str) -> None:
    """Raise ProfileError if the profile was measured with another model than the one with this digest."""
    measured = profile.model.digest
    if measured and measured != digest:
        raise ProfileError(
            f"profile {profile.name!r} was measured with another model ({profile.model.name}, digest {measured}), "
            f"not with {digest or 'one without a digest'}. Measure this one with `foredraft profile device`, "
            "or take model.digest out of a copy of the profile to lend its times to any model"
        )
