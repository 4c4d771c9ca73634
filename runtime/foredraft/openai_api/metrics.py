"""What an OpenAI server tells Prometheus. Names follow vLLM's behind our prefix, so that dashboards carry over."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from foredraft.edge.session_report import SessionReport
from foredraft.openai_api.room import Room

_FIRST = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BETWEEN = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_WHOLE = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """Counts texts as they end; ``room`` is asked how many there are at the moment. ``prefix``: of all names."""

    def __init__(self, registry: CollectorRegistry, room: Room, prefix: str) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(prefix + name, text, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(prefix + name, text, buckets=buckets, registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(prefix + name, text, registry=registry)

        gauge("num_requests_running", "Texts that clients of OpenAI's wait for.").set_function(lambda: room.running)
        gauge("num_requests_waiting", "Texts in line for a place.").set_function(lambda: room.waiting)
        self._first = histogram("time_to_first_token_seconds", "From the text's turn to its first token.", _FIRST)
        self._between = histogram("inter_token_latency_seconds", "Time per output token after the first.", _BETWEEN)
        self._whole = histogram("e2e_request_latency_seconds", "From the text's turn to its last token.", _WHOLE)
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._new = counter("generation_tokens", "Tokens generated.")

    def ended(self, report: SessionReport) -> None:
        """A text has ended."""
        if report.new_tokens:
            self._first.observe(report.ttft_s)
            self._whole.observe(report.e2e_s)
        if report.tpot_s > 0.0:
            self._between.observe(report.tpot_s)
        self._prompt.inc(report.prompt_tokens)
        self._new.inc(report.new_tokens)
