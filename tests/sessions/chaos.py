"""One session in a hostile world in simulated time: a link that misbehaves, engines that check how they are used.

Everything random is drawn from one generator, so a scenario with its seed is one schedule.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random

from foredraft.cloud.service import CloudService
from foredraft.cloud.state import Limits
from foredraft.edge.connections import Retry
from foredraft.edge.policy import Policy
from foredraft.edge.session import EdgeSession
from foredraft.errors import RefusedError
from foredraft.protocol import messages
from foredraft.protocol.ports import Guess, Pass, Prediction, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.protocol.tree import Node
from foredraft_sim.chaos.storm import CALM, Storm, StormyLink, Weather, stormy_link

EXITS = (2, 4)


class CheckedTarget:
    """A target with a script that checks every use against the text that must come out."""

    def __init__(
        self, text: Sequence[int], card: TargetCard, rng: Random, pass_s: float, busy: int, wrong: float
    ) -> None:
        self.text = text
        self.card = card
        self.rng = rng
        self.pass_s = pass_s
        self.busy = busy  # refusals still to come
        self.wrong = wrong  # share of wrong exit readings
        self.open_slots = 0
        self.device = asyncio.Lock()

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> "CheckedSlot":
        await asyncio.sleep(0)
        if self.busy:
            self.busy -= 1
            raise RefusedError(messages.BUSY, "no place free", self.rng.choice((0.0, 0.5)))
        assert list(tokens) == list(self.text[: len(tokens)])
        return CheckedSlot(self, self.rng.randrange(len(tokens)))

    async def close(self) -> None:
        pass

    def says(self, position: int) -> int:
        return self.text[position] if position < len(self.text) else 1


class CheckedSlot:
    """A slot that knows the text and the port's promises."""

    def __init__(self, target: CheckedTarget, cached: int) -> None:
        self.target = target
        self.cached = cached
        self._open = True
        self._last: Pass | None = None
        target.open_slots += 1

    async def prefill(self, tokens: Sequence[int]) -> float:
        assert self._open
        assert 0 < len(tokens) <= self.target.card.prefill_chunk
        assert list(tokens) == list(self.target.text[self.cached : self.cached + len(tokens)])
        async with self.target.device:
            await asyncio.sleep(self.target.pass_s)
        self.cached += len(tokens)
        return self.target.pass_s

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        target, rng = self.target, self.target.rng
        assert self._open
        assert 0 < len(batch.trunk) <= target.card.prefill_chunk
        assert list(batch.trunk) == list(target.text[self.cached : self.cached + len(batch.trunk)])
        assert len(batch.tokens) == len(batch.parents) <= target.card.max_pass_nodes
        assert list(batch.exits) == sorted(set(batch.exits) & set(EXITS))
        depths = [0]
        for node, parent in enumerate(batch.parents):
            assert -1 <= parent < node
            depths.append(depths[parent + 1] + 1)
        tip = self.cached + len(batch.trunk)
        assert tip + max(depths) < target.card.context + (max(depths) == 0)
        async with target.device:
            for layer in batch.exits:
                await asyncio.sleep(target.pass_s / 3)
                seen = [target.says(tip + d) if rng.random() >= target.wrong else rng.randrange(8) for d in depths]
                on_exit(Prediction(layer, tuple(seen), tuple(rng.random() for _ in depths)))
            await asyncio.sleep(target.pass_s / 3)
        self.cached = tip
        self._last = batch
        said = tuple(target.says(tip + depth) for depth in depths)
        return Verdict(Prediction(target.card.layers, said, (1.0,) * len(said)), 0.0, target.pass_s)

    def keep(self, nodes: Sequence[int]) -> None:
        assert self._open
        assert self._last is not None
        above = -1
        for node in nodes:
            assert self._last.parents[node] == above
            assert self._last.tokens[node] == self.target.says(self.cached)
            self.cached += 1
            above = node
        self._last = None

    def close(self) -> None:
        assert self._open
        self._open = False
        self.target.open_slots -= 1


