"""The world around one application in simulated time: servers, devices and links of a scenario, and what befalls them.

What runs in it is what is deployed: ``foredraft.Edge`` on each device, ``CloudService`` on each server. Emulated are
the devices, the links and, with a synthetic pair, the tokens. Everything that happens by chance is drawn from the
seed, so the same test meets the same world each time.
"""

import asyncio
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from foredraft.cloud.service import CloudService
from foredraft.engines.device import Device
from foredraft.engines.pace import Pace, Residual
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.errors import MissingExtraError, UnreachableError
from foredraft.profiles import DeviceProfile, residual_factor
from foredraft.protocol.events import Event
from foredraft.protocol.ports import Link, NewDrafter, NewGrammar
from foredraft.text.grammar import Grammars
from foredraft.text.tokenizer import Tokenizer
from foredraft_sim.errors import SimulationError
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.network.hosted import hosted
from foredraft_sim.network.network import SimLink, SimNetwork
from foredraft_sim.scenario.pairs import ModelSource, token_source
from foredraft_sim.scenario.scenario import Scenario, read_scenario
from foredraft_sim.streams import Streams
from foredraft_sim.tokens.fitted import DrawnPair
from foredraft_sim.world.words import made_up_words

End = Literal["edge", "cloud"]


class World:
    """Servers, and devices that ``foredraft_sim.connect`` puts into it. Use it as a context, within a SimLoop.

    ``events``: what edges and servers noted so far, in order. ``servers``: how many there are.
    """

    def __init__(self, scenario: str | Path | Scenario, seed: int = 1) -> None:
        """``scenario``: a TOML file, as ``foredraft simulate`` takes it; its workload and policies do not matter here.

        Raises ScenarioError, ModelError; SimulationError on any other loop than a SimLoop.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, SimLoop):
            raise SimulationError(
                "a world needs simulated time: mark the test with @pytest.mark.simulated, or run the coroutine with "
                "asyncio.Runner(loop_factory=foredraft_sim.SimLoop)"
            )
        self.scenario = scenario if isinstance(scenario, Scenario) else read_scenario(Path(scenario))
        self.seed = seed
        self.streams = Streams(seed)
        self.events: list[Event] = []
        self._loop = loop
        self._source = token_source(self.scenario)
        self._slowness: dict[str, float] = {"edge": 1.0, "cloud": 1.0}
        self._down_until_s = 0.0
        self._servers = [_Server(self, number) for number in range(self.scenario.file.cloud.servers)]

    @property
    def now_s(self) -> float:
        """Simulated seconds on the loop's clock."""
        return self._loop.time()

    @property
    def servers(self) -> int:
        """How many servers there are."""
        return len(self._servers)

    # What may happen

    def cut_link(self, duration_s: float = 0.0) -> None:
        """Break all links here and now; for ``duration_s`` there is no way to any server."""
        self._down_until_s = max(self._down_until_s, self.now_s + duration_s)
        for server in self._servers:
            server.cut()

    def kill_server(self, number: int = 0) -> None:
        """A server is gone, and all that it knew; its links break. ``start_server`` brings it back."""
        self._servers[number].kill()

    def start_server(self, number: int = 0) -> None:
        """A server that was killed is there again, and remembers nothing."""
        self._servers[number].start()

    def drain_server(self, number: int = 0, retry_after_s: float = 1.0) -> None:
        """A server says that it goes away, and takes nobody for ``retry_after_s``; then it is there again."""
        self._servers[number].drain(retry_after_s)

    def slow_down(self, end: End, factor: float) -> None:
        """From the next call on, what the devices at one end do takes ``factor`` times as long as by their profile.

        Raises SimulationError for a factor that is not above 0.
        """
        if not factor > 0.0:
            raise SimulationError(f"a device can be slowed down by a factor above 0, not {factor!r}")
        self._slowness[end] = factor

    # What edges are made of

    def tokenizer(self) -> Tokenizer | None:
        """The pair's tokenizer, or made-up words for a synthetic pair; None for a recorded one."""
        if isinstance(self._source, ModelSource):
            return self._source.tokenizer
        pair = self.scenario.pair
        return made_up_words(pair.vocab_size) if isinstance(pair, DrawnPair) else None

    @cached_property
    def new_grammar(self) -> NewGrammar | None:
        """Makes the grammars of texts; None where the pair has no tokenizer of a model, and without the library."""
        if not isinstance(self._source, ModelSource):
            return None
        card = self._source.target().card
        try:
            return Grammars(self._source.tokenizer.json, card.vocab_size, card.stop_tokens).begin
        except MissingExtraError:
            return None

    def places(self, device: int) -> list["Place"]:
        """The servers, as a device reaches each over its own link."""
        return [Place(self, server, device) for server in self._servers]

    def new_drafter(self, device: int, on: Device) -> NewDrafter:
        """What makes a drafter for one text, which runs ``on`` a device with others."""
        profile = self.scenario.draft
        pace = Pace(profile, self.residual(profile, "edge", f"device {device}"), self.scenario.file.outside)
        return lambda: PacedDrafter(self._source.drafter(), profile, device=on, pace=pace)

    def note(self, event: Event) -> None:
        """Remember an event."""
        self.events.append(event)

    def residual(self, profile: DeviceProfile, end: End, place: str) -> Residual:
        """What a device's durations vary by, and how much slower it is at the moment."""
        draw = self.streams.child(place).stream("residual")
        cv = 0.0 if profile.residual is None else profile.residual.cv

        def factor(kind: str) -> float:
            chance = residual_factor(cv, draw.gauss(0.0, 1.0)) if cv else 1.0
            return chance * self._slowness[end]

        return factor

    def check_way(self) -> None:
        """Raise UnreachableError while the link is cut."""
        if (left_s := self._down_until_s - self.now_s) > 0.0:
            raise UnreachableError(f"the network is down for another {left_s:g} s")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            await server.close()


