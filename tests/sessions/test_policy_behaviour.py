"""What each policy does on the link, counted message by message."""

import asyncio
from collections.abc import Sequence

import pytest

from foredraft.edge.session_report import SessionReport
from foredraft.engines.scripted import ExitScript, ScriptedDrafter
from foredraft.errors import ConfigError, UnknownNameError
from foredraft.policies import make_policy, policy_names
from foredraft.protocol.messages import Close, Commit, Grow, Hello, Hint, Open, Steer, unpack
from foredraft.protocol.ports import Guess, Link
from foredraft.protocol.tree import Node
from sessions.room import Room, SlowTarget, collect, hopeless, perfect, room, text, truth


def sure(layer: int, position: int) -> tuple[int, float]:
    return truth(position), 1.0


def always_wrong(layer: int, position: int) -> tuple[int, float]:
    return 2, 1.0


def unsure(layer: int, position: int) -> tuple[int, float]:
    return truth(position), 0.1


async def test_cloud_streams_an_answer_for_one_opening_and_one_close() -> None:
    here = room()
    session = here.session("cloud", 40)
    assert await collect(session) == text(40)
    await here.left()
    assert [type(message) for message in here.taps[0].up] == [Hello, Open, Close]
    commits = [message for message in here.said(Commit) if isinstance(message, Commit)]
    assert [unpack(commit.tokens) for commit in commits] == [[token] for token in text(40)]
    assert session.report().passes == 40


@pytest.mark.parametrize(("gamma", "length"), [(1, 10), (4, 21), (4, 20), (7, 40)])
async def test_sync_sends_one_chain_of_gamma_per_round(gamma: int, length: int) -> None:
    here = room()
    session = here.session(f"sync:gamma={gamma}", length, drafter=ScriptedDrafter(perfect))
    assert await collect(session) == text(length)
    await here.left()
    rounds, rest = divmod(length, gamma + 1)
    chains = [gamma] * rounds + ([rest - 1] if rest > 1 else [])  # the target adds the last token itself
    assert [len(unpack(chain.tokens)) for chain in here.chains()] == chains
    assert not here.said(Hint)
    # The very last token may be the target's alone, which takes an order instead of a chain.
    assert len(here.said(Steer)) == (1 if rest == 1 else 0)
    assert session.report().passes == rounds + (rest > 0)


async def test_sync_never_has_two_chains_on_the_way() -> None:
    here = room()
    assert await collect(here.session("sync", 40)) == text(40)
    await here.left()
    positions = [chain.position for chain in here.chains()]
    assert positions == sorted(set(positions))
    commits = [message.position for message in here.taps[0].down if isinstance(message, Commit)]
    assert positions == commits


async def test_a_hopeless_drafter_costs_rounds_and_no_token() -> None:
    here = room()
    session = here.session("sync", 12, drafter=ScriptedDrafter(hopeless))
    assert await collect(session) == text(12)
    report = session.report()
    assert (report.passes, report.accepted) == (12, 0)
    await here.left()


class SlowDrafter(ScriptedDrafter):
    """Each step takes 0.1 s."""

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        await asyncio.sleep(0.1)
        return await super().draft(nodes, width)


async def rounds(
    policy: str, exit_script: ExitScript, length: int
) -> tuple[list[int], list[int], SessionReport, float]:
    """The tokens, the lengths of the chains that were sent, the report and the seconds; a pass takes 1 s."""
    here = room(SlowTarget(truth, exit_script=exit_script, exits=(4,)))
    session = here.session(policy, length, drafter=SlowDrafter(perfect))
    shown = await collect(session)
    took_s = asyncio.get_running_loop().time()
    await here.left()
    return shown, [len(unpack(chain.tokens)) for chain in here.chains()], session.report(), took_s


@pytest.mark.simulated
async def test_seed_drafts_the_next_chain_along_a_right_hint_while_the_cloud_verifies() -> None:
    shown, chains, report, took_s = await rounds("seed", sure, 26)
    assert shown == text(26)
    assert chains == [4] * 5
    assert (report.passes, report.hints, report.hints_right) == (6, 6, 6)
    assert (report.predraft_hits, report.predraft_misses) == (4, 0)  # the fifth chain is the last
    # Only the first chain's steps are not hidden behind a pass.
    assert took_s == pytest.approx(0.4 + 6 * 1.0)


@pytest.mark.simulated
async def test_sync_drafts_nothing_while_the_cloud_verifies() -> None:
    shown, chains, report, took_s = await rounds("sync", sure, 26)
    assert shown == text(26)
    assert chains == [4] * 5
    assert (report.hints, report.predraft_hits, report.predraft_misses) == (0, 0, 0)
    assert took_s == pytest.approx(5 * (0.4 + 1.0) + 1.0)


@pytest.mark.simulated
async def test_wrong_hints_are_counted_and_cost_no_token_and_no_pass() -> None:
    shown, chains, report, took_s = await rounds("seed", always_wrong, 26)
    assert shown == text(26)
    assert chains == [4] * 5
    assert (report.passes, report.hints, report.hints_right) == (6, 6, 0)
    assert (report.predraft_hits, report.predraft_misses) == (0, 5)
    assert took_s == pytest.approx(5 * (0.4 + 1.0) + 1.0)


@pytest.mark.simulated
async def test_an_exit_below_the_threshold_says_nothing() -> None:
    shown, _, report, _ = await rounds("seed:threshold=0.5", unsure, 26)
    assert shown == text(26)
    assert (report.hints, report.predraft_hits, report.predraft_misses) == (0, 0, 0)


