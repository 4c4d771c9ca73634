"""A robot's planner over an edge: a view and a question go in, a plan comes out; and whole walks by it.

Foredraft's part of a control loop. The robot is `foredraft.robot`'s; one of your own would do the same.
"""

from dataclasses import dataclass
from typing import Any

from foredraft.api.conversation import prompt_about
from foredraft.api.edge import Edge
from foredraft.edge.session_report import SessionReport
from foredraft.errors import ConfigError
from foredraft.images import image_of
from foredraft.robot.camera import View, encode, grey_view, render
from foredraft.robot.plans import SCHEMA, Plan, read_plan
from foredraft.robot.walk import Episode, Gait, advance
from foredraft.robot.world import World
from foredraft.text.chat_card import ChatCard
from foredraft.text.constraint import Constraint, constraint_of

MAX_TOKENS = 48
"""Of an answer; a plan has fewer."""


def plan_rule() -> Constraint:
    """What holds an answer to the form of a plan."""
    rule = constraint_of(json_schema=SCHEMA)
    assert rule is not None
    return rule


@dataclass(frozen=True, slots=True)
class Decision:
    """What was seen and asked, what came of it (None: no plan), and what that took."""

    episode: Episode
    view: View
    plan: Plan | None
    report: SessionReport


@dataclass(frozen=True, slots=True)
class Walk:
    """A whole episode: its decisions, and where it ended."""

    decisions: tuple[Decision, ...]
    end: Episode

    @property
    def tokens(self) -> list[list[int]]:
        """What was written, decision by decision."""
        return [decision.report.tokens for decision in self.decisions]

    @property
    def decision_s(self) -> float:
        """The mean time of a decision, from the view to the plan."""
        return sum(decision.report.e2e_s for decision in self.decisions) / len(self.decisions)


class RobotPlanner:
    """Asks a model that sees for plans. ``blind``: it is shown grey in the place of the view.

    ``asked``: options of ``Edge.generate``. ``rule``: holds answers to the form of a plan; None: whatever is said.
    """

    def __init__(
        self, edge: Edge, card: ChatCard, *, blind: bool = False, rule: Constraint | None, **asked: Any
    ) -> None:
        self._edge, self._card, self._blind = edge, card, blind
        self._asked = {"constraint": rule, "max_new_tokens": MAX_TOKENS, "temperature": 0.0, **asked}

    async def warm_up(self) -> None:
        """Ask once about nothing, so that what the first text alone takes is over."""
        await self.plan(grey_view(), "")

    async def plan(self, view: View, question: str) -> tuple[Plan | None, SessionReport]:
        """The plan for a view, None where what is said is none; and what it took. Raises ForedraftError."""
        image = image_of(encode(grey_view() if self._blind else view))
        prompt = await prompt_about(self._edge, question, 1, self._card)
        async with self._edge.generate(prompt, images=[image], **self._asked) as generation:
            report = await generation.finish()
        try:
            return read_plan(report.text), report
        except ConfigError:
            return None, report

    async def walk(self, world: World, gait: Gait | None = None) -> Walk:
        """Walk a world from its beginning until the episode is over."""
        episode, decisions = Episode(world), list[Decision]()
        while not episode.is_over:
            view = render(world, episode.pose)
            plan, report = await self.plan(view, episode.question)
            decisions.append(Decision(episode, view, plan, report))
            episode = advance(episode, plan, gait or Gait())
        return Walk(tuple(decisions), episode)
