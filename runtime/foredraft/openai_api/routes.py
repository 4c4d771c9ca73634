"""The routes: /v1/chat/completions, /v1/completions and /v1/models, over texts from an edge."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from foredraft.errors import ConfigError, ForedraftError, MissingExtraError
from foredraft.links.websocket import STALL_S
from foredraft.openai_api.choices import Choice, Delta, written
from foredraft.openai_api.errors import ApiError, api_error_of, invalid
from foredraft.openai_api.metrics import Metrics
from foredraft.openai_api.requests import Asked, ChatRequest, Prompt, chat_request, completion_request
from foredraft.openai_api.responses import DONE, Answer, event
from foredraft.openai_api.room import Room
from foredraft.openai_api.texts import Text, Texts
from foredraft.policies.recommended import recommended_policy
from foredraft.protocol.events import Observer
from foredraft.protocol.sampling import SEED_BITS
from foredraft.server.door import MAX_BODY_BYTES
from foredraft.text.chat_card import ChatCard
from foredraft.text.chat_template import render
from foredraft.text.tokenizer import Tokenizer

RUNNING: Final = 16
WAITING: Final = 64
_LOOK_S: Final = 0.2  # how often to see whether a client is still there
_CLIENT_GONE: Final = 499  # as nginx calls it
_BODY_S: Final = 60.0  # how long a client may take to send what it asks

log = logging.getLogger("foredraft.openai_api")

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OpenAiRoutes:
    """Answers clients of OpenAI's interface.

    ``card``: what the model's makers say of it. ``policy``: for requests that name none; None leaves it to the edge.
    ``prefix``: of the metrics' names.
    """

    def __init__(
        self,
        texts: Texts,
        card: ChatCard,
        registry: CollectorRegistry,
        *,
        policy: str | None = None,
        running: int = RUNNING,
        waiting: int = WAITING,
        prefix: str = "foredraft_",
        observer: Observer | None = None,
    ) -> None:
        self.room = Room(running, waiting)
        self.name = card.name or "foredraft"
        self._texts = texts
        self._card = card
        self._policy = policy
        self._observer = observer
        self._metrics = Metrics(registry, self.room, prefix)

    def add_to(self, app: web.Application) -> None:
        """Put the routes into an application."""
        app.router.add_post("/v1/chat/completions", partial(_answered, self._chat))
        app.router.add_post("/v1/completions", partial(_answered, self._completion))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", partial(_answered, self._one_model))

    # What is served

    def _model(self) -> dict[str, Any]:
        ready = self._texts.ready
        ours = {"digest": ready.model_digest, "context": ready.context, "exact": ready.exact}
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "foredraft", "foredraft": ours}

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._model()]})

    async def _one_model(self, request: web.Request) -> web.Response:
        self._check_model(request.match_info["name"])
        return web.json_response(self._model())

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self.name, self._texts.ready.model_digest):
            said = f"the model {name!r} is not served here; this is {self.name!r}"
            raise ApiError(404, said, param="model", code="model_not_found")

    # Requests

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        wanted = chat_request(await _body(request))
        self._check_model(wanted.asked.model)
        with self.room.admitted(wanted.asked.n):
            prompt = await asyncio.to_thread(self._rendered, wanted)  # a template may take its time
            choices = self._choices(wanted.asked, [prompt], tools=bool(wanted.tools))
            return await self._answer(request, wanted.asked, choices, chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        wanted = completion_request(await _body(request))
        self._check_model(wanted.asked.model)
        with self.room.admitted(wanted.asked.n * len(wanted.prompts)):
            prompts = [self._encoded(prompt) for prompt in wanted.prompts]
            choices = self._choices(wanted.asked, prompts, echo=wanted.echo)
            return await self._answer(request, wanted.asked, choices, chat=False)

    def _rendered(self, wanted: ChatRequest) -> list[int]:
        tokenizer = self._tokenizer("messages")
        try:
            return tokenizer.encode_rendered(render(self._card, wanted.messages, wanted.tools))
        except MissingExtraError:
            raise
        except ConfigError as error:
            raise invalid(str(error), "messages") from error

    def _tokenizer(self, param: str) -> Tokenizer:
        if self._texts.tokenizer is None:
            raise invalid("this cloud has no tokenizer: give token ids as the prompt of /v1/completions", param)
        return self._texts.tokenizer

    def _encoded(self, prompt: Prompt) -> list[int]:
        tokens = self._tokenizer("prompt").encode(prompt) if isinstance(prompt, str) else prompt
        if not tokens:
            raise invalid("the prompt is empty; there must be a token to go on from", "prompt")
        if max(tokens) >= (size := self._texts.ready.vocab_size):
            raise invalid(f"token id {max(tokens)} in prompt is outside the vocabulary of {size}", "prompt")
        return tokens

    def _choices(
        self, asked: Asked, prompts: Sequence[list[int]], *, tools: bool = False, echo: bool = False
    ) -> list[Choice]:
        """What is to be written, ready to begin."""
        policy = self._checked_policy(asked.policy) or self._policy
        choices: list[Choice] = []
        for prompt in prompts:
            opening = self._tokenizer("echo").decode(prompt) if echo else ""
            for number in range(asked.n):
                begin = self._beginning(asked, prompt, number, policy)
                index = len(choices)
                choice = Choice(index, prompt, begin, opening=opening, tools=tools, deadline_s=asked.deadline_s)
                choices.append(choice)
        return choices

    def _beginning(self, asked: Asked, prompt: list[int], number: int, policy: str | None) -> Callable[[], Text]:
        """What makes one text. Texts that differ in nothing but their number have seeds in a row."""
        room, card = self._texts.ready.context - len(prompt), self._card
        if room < 1:
            said = f"a prompt of {len(prompt)} tokens leaves no room in the context of {self._texts.ready.context}"
            raise invalid(said, "messages", "context_length_exceeded")
        top_k = _first(asked.top_k, card.top_k, 0)
        return partial(
            self._texts.generate,
            prompt,
            policy=policy,
            temperature=_first(asked.temperature, card.temperature, 1.0),
            top_k=max(0, int(top_k)),
            top_p=_first(asked.top_p, card.top_p, 1.0),
            seed=None if asked.seed is None else (asked.seed + number) % (1 << SEED_BITS),
            max_new_tokens=min(asked.max_tokens or room, room),
            stop=asked.stop,
            logprobs=asked.logprobs,
            observer=self._observer,
        )

    def _checked_policy(self, spec: str | None) -> str | None:
        """A policy that a client names: one of Foredraft's own, since a client's word imports no module."""
        if spec is not None:
            ready = self._texts.ready
            try:
                recommended_policy(spec, ready.exits, bool(ready.cloud_drafts))
            except ConfigError as error:
                raise invalid(str(error), "foredraft.policy") from error
        return spec

    # Answers

    async def _answer(
        self, request: web.Request, asked: Asked, choices: list[Choice], *, chat: bool
    ) -> web.StreamResponse:
        answer = Answer(self.name, chat, None if asked.logprobs is None else self._tokenizer("logprobs"))
        deltas = written(choices, self.room)
        headers = {"x-foredraft-model": self._texts.ready.model_digest}
        try:
            async with aclosing(deltas), _while_there(request):
                if not asked.stream:
                    whole = [delta async for delta in deltas]
                    headers["x-foredraft-policy"] = choices[0].policy
                    return web.json_response(answer.body(choices, whole), headers=headers)
                first = await anext(deltas)  # what is wrong from the beginning is still a status
                headers["x-foredraft-policy"] = choices[first.choice].policy
                return await _stream(request, answer, choices, first, deltas, headers, asked.include_usage)
        finally:
            for choice in choices:
                if choice.report is not None:
                    self._metrics.ended(choice.report)


async def _stream(
    request: web.Request,
    answer: Answer,
    choices: Sequence[Choice],
    first: Delta,
    deltas: AsyncGenerator[Delta, None],
    headers: dict[str, str],
    include_usage: bool,
) -> web.StreamResponse:
    """The answer as server-sent events. An error in the middle is an event, too: the status has gone."""
    response = web.StreamResponse(headers=headers | {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    begun: set[int] = set()

    async def say(delta: Delta) -> None:
        await _write(request, response, event(answer.chunk(delta, first=delta.choice not in begun)))
        begun.add(delta.choice)

    try:
        await say(first)
        async for delta in deltas:
            await say(delta)
    except ConnectionError:
        raise
    except Exception as error:
        await _write(request, response, event(_told(error).body()))
        return response
    if include_usage:
        await _write(request, response, event(answer.last_chunk(choices)))
    await _write(request, response, DONE)
    return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write, and cut a client that takes nothing for too long."""
    try:
        async with asyncio.timeout(STALL_S):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client takes nothing") from None


@contextlib.asynccontextmanager
async def _while_there(request: web.Request) -> AsyncGenerator[None, None]:
    """Cancels the block when the client goes away; aiohttp tells a handler only when it writes."""
    working = asyncio.current_task()

    async def look() -> None:
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_LOOK_S)
        if working is not None:
            working.cancel()

    looking = asyncio.create_task(look(), name="client there?")
    try:
        yield
    finally:
        looking.cancel()


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes") from error
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {_BODY_S:g} s") from error
    except web.RequestPayloadError as error:
        raise invalid(f"the body cannot be read: {error}") from error


async def _answered(respond: Respond, request: web.Request) -> web.StreamResponse:
    """What the handler answers, or its error in OpenAI's form."""
    try:
        return await respond(request)
    except ConnectionError:
        return web.Response(status=_CLIENT_GONE)  # nobody is there to hear it
    except Exception as error:
        return _told(error).response()


def _told(error: Exception) -> ApiError:
    """What a client hears of what went wrong."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ForedraftError):
        return api_error_of(error)
    log.error("an answer failed", exc_info=error)
    return ApiError(500, "the answer failed; the server's log says why")


def _first(*values: float | None) -> float:
    """The first that is given."""
    return next(value for value in values if value is not None)
