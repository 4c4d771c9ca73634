"""The cloud's coroutine for one session: verify, or decode alone, until the text is complete.

What to do next is the cloud's decision (``state``); this only waits, for the target and for
the edge, and says what came of it.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from foredraft.cloud.drafter import CloudDrafter
from foredraft.cloud.pass_times import PassTimes
from foredraft.cloud.proposals import Proposals
from foredraft.cloud.session_log import Tally
from foredraft.cloud.state import TICK_S, CloudState, Extend, Go, StopSearch, Timing, Wait
from foredraft.errors import GrammarError, RefusedError
from foredraft.protocol import messages
from foredraft.protocol.counters import Counters
from foredraft.protocol.events import Event, Observer, Value
from foredraft.protocol.messages import Chain, Grow, Hint, Propose, Steer, ToEdge
from foredraft.protocol.ports import (
    Detokenizer,
    Grammar,
    NewDrafter,
    NewGrammar,
    Pass,
    Picture,
    Prediction,
    Slot,
    Target,
    Urgent,
    Verdict,
    eyes_of,
)
from foredraft.protocol.signal import Signal
from foredraft.protocol.tree import Node
from foredraft.protocol.walk import predict
from foredraft.text.constraint import Constraint
from foredraft.text.stops import StopScanner

NewDetokenizer = Callable[[Sequence[int]], Detokenizer]
"""Makes the detokenizer of what comes after a prompt."""

RESUMED_AT_A_TIME = 256
"""Tokens of a resumed text searched for stop strings before others have a turn."""


@dataclass(slots=True)
class Shared:
    """What all sessions of a service share."""

    target: Target
    new_detokenizer: NewDetokenizer | None
    observer: Observer | None
    pass_times: PassTimes
    new_drafter: NewDrafter | None = None
    new_grammar: NewGrammar | None = None
    counters: Counters = field(default_factory=Counters)


class CloudSession:
    """One text being verified: the cloud's state, its slot at the target, and its voice."""

    slot: Slot

    def __init__(
        self,
        shared: Shared,
        state: CloudState,
        say: Callable[[ToEdge], None],
        owner: str = "",
        logprobs: int | None = None,
        name: str = "",
        constraint: Constraint | None = None,
        spend: Callable[[int], None] = lambda tokens: None,
        pictures: Sequence[Picture] = (),
        proposals: Proposals | None = None,
    ) -> None:
        """Made while the loop runs. ``owner``: whose texts may share their beginnings, an API key.

        ``logprobs``: how many to tell of each token, None for none. ``name``: of its events. ``constraint``: what the
        text must be. ``spend``: told how many tokens each commit has. ``pictures``: the images in the text.
        ``proposals``: of its drafts, where those are accepted by rejection sampling.
        """
        self.state = state
        self._shared = shared
        self._clock = asyncio.get_running_loop()
        self._stops: StopSearch | None = None
        self._drafter: CloudDrafter | None = None
        if shared.new_drafter is not None:
            self._drafter = CloudDrafter(shared.new_drafter, state.tree, state.sampling, proposals)
        self._say = say
        self._owner = owner
        self._logprobs = logprobs
        self._constraint, self._spend, self._pictures = constraint, spend, pictures
        self._proposals = proposals
        self._grammar: Grammar | None = None
        self._name = name
        self.tally = Tally("" if constraint is None else constraint.kind, images=len(pictures))
        self._hints: list[tuple[int, Sequence[int]]] = []  # of the pass that runs: layer, tokens
        self._changed = Signal()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._prefill_s = 0.0
        self._waited_s = 0.0  # for the edge, since the last commit
        self._draft_us: tuple[int, ...] = ()  # each draft step here, since the last commit
        self._heard = 0
        self._heard_at_s = state.idle_since_s

    def take(self, message: Grow | Steer | Propose) -> None:
        """Change the state as the message says, and let ``run`` look again. Raises as the state does."""
        if isinstance(message, Propose):
            if self._proposals is not None:
                self._proposals.take(message.proposals)
            return
        self._heard += 1
        self._heard_at_s = self._clock.time()
        if isinstance(message, Steer):
            self.state.take_steer(message, self._heard_at_s)
        else:
            self.attach(message.chains)
        self._changed.set()

    def attach(self, chains: Sequence[Chain]) -> None:
        """Attach chains to the tree. Raises RefusedError or ProtocolError for what no honest edge sends."""
        for chain in chains:
            if (refused := self.state.take_chain(chain)) is not None:
                self._shared.counters.refused += 1
                self._say(refused)

    async def run(self) -> None:
        """Take a slot, verify to the end of the text, and give the slot up whatever happens."""
        shared, counters = self._shared, self._shared.counters
        self._stops = await _stop_search(shared.new_detokenizer, self.state)
        if self._constraint is not None:
            self._grammar = await _grammar_of(shared.new_grammar, self._constraint, self._owner)
            self._hold_to(self._grammar)
        self.slot = await self._new_slot(shared.target)
        counters.sessions += 1
        counters.active += 1
        try:
            await self._walk()
        finally:
            counters.active -= 1
            self.slot.close()
            if self._drafter is not None:
                await self._drafter.close()
            if self._idle_timer is not None:
                self._idle_timer.cancel()

    async def _new_slot(self, target: Target) -> Slot:
        tokens, sampling, eyes = self.state.tree.tokens, self.state.sampling, eyes_of(target)
        if self._pictures and eyes is not None:
            return await eyes.slot_seeing(self._pictures, tokens, sampling, self._owner)
        return await target.slot(tokens, sampling, self._owner)

    async def _walk(self) -> None:
        """Verify, or decode alone, until the text is complete."""
        state, clock = self.state, self._clock
        chunk = self._shared.target.card.prefill_chunk
        if state.finish:  # resumed at its very end: say so again
            self._say(messages.Commit(state.session, state.tree.position, b"", 0, 0, 0, 0, 0, state.finish))
        urgent, told_s = self.slot if isinstance(self.slot, Urgent) else None, math.inf
        while not state.finish:
            now_s, cached = clock.time(), self.slot.cached
            if now_s >= state.last_start_s - TICK_S:
                raise RefusedError(messages.LATE, "no pass can be done any more before the deadline")
            if urgent is not None and state.due_s != told_s:
                told_s = state.due_s
                urgent.wanted_by(told_s)
            plan = state.plan(now_s)
            uncached = state.tree.position - cached
            if uncached > chunk or (uncached > 1 and not isinstance(plan, Go)):
                await self._prefill(cached, min(chunk, uncached - 1))
            elif isinstance(plan, Go):
                await self._verify(plan, cached, now_s)
            elif isinstance(plan, Extend):
                await self._extend(plan.node)
            else:
                await self._wait(plan, now_s)

    def _hold_to(self, grammar: Grammar) -> None:
        """The text so far must be of the grammar; what comes next of itself is said at once."""
        forced = self.state.begin(grammar, self._clock.time() - self._heard_at_s, self._stops)
        if forced is not None:
            new = self.state.tree.tokens[forced.position :]
            if self._logprobs is not None:
                self._say(messages.Scores(self.state.session, forced.position, _certain(new)))
            self._say(forced)
            self._spend(len(new))
            self.tally.forced += len(new)

    async def _extend(self, node: Node) -> None:
        if self._drafter is not None:  # else no such orders were accepted
            began_s = self._clock.time()
            await self._drafter.extend(node)
            self._draft_us += (round((self._clock.time() - began_s) * 1e6),)

    async def _wait(self, plan: Wait, began_s: float) -> None:
        clock = self._clock
        if plan.idle and self._idle_timer is None:
            # One timer for many waits: their ends only move on, and it looks again when it comes too early.
            self._idle_timer = clock.call_at(plan.until_s, self._look_whether_idle)
        until_s = min(math.inf if plan.idle else plan.until_s, self.state.last_start_s)
        await self._changed.wait(None if until_s == math.inf else until_s)
        self._waited_s += clock.time() - began_s
        if plan.idle and self._idle_timer is None and clock.time() >= plan.until_s - TICK_S:
            raise RefusedError(messages.BUSY, "idle for too long; the place went to others", 0.0)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        self._changed.set()

    async def _prefill(self, cached: int, count: int) -> None:
        took_s = await self.slot.prefill(self.state.tree.tokens[cached : cached + count])
        self.note("prefill", position=cached, count=count, took_s=took_s)
        self._prefill_s += took_s
        self.tally.prefill_s += took_s

    async def _verify(self, plan: Go, cached: int, began_s: float) -> None:
        """One target pass: hints on the way, a commit at the end."""
        state = self.state
        position, exits, grammar = state.tree.position, state.steer.exits, self._grammar
        masks = () if grammar is None else await asyncio.to_thread(grammar.masks, plan.tokens, plan.parents)
        batch = Pass(
            trunk=tuple(state.tree.tokens[cached:]),
            tokens=plan.tokens,
            parents=plan.parents,
            exits=tuple(sorted(set(exits))) if exits else (),
            logprobs=self._logprobs,
            masks=masks,
            trials=() if self._proposals is None else self._proposals.trials(plan.tokens, plan.parents),
        )

        if self._shared.observer is not None:
            self.note("pass", position=position, nodes=len(plan.tokens), trunk=len(batch.trunk))
        verdict = await self.slot.verify(batch, partial(self._hint, batch, position, began_s))
        self._commit(plan, verdict, self._clock.time())

    def _hint(self, batch: Pass, position: int, began_s: float, prediction: Prediction) -> None:
        """An exit spoke, in the middle of a pass."""
        state, after_s = self.state, self._clock.time() - began_s
        if self._shared.observer is not None:
            self.note("exit", position=position, layer=prediction.layer)
        predicted, confidence = predict(batch.tokens, batch.parents, prediction, state.steer.threshold)
        if predicted:
            self._hints.append((prediction.layer, predicted))
            packed = messages.pack(predicted)
            self._say(Hint(state.session, position, prediction.layer, packed, min(1.0, confidence), after_s))

    def _commit(self, plan: Go, verdict: Verdict, now_s: float) -> None:
        heard_s = now_s - self._heard_at_s
        timing = Timing(self._prefill_s, self._waited_s, self._heard, heard_s, self._draft_us)
        commit, kept = self.state.commit(plan, verdict, timing, now_s, self._stops, self._grammar)
        self._prefill_s = self._waited_s = 0.0
        self._draft_us = ()
        self.slot.keep(kept)
        if self._drafter is not None:
            self._drafter.advance(self.state.tree.tokens[commit.position :])
        if self._logprobs is not None:
            self._say(self._scores(verdict, commit.position, kept))
        self._say(commit)
        new = self.state.tree.tokens[commit.position :]
        self._spend(len(new))
        self.tally.forced += max(0, len(new) - commit.accepted - 1)
        counters = self._shared.counters
        counters.passed(len(new), commit.drafted, commit.accepted, verdict.pass_s)
        self._shared.pass_times.saw(commit.drafted, verdict.pass_s)
        self.tally.passed(commit.drafted, commit.accepted, len(self._hints), verdict.pass_s, verdict.queue_s)
        for layer, predicted in self._hints:
            counters.judge(layer, predicted, new)
        self._hints.clear()
        if self._shared.observer is not None:
            times = {"queue_s": verdict.queue_s, "pass_s": verdict.pass_s}
            self.note("verdict", position=commit.position, tokens=new, **times)

    def _scores(self, verdict: Verdict, position: int, kept: Sequence[int]) -> messages.Scores:
        """What the target says of the tokens from ``position`` on: its tip's row, and those of the accepted nodes.

        What the grammar forces after them the target was not asked about.
        """
        rows = verdict.prediction.logprobs
        if not rows:
            raise RefusedError(messages.INVALID, "this server's target tells no log-probabilities")
        new = self.state.tree.tokens[position:]
        told = tuple(rows[row] for row in (0, *(node + 1 for node in kept)))
        return messages.Scores(self.state.session, position, told[: len(new)] + _certain(new[len(told) :]))

    def note(self, kind: str, **data: Value) -> None:
        """Tell whoever watches."""
        observer = self._shared.observer
        if observer is not None:
            now_s = self._clock.time()
            observer(Event(now_s, "cloud", self._name, kind, data))


