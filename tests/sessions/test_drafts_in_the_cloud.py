"""A drafter in the cloud: no drafts on the wire, fewer passes than tokens, and the same text."""

from collections.abc import Sequence

import pytest

from foredraft.engines.scripted import GuessAt, ScriptedDrafter
from foredraft.errors import RefusedError
from foredraft.protocol.messages import Commit, Grow
from foredraft.protocol.ports import Guess
from sessions.room import Room, collect, every_third_wrong, hopeless, perfect, room, text


def clueless(position: int, width: int) -> Sequence[Guess]:
    return []


def with_drafter(guess_at: GuessAt) -> Room:
    return room(new_drafter=lambda: ScriptedDrafter(guess_at))


async def test_the_cloud_drafts_and_nothing_is_shipped() -> None:
    here = with_drafter(perfect)
    session = here.session("colocated:cloud_gamma=4", drafter=ScriptedDrafter(hopeless))
    assert await collect(session) == text(40)
    assert here.said(Grow) == []
    assert [commit.drafted for commit in here.said(Commit) if isinstance(commit, Commit)][:7] == [4] * 7
    assert session.report().passes == 8
    await here.left()


async def test_commits_tell_how_long_each_draft_step_in_the_cloud_took() -> None:
    here = with_drafter(perfect)
    await collect(here.session("colocated:cloud_gamma=4", drafter=ScriptedDrafter(hopeless)))
    commits = [commit for commit in here.said(Commit) if isinstance(commit, Commit)]
    assert [len(commit.draft_us) for commit in commits] == [commit.drafted for commit in commits]
    assert sum(map(len, (commit.draft_us for commit in commits))) > 20
    await here.left()


@pytest.mark.parametrize("spec", ["colocated:cloud_gamma=3", "both:cloud_gamma=3,patience_s=0"])
@pytest.mark.parametrize("in_the_cloud", [perfect, every_third_wrong, hopeless, clueless])
@pytest.mark.parametrize("at_the_edge", [every_third_wrong, clueless])
async def test_the_text_is_the_targets_wherever_drafts_come_from(
    spec: str, in_the_cloud: GuessAt, at_the_edge: GuessAt
) -> None:
    here = with_drafter(in_the_cloud)
    session = here.session(spec, drafter=ScriptedDrafter(at_the_edge))
    assert await collect(session) == text(40)
    await here.left()


async def test_a_drafter_without_ideas_costs_no_more_passes_than_there_are_tokens() -> None:
    here = with_drafter(clueless)
    session = here.session("colocated")
    assert await collect(session) == text(40)
    assert session.report().passes == 40
    await here.left()


async def test_a_server_without_a_draft_model_says_so() -> None:
    here = room()
    session = here.session("colocated")
    with pytest.raises(RefusedError, match=r"no draft model of its own .*serve --draft"):
        await collect(session)
    await here.left()


async def test_the_cloud_goes_on_from_what_the_edge_shipped() -> None:
    here = with_drafter(every_third_wrong)
    session = here.session("both:cloud_gamma=6,patience_s=10,min_nodes=2", drafter=ScriptedDrafter(perfect))
    assert await collect(session) == text(40)
    shipped = {chain.position for grow in here.said(Grow) if isinstance(grow, Grow) for chain in grow.chains}
    assert shipped
    assert session.report().accepted > 0
    await here.left()
