"""Spans of OpenTelemetry: a client's request, an edge's text and a cloud's session, joined by W3C's trace context.

Nothing else imports this module before somebody wants spans: it needs the extra ``otel``. Names follow the
conventions for generative AI; what these have no name for is below ``foredraft.``. Of what is reported only numbers,
names of ours and lengths of lists get in, so never a prompt, a text, a token or a secret; errors go by their kind.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from foredraft.edge.session_report import SessionReport
from foredraft.errors import RefusedError
from foredraft.protocol.events import Event, Observer, Value
from foredraft.protocol.sampling import Sampling
from foredraft.version import __version__

_CONTEXT: Final = TraceContextTextMapPropagator()  # no baggage: that is for nobody but whoever put it there
_OPERATION: Final = "text_completion"
_ALWAYS: Final = {"gen_ai.operation.name": _OPERATION, "gen_ai.provider.name": "foredraft"}
_EVENTS: Final = {
    "open": "open",
    "commit": "commit",
    "hint": "hint",
    "retry": "retry",
    "prefill": "prefill",
    "exit": "exit",
    "verdict": "pass",
}
"""What becomes an event of a span, and how it is called there."""

_REPORTED: Final = (
    *("passes", "drafted", "accepted", "forced", "hints", "hints_right", "predraft_hits", "predraft_misses"),
    *("tpot_s", "target_s", "queue_s", "draft_s", "bytes_up", "bytes_down", "reconnects", "exact", "translated"),
    *("policy", "policy_from"),
)
_NAMED: Final = ("session", "key", "constraint")
"""Of a session's line for operators, what is text: names alone."""


class Traced(Protocol):
    """A session that tells the cloud of its trace."""

    traceparent: str


class Spans:
    """Makes spans. ``provider``: where they go; None takes the one that the process has set up.

    ``model``: what clients call the model, once that is known; before it goes by its digest.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self.model = ""
        self._tracer = trace.get_tracer("foredraft", __version__, provider)

    @contextmanager
    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[Callable[[int], None]]:
        """A client's request, in the client's trace if it names one; texts that begin within are part of it.

        The block is to tell its status.
        """
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            _CONTEXT.extract(headers),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def answered(status: int) -> None:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    _failed(span, str(status))

            with _failures_told(span):
                yield answered

    def text(self, digest: str, sampling: Sampling, max_new_tokens: int) -> "TextSpan":
        """The span of an edge's text, which is yet to begin. ``digest``: of the model."""
        asked: dict[str, Value] = {
            "gen_ai.request.max_tokens": max_new_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_k": sampling.top_k,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.seed": sampling.seed,
        }
        return TextSpan(lambda: self._start(digest, SpanKind.CLIENT, asked))

    def sessions(self, digest: str) -> Observer:
        """The observer of one cloud, whose sessions are spans. ``digest``: of its model."""
        return _Sessions(lambda parent: self._start(digest, SpanKind.SERVER, {}, parent)).observe

    def _start(
        self, digest: str, kind: SpanKind, attributes: Mapping[str, Value], parent: Context | None = None
    ) -> Span:
        """A span of a text. ``parent``: None for whatever is under way here."""
        named = {"gen_ai.request.model": self.model or digest, "gen_ai.response.model": digest}
        name = f"{_OPERATION} {self.model or digest}"
        return self._tracer.start_span(name, parent, kind, {**_ALWAYS, **named, **attributes})


class TextSpan:
    """The span of one text at an edge, which hears its events."""

    _span: Span = trace.INVALID_SPAN

    def __init__(self, start: Callable[[], Span]) -> None:
        self._start = start

    @contextmanager
    def over(self, session: Traced, report: Callable[[], SessionReport]) -> Iterator[None]:
        """From here to the end of the block; the session tells the cloud of it. ``report``: of what happened."""
        self._span = span = self._start()
        session.traceparent = _traceparent(span)
        try:
            with _failures_told(span):
                yield
        finally:
            span.set_attributes(_reported(report()))
            span.end()

    def observe(self, event: Event) -> None:
        """The text's observer."""
        _add_event(self._span, event)


class _Sessions:
    """A cloud's sessions that have not ended, by name."""

    def __init__(self, start: Callable[[Context], Span]) -> None:
        self._start = start
        self._running: dict[str, Span] = {}

    def observe(self, event: Event) -> None:
        if event.kind == "begin":
            parent = _CONTEXT.extract({"traceparent": str(event.data["traceparent"])})
            self._running[event.session] = self._start(parent)
        elif (span := self._running.get(event.session)) is None:
            return
        elif event.kind == "end":
            del self._running[event.session]
            self._end(span, event.data)
        else:
            _add_event(span, event)

    def _end(self, span: Span, data: Mapping[str, Value]) -> None:
        how = str(data["ended"])
        span.set_attribute("gen_ai.usage.input_tokens", _number(data["prompt_tokens"]))
        span.set_attribute("gen_ai.usage.output_tokens", _number(data["new_tokens"]))
        span.set_attribute("gen_ai.response.finish_reasons", [how])
        rest = {name: value for name, value in data.items() if name not in ("prompt_tokens", "new_tokens")}
        span.set_attributes({f"foredraft.{name}": rest[name] for name in _NAMED if rest[name] != ""})
        span.set_attributes({f"foredraft.{name}": value for name, value in _figures(rest).items()})
        if how in ("failed", "refused"):
            _failed(span, how)
        span.end()


def _number(value: Value) -> int | float:
    return value if isinstance(value, int | float) else 0


def _reported(report: SessionReport) -> dict[str, Any]:
    """What a text's report tells without its text."""
    return {f"foredraft.{name}": getattr(report, name) for name in _REPORTED} | {
        "gen_ai.usage.input_tokens": report.prompt_tokens,
        "gen_ai.usage.output_tokens": report.new_tokens,
        "gen_ai.response.finish_reasons": [report.finish_reason or "left"],
        "gen_ai.response.time_to_first_chunk": report.ttft_s,
    }


def _add_event(span: Span, event: Event) -> None:
    if event.kind in _EVENTS:
        span.add_event(_EVENTS[event.kind], _figures(event.data))


def _figures(data: Mapping[str, Value]) -> dict[str, int | float]:
    """The numbers, and how long lists are: these are tokens. What is said in words stays out."""
    counted = {name: len(value) if isinstance(value, list) else value for name, value in data.items()}
    return {name: value for name, value in counted.items() if not isinstance(value, str)}


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _CONTEXT.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


@contextmanager
def _failures_told(span: Span) -> Iterator[None]:
    """An error by its kind alone: what it says may quote what was asked."""
    try:
        yield
    except Exception as error:
        _failed(span, error.code if isinstance(error, RefusedError) else type(error).__name__)
        raise


def _failed(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def exported(service: str) -> Spans:
    """Spans that go where the environment's OTEL_* variables say, over OTLP; ``service`` unless these name another."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource)  # at the process's end it sends what is left
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)
