"""A robot's walk as a picture: the path from above, what it saw, and where each decision's time went; and moving.

Needs matplotlib for the picture; the animation is drawn with Pillow alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from foredraft.errors import extras_named
from foredraft.files import made_room
from foredraft.robot.camera import HEIGHT, PAINT, WIDTH, View
from foredraft.robot.walk import ahead
from foredraft.robot.world import THING_RADIUS_M, Pose, World

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

INK: Final = "#333333"
PARTS: Final = {
    "images on their way and looked at": "#e07a1f",
    "target passes": "#c9b458",
    "link, drafting and waiting": "#8fb8de",
}
_MARKS: Final = {"chair": "P", "box": "s", "ball": "o", "cone": "^"}
_VIEWS_IN_A_ROW: Final = 5
_SIDE: Final = 336  # of the animation's map, in pixels
_SCALE: Final = 3  # of its view
_FRAME_S: Final = 0.1
_REACH_M: Final = 6.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How one policy went: of each decision the seconds of the image, of the target's passes, and of all else."""

    name: str
    parts_s: Sequence[tuple[float, float, float]]

    @property
    def decision_s(self) -> float:
        """The mean time of a decision."""
        return sum(map(sum, self.parts_s)) / len(self.parts_s)


@dataclass(frozen=True, slots=True)
class Pictured:
    """A walk: its world, where the robot stood at each decision and at the end, and what it saw at each."""

    world: World
    poses: Sequence[Pose]
    views: Sequence[View]
    says: Sequence[str]


@extras_named()
def draw_walk(walk: Pictured, policies: Sequence[Policy], file: Path, caption: str) -> None:
    """Draw one walk, which all policies share, and their times, to a PNG or SVG file.

    Raises MissingExtraError without matplotlib, ConfigError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(walk.views) // _VIEWS_IN_A_ROW)
    figure = Figure(figsize=(11.5, 5.2 + 1.9 * rows), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[4.6, 1.9 * rows])[:, 0]
    above, times = parts[0].subplots(1, 2, width_ratios=[1, 1.25])
    _map(above, walk)
    _bars(times, policies)
    for number, axes in enumerate(parts[1].subplots(rows, _VIEWS_IN_A_ROW, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(walk.views):
            axes.imshow(walk.views[number], interpolation="nearest")
            axes.set_title(f"{number + 1}  {walk.says[number]}", fontsize=7, color=INK)
    figure.suptitle(f"“{walk.world.instruction}”", fontsize=13, fontweight="bold", color=INK)
    figure.supxlabel(caption, fontsize=8, color="#555555")
    with made_room("the picture", file):
        figure.savefig(file, dpi=160)


def _map(axes: "Axes", walk: Pictured) -> None:
    """The path from above: the way the robot looked at the beginning is up."""
    for thing in walk.world.things:
        colour = tuple(part / 255 for part in PAINT[thing.colour])
        axes.scatter(thing.x, thing.y, s=190, marker=_MARKS[thing.kind], color=colour, edgecolor=INK, zorder=2)
        if thing == walk.world.goal:
            axes.scatter(thing.x, thing.y, s=520, facecolor="none", edgecolor=INK, linewidth=1.2, zorder=1)
    axes.plot([pose.x for pose in walk.poses], [pose.y for pose in walk.poses], color=INK, linewidth=1.2, zorder=3)
    for number, pose in enumerate(walk.poses[:-1], 1):
        tip = ahead(pose, pose.heading_deg, 0.45)
        axes.annotate("", (tip.x, tip.y), (pose.x, pose.y), arrowprops={"arrowstyle": "-|>", "color": INK})
        axes.annotate(str(number), (pose.x, pose.y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=INK)
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.set_xlabel("metres", fontsize=9, color=INK)
    axes.set_title("The walk, from above; numbers are decisions, the ring is the goal", fontsize=9, color=INK)


def _bars(axes: "Axes", policies: Sequence[Policy]) -> None:
    """Where the mean decision's time went, by policy."""
    places = range(len(policies))
    left = [0.0] * len(policies)
    for part, (name, colour) in enumerate(PARTS.items()):
        widths = [sum(one[part] for one in policy.parts_s) / len(policy.parts_s) for policy in policies]
        axes.barh(places, widths, left=left, color=colour, label=name, height=0.62)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    for place, policy in zip(places, policies, strict=True):
        share = policy.decision_s / policies[0].decision_s
        axes.annotate(
            f" {policy.decision_s:.2f} s  ({share:.2f} of {policies[0].name})",
            (policy.decision_s, place),
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(places, [policy.name for policy in policies], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(left))
    axes.set_xlabel("seconds per decision (mean)", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=1)
    axes.spines[["top", "right"]].set_visible(False)


@extras_named()
def animate(walk: Pictured, policies: Sequence[Policy], file: Path) -> None:
    """The same walk under several policies side by side, each at its own pace, as a GIF.

    The robot moves when its plan is there; the time of walking is left out. Raises MissingExtraError, ConfigError.
    """
    arrivals = [_arrivals(policy) for policy in policies]
    end_s = max(times[-1] for times in arrivals) + 1.0
    frames = [_frame(walk, policies, arrivals, number * _FRAME_S) for number in range(math.ceil(end_s / _FRAME_S))]
    with made_room("the animation", file):
        frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=int(_FRAME_S * 1e3), loop=0, optimize=False
        )


