"""``foredraft chat``: a conversation in the terminal."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foredraft.cli.options import Acceptance, Draft, DraftOption, Translate

if TYPE_CHECKING:
    from foredraft.api.conversation import Conversation
    from foredraft.api.edge import Edge
    from foredraft.images import EncodedImage

COMMANDS = ("/reset", "/system", "/policy", "/image", "/save", "/help", "/quit")
HELP = "/reset  /system TEXT  /policy NAME  /image FILE  /save FILE  /help  /quit; Ctrl-C stops an answer"


def chat(
    server: Annotated[
        list[str], typer.Option(help="URL of a server; repeat it for others to go on at when one is gone.")
    ],
    draft: Draft = "ngram",
    draft_option: DraftOption = None,
    translate: Translate = False,
    policy: Annotated[
        str | None,
        typer.Option(
            help="auto, cloud, sync, seed ..., with parameters: sync:gamma=6; or a policy file.",
            show_default="what the server recommends, else auto",
        ),
    ] = None,
    system: Annotated[str, typer.Option(help="What the model is told before all else.")] = "",
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy.", show_default="as the model's makers say, else 0.7")
    ] = None,
    acceptance: Acceptance = "noise",
    seed: Annotated[
        int | None, typer.Option(help="Seed of the noise; one is drawn for each answer if left out.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="An answer ends after so many tokens.")] = 1024,
    show_drafts: Annotated[
        bool, typer.Option(help="Colour what was drafted and accepted (green) and where the target corrected (yellow).")
    ] = False,
    device: Annotated[str, typer.Option(help="Device of the draft model: cpu, cuda ...")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of the model; 0 leaves the default.")] = 0,
    api_key: Annotated[str, typer.Option(help="The server's key.", envvar="FOREDRAFT_API_KEY", show_envvar=True)] = "",
    ssl_cafile: Annotated[Path | None, typer.Option(help="PEM certificate to trust.")] = None,
    retries: Annotated[int, typer.Option(help="How often to try again in a row, waiting longer each time.")] = 12,
) -> None:
    """Talk with the model: drafted here, verified by the server. /help says what else can be typed."""
    from foredraft.api.edge import connect
    from foredraft.api.loading import ModelOptions
    from foredraft.edge.connections import Retry
    from foredraft.links.address import trusting
    from foredraft.loop import new_event_loop
    from foredraft.policies import make_policy

    if policy is not None:
        make_policy(policy)  # what is wrong with it is said before anything is tried
    edge = connect(
        *server,
        draft=draft,
        options=ModelOptions(device=device, threads=threads, draft=tuple(draft_option or ()), translate=translate),
        api_key=api_key,
        retry=Retry(attempts=retries),
        ssl=trusting(ssl_cafile),
        acceptance=acceptance,
    )
    asked = {"policy": policy, "temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens}
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_talk(edge, system, asked, show_drafts))


async def _talk(edge: "Edge", system: str, asked: dict[str, Any], show_drafts: bool) -> None:
    """The whole conversation, until its input ends."""
    from foredraft.api.conversation import Conversation
    from foredraft.text.inert import inert

    async with edge:
        card = await edge.chat_card()
        sampling = {"temperature": card.temperature if card.temperature is not None else 0.7}
        sampling |= {name: value for name in ("top_p", "top_k") if (value := getattr(card, name)) is not None}
        chosen = sampling | {name: value for name, value in asked.items() if value is not None}
        interrupts = _Interrupts()
        turns = _Turns(edge, Conversation(edge, card, system), chosen, show_drafts, interrupts)
        lines = _Lines(sys.stdin.isatty() and sys.stdout.isatty(), interrupts)
        if lines.asking:
            print(f"{inert(card.name)}, drafted here. {HELP}", file=sys.stderr)
        while (line := await lines.next()) is not None:
            if not line.strip():
                continue
            if not await turns.take(line.strip()):
                return


class _Lines:
    """Lines of standard input, read in a thread so that links are looked after meanwhile."""

    def __init__(self, asking: bool, interrupts: "_Interrupts") -> None:
        """``asking``: whether there is somebody to prompt."""
        self.asking = asking
        self._interrupts = interrupts

    async def next(self) -> str | None:
        """The next line; None at the end, or where Ctrl-C was pressed in the place of one."""
        loop = asyncio.get_running_loop()
        read: asyncio.Future[str | None] = loop.create_future()

        def settle(line: str | None) -> None:
            if not read.done():
                read.set_result(line)

        def wait() -> None:
            line: str | None
            try:
                line = input("> ") if self.asking else sys.stdin.readline() or None
            except (EOFError, ValueError):
                line = None
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, line)

        threading.Thread(target=wait, name="standard input", daemon=True).start()
        with self._interrupts.mean(lambda: settle(None)):
            return await read


@dataclass
class _Turns:
    """What each line does."""

    edge: "Edge"
    conversation: "Conversation"
    options: dict[str, Any]
    show_drafts: bool
    interrupts: "_Interrupts"
    images: "list[EncodedImage]" = field(default_factory=list)
    """Those that the next line is about."""

    async def take(self, line: str) -> bool:
        """Follow a command, or let the model answer; whether to go on. What is wrong is said, and nothing is lost."""
        from foredraft.errors import ForedraftError
        from foredraft.text.inert import inert

        word, _, rest = line.partition(" ")
        if word == "/quit":
            return False
        try:
            if word.startswith("/"):
                self._command(word, rest.strip())
            else:
                await self._answer(line)
        except ForedraftError as error:
            print(f"error: {inert(str(error))}", file=sys.stderr)
        return True

    def _command(self, word: str, rest: str) -> None:
        from foredraft.errors import UnknownNameError
        from foredraft.images import image_of
        from foredraft.policies import make_policy

        if word == "/reset":
            first = self.conversation.messages[:1]
            self.conversation.begin(first[0]["content"] if first and first[0]["role"] == "system" else "")
        elif word == "/system":
            self.conversation.begin(rest)
        elif word == "/policy":
            make_policy(rest)
            self.options["policy"] = rest
        elif word == "/image":
            self.images.append(image_of(Path(rest)))
        elif word == "/save":
            self.conversation.save(Path(rest or "conversation.json"))
        elif word == "/help":
            print(HELP, file=sys.stderr)
        else:
            raise UnknownNameError("command", word, COMMANDS)

    async def _answer(self, line: str) -> None:
        """One answer, shown as it comes; Ctrl-C ends it and keeps what there is."""
        from foredraft.cli.drafts_shown import Painter
        from foredraft.cli.generated import show as show_text

        painter = Painter(self.edge.tokenizer) if self.show_drafts and sys.stdout.isatty() else None
        observer = None if painter is None else painter.observe
        images, self.images = self.images, []
        generation = self.conversation.ask(line, images, observer=observer, **self.options)

        async def show() -> None:
            async for piece in generation:
                if painter is None:
                    show_text(piece.text)
                else:
                    print(painter.paint(piece.tokens), end="", flush=True)

        showing = asyncio.ensure_future(show())
        with self.interrupts.mean(showing.cancel):
            await asyncio.gather(showing, return_exceptions=True)
        await generation.aclose()
        self.conversation.answered(generation)
        print()
        if not showing.cancelled() and (error := showing.exception()) is not None:
            raise error


class _Interrupts:
    """Ctrl-C, and what it means at the moment. One that comes in between is for what comes next."""

    def __init__(self) -> None:
        self._act: Callable[[], object] | None = None
        self._came = False
        with suppress(NotImplementedError):  # Windows: Ctrl-C ends the program
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._hear)

    def _hear(self) -> None:
        self._came = self._act is None
        if self._act is not None:
            self._act()

    @contextmanager
    def mean(self, act: Callable[[], object]) -> Iterator[None]:
        """While the block runs, Ctrl-C does this."""
        self._act = act
        if self._came:
            self._hear()
        try:
            yield
        finally:
            self._act = None
