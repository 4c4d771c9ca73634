"""What must hold in every world, as pure functions of what was seen: each names what was broken, in words.

text    the text is the target's own, on the wire and where it is shown
shown   nothing is shown before a server has committed it, and nothing that was shown is taken back
ends    every session ends, or is refused for a reason that the world has
left    nothing is left: tasks, caches, places, sessions, drafters
shares  no key has more than it may, and none gets less of a device than its share says
log     a line for each session that ended and each refusal, and no other
keys    nothing runs for a key that is none any more
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from foredraft.cloud.session_log import FAILED, REFUSED
from foredraft.cloud.session_log import LEFT as GONE
from foredraft.edge.deadline import DEADLINE
from foredraft.engines.shares import SPARE_ROWS
from foredraft.protocol.messages import CONTEXT, FULL, LENGTH, STOP, UNKNOWN_ANCHOR
from foredraft_sim.chaos.author import STOP_TOKENS, Author, after, token_at
from foredraft_sim.chaos.edges import OTHER_MODEL
from foredraft_sim.chaos.engines import BUG, CHUNK, FORWARD, MEMORY, pass_alone_s
from foredraft_sim.chaos.live import PATIENCE_S
from foredraft_sim.chaos.plan import PEERS, STORMY, KeyPlan, Plan
from foredraft_sim.chaos.seen import COMPLETE, LEFT, Conversation, Opened, Process, Seen, Stay, Written

BOUND: Final = 0.5
"""Of what its share of the device would give it, an honest key beside greedy ones gets at least so much, in time.