class ChaosDrafter:
    """Guesses right with a given probability, or has no idea; checks that the core keeps the port's promises."""

    tokenizer_digest = ""

    def __init__(self, text: Sequence[int], rng: Random, step_s: float, right: float, max_nodes_per_step: int) -> None:
        self.text = text
        self.rng = rng
        self.step_s = step_s
        self.right = right
        self.max_nodes_per_step = max_nodes_per_step
        self.known: list[int] = []
        self.steps = 0
        self._busy = False

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        assert not self.known
        await asyncio.sleep(self.step_s)
        self.known = list(tokens)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        assert self.known
        assert not self._busy
        assert 0 < len(nodes) <= self.max_nodes_per_step
        assert all(node.alive for node in nodes)
        self._busy = True
        self.steps += 1
        await asyncio.sleep(self.step_s)
        self._busy = False
        return [self._guesses(node, width) for node in nodes]

    def _guesses(self, node: Node, width: int) -> list[Guess]:
        rng, position = self.rng, node.position
        if not node.alive or rng.random() < 0.1:
            return []
        tokens = {self.text[position] if position < len(self.text) and rng.random() < self.right else rng.randrange(8)}
        tokens |= {rng.randrange(8) for _ in range(width - 1)}
        return [Guess(token, rng.random()) for token in sorted(tokens)][:width]

    def advance(self, tokens: Sequence[int]) -> None:
        assert self.known
        self.known += tokens
        assert self.known == list(self.text[: len(self.known)])

    async def close(self) -> None:
        pass


NEVER_IDLE = Limits(idle_s=1e6)


@dataclass(frozen=True)
class World:
    """One scenario but for the policy. The text is ``length`` tokens after a prompt of ``prompt``."""

    seed: int = 0
    prompt: int = 3
    length: int = 20
    context: int = 1 << 20
    stop_at: int | None = None  # the generated token at this index is a stop token
    weather: Weather = CALM
    limits: Limits = NEVER_IDLE
    max_pass_nodes: int = 8
    prefill_chunk: int = 8
    pass_s: float = 0.1
    step_s: float = 0.02
    busy: int = 0
    right: float = 0.7
    wrong_hints: float = 0.3
    max_nodes_per_step: int = 2

    def text(self) -> list[int]:
        rng = Random(self.seed)
        tokens = [rng.randrange(2, 8) for _ in range(self.prompt + self.length)]
        if self.stop_at is not None and self.stop_at < self.length:
            tokens[self.prompt + self.stop_at] = 9
        return tokens

    def expected(self) -> tuple[list[int], str]:
        """The tokens that must come out, and why they end."""
        text = self.text()
        ends = [(self.prompt + self.length, messages.LENGTH)]
        if self.stop_at is not None and self.stop_at < self.length:
            ends.insert(0, (self.prompt + self.stop_at + 1, messages.STOP))
        if self.context < self.prompt + self.length:
            ends.append((self.context, messages.CONTEXT))
        end, finish = min(ends, key=lambda entry: entry[0])
        return text[self.prompt : end], finish


@dataclass
class Outcome:
    """What came out of a session in a storm."""

    shown: list[int]
    session: EdgeSession
    service: CloudService
    target: CheckedTarget
    drafter: ChaosDrafter
    storm: Storm
    took_s: float


async def live_through(world: World, new_policy: Callable[[Random], Policy]) -> Outcome:
    """Run one session in that world to its end; nothing may be left running."""
    rng = Random(world.seed + 1)
    text = world.text()
    card = TargetCard(
        "model", "", 16, world.context, 6, EXITS, max_pass_nodes=world.max_pass_nodes, prefill_chunk=world.prefill_chunk
    )
    target = CheckedTarget(text, card, rng, world.pass_s, world.busy, world.wrong_hints)
    drafter = ChaosDrafter(text, rng, world.step_s, world.right, world.max_nodes_per_step)

    def new_drafter() -> ChaosDrafter:
        return ChaosDrafter(text, rng, world.step_s, world.right, world.max_nodes_per_step)

    service = CloudService(target, limits=world.limits, new_drafter=new_drafter)
    storm = Storm(world.weather, rng)
    serving: list[asyncio.Task[None]] = []

    async def connect() -> StormyLink:
        edge, cloud = stormy_link(storm)
        serving.append(asyncio.create_task(service.handle(cloud)))
        return edge

    session = EdgeSession(
        text[: world.prompt],
        connect=connect,
        drafter=drafter,
        policy=new_policy(rng),
        sampling=Sampling(),
        rules=StopRules(world.length, tokens=(9,)),
        retry=Retry(attempts=world.weather.cuts + world.busy + 1),
    )
    shown: list[int] = []
    try:
        async with aclosing(session.stream()) as stream:
            async for tokens in stream:
                assert tokens
                shown += tokens
                assert shown == text[world.prompt : world.prompt + len(shown)]
    finally:
        await asyncio.gather(*serving)
        await asyncio.sleep(10.0)  # what is still in the air lands
    outcome = Outcome(shown, session, service, target, drafter, storm, asyncio.get_running_loop().time())
    check_nothing_is_left(outcome)
    return outcome


def check_nothing_is_left(outcome: Outcome) -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert outcome.target.open_slots == 0
    assert outcome.service.counters.active == 0
    assert not outcome.target.device.locked()
