"""The packages of the base install, as this environment has them."""

from collections.abc import Sequence
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement


def base_packages() -> list[str]:
    """What ``pip install foredraft`` asks for, without extras."""
    own = [Requirement(line) for line in distribution("foredraft").requires or ()]
    return [one.name for one in own if one.marker is None or one.marker.evaluate({"extra": ""})]


def closure(names: Sequence[str]) -> dict[str, Distribution]:
    """The distributions of that name, and all that they need without extras."""
    found: dict[str, Distribution] = {}
    ahead = list(names)
    while ahead:
        name = ahead.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = distribution(name)
            needed = [Requirement(line) for line in found[name].requires or ()]
            ahead += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found
