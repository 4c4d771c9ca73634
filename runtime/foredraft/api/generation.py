"""One text on its way: its pieces as they come, and what is known of it afterwards."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from foredraft.edge.deadline import DEADLINE
from foredraft.edge.ending import Ending
from foredraft.edge.session import EdgeSession
from foredraft.edge.session_report import SessionReport
from foredraft.edge.state import Scored
from foredraft.errors import ConfigError
from foredraft.observe.explain import explain
from foredraft.observe.record.recorder import Recorder
from foredraft.policies.recommended import origin_of, policy_line, spec_of_running
from foredraft.text.tokenizer import TextStream

if TYPE_CHECKING:
    from foredraft.observe.spans import TextSpan


@dataclass(frozen=True, slots=True)
class Piece:
    """What one commit added: tokens, and the text that they made certain.

    ``text`` has whole characters only, and ends before a stop string; it may be empty. ``logprobs``, where asked for:
    of each token (id, log-probability), and after it those of the most probable ones. ``unverified``: its tokens are
    not the target's: the text missed its deadline, and this is how it ends without the cloud.
    """

    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[Scored, ...] = ()
    unverified: bool = False


class Generation:
    """One text on its way: iterate over it for its pieces.

    Whoever leaves the loop early calls ``aclose``, or writes ``async with edge.generate(...) as generation``: it tells
    the cloud to stop, as the end of the edge does. ``seed`` is what was given or drawn.
    """

    def __init__(
        self,
        session: EdgeSession,
        text: TextStream | None,
        seed: int,
        begin: "Callable[[Generation], Awaitable[None]]",
        end: "Callable[[Generation], None]",
        recorder: Recorder | None = None,
        *,
        translated: bool = False,
        ending: Ending | None = None,
        span: "TextSpan | None" = None,
    ) -> None:
        self.seed = seed
        self._span = span
        self._ending = ending
        self._translated = translated
        self._begin, self._end = begin, end
        self._recorder = recorder
        self._session = session
        self._stream = text
        self._text: list[str] = []
        self._shown = 0  # tokens
        self._pieces = self._generate()

    @property
    def policy_spec(self) -> str:
        """The policy that runs, given, recommended or ``auto``, as it is named. Raises ConfigError if it cannot be."""
        return spec_of_running(self._session.policy)

    @property
    def report(self) -> SessionReport:
        """What happened so far; complete once the iteration has ended."""
        report = self._session.report("".join(self._text))
        more: dict[str, Any] = {"policy_from": origin_of(self._session.policy), "translated": self._translated}
        if self._ending is not None and report.finish_reason == DEADLINE:
            more |= {"finish_reason": self._ending.reason, "unverified": list(self._ending.tokens)}
        return replace(report, **more)

    def explanation(self) -> list[str]:
        """In words and figures: which policy ran, what was measured and chosen, what each scheme would cost."""
        state = self._session.state
        said = explain(state.estimates.snapshot(), self.report, state.most_pass_nodes)
        return [policy_line(self._session.policy), *said]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """The next piece.

        Raises UnreachableError (retries are used up), RefusedError (the cloud says no), ModelError (the
        two ends do not fit), LinkClosedError (its edge has ended). What came before stays valid.
        """
        return await anext(self._pieces)

    async def finish(self) -> SessionReport:
        """Take the rest of the text; the report. Raises what the iteration raises."""
        async for _ in self:
            pass
        return self.report

    async def aclose(self) -> None:
        """Stop here. Raises ConfigError while another task iterates over it."""
        try:
            await self._pieces.aclose()
        except RuntimeError as error:  # asyncio's word for an async generator that runs elsewhere
            reason = (
                "this text is being generated already, in another task; for texts side by side with a drafter of one's "
                "own, give connect(draft=...) what makes drafters in the place of one"
            )
            raise ConfigError(reason) from error

    async def end(self) -> None:
        """Stop here as its edge ends; another task that iterates over it gets LinkClosedError."""
        try:
            await self._pieces.aclose()
        except RuntimeError:  # it runs elsewhere
            await self._session.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _generate(self) -> AsyncGenerator[Piece, None]:
        await self._begin(self)
        try:
            with nullcontext() if self._span is None else self._span.over(self._session, lambda: self.report):
                async with aclosing(self._recorded_text()) as pieces:
                    async for piece in pieces:
                        yield piece
        finally:
            self._end(self)

    async def _recorded_text(self) -> AsyncGenerator[Piece, None]:
        if self._recorder is not None:
            self._recorder.begin()
        try:
            async with aclosing(self._whole_text()) as pieces:
                async for piece in pieces:
                    yield piece
            if self._recorder is not None:
                await self._recorder.finish(self.report)
        except BaseException as error:
            if self._recorder is not None:
                self._recorder.give_up(f"{type(error).__name__} {error}".rstrip())
            raise

    async def _whole_text(self) -> AsyncGenerator[Piece, None]:
        stream = self._session.stream()
        try:
            async for tokens in stream:
                yield self._piece(tokens)
        finally:
            await stream.aclose()
        if self._ending is not None and self._session.state.finish == DEADLINE:
            async with aclosing(self._without_cloud(self._ending)) as pieces:
                async for piece in pieces:
                    yield piece
        if self._stream is not None and (rest := self._stream.flush()):
            self._text.append(rest)
            yield Piece((), rest)

    async def _without_cloud(self, ending: Ending) -> AsyncGenerator[Piece, None]:
        """How the text ends after its deadline, token by token, up to a stop string."""
        stream = self._stream
        async with aclosing(ending.follow(self._session.state.tree.tokens)) as tokens:
            async for token in tokens:
                text = "" if stream is None else stream.step(token)
                self._text.append(text)
                if stream is not None and stream.stopped:
                    ending.stopped()
                yield Piece((token,), text, unverified=True)
                if stream is not None and stream.stopped:
                    return

    def _piece(self, tokens: list[int]) -> Piece:
        text = "" if self._stream is None else "".join(map(self._stream.step, tokens))
        self._text.append(text)
        logprobs = self._session.state.logprobs[self._shown : self._shown + len(tokens)]
        self._shown += len(tokens)
        return Piece(tuple(tokens), text, tuple(logprobs))
