"""Some thousands of hostile frames to a server in this process: links end, and nothing else does."""

from api import clouds
from chaos.frames import Flood, Pool, honest


async def test_hostile_frames_change_no_text_and_leave_nothing() -> None:
    async with clouds.cloud() as cloud, cloud.listen() as url:
        wanted = await honest(url)
        flood = Flood(url, frames=3_000, seed=1, pool=Pool.of(1, size=400), work=0.05)
        await flood.run()
        assert flood.connections > 10
        assert await honest(url) == wanted
        assert cloud.service.counters.refused > 100
        assert cloud.service.counters.active == 0


def test_the_same_seed_makes_the_same_frames() -> None:
    one, other = Pool.of(3, size=100), Pool.of(3, size=100)
    assert one == other
    assert one.harmless
    assert one.work
    assert len(one.last) > 11
