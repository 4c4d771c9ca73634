"""Spans of OpenTelemetry over a real edge and a real cloud: one trace, and nothing in it that nobody should see."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import foredraft
from api import clouds
from foredraft.errors import MissingExtraError, RefusedError, extras_named
from foredraft.openai_api.server import EdgeServer
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.attributes import http_attributes as stable_http_attributes

from foredraft.observe.spans import Spans, exported

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CLIENT}-01"
KEY = "fd_a-secret-of-the-server"
PROMPT = "Boxkämpfer jagen Whistleblower"
STOP = "Nie-im-Text"


class Kept(InMemorySpanExporter):
    """What one end exported, and the spans that export there."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        provider = TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(self))
        self.spans = Spans(provider)

    def one(self, kind: trace.SpanKind, name: str = "") -> ReadableSpan:
        (found,) = [span for span in self.get_finished_spans() if span.kind is kind and span.name.startswith(name)]
        return found


@asynccontextmanager
async def both_ends(at_edge: Kept, at_cloud: Kept) -> AsyncIterator[str]:
    """The URL of an edge's server, whose cloud is behind a socket, too."""
    cloud = foredraft.Cloud(clouds.target(), clouds.TOKENIZER, api_key=KEY, spans=at_cloud.spans)
    async with (
        cloud,
        cloud.listen() as url,
        foredraft.connect(url, draft=clouds.drafter, api_key=KEY, spans=at_edge.spans) as edge,
        serving(EdgeServer(edge, ChatCard("boxer"), spans=at_edge.spans)) as served,
    ):
        yield served


async def complete(url: str, **asked: Any) -> int:
    body = {"model": "boxer", "prompt": PROMPT, "max_tokens": 40, "stop": [STOP]} | asked
    async with (
        aiohttp.ClientSession(headers={"traceparent": PARENT}) as http,
        http.post(f"{url}/v1/completions", json=body) as answer,
    ):
        await answer.read()
        return answer.status


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return trace.format_trace_id(span.context.trace_id)


def said_by(told: ReadableSpan | Event) -> dict[str, Any]:
    return dict(told.attributes or {})


def is_below(span: ReadableSpan, above: ReadableSpan) -> bool:
    return span.parent is not None and above.context is not None and span.parent.span_id == above.context.span_id


async def test_the_spans_of_client_edge_and_cloud_are_one_trace() -> None:
    at_edge, at_cloud = Kept(), Kept()
    async with both_ends(at_edge, at_cloud) as url:
        assert await complete(url) == 200
    request, text = at_edge.one(trace.SpanKind.SERVER), at_edge.one(trace.SpanKind.CLIENT)
    session = at_cloud.one(trace.SpanKind.SERVER)
    assert {trace_of(span) for span in (request, text, session)} == {TRACE}
    assert request.parent is not None
    assert trace.format_span_id(request.parent.span_id) == CLIENT
    assert is_below(text, request)
    assert is_below(session, text)
    assert request.name == "POST /v1/completions"
    assert text.name == "text_completion boxer"


async def test_two_texts_of_one_request_are_beside_each_other_and_each_has_its_session() -> None:
    at_edge, at_cloud = Kept(), Kept()
    async with both_ends(at_edge, at_cloud) as url:
        assert await complete(url, n=2) == 200
    request = at_edge.one(trace.SpanKind.SERVER)
    texts = [span for span in at_edge.get_finished_spans() if span.kind is trace.SpanKind.CLIENT]
    assert [is_below(text, request) for text in texts] == [True, True]
    sessions = at_cloud.get_finished_spans()
    assert sorted([is_below(one, text) for text in texts] for one in sessions) == [[False, True], [True, False]]


async def test_what_a_text_took_stands_in_its_spans_under_the_names_of_the_conventions() -> None:
    at_edge, at_cloud = Kept(), Kept()
    async with both_ends(at_edge, at_cloud) as url:
        await complete(url, foredraft={"policy": "sync:gamma=4"}, seed=11, temperature=0.0)
    text, session = said_by(at_edge.one(trace.SpanKind.CLIENT)), said_by(at_cloud.one(trace.SpanKind.SERVER))
    for told in (text, session):
        assert told["gen_ai.usage.input_tokens"] == len(PROMPT.encode())
        assert told["gen_ai.usage.output_tokens"] == 40
        assert told["gen_ai.response.finish_reasons"] == ("length",)
        assert told["gen_ai.provider.name"] == "foredraft"
    assert text["gen_ai.request.model"] == "boxer"
    assert (text["gen_ai.request.seed"], text["gen_ai.request.max_tokens"]) == (11, 40)
    assert (text["foredraft.policy"], session["foredraft.session"]) == ("sync", "2.1")
    assert 0 < session["foredraft.accepted"] == text["foredraft.accepted"] <= text["foredraft.drafted"]
    assert session["foredraft.passes"] == text["foredraft.passes"]
    known = {
        name
        for module in (gen_ai_attributes, http_attributes, stable_http_attributes, error_attributes)
        for name in vars(module).values()
        if isinstance(name, str)
    }
    spans = (*at_edge.get_finished_spans(), *at_cloud.get_finished_spans())
    used = {name for span in spans for name in said_by(span)}
    assert {name for name in used if not name.startswith("foredraft.")} <= known