@pytest.mark.simulated
async def test_a_hint_is_cut_where_the_confidence_of_the_whole_falls_below_the_threshold() -> None:
    here = room(SlowTarget(truth, exit_script=lambda layer, position: (truth(position), 0.8), exits=(4,)))
    assert await collect(here.session("seed:threshold=0.6", 5, drafter=ScriptedDrafter(perfect))) == text(5)
    await here.left()
    hints = [message for message in here.said(Hint) if isinstance(message, Hint)]
    assert [unpack(hint.tokens) for hint in hints] == [text(2)]
    assert hints[0].confidence == pytest.approx(0.64)


@pytest.mark.simulated
@pytest.mark.parametrize("policy", ["sync", "seed", "ahead"])
async def test_a_drafter_without_an_idea_lets_the_cloud_decode_alone(policy: str) -> None:
    here = room(SlowTarget(truth, exit_script=sure, exits=(4,)))
    session = here.session(policy, 12, drafter=ScriptedDrafter(lambda position, width: []))
    assert await collect(session) == text(12)
    assert session.report().passes == 12
    await here.left()


@pytest.mark.simulated
@pytest.mark.parametrize("policy", ["sync", "seed"])
async def test_a_drafter_that_runs_out_of_ideas_sends_what_it_has(policy: str) -> None:
    def now_and_then(position: int, width: int) -> list[Guess]:
        return [] if position % 5 in (0, 1) else [Guess(truth(position), 0.9)]

    here = room(SlowTarget(truth, exit_script=sure, exits=(4,)))
    session = here.session(policy, 30, drafter=ScriptedDrafter(now_and_then))
    assert await collect(session) == text(30)
    report = session.report()
    assert report.accepted == report.drafted > 0
    await here.left()


@pytest.mark.parametrize("policy", ["cloud", "sync", "seed", "ahead"])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 6])
async def test_short_texts_end_where_they_should_and_no_draft_reaches_beyond(policy: str, length: int) -> None:
    here = room()
    session = here.session(policy, length)
    assert await collect(session) == text(length)
    assert session.report().finish_reason == "length"
    await here.left()
    ends = [chain.position + len(unpack(chain.tokens)) for chain in here.chains()]
    assert max(ends, default=0) < session.state.end


def test_policies_go_by_name_with_parameters() -> None:
    assert {"cloud", "sync", "seed"} <= set(policy_names())
    assert make_policy("sync").name == "sync"
    assert repr(make_policy("seed:gamma=6,threshold=0.8,exits=2+4")) == repr(
        make_policy("foredraft.policies.seed:SeedPolicy:gamma=6,threshold=0.8,exits=2+4")
    )


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("sink", UnknownNameError, "did you mean 'sync'"),
        ("sync:gama=3", UnknownNameError, "did you mean 'gamma'"),
        ("cloud:gamma=3", UnknownNameError, "gamma"),
        ("sync:gamma=three", ConfigError, "gamma must be of type int, not 'three'"),
        ("sync:gamma=0", ConfigError, "gamma must be 1 or more"),
        ("sync:gamma", ConfigError, "gamma"),
        ("seed:threshold=2", ConfigError, "threshold must be between 0 and 1"),
        ("seed:threshold=nan", ConfigError, "threshold must be between 0 and 1"),
        ("seed:exits=a", ConfigError, "exits"),
        ("no.such.module:Policy", ConfigError, "no policy no.such.module:Policy"),
        ("foredraft.policies.seed:Nothing", ConfigError, "Nothing"),
        ("", UnknownNameError, "unknown policy ''"),
        (":x", ConfigError, "no policy"),
    ],
)
def test_a_bad_specification_is_refused_by_name(spec: str, error: type[ConfigError], says: str) -> None:
    with pytest.raises(error, match=says.replace("(", "\\(")):
        make_policy(spec)


async def test_time_of_the_clouds_own_is_not_booked_as_waiting_for_the_edge() -> None:
    here = room()
    assert await collect(here.session("cloud")) == text(40)
    commits = [commit for commit in here.said(Commit) if isinstance(commit, Commit)]
    assert len(commits) == 40
    assert {commit.waited_s for commit in commits} == {0.0}
    await here.left()


class LateRoom(Room):
    """Connecting takes longer than drafting."""

    async def connect(self) -> Link:
        await asyncio.sleep(0.05)
        return await super().connect()


async def test_what_was_drafted_before_the_link_was_there_comes_with_the_opening() -> None:
    here = LateRoom(room().service)
    session = here.session("sync:gamma=3", 12, drafter=ScriptedDrafter(perfect))
    assert await collect(session) == text(12)
    (opened,) = here.said(Open)
    assert isinstance(opened, Open)
    assert [unpack(chain.tokens) for chain in opened.chains] == [text(3)]
    assert session.report().passes == 3
    await here.left()


def three_ideas(position: int, width: int) -> list[Guess]:
    """A drafter whose first guess is right, and that has two others."""
    return [Guess(truth(position), 0.5), Guess(1, 0.25), Guess(2, 0.25)][:width]


async def test_branches_that_are_ready_together_go_in_one_message() -> None:
    here = room()
    assert await collect(here.session("ahead:width=3", 30, drafter=ScriptedDrafter(three_ideas))) == text(30)
    await here.left()
    grows = [message for message in here.said(Grow) if isinstance(message, Grow)]
    assert max(len(grow.chains) for grow in grows) >= 3
