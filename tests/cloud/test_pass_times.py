"""What a server has seen passes take is told to whoever connects."""

import foredraft
from api import clouds
from foredraft.cloud.pass_times import PassTimes
from foredraft.protocol.averages import WIDTHS
from foredraft.protocol.messages import PROTOCOL_VERSION, Hello


def test_what_the_card_says_holds_until_passes_were_seen() -> None:
    times = PassTimes((1.0, 0.0, 3.0))
    assert times.typical_s == (1.0, 0.0, 3.0)
    for pass_s in (2.0, 2.0, 2.04):
        times.saw(WIDTHS[2], pass_s)
    assert times.typical_s == (1.0, 0.0, 2.0)


def test_a_width_that_was_never_seen_is_not_known_and_one_that_was_is_its_middle() -> None:
    times = PassTimes(())
    assert not times.typical_s
    for pass_s in (1.0, 50.0, 1.2):
        times.saw(7, pass_s)
    assert times.typical_s == (0.0, 0.0, 0.0, 1.2)


class Slower(PassTimes):
    """Of a target whose passes take half a second more: a script's take no time."""

    def saw(self, drafted: int, pass_s: float) -> None:
        super().saw(drafted, pass_s + 0.5)


async def test_an_edge_that_connects_is_told_what_passes_took_for_others() -> None:
    async with clouds.cloud() as cloud:
        cloud.service.shared.pass_times = Slower(())
        async with foredraft.connect(cloud, draft=clouds.drafter) as edge:
            assert not any(edge.ready.passes_s)
            async for _ in edge.generate(clouds.TEXT[:13], policy="sync:gamma=3", max_new_tokens=32):
                pass
        told_s = cloud.service.admit(Hello(PROTOCOL_VERSION)).passes_s
        assert told_s[WIDTHS.index(3)] == 0.5