async def test_prefill_passes_and_commits_are_events_with_their_figures() -> None:
    at_edge, at_cloud = Kept(), Kept()
    async with both_ends(at_edge, at_cloud) as url:
        await complete(url, prompt=clouds.TOKENS * 10, foredraft={"policy": "seed"})  # more than a chunk
    text, session = at_edge.one(trace.SpanKind.CLIENT), at_cloud.one(trace.SpanKind.SERVER)
    assert (text.events[0].name, session.events[0].name) == ("open", "prefill")
    passes = [said_by(event) for event in session.events if event.name == "pass"]
    commits = [said_by(event) for event in text.events if event.name == "commit"]
    assert len(passes) == len(commits) == said_by(session)["foredraft.passes"]
    assert sum(one["tokens"] for one in passes) == sum(one["tokens"] for one in commits) == 40
    assert {"position", "queue_s", "pass_s"} <= passes[0].keys() & commits[0].keys()


async def test_no_prompt_no_text_no_token_and_no_secret_is_in_any_span() -> None:
    at_edge, at_cloud = Kept(), Kept()
    schema = {"type": "object", "properties": {"Whistleblower": {"type": "string"}}}
    async with both_ends(at_edge, at_cloud) as url:
        await complete(url)
        await complete(url, prompt=[234567891])  # outside the vocabulary: the error names the token
        await complete(url, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
    spans = (*at_edge.get_finished_spans(), *at_cloud.get_finished_spans())
    assert len(spans) >= 6
    said = "\n".join(span.to_json(indent=None) for span in spans)
    start = len(PROMPT.encode())
    hidden = [KEY, STOP, *PROMPT.split(), *clouds.text_between(start, start + 40).split(), "234567891"]
    assert [word for word in hidden if len(word) > 3 and word in said] == []
    lists = {name for span in spans for name, value in said_by(span).items() if isinstance(value, tuple)}
    assert lists == {"gen_ai.response.finish_reasons"}
    assert not any(
        isinstance(value, tuple | str) for span in spans for event in span.events for value in said_by(event).values()
    )


async def test_an_error_goes_by_its_kind() -> None:
    kept = Kept()
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter, spans=kept.spans) as edge:
        with pytest.raises(RefusedError):
            await edge.generate(PROMPT, constraint=foredraft.constraint_of(regex="(unbalanced")).finish()
    text = kept.one(trace.SpanKind.CLIENT)
    assert text.status.status_code is trace.StatusCode.ERROR
    assert text.status.description is None
    assert said_by(text)["error.type"] == "invalid"


async def test_a_text_that_is_left_ends_its_spans_at_both_ends() -> None:
    at_edge, at_cloud = Kept(), Kept()
    served = foredraft.Cloud(clouds.target(), clouds.TOKENIZER, spans=at_cloud.spans)
    async with (
        served,
        foredraft.connect(served, draft=clouds.drafter, spans=at_edge.spans) as edge,
        edge.generate(PROMPT, max_new_tokens=10**5, policy="cloud") as text,
    ):
        await anext(text)
    for span in (at_edge.one(trace.SpanKind.CLIENT), at_cloud.one(trace.SpanKind.SERVER)):
        assert said_by(span)["gen_ai.response.finish_reasons"] == ("left",)
        assert span.status.status_code is trace.StatusCode.UNSET


async def test_a_trace_that_is_not_sampled_at_the_edge_is_not_at_the_cloud() -> None:
    at_edge, at_cloud = Kept(sampler=ALWAYS_OFF), Kept()
    async with both_ends(at_edge, at_cloud) as url:
        assert await complete(url) == 200
    assert at_edge.get_finished_spans() == at_cloud.get_finished_spans() == ()


async def test_a_span_of_the_program_around_it_is_the_parent_of_its_text() -> None:
    kept = Kept()
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter, spans=kept.spans) as edge:
        around = kept.spans._tracer.start_span("walk")
        with trace.use_span(around, end_on_exit=True):
            await edge.generate(PROMPT, max_new_tokens=4).finish()
    assert is_below(kept.one(trace.SpanKind.CLIENT), kept.one(trace.SpanKind.INTERNAL, "walk"))


def test_without_spans_nothing_of_the_library_is_imported(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, sys, foredraft\n"
        "from api import clouds\n"
        "async def main():\n"
        "    async with clouds.cloud() as cloud, cloud.listen() as url, foredraft.connect(url) as edge:\n"
        "        await edge.generate('Boxer', max_new_tokens=5).finish()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


def test_the_environment_says_what_the_service_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    assert _service(exported("foredraft-edge")) == "foredraft-edge"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "robot-7")
    assert _service(exported("foredraft-edge")) == "robot-7"


def _service(spans: Spans) -> object:
    tracer: Any = spans._tracer
    return tracer.resource.attributes["service.name"]


def test_where_the_extra_is_missing_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "foredraft.observe.spans")
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"foredraft\[otel\]"), extras_named():
        __import__("foredraft.observe.spans")
