"""The bundled pair on the wall clock: every policy against streaming, each end a process on one core.

Edge and cloud are processes of their own, pinned to one core each, one thread of torch each, with
the shaping proxy between them; beside them transformers' assisted generation with the same pair in
one process, where there is no link. All ways take turns on the same prompts and seeds, each turn beginning
with the next. First paced (a pass takes 60 ms, a draft step 6 ms: EMULATION of devices around real models),
then as fast as they come. Sessions know nothing beforehand; time per token is end to end, opening and
learning included.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final

from foredraft.api.loading import DEMO
from foredraft.bench.child import Child, child, cores
from foredraft.bench.engine import PROMPT
from foredraft.bench.result import Figure, Result
from foredraft.errors import ForedraftError
from foredraft.links.emulation import proxies
from foredraft.links.proxy_process import ProxyProcess
from foredraft.links.shaping import Shape
from foredraft.profiles import load_profile, seconds

TARGET: Final = "bench-60ms-target"
DRAFT: Final = "bench-6ms-draft"
ROUND_TRIP_S: Final = 0.012
TEMPERATURE: Final = 0.8
MOST_OF_CLOUD: Final = 0.60
POLICIES: Final = ("cloud", "auto", "sync:gamma=2", "sync:gamma=4", "sync:gamma=6", "seed")
ASSISTED: Final = {"assisted": "default", "assisted, gamma 4": "constant"}
PROMPTS: Final = (
    PROMPT,
    '"""Count the words of a text."""\n\nfrom collections import Counter\n\n\ndef count(text):\n',
    "import json\nfrom pathlib import Path\n\n\nclass Settings:\n    def __init__(self, path):\n",
    "class Queue:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
)


@dataclass(frozen=True, slots=True)
class Ran:
    """One text. ``tokens`` and the rest are of a session, and empty for transformers."""

    token_s: float
    tokens: tuple[int, ...] = ()
    tokens_per_pass: float = 0.0
    pass_s: float = 0.0


def measure(turns: int = 6, new_tokens: int = 128, *, paced: bool = True, unpaced: bool = True) -> list[Result]:
    """Both parts. Raises ForedraftError where the texts of two policies differ, or a process fails."""
    results = []
    if paced:
        results.append(_part("real", TARGET, DRAFT, turns, new_tokens))
    if unpaced:
        results.append(_part("real, unpaced", "", "", turns, new_tokens))
    return results


def _part(name: str, target: str, draft: str, turns: int, new_tokens: int) -> Result:
    edge_core, cloud_core, pinned = places()
    with _stage(target, draft, edge_core, cloud_core) as (edge, assisted, proxy):
        ran = _take_turns(edge, assisted, turns, new_tokens)
        link = proxy.report()
    pace = "EMULATION: 60 ms per pass, 6 ms per draft step" if target else "as fast as they come"
    method = f"bundled pair, T = {TEMPERATURE}, {turns} turns of {new_tokens} tokens; {pace}; {pinned}; {link}"
    bound = MOST_OF_CLOUD if target else None
    return Result(name, method, (*_figures(ran, bound), Figure("achieved round trip", link.round_trip_s * 1e3, "ms")))


def places() -> tuple[int | None, int | None, str]:
    """The edge's core, the cloud's, and what to say about it."""
    usable = cores()
    if not usable:
        return None, None, "NOT PINNED: this system has no affinity"
    edge, cloud = usable[-1], usable[0]
    if edge == cloud:
        return edge, cloud, f"edge and cloud SHARE core {edge}: this process may use no other"
    return edge, cloud, f"edge pinned to core {edge}, cloud to core {cloud}"


@contextmanager
def _stage(
    target: str, draft: str, edge_core: int | None, cloud_core: int | None
) -> Iterator[tuple[Child, Child, ProxyProcess]]:
    """The edge's process, transformers' process, and the link."""
    serve = ("foredraft", "serve", "--json", "--port", "0", "--threads", "1", "--pace", target)
    way = Shape(ROUND_TRIP_S / 2)
    with ExitStack() as stack:
        url = stack.enter_context(child(cloud_core, *serve)).read()["url"]
        [(front, proxy)] = stack.enter_context(proxies([url], way, way, edge_core))
        edge = stack.enter_context(child(edge_core, "foredraft.bench.real_edge", front, DEMO, draft))
        pace_s = [str(one) for one in _pace_s(target, draft)]
        assisted = stack.enter_context(child(cloud_core, "foredraft.bench.real_assisted", *pace_s))
        yield edge, assisted, proxy


def _pace_s(target: str, draft: str) -> tuple[float, float]:
    """Seconds of a pass and of a draft step on the emulated devices; 0 where there are none."""
    if not target:
        return 0.0, 0.0
    return (
        seconds(load_profile(target, "target").target_pass, 1, 0),
        seconds(load_profile(draft, "draft").draft_step, 1, 0),
    )


def _take_turns(edge: Child, assisted: Child, turns: int, new_tokens: int) -> dict[str, list[Ran]]:
    """What each way took in each turn, after a short one of each that does not count."""
    ways = [*POLICIES, *ASSISTED]
    for way in ways:
        _run(edge, assisted, way, 0, 8)
    ran: dict[str, list[Ran]] = {way: [] for way in ways}
    for turn in range(turns):
        first = turn % len(ways)
        for way in (*ways[first:], *ways[:first]):
            ran[way].append(_run(edge, assisted, way, turn, new_tokens))
        said = {way: ran[way][turn].tokens for way in POLICIES}
        if len(set(said.values())) > 1:
            raise ForedraftError(f"the policies' texts differ in turn {turn}, which must never happen: {said}")
    return ran


def _run(edge: Child, assisted: Child, way: str, turn: int, new_tokens: int) -> Ran:
    asked: dict[str, Any] = {
        "prompt": PROMPTS[turn % len(PROMPTS)],
        "max_new_tokens": new_tokens,
        "temperature": TEMPERATURE,
        "seed": turn + 1,
    }
    if way in ASSISTED:
        said = assisted.ask(asked | {"assistant": ASSISTED[way]})
        return Ran(said["e2e_s"] / said["new_tokens"])
    said = edge.ask(asked | {"policy": way})
    return Ran(
        said["e2e_s"] / said["new_tokens"],
        tuple(said["tokens"]),
        said["tokens_per_pass"],
        said["target_s"] / said["passes"],
    )


def _figures(ran: Mapping[str, Sequence[Ran]], bound: float | None) -> list[Figure]:
    """Per way: milliseconds per token, and against ``cloud`` in the same turn; the median, and the spread."""
    cloud = ran["cloud"]
    figures: list[Figure] = []
    for way, texts in ran.items():
        token_ms = [one.token_s * 1e3 for one in texts]
        figures.append(Figure(f"{way}, per token", median(token_ms), "ms", span=(min(token_ms), max(token_ms))))
    for way, texts in ran.items():
        if way != "cloud":
            ratios = [one.token_s / streamed.token_s for one, streamed in zip(texts, cloud, strict=True)]
            most = bound if way == "auto" else None
            figures.append(Figure(f"{way} of cloud", median(ratios), "x", most, span=(min(ratios), max(ratios))))
    figures += [
        Figure(f"{way}, tokens per pass", fmean(one.tokens_per_pass for one in ran[way]), "") for way in POLICIES[1:]
    ]
    return [*figures, Figure("a target pass took", fmean(one.pass_s for one in cloud) * 1e3, "ms")]
