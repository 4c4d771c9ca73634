"""The journal: everything that happens in sessions, as frames of a record.

It listens at the ports, so the sessions themselves know nothing of it: on their observers, on the
links (``taps``), on the drafter and, where it is at hand, on the target.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from foredraft.edge.connections import Connect
from foredraft.edge.estimates import Estimates
from foredraft.edge.saved_estimates import estimates_as_plain
from foredraft.edge.session_report import SessionReport
from foredraft.observe.record.frames import Asked, Began, Ended, Frame, Noted, Passed
from foredraft.observe.record.taps import BothEnds, Note, tapped
from foredraft.protocol.around import DrafterAround
from foredraft.protocol.events import Event, Observer
from foredraft.protocol.messages import pack
from foredraft.protocol.ports import Drafter, Guess, Pass, Prediction, Slot, Target, TargetCard, Urgent, Verdict
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.protocol.tree import Node

LEFT_OUT = ("text", "tokens", "finish_reason", "unverified")
"""Fields of a report that are told elsewhere in a record, or not at all."""


class Journal:
    """Turns what it hears into frames for ``write``.

    ``session``: which session the running task belongs to.
    """

    def __init__(self, write: Callable[[Frame], None], session: Callable[[], int]) -> None:
        self._write = write
        self._session = session

    # Listening

    def observer(self, place: int, also: Observer | None = None) -> Observer:
        """What takes the events of one device or one server; ``also`` hears them, too."""

        def observe(event: Event) -> None:
            self._note(place, event.t_s, event.where, event.kind, event.data)
            if also is not None:
                also(event)

        return observe

    def both_ends(self, place: int) -> BothEnds:
        """What listens at both ends of a device's links."""
        return BothEnds(self._note_of(place))

    def connect(self, connect: Connect) -> Connect:
        """What listens at the edge's end of its links."""
        return tapped(connect, self._note_of(0))

    def drafter(self, drafter: Drafter, where: str = "edge") -> Drafter:
        """The drafter, at the ``edge`` or in the ``cloud``, with somebody who writes down what it says."""
        return _HeardDrafter(drafter, self, where)

    def target(self, target: Target) -> Target:
        """The target, with somebody who writes down what its exits say."""
        return _HeardTarget(target, self)

    # Writing

    def began(
        self,
        place: int,
        arrived_s: float,
        began_s: float,
        prompt: Sequence[int],
        sampling: Sampling,
        rules: StopRules,
        estimates: Estimates | None = None,
    ) -> None:
        """A session begins."""
        self._write(
            Began(
                session=self._session(),
                place=place,
                arrived_s=arrived_s,
                began_s=began_s,
                prompt_tokens=len(prompt),
                prompt=pack(prompt),
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                seed=sampling.seed,
                max_new_tokens=rules.max_new_tokens,
                stop_tokens=rules.tokens,
                stop_strings=rules.strings,
                estimates=None if estimates is None else estimates_as_plain(estimates),
            )
        )

    def ended(self, report: SessionReport) -> None:
        """A session has its text."""
        figures = {item.name: getattr(report, item.name) for item in fields(report) if item.name not in LEFT_OUT}
        self._write(Ended(self._session(), len(report.tokens), pack(report.tokens), report.finish_reason, figures))

    def said(self, where: str, node: Node, width: int, guesses: Sequence[Guess]) -> None:
        """What the drafter says below a node. A node that died meanwhile may have got no answer."""
        if guesses or node.alive:
            now_s, anchor = asyncio.get_running_loop().time(), node.anchor
            said = tuple((one.token, one.probability) for one in guesses)
            self._write(Asked(self._session(), now_s, where, anchor.position, anchor.hash, width, said))

    def passed(self, position: int, batch: Pass, heard: Sequence[Prediction]) -> None:
        """What the exits said in a pass whose tip is at ``position``."""
        if heard:
            predictions = tuple((one.layer, tuple(zip(one.tokens, one.confidence, strict=True))) for one in heard)
            self._write(Passed(self._session(), position, batch.tokens, batch.parents, predictions))

    def _note_of(self, place: int) -> Note:
        def note(where: str, kind: str, data: dict[str, Any]) -> None:
            self._note(place, asyncio.get_running_loop().time(), where, kind, data)

        return note

    def _note(self, place: int, t_s: float, where: str, kind: str, data: dict[str, Any]) -> None:
        self._write(Noted(self._session(), place, t_s, where, kind, data))


class _HeardDrafter(DrafterAround):
    """A drafter that somebody listens to."""

    def __init__(self, inner: Drafter, journal: Journal, where: str) -> None:
        super().__init__(inner)
        self._journal = journal
        self._where = where

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """What the inner drafter says."""
        guesses = await super().draft(nodes, width)
        for node, below in zip(nodes, guesses, strict=True):
            self._journal.said(self._where, node, width, below)
        return guesses

    async def close(self) -> None:
        """Close the inner drafter."""
        await self._inner.close()


class _HeardTarget:
    """A target that somebody listens to."""

    def __init__(self, inner: Target, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal

    @property
    def card(self) -> TargetCard:
        """The inner target's."""
        return self._inner.card

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> Slot:
        """A place at the inner target."""
        return _HeardSlot(await self._inner.slot(tokens, sampling, owner), self._journal)

    async def close(self) -> None:
        """Close the inner target."""
        await self._inner.close()


class _HeardSlot:
    """A slot that somebody listens to."""

    def __init__(self, inner: Slot, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal

    @property
    def cached(self) -> int:
        """The inner slot's."""
        return self._inner.cached

    def wanted_by(self, due_s: float) -> None:
        """As the inner slot, if it can."""
        if isinstance(self._inner, Urgent):
            self._inner.wanted_by(due_s)

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Run committed tokens."""
        return await self._inner.prefill(tokens)

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """Run one pass, and write down what the exits say."""
        position = self._inner.cached + len(batch.trunk)
        heard: list[Prediction] = []

        def hear(prediction: Prediction) -> None:
            heard.append(prediction)
            on_exit(prediction)

        try:
            return await self._inner.verify(batch, hear)
        finally:  # what an exit said may have reached the edge, even if the pass was dropped
            self._journal.passed(position, batch, heard)

    def keep(self, nodes: Sequence[int]) -> None:
        """Keep these nodes of the last pass."""
        self._inner.keep(nodes)

    def close(self) -> None:
        """Give the place up."""
        self._inner.close()
