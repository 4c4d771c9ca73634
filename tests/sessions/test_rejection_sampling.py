"""Texts by rejection sampling are distributed as the target says: any policy, any draft, chains, trees, lost links."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from chance import follows
from foredraft.edge.connections import Retry
from foredraft.edge.policy import Policy
from foredraft.edge.session import EdgeSession
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.errors import RefusedError
from foredraft.policies import make_policy
from foredraft.protocol.messages import Commit, Grow, Open, Propose
from foredraft.protocol.ports import Drafter
from foredraft.protocol.sampling import NOISE, REJECTION, Sampling, StopRules
from foredraft.protocol.tree import Node
from sessions.by_chance import ChanceDrafter, ChanceTarget, best_acceptance, transitions
from sessions.room import PROMPT, Room, collect, every_third_wrong, room, text

LENGTH = 200
TEXTS = 12
POLICIES = (
    "sync:gamma=3",
    "seed:gamma=3",
    "ahead:width=3,patience_s=0,min_probability=0.1",
    "ahead:width=2,batch=1,patience_s=0,max_pending=3,min_probability=0.2",
    "auto:min_probability=0.2",
    "cloud",
    "colocated:cloud_gamma=2",
    "both:cloud_gamma=2,patience_s=0,min_probability=0.2",
)


@dataclass(frozen=True)
class Picky:
    """Sends a node only if its token is small, and else has the cloud decode alone: the worst that a policy can do."""

    name: str = "picky"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        drawn = state.root.children
        return VerifyParams(alone_until=state.position + 1 if drawn and drawn[0].token > 1 else 0)

    def step(self, state: EdgeState) -> Step | None:
        return None if state.root.expanded else Step((state.root,))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        return [node for node in state.root.children if node.token <= 1]


@dataclass(frozen=True)
class PickyAhead(Picky):
    """Streaming, and a node is sent only if the token that was drawn below it is small."""

    def verify_params(self, state: EdgeState) -> VerifyParams:
        return VerifyParams(alone_until=state.end)

    def step(self, state: EdgeState) -> Step | None:
        chain = [state.root, *state.likeliest()]
        return Step((chain[-1],)) if len(chain) < 5 else None

    def ship(self, state: EdgeState) -> Sequence[Node]:
        return [node for node in state.likeliest() if node.children and node.children[0].token <= 1]


def session_in(
    here: Room, policy: str | Policy, seed: int, temperature: float = 1.0, drafter: Drafter | None = None
) -> EdgeSession:
    return EdgeSession(
        PROMPT,
        connect=here.connect,
        drafter=drafter or ChanceDrafter(),
        policy=make_policy(policy) if isinstance(policy, str) else policy,
        sampling=Sampling(temperature, seed=seed),
        rules=StopRules(LENGTH),
        retry=Retry(first_s=0.0),
        rejection=True,
    )


async def texts_of(
    policy: str | Policy, temperature: float = 1.0, *, turns: tuple[int, int] = (1, 2), texts: int = TEXTS
) -> list[list[int]]:
    """Texts with one seed each. ``turns``: of the loop in a draft step, and in a pass."""
    found = []
    for seed in range(texts):
        here = room(ChanceTarget(turns[1], exits=(4,)), new_drafter=ChanceDrafter)
        session = session_in(here, policy, seed, temperature, ChanceDrafter(turns[0]))
        found.append(await collect(session))
        await here.left()
    return found


@pytest.mark.parametrize(
    ("policy", "temperature"), [(POLICIES[0], 0.6), (POLICIES[0], 1.0), *((policy, 0.8) for policy in POLICIES[1:])]
)
async def test_texts_are_distributed_as_the_target_says(policy: str, temperature: float) -> None:
    texts = await texts_of(policy, temperature)
    assert follows(transitions(texts, temperature))


@pytest.mark.parametrize("policy", [Picky(), PickyAhead()])
async def test_a_policy_that_sends_what_it_likes_does_not_change_the_distribution(policy: Policy) -> None:
    texts = await texts_of(policy, turns=(1, 4))
    assert follows(transitions(texts, 1.0))


@pytest.mark.parametrize("policy", ["sync:gamma=3", "ahead:width=2,batch=1,patience_s=0,min_probability=0.2"])
async def test_lost_links_do_not_change_the_distribution(policy: str) -> None:
    texts, lost = [], 0
    for seed in range(TEXTS):
        here = room(ChanceTarget())
        cuts: list[asyncio.Task[None]] = []

        def cut(tokens: list[int], here: Room = here, cuts: list[asyncio.Task[None]] = cuts) -> None:
            if len(here.said(Commit)) % 23 == 0:
                cuts.append(asyncio.create_task(here.taps[-1].close()))

        session = session_in(here, policy, seed)
        texts.append(await collect(session, cut))
        await asyncio.gather(*cuts)
        await here.left()
        lost += session.report().reconnects
    assert lost > TEXTS
    assert follows(transitions(texts, 1.0))


async def test_as_many_drafts_are_accepted_as_can_be() -> None:
    """With chains of one token: 1 less the total variation distance, on average over the text."""
    texts, accepted = [], 0
    for seed in range(TEXTS):
        here = room(ChanceTarget())
        session = session_in(here, "sync:gamma=1", seed)
        texts.append([*PROMPT, *await collect(session)])
        accepted += session.report().accepted
        await here.left()
    best = [best_acceptance(last, 1.0) for one in texts for last in one[len(PROMPT) - 1 : -1]]
    passes = TEXTS * LENGTH - accepted
    share = sum(best) / len(best)
    assert accepted / passes == pytest.approx(share, abs=0.05)


async def test_a_text_is_the_same_again_with_the_same_draft_and_another_with_another_seed() -> None:
    here = room(ChanceTarget())
    texts = [await collect(session_in(here, "sync:gamma=3", seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


async def test_the_text_depends_on_the_draft_and_the_report_says_so() -> None:
    here = room(ChanceTarget())
    session = session_in(here, "sync:gamma=3", 1)
    assert await collect(session) != await collect(session_in(here, "cloud", 1))
    report = session.report()
    assert report.acceptance == REJECTION
    assert not report.exact


async def test_at_temperature_0_it_is_the_other_rule() -> None:
    here = room()
    session = session_in(here, "sync", 1, temperature=0.0, drafter=ScriptedDrafter(every_third_wrong))
    assert await collect(session) == text(LENGTH)
    assert session.report().acceptance == NOISE
    assert not here.said(Propose)


async def test_a_chain_is_one_message_more_and_what_it_is_about_comes_first() -> None:
    here = room(ChanceTarget())
    await collect(session_in(here, "sync:gamma=3", 1))
    said = [message for message in here.taps[0].up if isinstance(message, Open | Grow | Propose)]
    assert [type(message) for message in said[:2]] == [Propose, Open]
    assert all(isinstance(before, Propose) for before, after in pairwise(said) if isinstance(after, Grow))
    prefixes = [
        (one.position, one.hash) for message in said if isinstance(message, Propose) for one in message.proposals
    ]
    assert len(set(prefixes)) == len(prefixes), "each is sent once"
    assert len(here.said(Propose)) <= len(here.said(Grow)) + 2


async def test_a_target_that_cannot_refuses_and_says_so() -> None:
    here = room()
    with pytest.raises(RefusedError, match="shared noise alone"):
        await collect(session_in(here, "sync", 1, drafter=ScriptedDrafter(every_third_wrong)))
