"""What an end counts, for Prometheus, read when it is asked for.

Suffixes follow vLLM's, so that dashboards carry over.
"""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foredraft.protocol.counters import Counters
from foredraft.protocol.ports import Load


class DraftCollector(Collector):
    """What became of drafts and hints: the same at both ends."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        now = self._counters
        for name, text, value in (
            ("foredraft_target_passes", "Target passes.", now.passes),
            ("foredraft_target_pass_seconds", "Seconds of target passes.", now.pass_s),
            ("foredraft_spec_decode_num_drafts", "Target passes with draft tokens.", now.drafts),
            ("foredraft_spec_decode_num_draft_tokens", "Draft tokens verified.", now.drafted),
            ("foredraft_spec_decode_num_accepted_tokens", "Draft tokens accepted.", now.accepted),
        ):
            yield CounterMetricFamily(name, text, value)
        yield _by(
            "foredraft_spec_decode_num_accepted_tokens_per_pos",
            "Draft tokens accepted, by their position in the draft.",
            "position",
            enumerate(now.accepted_at),
        )
        hints = sorted(now.by_layer.items())
        yield _by("foredraft_hints", "Hints, by exit.", "layer", ((layer, count.said) for layer, count in hints))
        yield _by(
            "foredraft_hints_right",
            "Hints that were a prefix of what committed, by exit.",
            "layer",
            ((layer, count.right) for layer, count in hints),
        )


class ServiceCollector(Collector):
    """What a cloud's service counts.

    ``connections`` says how many links are open, ``load`` how busy the target is, where that is known.
    """

    def __init__(self, counters: Counters, connections: Callable[[], int], load: Callable[[], Load | None]) -> None:
        self._counters = counters
        self._connections = connections
        self._load = load

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        now, load = self._counters, self._load()
        yield GaugeMetricFamily("foredraft_connections", "Open connections.", self._connections())
        yield GaugeMetricFamily("foredraft_num_requests_running", "Texts being written.", now.active)
        if load is not None:
            yield GaugeMetricFamily("foredraft_num_requests_waiting", "Calls in line for the target.", load.waiting)
            yield GaugeMetricFamily("foredraft_batch_size", "Calls in the target's last forward.", load.batch)
            yield GaugeMetricFamily("foredraft_kv_cache_usage_perc", "Share of the cache in use.", load.cache_used)
        for name, text, value in (
            ("foredraft_requests", "Texts begun, resumed ones included.", now.sessions),
            ("foredraft_requests_refused", "Messages answered with Refused.", now.refused),
            ("foredraft_generation_tokens", "Tokens committed.", now.tokens),
        ):
            yield CounterMetricFamily(name, text, value)


def _by(name: str, text: str, label: str, values: Iterable[tuple[int, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values:
        family.add_metric([str(key)], value)
    return family
