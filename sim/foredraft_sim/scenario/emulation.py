"""What takes part in a replication, or in one island of it: one policy and one seed, in one loop of simulated time.

The sessions are those that are deployed: ``EdgeSession`` on each device, ``CloudService`` on each
server. Emulated are the devices (``engines.paced``), the links (``network``) and, with a synthetic
pair, the tokens. Every device has a link and random streams of its own.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from foredraft.cloud.service import CloudService
from foredraft.edge.connections import Connections, Retry
from foredraft.edge.deadline import Deadline
from foredraft.edge.estimates import Estimates
from foredraft.edge.session import EdgeSession
from foredraft.edge.session_report import SessionReport
from foredraft.engines.device import Device
from foredraft.engines.pace import Pace, Residual
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.errors import ForedraftError
from foredraft.keys import Key, Keys, hash_of
from foredraft.observe.record.frames import Frame, encode_frame
from foredraft.observe.record.journal import Journal
from foredraft.profiles import DeviceProfile, residual_factor
from foredraft.protocol.events import Observer
from foredraft.protocol.messages import PROTOCOL_VERSION, Hello
from foredraft.protocol.ports import Drafter, Link, NewDrafter
from foredraft_sim.errors import ScenarioError
from foredraft_sim.network.hosted import hosted
from foredraft_sim.network.network import SimLink, SimNetwork
from foredraft_sim.scenario.finished import Finished
from foredraft_sim.scenario.islands import Island, IslandDone
from foredraft_sim.scenario.pairs import Request, TokenSource
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import AsRecorded, Closed, Poisson
from foredraft_sim.scenario.simulated_record import closed, head_of
from foredraft_sim.streams import Streams

NewPace = Callable[[str], Pace | None]
"""What calls cost on one device of the ``edge``, one server of the ``cloud``, or the ``cloud draft`` beside it;
None: what its profile says."""

AT_ONCE_S: Final = 1e-6

REQUEST: ContextVar[int] = ContextVar("request")
"""Which request the running task belongs to; it travels from a device to the cloud's tasks that serve it."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is simulated, and what of it is kept; see ``replications.replicate``."""

    scenario: Scenario
    policy: str
    seed: int
    source: TokenSource
    log: bool = False
    texts: bool = False
    luck: int = 0
    new_pace: NewPace | None = None


async def emulate(run: Run, island: Island, arrivals_s: Sequence[float]) -> IslandDone:
    """What an island does from time 0 on; ``arrivals_s``: of all requests. Raises ScenarioError, ModelError."""
    return await _Emulation(run, island).run(arrivals_s)


class _Emulation:
    """Everything that takes part in one island."""

    def __init__(self, run: Run, island: Island) -> None:
        self.scenario, self.policy, self.seed, self.source = run.scenario, run.policy, run.seed, run.source
        self.texts = run.texts
        self.new_pace: NewPace = run.new_pace or (lambda where: None)
        self.journal = Journal(self._write, REQUEST.get) if run.log else None
        self._recorded = bytearray()
        self._draft_nodes = 0  # what a draft step may expand
        self.keys = keys_of(run.scenario)
        self.streams = Streams(run.seed).child(f"luck {run.luck}") if run.luck else Streams(run.seed)
        self.finished: list[Finished] = []
        self._serving: dict[asyncio.Task[None], None] = {}  # in the order in which they began
        self._connections = 0
        self._servers = {number: _Server(self, number) for number in island.servers}
        self._edges = [_Edge(self, number) for number in island.devices]

    async def run(self, arrivals_s: Sequence[float]) -> IslandDone:
        """All requests, to the end of the last text and of what is in flight then."""
        tasks = [asyncio.create_task(edge.run(arrivals_s), name=f"device {edge.number}") for edge in self._edges]
        try:
            await asyncio.gather(*tasks)
            duration_s = asyncio.get_running_loop().time()
            await asyncio.gather(*self._serving)
            servers_busy_s, devices_busy_s = await self._busy_s()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for server in self._servers.values():
                await server.engine.close()
            for edge in self._edges:
                await edge.engine.close()
        recorded = b"" if self.journal is None else self._record()
        return IslandDone(self.finished, duration_s, servers_busy_s, devices_busy_s, recorded=recorded)

    async def _busy_s(self) -> tuple[dict[int, float], dict[int, float]]:
        """What servers and devices were occupied, by number, when no call is in flight any more."""
        before = None
        while True:
            servers = {number: server.engine.device.busy_s for number, server in self._servers.items()}
            devices = {edge.number: edge.engine.device.busy_s for edge in self._edges}
            if (servers, devices) == before:
                return servers, devices
            before = servers, devices
            await asyncio.sleep(1.0)

    def _write(self, frame: Frame) -> None:
        self._recorded += encode_frame(frame)

    def _record(self) -> bytes:
        server, nodes = self._servers[0], self._draft_nodes
        hello = Hello(PROTOCOL_VERSION, secret_of(self.scenario, 0))
        ready, chunk = server.service.admit(hello), server.engine.card.prefill_chunk
        head = head_of(self.scenario, self.policy, self.seed, ready, prefill_chunk=chunk, draft_nodes=nodes)
        return closed(head + self._recorded)

    def drafter(self, where: str) -> Drafter:
        """A drafter that takes no time, for a device or (``cloud``) a server."""
        drafter = self.source.cloud_drafter() if where == "cloud" else self.source.drafter()
        self._draft_nodes = drafter.max_nodes_per_step
        return drafter if self.journal is None else self.journal.drafter(drafter, where)

    def serve(self, link: Link, device: int) -> None:
        """A server takes a device's connection."""
        server = self._next_server(device)
        server.open += 1
        link = hosted(link, server.engine.device, self.scenario.target.host.message_s)
        task = asyncio.create_task(server.service.handle(link), name=f"server {server.number}")
        self._serving[task] = None

        def served(task: "asyncio.Task[None]") -> None:
            server.open -= 1
            del self._serving[task]

        task.add_done_callback(served)

    def _next_server(self, device: int) -> "_Server":
        balance, servers = self.scenario.file.cloud.balance, self.scenario.file.cloud.servers
        if balance == "affinity":
            return self._servers[device % servers]
        self._connections += 1
        if balance == "round_robin":
            return self._servers[(self._connections - 1) % servers]
        return min(self._servers.values(), key=lambda server: server.open)

    def residual(self, profile: DeviceProfile, place: str) -> Residual | None:
        """What a device's durations vary by, from a stream of its own."""
        if profile.residual is None or profile.residual.cv == 0.0:
            return None
        cv, draw = profile.residual.cv, self.streams.child(place).stream("residual")
        return lambda kind: residual_factor(cv, draw.gauss(0.0, 1.0))


