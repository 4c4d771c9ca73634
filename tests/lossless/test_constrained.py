"""Texts held to a constraint: what the bundled target alone writes under the same masks, in fewer passes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
import pytest_asyncio
import torch

import foredraft
from foredraft.cloud import session_log
from foredraft.demo_models import bundled_pair
from foredraft.engines.masks import allowed_tokens, held_to
from foredraft.engines.noise import perturb
from foredraft.errors import MissingExtraError, RefusedError
from foredraft.links.proxy import ShapingProxy, run_proxy_in_thread
from foredraft.links.shaping import Shape
from foredraft.openai_api.server import EdgeServer
from foredraft.protocol.sampling import Sampling
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard
from foredraft.text.constraint import Constraint, constraint_of
from foredraft.text.grammar import Grammars
from foredraft.text.tokenizer import Tokenizer
from lossless.oracle import Oracle
from lossless.tally import EPSILON

PROMPT = "import json\n\nCOMMAND = '"
LENGTH = 48
SCHEMA = {
    "type": "object",
    "properties": {
        "action": {"enum": ["walk", "turn", "stop"]},
        "metres": {"type": "integer", "minimum": 0, "maximum": 30},
        "reason": {"type": "string", "maxLength": 12},
    },
    "required": ["action", "metres", "reason"],
    "additionalProperties": False,
}
RULES: dict[str, Constraint | None] = {
    "schema": constraint_of(json_schema=SCHEMA),
    "regex": constraint_of(regex=r"(def|class) [a-z_]{3,12}\((self|cls)?(, [a-z]+)*\):\n"),
    "grammar": constraint_of(grammar='start: "import " NAME ("." NAME)* "\\n"\nNAME: /[a-z]{2,9}/'),
}
SAMPLINGS = {"greedy": Sampling(), "T 0.8": Sampling(temperature=0.8, seed=7), "top-p": Sampling(1.0, 20, 0.9, 3)}
POLICIES = ("cloud", "sync", "seed", "ahead:patience_s=0.02", "auto")


class Alone:
    """The target alone under masks: one whole forward per token, by transformers."""

    def __init__(self) -> None:
        folder = bundled_pair().target
        self.oracle, self.tokenizer = Oracle.of(folder), Tokenizer.from_folder(folder)
        self.stops = [int(self.oracle.model.config.eos_token_id)]
        self.grammars = Grammars(self.tokenizer.json, int(self.oracle.model.config.vocab_size), self.stops)

    def text(self, prompt: Sequence[int], rule: Constraint, sampling: Sampling, length: int = LENGTH) -> list[int]:
        grammar, text = self.grammars.begin(rule), list(prompt)
        while not grammar.complete and len(text) < len(prompt) + length:
            with torch.inference_mode():
                logits = self.oracle.model(torch.tensor([text]), use_cache=False).logits[0, -1:]
            allowed = allowed_tokens(grammar.masks((), ()), logits.shape[-1], logits.device)
            scores = perturb(held_to(logits, allowed), torch.tensor([len(text)]), sampling)[0]
            best = scores.topk(2).values
            assert float(best[0] - best[1]) > EPSILON, "a tie: choose another prompt"
            text.append(int(scores.argmax()))
            grammar.follow(text[-1:])
        return text[len(prompt) :]


@pytest.fixture(scope="module")
def alone() -> Alone:
    return Alone()


@pytest_asyncio.fixture(loop_scope="function")
async def edge() -> AsyncIterator[foredraft.Edge]:
    async with foredraft.Cloud.load("demo") as cloud, foredraft.connect(cloud, draft="demo") as edge:
        yield edge


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("rule", RULES)
async def test_in_each_policy_the_text_is_the_targets_own_under_the_mask(
    edge: foredraft.Edge, alone: Alone, rule: str, sampling: str
) -> None:
    how, prompt, constraint = SAMPLINGS[sampling], alone.tokenizer.encode(PROMPT), RULES[rule]
    assert constraint is not None
    wanted = alone.text(prompt, constraint, how)
    hints = accepted = 0
    for policy in POLICIES:
        report = await edge.generate(
            prompt,
            policy=policy,
            temperature=how.temperature,
            top_k=how.top_k,
            top_p=how.top_p,
            seed=how.seed,
            max_new_tokens=LENGTH,
            constraint=constraint,
        ).finish()
        assert report.tokens == wanted, policy
        hints, accepted = hints + report.hints, accepted + report.accepted
        if rule == "schema" and report.finish_reason == "stop":
            assert set(json.loads(report.text)) == {"action", "metres", "reason"}
    assert hints > 0
    assert accepted > 0


async def test_forced_tokens_cost_no_pass_at_either_end(edge: foredraft.Edge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, session_log.log.name):
        report = await edge.generate(
            PROMPT, policy="cloud", max_new_tokens=LENGTH, constraint=RULES["schema"], seed=0
        ).finish()
        await asyncio.sleep(0)
    [said] = [record.__dict__["fields"] for record in caplog.records if record.name == session_log.log.name]
    assert (said["constraint"], said["forced"], said["passes"]) == ("json_schema", report.forced, report.passes)
    assert report.passes == len(report.tokens) - report.forced
    assert report.forced > 8
    whole = constraint_of(regex='\\{"action": "halt"\\}')
    report = await edge.generate(PROMPT, policy="seed", max_new_tokens=LENGTH, constraint=whole).finish()
    assert report.text == '{"action": "halt"}'
    assert report.passes == 0
    assert report.forced == len(report.tokens)


async def test_each_token_has_its_own_log_probability_and_a_forced_one_has_none(edge: foredraft.Edge) -> None:
    for policy in ("cloud", "seed"):
        generation = edge.generate(
            PROMPT, policy=policy, max_new_tokens=LENGTH, constraint=RULES["schema"], logprobs=2, seed=0
        )
        pieces = [piece async for piece in generation]
        told = [scored for piece in pieces for scored in piece.logprobs]
        report = generation.report
        assert [scored[0][0] for scored in told] == report.tokens
        assert sum(len(scored) == 1 for scored in told) == report.forced > 0
        assert all(scored[0][1] == 0.0 for scored in told if len(scored) == 1)


async def test_texts_with_and_without_a_constraint_share_forwards(edge: foredraft.Edge, alone: Alone) -> None:
    prompt = alone.tokenizer.encode(PROMPT)
    free = edge.generate(prompt, policy="cloud", max_new_tokens=24, end_marks=False)
    held = [edge.generate(prompt, policy="sync", max_new_tokens=LENGTH, constraint=rule) for rule in RULES.values()]
    reports = await asyncio.gather(free.finish(), *(one.finish() for one in held))
    alone.oracle.check(reports[0].tokens, prompt, Sampling())
    for report, rule in zip(reports[1:], RULES.values(), strict=True):
        assert rule is not None
        assert report.tokens == alone.text(prompt, rule, Sampling())


async def test_a_text_whose_link_is_cut_goes_on_under_its_mask(alone: Alone) -> None:
    prompt, rule, how = alone.tokenizer.encode(PROMPT), RULES["schema"], SAMPLINGS["T 0.8"]
    assert rule is not None
    retry = foredraft.Retry(attempts=300, first_s=0.01, most_s=0.5)
    async with foredraft.Cloud.load("demo") as cloud, cloud.listen() as url, AsyncExitStack() as stack:
        slow = Shape(delay_s=0.002)
        proxy = ShapingProxy("127.0.0.1", int(url.rpartition(":")[2]), up=slow, down=slow)
        stack.enter_context(run_proxy_in_thread(proxy))
        near = f"http://127.0.0.1:{proxy.port}"
        edge = await stack.enter_async_context(foredraft.connect(near, draft="demo", retry=retry))
        generation = edge.generate(
            prompt, policy="seed", temperature=0.8, seed=how.seed, max_new_tokens=LENGTH, constraint=rule
        )
        cuts = 0
        async for _ in generation:
            if cuts < 3:
                proxy.cut()
                cuts += 1
        assert generation.report.reconnects > 0
        assert generation.report.tokens == alone.text(prompt, rule, how)


async def test_a_rule_that_cannot_be_followed_is_refused_and_the_next_text_goes_well(edge: foredraft.Edge) -> None:
    with pytest.raises(RefusedError, match="cannot be followed"):
        await edge.generate(PROMPT, max_new_tokens=4, constraint=constraint_of(regex="(")).finish()
    report = await edge.generate(PROMPT, max_new_tokens=4, seed=0).finish()
    assert len(report.tokens) == 4


async def test_clients_of_openais_interface_get_what_they_asked_for(edge: foredraft.Edge) -> None:
    card = ChatCard(name="bundled", template="{% for message in messages %}{{ message.content }}{% endfor %}")
    form: Any = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA, "strict": True}}
    ask: list[Any] = [{"role": "user", "content": PROMPT}]
    async with (
        serving(EdgeServer(edge, card)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        make = client.chat.completions.create
        said = await make(model="bundled", messages=ask, response_format=form, seed=1)
        assert set(json.loads(said.choices[0].message.content or "")) == {"action", "metres", "reason"}
        one_of: Any = {"structured_outputs": {"choice": ["left", "right"]}}
        chosen = await make(model="bundled", messages=ask, extra_body=one_of, seed=1)
        assert chosen.choices[0].message.content in ("left", "right")
        wrong: Any = {"structured_outputs": {"regex": "("}}
        with pytest.raises(openai.BadRequestError, match="cannot be followed"):
            await make(model="bundled", messages=ask, extra_body=wrong)


async def test_a_cloud_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foredraft.text.grammar.needs", _is_missing)
    async with foredraft.Cloud.load("demo") as cloud, foredraft.connect(cloud, draft="ngram") as edge:
        with pytest.raises(RefusedError, match=r"foredraft\[grammar\]"):
            await edge.generate(PROMPT, max_new_tokens=4, constraint=RULES["regex"]).finish()


async def test_an_edge_without_the_extra_drafts_without_the_grammar_and_the_text_is_the_same(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rule, prompt = RULES["schema"], alone.tokenizer.encode(PROMPT)
    assert rule is not None
    async with foredraft.Cloud.load("demo") as cloud, foredraft.connect(cloud, draft="demo") as edge:
        monkeypatch.setattr("foredraft.text.grammar.needs", _is_missing)
        report = await edge.generate(prompt, policy="seed", max_new_tokens=LENGTH, constraint=rule).finish()
    assert report.tokens == alone.text(prompt, rule, Sampling())
    assert "drafting without the grammar" in caplog.text


def _is_missing(*packages: str, extra: str) -> None:
    raise MissingExtraError(packages[0], extra)
