"""What goes up: the opening of a session, then the nodes and the orders that the policy wants sent.

What to send is the policy's decision; this only says it, and remembers when, over one link after another.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import msgspec

from foredraft.edge.images import Images
from foredraft.edge.policy import Policy
from foredraft.edge.proposals import Proposing
from foredraft.edge.state import EdgeState
from foredraft.edge.step import VerifyParams
from foredraft.protocol import messages
from foredraft.protocol.events import Note, Value
from foredraft.protocol.messages import Chain, Commit, Constrain, Grow, Open, Propose, Score, Steer
from foredraft.protocol.outbox import Outbox
from foredraft.protocol.ports import Link
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from foredraft.text.constraint import Constraint

SPREADS: Final = 3.0
"""Hardly a round trip is shorter than the mean by so many standard deviations: the cloud must give up nothing early."""


class Shipping:
    """One session's way up. Nothing waits but ``open``; what a full link has no room for is in the outbox."""

    _clock: asyncio.AbstractEventLoop

    def __init__(
        self,
        state: EdgeState,
        policy: Policy,
        sampling: Sampling,
        note: Note | None,
        logprobs: int | None = None,
        constraint: Constraint | None = None,
        images: Images | None = None,
        proposing: Proposing | None = None,
    ) -> None:
        self._proposing = proposing
        self._logprobs, self._constraint, self._images = logprobs, constraint, images
        self._state = state
        self._policy = policy
        self._sampling = sampling
        self._note = note
        self._outbox: Outbox | None = None  # while the session is open over a link
        self._late = False  # something changed while the link was full
        self._params = VerifyParams()
        self._serial = 0
        self._said_s: list[float] = []  # when Open, and each Grow and Steer after it

    async def open(self, link: Link, traceparent: str = "") -> Outbox:
        """Open the session with the text and the drafts so far; the outbox of what follows, for somebody to ``run``."""
        self._params, self._serial = self._verify_params(), 1
        self._clock = asyncio.get_running_loop()
        self._said_s = [self._clock.time()]
        if self._logprobs is not None:
            await link.send(Score(self._state.session, self._logprobs))
        if (held := self._constraint) is not None:
            await link.send(Constrain(self._state.session, held.kind, held.rule))
        if self._images is not None:
            for message in self._images.messages(self._state.session):
                await link.send(message)
        if self._proposing is not None:
            self._proposing.lost()
            await link.send(Propose(self._state.session, self._proposing.unsent()))
        await link.send(self._opening(self._chains(self._policy.ship(self._state)), traceparent))
        self._state.tally.opening_bytes_up += link.bytes_sent
        if self._note is not None:
            self._note("open", {"position": self._state.position})
        self._outbox = Outbox(link, self._ship_late)
        self.ship()
        return self._outbox

    def close(self) -> None:
        """The link is gone; whatever is to be sent waits for the next one."""
        self._outbox = None

    def ship(self) -> None:
        """Send what the policy wants sent now; while the link is full, later."""
        outbox, state = self._outbox, self._state
        if outbox is None or state.finish:
            return
        self._late = bool(outbox.waiting)
        if self._late:
            return
        if self._proposing is not None and self._goes_on_alone():
            self._say_proposed(outbox)
        if (wanted := self._policy.ship(state)) and (chains := self._chains(wanted)):
            self._say(outbox, Grow(state.session, chains))
        verify_params = self._verify_params()
        if state.resting and not (state.verifying or verify_params.cloud_drafts):
            verify_params = self._never_stalled(verify_params)
        if verify_params is not self._params and verify_params != self._params:
            self._params = verify_params
            self._serial += 1
            self._say(outbox, self._steer())

    def _verify_params(self) -> VerifyParams:
        """The policy's orders; without a drafter, that the cloud decodes alone, unless it has one itself."""
        params = self._policy.verify_params(self._state)
        if self._state.draftless and not params.cloud_drafts:
            return VerifyParams(alone_until=self._state.end)
        return params

    def _chains(self, wanted: Sequence[Node]) -> tuple[Chain, ...]:
        """What of the nodes that the policy wants at the cloud is not there yet."""
        chains = () if self._state.finish else tuple(self._state.ship(wanted))
        if self._note is not None:
            for number, chain in enumerate(chains):  # a message is noted by its first chain, the others beside it
                data: dict[str, Value] = {"position": chain.position, "tokens": messages.unpack(chain.tokens)}
                self._note("beside" if number else "ship", data)
        return chains

    def _ship_late(self) -> None:
        """The link has room again."""
        if self._late:
            self.ship()

    def _goes_on_alone(self) -> bool:
        """Whether the cloud may run a pass without a further word from here."""
        params = self._params
        return params.alone_until > self._state.position or params.cloud_drafts > 0 or self._state.waiting_on_cloud

    def _say_proposed(self, outbox: Outbox) -> None:
        """Send what the draft proposed, whatever the policy makes of it."""
        if self._proposing is not None:
            while proposals := self._proposing.unsent():
                outbox.say(Propose(self._state.session, proposals))

    def _say(self, outbox: Outbox, message: Grow | Steer) -> None:
        self._say_proposed(outbox)
        self._said_s.append(self._clock.time())
        outbox.say(message)

    def heard(self, commit: Commit, now_s: float) -> None:
        """A commit tells what the cloud had heard, and when: a round trip, less what the cloud took."""
        if commit.heard < len(self._said_s):
            round_trip_s = now_s - self._said_s[commit.heard] - commit.heard_s
            self._state.estimates.round_trip_s.take(max(0.0, round_trip_s))

    def _never_stalled(self, verify_params: VerifyParams) -> VerifyParams:
        """The orders of an edge at rest; where nobody would ever move again, the cloud decodes one token alone."""
        position = self._state.position
        if verify_params.alone_until > position or self._state.waiting_on_cloud:
            return verify_params
        return VerifyParams(alone_until=position + 1, exits=verify_params.exits, threshold=verify_params.threshold)

    def _steer(self) -> Steer:
        params = msgspec.structs.asdict(self._params)
        return Steer(self._state.session, self._serial, **params, left_ms=self._left_ms())

    def _left_ms(self) -> int:
        """What is left for the cloud: to the deadline, less a round trip as short as they may be; 0 without a deadline.

        Never a moment: the two ends' clocks have nothing to do with each other.
        """
        due_s, round_trip_s = self._state.due_s, self._state.estimates.round_trip_s
        if due_s == math.inf:
            return 0
        shortest_s = max(0.0, round_trip_s.mean - SPREADS * round_trip_s.deviation)
        return max(1, round((due_s - self._clock.time() - shortest_s) * 1e3))

    def _opening(self, chains: tuple[Chain, ...], traceparent: str) -> Open:
        state, sampling = self._state, self._sampling
        return Open(
            session=state.session,
            tokens=messages.pack(state.tree.tokens),
            start=state.start,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_new_tokens=state.rules.max_new_tokens,
            stop_tokens=state.rules.tokens,
            stop_strings=state.rules.strings,
            steer=self._steer(),
            chains=chains,
            traceparent=traceparent,
        )