class _Server:
    """One server: a service, and an emulated device with the target on it."""

    def __init__(self, emulation: _Emulation, number: int) -> None:
        scenario, journal, target = emulation.scenario, emulation.journal, emulation.source.target()
        self.number = number
        self.open = 0  # connections
        self.engine = PacedTarget(
            target if journal is None else journal.target(target),
            scenario.target,
            device=Device(spin_s=0.0),
            residual=emulation.residual(scenario.target, f"server {number}"),
            outside=scenario.file.outside,
            headroom_tokens=scenario.longest[1],
            pace=emulation.new_pace("cloud"),
            opening_s=scenario.target.host.opening_s,
        )
        self.engine.divide(emulation.keys.weight_of, emulation.keys.cache_of)
        self.service = CloudService(
            self.engine,
            keys=emulation.keys,
            new_detokenizer=emulation.source.new_detokenizer,
            new_drafter=self._new_drafter(emulation),
            observer=None if journal is None else journal.observer(number),
        )

    def _new_drafter(self, emulation: "_Emulation") -> NewDrafter | None:
        """What drafts beside the target, on its device, where the scenario has that."""
        profile, outside, device = emulation.scenario.cloud_draft, emulation.scenario.file.outside, self.engine.device
        if profile is None:
            return None
        pace = emulation.new_pace("cloud draft")  # one for all sessions: they go through what was recorded in turn
        return lambda: PacedDrafter(emulation.drafter("cloud"), profile, device=device, outside=outside, pace=pace)


