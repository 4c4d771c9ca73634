"""The routes: /v1/chat/completions, /v1/completions and /v1/models, over texts from an edge."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from foredraft.edge.local import LocalEvent, LocalText
from foredraft.edge.session_report import SessionReport
from foredraft.errors import ConfigError, MissingExtraError
from foredraft.images import EncodedImage
from foredraft.openai_api.choices import Choice, written
from foredraft.openai_api.errors import ApiError, invalid
from foredraft.openai_api.exchange import Respond, answered, body, stream, while_there
from foredraft.openai_api.images import ImageSource
from foredraft.openai_api.metrics import Metrics
from foredraft.openai_api.requests import Asked, ChatRequest, Prompt, chat_request, completion_request
from foredraft.openai_api.responses import Answer
from foredraft.openai_api.room import Room
from foredraft.openai_api.texts import Text, Texts
from foredraft.policies.recommended import recommended_policy
from foredraft.protocol.events import Observer
from foredraft.protocol.messages import MAX_IMAGES
from foredraft.protocol.sampling import SEED_BITS
from foredraft.text.chat_card import ChatCard
from foredraft.text.chat_template import render
from foredraft.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from foredraft.observe.spans import Spans

RUNNING: Final = 16
WAITING: Final = 64


class OpenAiRoutes:
    """Answers clients of OpenAI's interface.

    ``card``: what the model's makers say of it. ``policy``: for requests that name none; None leaves it to the edge.
    ``prefix``: of the metrics' names. ``local``: whether an answer may end with what the draft says, unverified, where
    the cloud is out of reach. ``images``: where those of requests may come from. ``spans``: of OpenTelemetry, one for
    each request.
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
        local: bool = False,
        images: ImageSource | None = None,
        spans: "Spans | None" = None,
    ) -> None:
        self.room = Room(running, waiting)
        self.name = card.name or "foredraft"
        self._texts = texts
        self._card = card
        self._policy = policy
        self._observer = observer
        self._local = local
        self._images = images or ImageSource()
        self._spans = spans
        if spans is not None:
            spans.model = self.name
        self._metrics = Metrics(registry, self.room, prefix)

    def add_to(self, app: web.Application) -> None:
        """Put the routes into an application."""
        app.router.add_post("/v1/chat/completions", partial(self._answered, self._chat))
        app.router.add_post("/v1/completions", partial(self._answered, self._completion))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", partial(answered, self._one_model))

    async def _answered(self, respond: Respond, request: web.Request) -> web.StreamResponse:
        """What the handler answers, in a span where these are wanted."""
        if self._spans is None:
            return await answered(respond, request)
        with self._spans.request(request.method, request.path, request.headers) as told:
            answer = await answered(respond, request)
            told(answer.status)
        return answer

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
        wanted = chat_request(await body(request))
        self._check_model(wanted.asked.model)
        with self.room.admitted(wanted.asked.n):
            prompt = await asyncio.to_thread(self._rendered, wanted)  # a template may take its time
            images = await asyncio.to_thread(self._loaded, wanted.images)  # so may images
            choices = self._choices(wanted.asked, [prompt], images, tools=bool(wanted.tools))
            return await self._answer(request, wanted.asked, choices, chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        wanted = completion_request(await body(request))
        self._check_model(wanted.asked.model)
        with self.room.admitted(wanted.asked.n * len(wanted.prompts)):
            prompts = await asyncio.to_thread(lambda: [self._encoded(prompt) for prompt in wanted.prompts])
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

    def _loaded(self, urls: Sequence[tuple[str, str]]) -> list[EncodedImage]:
        """The images of a request. Raises ApiError."""
        if urls and self._texts.ready.image_token is None:
            raise invalid(f"{urls[0][1]}: the model {self.name!r} takes text alone", urls[0][1])
        if len(urls) > MAX_IMAGES:
            raise invalid(f"{len(urls)} images; a text may have {MAX_IMAGES}", "messages")
        return self._images.load(urls)

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
        self,
        asked: Asked,
        prompts: Sequence[list[int]],
        images: Sequence[EncodedImage] = (),
        *,
        tools: bool = False,
        echo: bool = False,
    ) -> list[Choice]:
        """What is to be written, ready to begin."""
        policy = self._checked_policy(asked.policy) or self._policy
        choices: list[Choice] = []
        for prompt in prompts:
            opening = self._tokenizer("echo").decode(prompt) if echo else ""
            for number in range(asked.n):
                local = LocalText(_ignore) if self._local and not tools else None  # a draft calls no tools
                choice = Choice(
                    len(choices),
                    prompt,
                    self._beginning(asked, prompt, number, policy, local, images),
                    opening=opening,
                    tools=tools,
                    deadline_s=asked.deadline_s,
                    at_deadline=asked.at_deadline,
                    unverified=None if local is None else partial(self._unverified, local),
                )
                choices.append(choice)
        return choices

    def _unverified(self, local: LocalText, report: SessionReport) -> tuple[str, int]:
        """What the draft says beyond the text so far, and in how many tokens."""
        tokens = local.tokens
        stream = self._tokenizer("messages").stream(report.tokens)
        return "".join(map(stream.step, tokens)) + stream.flush(), len(tokens)

    def _beginning(
        self,
        asked: Asked,
        prompt: list[int],
        number: int,
        policy: str | None,
        local: LocalText | None,
        images: Sequence[EncodedImage],
    ) -> Callable[[float | None], Text]:
        """What makes one text, of which so many seconds are left.

        Texts that differ in nothing but their number have seeds in a row.
        """
        room, card = self._texts.ready.context - len(prompt), self._card
        if room < 1:
            said = f"a prompt of {len(prompt)} tokens leaves no room in the context of {self._texts.ready.context}"
            raise invalid(said, "messages", "context_length_exceeded")
        top_k = _first(asked.top_k, card.top_k, 0)
        begin = partial(
            self._texts.generate,
            prompt,
            policy=policy,
            temperature=_first(asked.temperature, card.temperature, 1.0),
            top_k=max(0, int(top_k)),
            top_p=_first(asked.top_p, card.top_p, 1.0),
            seed=None if asked.seed is None else (asked.seed + number) % (1 << SEED_BITS),
            max_new_tokens=min(asked.max_tokens or room, room),
            stop=asked.stop,
            end_marks=not asked.ignore_eos,
            logprobs=asked.logprobs,
            observer=self._observer,
            local=local,
            constraint=asked.constraint,
            images=images,
            at_deadline=asked.at_deadline,
        )
        return lambda left_s: begin(deadline_s=left_s)

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
            async with aclosing(deltas), while_there(request):
                if not asked.stream:
                    whole = [delta async for delta in deltas]
                    headers["x-foredraft-policy"] = choices[0].policy
                    said = answer.body(choices, whole)
                    if unverified := said["foredraft"].get("unverified_tokens"):
                        headers["x-foredraft-unverified"] = str(unverified)
                    return web.json_response(said, headers=headers)
                first = await anext(deltas)  # what is wrong from the beginning is still a status
                headers["x-foredraft-policy"] = choices[first.choice].policy
                return await stream(request, answer, choices, first, deltas, headers, asked)
        finally:
            for choice in choices:
                if choice.report is not None:
                    self._metrics.ended(choice.report)


def _ignore(event: LocalEvent) -> None:
    """The answer's end alone shows what is unverified."""


def _first(*values: float | None) -> float:
    """The first that is given."""
    return next(value for value in values if value is not None)
