"""``foredraft_sim.connect``: the edge that an application gets from ``foredraft.connect``, in simulated time.

@pytest.mark.simulated
async def test_the_robot_stops_when_the_network_goes() -> None:
    async with foredraft_sim.connect("robot.toml", seed=1) as edge:
        robot = Robot(edge)                    # the code that is deployed
        edge.world.cut_link(duration_s=5.0)
        ...
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foredraft.api.edge import Edge
from foredraft.api.generation import Generation
from foredraft.api.loading import ModelOptions
from foredraft.edge.connections import Retry
from foredraft.engines.device import Device
from foredraft.protocol.events import Event, Observer
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.world.world import World

_SEEDS = 1 << 32


class SimulatedEdge(Edge):
    """A device in a world: ``foredraft.Edge``, and the ``world`` that it is in."""

    def __init__(self, world: World, device: int, retry: Retry, owns_world: bool) -> None:
        self.world = world
        self._device = Device(spin_s=0.0)
        self._owns_world = owns_world
        self._seeds = world.streams.child(f"device {device}").stream("seeds")
        new_drafter = world.new_drafter(device, self._device)
        super().__init__(world.places(device), new_drafter, ModelOptions(), "", retry, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            if self._owns_world:
                await self.world.__aexit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    def generate(self, prompt: str | Sequence[int], *, observer: Observer | None = None, **options: Any) -> Generation:
        """As ``foredraft.Edge.generate``; the world keeps the events, and draws the seed where none is given."""
        note = self.world.note

        def observe(event: Event) -> None:
            note(event)
            if observer is not None:
                observer(event)

        if options.get("seed") is None:
            options["seed"] = self._seeds.randrange(_SEEDS)
        return super().generate(prompt, observer=observe, **options)


def connect(
    scenario: str | Path | Scenario | World, *, seed: int = 1, device: int = 0, retry: Retry | None = None
) -> SimulatedEdge:
    """An edge on a device of a scenario; use it as ``async with connect(...) as edge``, within a SimLoop.

    ``scenario``: a TOML file as ``foredraft simulate`` takes it, or a world that other devices are in already;
    ``device``: which one this is (each has a link and luck of its own). ``seed``: the same seed, the same world.
    Raises ScenarioError, ModelError, SimulationError.
    """
    shared = isinstance(scenario, World)
    world = scenario if isinstance(scenario, World) else World(scenario, seed)
    return SimulatedEdge(world, device, retry or Retry(), owns_world=not shared)