class _Server:
    """One server: a service and an emulated device with the target on it, while it is not gone."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        self._away_until_s = 0.0
        self._links: dict[SimLink, asyncio.Task[None]] = {}
        self._gone: list[PacedTarget] = []
        self.start()

    def start(self) -> None:
        """Begin with nothing in memory."""
        world, scenario = self._world, self._world.scenario
        self._away_until_s = 0.0
        self._engine = PacedTarget(
            world._source.target(),
            scenario.target,
            device=Device(spin_s=0.0),
            residual=world.residual(scenario.target, "cloud", f"server {self.number}"),
            outside=scenario.file.outside,
            opening_s=scenario.target.host.opening_s,
        )
        tokenizer = world.tokenizer()
        self._service = CloudService(
            self._engine,
            new_detokenizer=None if tokenizer is None else tokenizer.stream,
            new_drafter=self._new_drafter(),
            new_grammar=world.new_grammar,
            observer=world.note,
        )

    def _new_drafter(self) -> Callable[[], PacedDrafter] | None:
        world, profile = self._world, self._world.scenario.cloud_draft
        if profile is None:
            return None
        device, outside = self._engine.device, world.scenario.file.outside
        return lambda: PacedDrafter(world._source.cloud_drafter(), profile, device=device, outside=outside)

    def check(self) -> None:
        """Raise UnreachableError while it is gone."""
        if self._away_until_s > self._world.now_s:
            raise UnreachableError(f"server {self.number} does not answer")

    def accept(self, link: SimLink) -> None:
        """An edge has connected."""
        message_s = self._world.scenario.target.host.message_s
        served = self._service.handle(hosted(link, self._engine.device, message_s))
        task = self._links[link] = asyncio.create_task(served, name=f"server {self.number}")
        task.add_done_callback(lambda task: self._links.pop(link, None))

    def cut(self) -> None:
        """Its links break."""
        for link in list(self._links):
            link.cut()

    def kill(self) -> None:
        """Be gone until ``start``."""
        self._away_until_s = float("inf")
        self.cut()
        for task in self._links.values():
            task.cancel()
        self._gone.append(self._engine)

    def drain(self, retry_after_s: float) -> None:
        """Say goodbye, and be away for a while."""
        self._service.drain(retry_after_s)
        self._away_until_s = self._world.now_s + retry_after_s

    async def close(self) -> None:
        """End what it still does."""
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine in (*self._gone, self._engine):
            await engine.close()


class Place:
    """A server as one device sees it. Where a URL would stand (``foredraft.api.edge.Host``)."""

    def __init__(self, world: World, server: _Server, device: int) -> None:
        self.tokenizer = world.tokenizer()
        self._world, self._server = world, server
        streams = world.streams.child(f"link {device} to {server.number}")
        self._network = SimNetwork(world.scenario.link, streams, server.accept)

    async def connect(self) -> Link:
        """A link, after the round trips that connecting takes. Raises UnreachableError."""
        self._check()
        link = await self._network.connect()
        try:
            self._check()
        except UnreachableError:
            link.cut()
            raise
        return link

    def _check(self) -> None:
        self._world.check_way()
        self._server.check()