def _arrivals(policy: Policy) -> list[float]:
    """When each plan is there, counted from the first view."""
    times, now_s = [], 0.0
    for parts in policy.parts_s:
        now_s += sum(parts)
        times.append(now_s)
    return times


def _frame(walk: Pictured, policies: Sequence[Policy], arrivals: Sequence[Sequence[float]], now_s: float) -> "Image":
    """All policies' robots at a moment."""
    from PIL import Image, ImageDraw

    width = max(_SIDE, WIDTH * _SCALE)
    whole = Image.new("RGB", ((width + 12) * len(policies) + 12, _SIDE + HEIGHT * _SCALE + 52), "white")
    draw = ImageDraw.Draw(whole)
    for place, (policy, times) in enumerate(zip(policies, arrivals, strict=True)):
        left = 12 + place * (width + 12)
        decision = sum(time <= now_s for time in times)
        over = decision == len(times)
        seen = Image.fromarray(walk.views[min(decision, len(walk.views) - 1)])
        whole.paste(seen.resize((WIDTH * _SCALE, HEIGHT * _SCALE), Image.Resampling.NEAREST), (left, 22))
        draw.text((left, 4), f"{policy.name}: {min(now_s, times[-1]):4.1f} s", fill=INK)
        said = "there" if over else f"decision {decision + 1} ..."
        draw.text((left, 26 + HEIGHT * _SCALE), f"{said}  {walk.says[decision - 1] if decision else ''}", fill=INK)
        _small_map(draw, walk, decision, (left, 44 + HEIGHT * _SCALE))
    return whole


def _small_map(draw: "ImageDraw", walk: Pictured, decision: int, corner: tuple[int, int]) -> None:
    scale = _SIDE / (2 * _REACH_M)

    def at(x: float, y: float) -> tuple[float, float]:
        return corner[0] + _SIDE / 2 + x * scale, corner[1] + _SIDE / 2 - y * scale

    draw.rectangle((*corner, corner[0] + _SIDE, corner[1] + _SIDE), outline="#bbbbbb")
    for thing in walk.world.things:
        _disc(draw, at(thing.x, thing.y), THING_RADIUS_M * scale, fill=PAINT[thing.colour])
    goal = at(walk.world.goal.x, walk.world.goal.y)
    _disc(draw, goal, 1.7 * THING_RADIUS_M * scale, outline=INK)
    path = [at(pose.x, pose.y) for pose in walk.poses[: decision + 1]]
    if len(path) > 1:
        draw.line(path, fill=INK, width=2)
    pose = walk.poses[min(decision, len(walk.poses) - 1)]
    tip = ahead(pose, pose.heading_deg, 0.6)
    draw.line((at(pose.x, pose.y), at(tip.x, tip.y)), fill="#c22626", width=3)
    _disc(draw, at(pose.x, pose.y), 0.2 * scale, fill=INK)


def _disc(draw: "ImageDraw", at: tuple[float, float], radius: float, **how: Any) -> None:
    draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), **how)
