"""The service's counters for Prometheus, read when they are asked for.

Suffixes follow vLLM's, so that dashboards carry over.
"""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foredraft.cloud.session import Counters


class ServiceCollector(Collector):
    """Turns ``Counters`` into metrics; ``connections`` says how many links are open."""

    def __init__(self, counters: Counters, connections: Callable[[], int]) -> None:
        self._counters = counters
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        now = self._counters
        yield GaugeMetricFamily("foredraft_connections", "Open connections.", self._connections())
        yield GaugeMetricFamily("foredraft_num_requests_running", "Texts being written.", now.active)
        for name, text, value in (
            ("foredraft_requests", "Texts begun, resumed ones included.", now.sessions),
            ("foredraft_requests_refused", "Messages answered with Refused.", now.refused),
            ("foredraft_generation_tokens", "Tokens committed.", now.tokens),
            ("foredraft_target_passes", "Target passes.", now.passes),
            ("foredraft_target_pass_seconds", "Seconds of target passes.", now.pass_s),
            ("foredraft_hints", "Hints sent.", now.hints),
            ("foredraft_spec_decode_num_draft_tokens", "Draft tokens verified.", now.drafted),
            ("foredraft_spec_decode_num_accepted_tokens", "Draft tokens accepted.", now.accepted),
        ):
            yield CounterMetricFamily(name, text, value)
