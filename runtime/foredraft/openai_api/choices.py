"""The choices of one request: texts side by side, and what comes of them in the order in which it comes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from foredraft.edge.session_report import SessionReport
from foredraft.edge.state import Scored
from foredraft.errors import UnreachableError
from foredraft.openai_api.room import Room
from foredraft.openai_api.texts import Text
from foredraft.openai_api.tool_calls import ToolCallReader
from foredraft.protocol.messages import STOP


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of a choice. ``finish``: why it ended, on its last one."""

    choice: int
    text: str
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    logprobs: tuple[Scored, ...] = ()


class Choice:
    """One text of an answer. ``begin`` makes it, when its turn has come.

    ``policy`` is there once it has begun, ``report`` once it has ended. ``tokens``: so far.
    The last ``unverified_tokens`` are the draft's, and not among them.
    """

    def __init__(
        self,
        index: int,
        prompt: list[int],
        begin: Callable[[], Text],
        *,
        opening: str = "",
        tools: bool = False,
        deadline_s: float | None = None,
        unverified: Callable[[SessionReport], tuple[str, int]] | None = None,
    ) -> None:
        """``opening``: what it begins with, before any token. ``tools``: whether to look for tool calls.

        ``deadline_s``: from now on, whether it waits or runs. ``unverified``: what the draft says beyond the text of
        this report, and in how many tokens, where an answer may end with that.
        """
        self.index = index
        self.prompt = prompt
        self.policy = ""
        self.unverified_tokens = 0
        self.tokens = 0
        self.report: SessionReport | None = None
        self._begin = begin
        self._opening = opening
        self._unverified = unverified
        self._tools = ToolCallReader() if tools else None
        self._end_s = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s

    @property
    def prompt_tokens(self) -> int:
        """Those of its prompt, images included once it has ended."""
        return len(self.prompt) if self.report is None else self.report.prompt_tokens

    async def write(self, room: Room, tell: Callable[[Delta], None]) -> None:
        """Generate it, and tell what comes. Raises ForedraftError."""
        if self._opening:
            tell(Delta(self.index, self._opening))
        stopped = False
        try:
            async with asyncio.timeout_at(self._end_s), room.place():
                stopped = await self._generate(tell) == STOP
        except TimeoutError:
            self._go_on_alone(tell)
        except UnreachableError:
            if not self._go_on_alone(tell):
                raise
        tell(self._last("stop" if stopped else "length"))

    async def _generate(self, tell: Callable[[Delta], None]) -> str:
        """Returns why it ended."""
        text = self._begin()
        self.policy = text.policy_spec
        try:
            async for piece in text:
                self.tokens += len(piece.tokens)
                shown = piece.text if self._tools is None else self._tools.feed(piece.text)
                if shown or piece.logprobs:
                    tell(Delta(self.index, shown, logprobs=piece.logprobs))
        finally:
            await text.aclose()
            self.report = text.report
        return text.report.finish_reason

    def _go_on_alone(self, tell: Callable[[Delta], None]) -> bool:
        """End with what the draft says while the cloud is away; whether that is anything."""
        if self._unverified is None or self.report is None:
            return False
        text, self.unverified_tokens = self._unverified(self.report)
        if self.unverified_tokens:
            tell(Delta(self.index, text))
        return self.unverified_tokens > 0

    def _last(self, finish: str) -> Delta:
        rest, calls = ("", []) if self._tools is None else self._tools.finish()
        return Delta(self.index, rest, calls, "tool_calls" if calls else finish)


async def written(choices: Sequence[Choice], room: Room) -> AsyncGenerator[Delta, None]:
    """All choices at once, delta by delta. Closing it ends them. Raises what one of them raises."""
    news: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()

    async def write(choice: Choice) -> None:
        try:
            await choice.write(room, news.put_nowait)
        except Exception as error:
            news.put_nowait(error)
        finally:
            news.put_nowait(None)

    tasks = [asyncio.create_task(write(choice), name=f"choice {choice.index}") for choice in choices]
    left = len(tasks)
    try:
        while left:
            one = await news.get()
            if one is None:
                left -= 1
            elif isinstance(one, BaseException):
                raise one
            else:
                yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