class _Edge:
    """One device: an emulated one with the draft on it, its link, and its requests one after another."""

    def __init__(self, emulation: _Emulation, number: int) -> None:
        scenario = emulation.scenario
        self._emulation = emulation
        self.number = number
        self.engine = PacedDrafter(
            emulation.drafter("edge"),
            scenario.draft,
            device=Device(spin_s=0.0),
            residual=emulation.residual(scenario.draft, f"device {number}"),
            outside=scenario.file.outside,
            pace=emulation.new_pace("edge"),
        )
        self._retry = Retry(attempts=scenario.file.edge.retries)
        self._secret = secret_of(scenario, number)
        self._kept: Connections | None = None
        self._estimates = Estimates() if scenario.file.edge.learns else None
        if scenario.file.edge.connected:
            self._kept = Connections(self._connect, self._secret, most_idle=1, retry=self._retry)
        self._network = SimNetwork(scenario.link, emulation.streams.child(f"link {number}"), self._accept)
        journal = emulation.journal
        self._observer: Observer | None = None if journal is None else journal.observer(number)
        self._taps = None if journal is None else journal.both_ends(number)

    def _accept(self, cloud: SimLink) -> None:
        self._emulation.serve(cloud if self._taps is None else self._taps.cloud(cloud), self.number)

    async def _connect(self) -> Link:
        began_s = asyncio.get_running_loop().time()
        edge = await self._network.connect()
        link = edge if self._taps is None else self._taps.edge(edge, began_s)
        return hosted(link, self.engine.device, self._emulation.scenario.draft.host.message_s)

    async def run(self, arrivals_s: Sequence[float]) -> None:
        """This device's requests. Raises ScenarioError naming the one that fails."""
        if self._kept is None:
            await self._requests(arrivals_s)
            return
        await self._meet(self._kept)
        await self._requests(arrivals_s)
        await self._kept.close()

    async def _meet(self, kept: Connections) -> None:
        """Connect before the first request."""
        try:
            await kept.meet()
        except ForedraftError as error:
            where = f"{self._emulation.scenario.path}: policies: {self._emulation.policy!r}"
            raise ScenarioError(f"{where}: device {self.number} finds no server: {error}") from error

    async def _requests(self, arrivals_s: Sequence[float]) -> None:
        scenario, seed = self._emulation.scenario, self._emulation.seed
        loop, pace = asyncio.get_running_loop(), scenario.workload.arrivals
        for request in range(self.number, scenario.workload.requests, scenario.workload.devices):
            if isinstance(pace, Closed):
                await asyncio.sleep(pace.pause_s(seed, request))
                arrived_s = loop.time()
            else:
                arrived_s = arrivals_s[request] if arrivals_s else 0.0
                await asyncio.sleep(arrived_s - loop.time())
            began_s = loop.time()
            REQUEST.set(request)
            report = await self._generate(request, arrived_s)
            digest = hashlib.sha256(json.dumps(report.tokens).encode()).hexdigest()[:16]
            kept = report if self._emulation.texts else replace(report, tokens=[], text="")
            self._emulation.finished.append(Finished(request, arrived_s, began_s, kept, digest))

    async def _generate(self, request: int, arrived_s: float) -> SessionReport:
        emulation = self._emulation
        scenario, source, journal = emulation.scenario, emulation.source, emulation.journal
        where = f"{scenario.path}: policies: {emulation.policy!r}"
        try:
            asked = source.request(emulation.seed, request)
            if journal is not None:
                began_s = asyncio.get_running_loop().time()
                journal.began(self.number, arrived_s, began_s, asked.prompt, asked.sampling, asked.rules)
            session = self._session(request, asked, arrived_s)
            await session.run()
        except ForedraftError as error:
            raise ScenarioError(f"{where}: request {request} of seed {emulation.seed} failed: {error}") from error
        except Exception as error:  # the policy may be anybody's
            reason = f"{type(error).__name__}: {error}"
            raise ScenarioError(f"{where}: request {request} of seed {emulation.seed} raised {reason}") from error
        report = session.report()
        if journal is not None:
            journal.ended(report)
        return replace(report, text=source.text(report.tokens))

    def _session(self, request: int, asked: Request, arrived_s: float) -> EdgeSession:
        scenario = self._emulation.scenario
        return EdgeSession(
            asked.prompt,
            connect=self._kept or self._connect,
            drafter=self.engine,
            policy=scenario.policy(self._emulation.policy),
            sampling=asked.sampling,
            rules=asked.rules,
            api_key=self._secret,
            retry=self._retry,
            observer=self._observer,
            name=str(request),
            estimates=asked.estimates or self._estimates,
            deadline=self._deadline(arrived_s),
            rejection=scenario.rejects,
        )

    def _deadline(self, arrived_s: float) -> Deadline | None:
        """What is left of it when the device takes the request up; one that waited for too long ends at once."""
        within_s = self._emulation.scenario.workload.deadline_s
        if within_s is None:
            return None
        return Deadline(max(AT_ONCE_S, arrived_s + within_s - asyncio.get_running_loop().time()))


def keys_of(scenario: Scenario) -> Keys:
    """The servers' keys."""
    tables = scenario.file.keys
    keys = {one.name: Key(name=one.name, hash=hash_of(one.name), weight=one.weight) for one in tables}
    return Keys(keys, needed=bool(keys))


def secret_of(scenario: Scenario, device: int) -> str:
    """What a device shows: in a simulation a key's name is its secret."""
    found = scenario.key_of(device)
    return "" if found is None else found.name


def arrivals(scenario: Scenario, seed: int) -> list[float]:
    """When each request comes, in seconds since the start; empty where that is not known beforehand, or at once."""
    pace = scenario.workload.arrivals
    if isinstance(pace, AsRecorded) and scenario.traffic is not None:
        came_s = map(scenario.traffic.arrives_s, range(scenario.workload.requests))
        return [round(one_s / pace.speed, 9) for one_s in came_s]
    if not isinstance(pace, Poisson):
        return []
    draw = Streams(seed).stream("arrivals")
    gaps_s = (draw.expovariate(pace.rate_per_s) for _ in range(scenario.workload.requests))
    return [round(arrived_s, 9) for arrived_s in accumulate(gaps_s)]  # whole nanoseconds, as the clock