def _certain(tokens: Sequence[int]) -> tuple[tuple[tuple[int, float], ...], ...]:
    """The log-probabilities of tokens that nothing else could be."""
    return tuple(((token, 0.0),) for token in tokens)


async def _grammar_of(new_grammar: NewGrammar | None, constraint: Constraint, owner: str) -> Grammar:
    if new_grammar is None:
        raise GrammarError(
            "this server holds no text to a grammar: it has no tokenizer, or not the extra foredraft[grammar]"
        )
    return await asyncio.to_thread(new_grammar, constraint, owner)


async def _stop_search(new_detokenizer: NewDetokenizer | None, state: CloudState) -> StopSearch | None:
    """What looks for the session's stop strings, fed with the text generated so far."""
    if not state.rules.strings:
        return None
    if new_detokenizer is None:
        raise RefusedError(messages.INVALID, "this server has no tokenizer, so no stop strings")
    prompt, generated = state.tree.tokens[: state.start], state.tree.tokens[state.start :]
    detokenizer, scanner = new_detokenizer(prompt), StopScanner(state.rules.strings)

    def search(token: int) -> bool:
        scanner.feed(detokenizer.step(token))
        return scanner.found

    for count, token in enumerate(generated, start=1):
        if search(token):
            state.finish = messages.STOP
        if count % RESUMED_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return search
