"""Points of emulation: the hardware profiles of a device, a server and the link between them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Point:
    """Names of profiles. ``says``: what is emulated, for people."""

    draft: str
    target: str
    link: str
    says: str


ROBOT_5: Final = Point(
    "robot-5-draft",
    "robot-5-target",
    "robot-5",
    "EMULATION of the seed's robot point with all times divided by 5: a draft step takes 14.4 ms, "
    "a target pass 124 ms, communication 24 ms per round trip.",
)