Rows are what is divided (docs/adr/0025): a key of wide trees beside keys of narrow ones gets its share of rows, and
less of the time, so it is not asked of every key. Nor is it asked where a draft runs on the target's device: its
steps are nobody's, and come in the order of their arrival.
"""

FORWARD_S: Final = pass_alone_s(2 * CHUNK + SPARE_ROWS)
"""The longest forward of others, which a call may find under way when it comes: two chunks, and a few rows."""

LATE_S: Final = 2.0
"""A deadline may be passed by so much, until the last word to the server was said."""

_GONE: Final = {"cut", "stall", "kill", "swap", "drain", "crash", STORMY}
_BUSY: Final = {"drain", MEMORY, *PEERS}
_EXCUSES: Final[Mapping[str, set[str]]] = {
    "RefusedError unauthorized": {"revoke", "clock"},
    "RefusedError internal": {FORWARD, BUG},
    "RefusedError busy": _BUSY,
    "UnreachableError": _GONE | _BUSY,
    "ModelError": {"swap"},
    OTHER_MODEL: {"swap"},
}
"""What in a world may make a text end otherwise than complete."""


class Broken(NamedTuple):
    """An invariant, and what broke it."""

    name: str
    what: str


def broken(plan: Plan, seen: Seen) -> list[Broken]:
    """All that was broken, in the order above."""
    return [Broken(name, what) for name, check in INVARIANTS.items() for what in check(plan, seen)]


# The text


def _text(plan: Plan, seen: Seen) -> Iterator[str]:
    models = sorted({process.model for process in seen.processes})
    for written in seen.written:
        yield from (f"{_name(written)}: {what}" for what in _wrong_in(written, models))
    for process in seen.processes:
        for heard in process.conversations:
            for opened in heard.opened:
                if what := _wrong_on_the_wire(process.model, opened):
                    yield f"server {process.server}, session {heard.number}.{opened.number}: {what}"


def _name(written: Written) -> str:
    return f"the text with the seed {written.session.seed} of edge {written.session.edge}"


def _wrong_in(written: Written, models: list[str]) -> Iterator[str]:
    session, shown = written.session, written.shown
    ends = [*written.parts, len(shown)]
    for begin, end in zip([0, *ends], ends, strict=False):
        before, part = [*session.prompt, *shown[:begin]], shown[begin:end]
        if not any(Author(model, session.seed).text(before, len(part)) == part for model in models):
            yield f"tokens {begin} to {end} are no model's"
    if len(shown) > session.new_tokens or (session.stops and set(shown[:-1]) & set(STOP_TOKENS)):
        yield "it goes on after its end"
    if written.ending == COMPLETE and not _finished(written):
        yield f"{len(shown)} tokens of {session.new_tokens} are said to be all, for the reason {written.finish!r}"


def _finished(written: Written) -> bool:
    session, shown = written.session, written.shown
    return {
        LENGTH: len(shown) == session.new_tokens,
        STOP: session.stops and bool(shown) and shown[-1] in STOP_TOKENS,
        DEADLINE: session.deadline_s > 0.0,
    }.get(written.finish, False)


def _wrong_on_the_wire(model: str, opened: Opened) -> str:
    """A server commits what its model says after the text that was opened, token by token, and nothing else."""
    position = len(opened.tokens)
    state = Author(model, opened.seed).state_of(opened.tokens)
    for at, tokens, _ in opened.commits:
        if at != position:
            return f"a commit at {at}, where {position} comes next"
        for token in tokens:
            if token != token_at(state):
                return f"token {token} at {position} is not the model's"
            state, position = after(state, token), position + 1
    return ""


# What is shown


def _shown(plan: Plan, seen: Seen) -> Iterator[str]:
    for written in seen.written:
        if written.ahead > 0:
            yield f"{_name(written)}: {written.ahead} tokens were shown before a server had committed them"
        if written.ending and written.reported and written.reported[: len(written.shown)] != written.shown:
            yield f"{_name(written)}: what was shown is not what the edge says it is"


# The end


def _ends(plan: Plan, seen: Seen) -> Iterator[str]:
    if seen.failure:
        yield seen.failure
    for written in seen.written:
        name, session = _name(written), written.session
        if not written.ending:
            yield f"{name}: it has not ended after {PATIENCE_S:g} s"
        elif not _excused(plan, written):
            yield f"{name}: it ended with {written.ending} ({written.what}), and nothing was wrong"
        if session.deadline_s and written.took_s > session.deadline_s + LATE_S:
            yield f"{name}: its deadline was {session.deadline_s:g} s, and it took {written.took_s:.3f} s"


def _excused(plan: Plan, written: Written) -> bool:
    ending = written.ending
    if ending == "DeadlineError":
        return written.session.deadline_s > 0.0
    limits = any(key.sessions or key.connections or key.cache for key in plan.keys) or plan.cache_rows < 2048
    few = ending == "RefusedError busy" and limits
    return ending in (COMPLETE, LEFT) or few or bool(_EXCUSES.get(ending, set()) & plan.kinds)


# What is left


def _left(plan: Plan, seen: Seen) -> Iterator[str]:
    yield from seen.left
    for process in seen.processes:
        if not process.killed:
            yield from process.left


# Shares


def _shares(plan: Plan, seen: Seen) -> Iterator[str]:
    keys = {key.name: key for key in plan.keys}
    for process in seen.processes:
        for name, key in keys.items():
            had = (process.most.get(name, 0), process.connected.get(name, 0))
            for what, count, may in zip(("texts", "connections"), had, (key.sessions, key.connections), strict=True):
                if 0 < may < count:
                    yield f"server {process.server}: the key {name} had {count} {what} at once of {may}"
        stays = [stay for stay in process.stays if plan.honest and stay.key == plan.honest]
        yield from (what for stay in stays if (what := _too_slow(keys, process, stay)))


def _too_slow(keys: Mapping[str, KeyPlan], process: Process, stay: Stay) -> str:
    """What its calls took is at most what they take alone, over its share, and a forward each time it comes anew."""
    share = keys[stay.key].weight / sum(keys[name].weight for name in process.most if name in keys)
    most_s = stay.alone_s * process.most[stay.key] / (share * BOUND) + stay.anew * FORWARD_S
    if stay.took_s <= most_s:
        return ""
    return (
        f"server {process.server}: calls of the key {stay.key}, whose share is {share:.0%}, took {stay.took_s:.3f} s, "
        f"and {stay.alone_s:.3f} s alone: at most {most_s:.3f} s is fair"
    )


# The log


def _log(plan: Plan, seen: Seen) -> Iterator[str]:
    for process in seen.processes:
        if not process.killed:  # who is killed says nothing more
            yield from (f"server {process.server}: {what}" for what in _wrong_in_log(process))


def _wrong_in_log(process: Process) -> Iterator[str]:
    ended = Counter(str(line["session"]) for line in process.lines if line["event"] == "session")
    refused = Counter((str(line["session"]), str(line["code"])) for line in process.lines if line["event"] == "refusal")
    of_session = {str(line["session"]): line for line in process.lines if line["event"] == "session"}
    known: set[str] = set()
    for heard in process.conversations:
        told = Counter((f"{heard.number}.{session}", code) for session, code in heard.refused)
        for (name, code), count in told.items():
            if code not in (UNKNOWN_ANCHOR, FULL) and refused[name, code] < count:
                yield f"session {name} was refused ({code}) {count} times, with {refused[name, code]} lines"
        for opened in heard.opened:
            name = f"{heard.number}.{opened.number}"
            known.add(name)
            some = ended[name] or any(session == name for session, _ in refused)
            if ended[name] > 1 or not (some or opened.late):
                yield f"session {name} has {ended[name]} lines"
            if name in of_session:
                yield from (
                    f"the line of session {name}: {what}" for what in _wrong_line(of_session[name], heard, opened)
                )
    yield from (f"a line for the session {name}, which nobody opened" for name in sorted(ended.keys() - known))


def _wrong_line(line: Mapping[str, object], heard: Conversation, opened: Opened) -> Iterator[str]:
    """What a session's line says is what was said on the wire, and at most what was on its way there."""
    if line["key"] != heard.key:
        yield f"the key is {line['key']!r}, not {heard.key!r}"
    new = sum(len(tokens) for _, tokens, _ in opened.commits) + len(opened.tokens) - opened.start
    if int(str(line["new_tokens"])) < new:
        yield f"{line['new_tokens']} tokens, where {new} were committed"
    finish = next((finish for _, _, finish in opened.commits if finish), "")
    if (finish and line["ended"] != finish) or line["ended"] not in (GONE, REFUSED, FAILED, LENGTH, STOP, CONTEXT):
        yield f"it ended {line['ended']!r}, and on the wire {finish!r}"


# Keys


def _keys(plan: Plan, seen: Seen) -> Iterator[str]:
    for process in seen.processes:
        for key, count in process.late.items():
            yield f"server {process.server}: {count} calls ran for the key {key}, which is none any more"


INVARIANTS: Final[Mapping[str, Callable[[Plan, Seen], Iterator[str]]]] = {
    "text": _text,
    "shown": _shown,
    "ends": _ends,
    "left": _left,
    "shares": _shares,
    "log": _log,
    "keys": _keys,
}
