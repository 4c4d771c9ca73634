"""The Python API: an edge and clouds in one process, over memory and over HTTP."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

import foredraft
from api import clouds
from foredraft.api.servers import Servers
from foredraft.engines.scripted import ScriptedDrafter, ScriptedSlot, ScriptedTarget
from foredraft.errors import (
    ConfigError,
    LinkClosedError,
    ModelError,
    RefusedError,
    UnknownNameError,
    UnreachableError,
)
from foredraft.policies import policy_names
from foredraft.protocol.events import Event
from foredraft.protocol.ports import Link, Pass, Prediction, Verdict
from foredraft.protocol.sampling import Sampling

PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())
NO_RETRY = foredraft.Retry(attempts=0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("policy", policy_names())
async def test_pieces_are_the_text_and_the_tokens_of_the_report(policy: str) -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, policy=policy, max_new_tokens=100)
        pieces = [piece async for piece in generation]
    report = generation.report
    assert "".join(piece.text for piece in pieces) == report.text == clouds.text_between(START, START + 100)
    assert [token for piece in pieces for token in piece.tokens] == report.tokens
    assert (report.new_tokens, report.finish_reason, report.policy) == (100, "length", policy)


async def test_the_same_over_http_with_the_tokenizer_fetched_from_the_server() -> None:
    async with clouds.cloud() as cloud, cloud.listen() as url, foredraft.connect(url) as edge:
        report = await edge.generate(PROMPT, policy="sync", max_new_tokens=60).finish()
    assert report.text == clouds.text_between(START, START + 60)
    assert edge.tokenizer is not None
    assert edge.tokenizer.digest == clouds.TOKENIZER.digest


async def test_a_second_turn_goes_on_from_the_first() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud) as edge:
        prompt = clouds.TOKENIZER.encode(PROMPT)
        first = await edge.generate(prompt, max_new_tokens=20).finish()
        second = await edge.generate([*prompt, *first.tokens], max_new_tokens=20).finish()
    assert first.tokens + second.tokens == [clouds.truth(p) for p in range(START, START + 40)]


async def test_a_seed_is_drawn_and_told_unless_one_is_given() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud) as edge:
        drawn = [edge.generate(PROMPT).seed for _ in range(8)]
        given = edge.generate(PROMPT, seed=7, max_new_tokens=1)
        assert (await given.finish()).seed == given.seed == 7
    assert len(set(drawn)) > 1


async def test_the_text_ends_before_a_stop_string() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        report = await edge.generate(PROMPT, stop=["Viktor"], max_new_tokens=500).finish()
    assert report.text == clouds.TEXT[13:].partition("Viktor")[0]
    assert report.finish_reason == "stop"


async def test_the_models_end_marks_end_the_text_unless_told_otherwise() -> None:
    target = clouds.target()
    target._card = replace(target._card, stop_tokens=(clouds.truth(START + 5),))
    async with foredraft.Cloud(target, clouds.TOKENIZER) as cloud, foredraft.connect(cloud) as edge:
        stopped = await edge.generate(PROMPT, max_new_tokens=50).finish()
        whole = await edge.generate(PROMPT, max_new_tokens=50, end_marks=False).finish()
    assert stopped.new_tokens <= 6 < whole.new_tokens == 50


async def test_leaving_the_loop_early_leaves_the_edge_usable_and_the_cloud_idle() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        async for _ in edge.generate(PROMPT, max_new_tokens=10_000):
            break
        report = await edge.generate(PROMPT, max_new_tokens=10).finish()
        assert report.text == clouds.text_between(START, START + 10)
        sessions = list(cloud._sessions)
    assert all(session.done() for session in sessions)
    assert cloud.service.counters.active == 0


async def test_a_second_text_at_the_same_time_is_refused_and_the_first_goes_on() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        first = asyncio.create_task(edge.generate(PROMPT, max_new_tokens=200).finish())
        await asyncio.sleep(0)
        with pytest.raises(ConfigError, match="generated already"):
            await edge.generate(PROMPT).finish()
        assert (await first).new_tokens == 200


async def test_a_session_that_goes_on_at_another_server_follows_that_ones_policy() -> None:
    first, second = clouds.cloud(policy="sync:gamma=3"), clouds.cloud(policy="seed:gamma=2")
    async with first, second, second.listen() as second_url:
        leaving = first.listen()
        first_url = await leaving.__aenter__()
        quick = foredraft.Retry(first_s=0.0)
        async with foredraft.connect(first_url, second_url, draft=clouds.drafter(), retry=quick) as edge:
            generation = edge.generate(PROMPT, max_new_tokens=400)
            specs = [generation.policy_spec]
            async for _ in generation:
                if len(specs) == 1:
                    specs.append(generation.policy_spec)
                    await leaving.__aexit__(None, None, None)
    specs.append(generation.policy_spec)
    assert specs == ["sync:gamma=3", "sync:gamma=3", "seed:gamma=2"]
    assert (generation.report.policy, generation.report.policy_from) == ("seed", "server")
    assert generation.report.text == clouds.text_between(START, START + 400)


async def test_the_session_goes_on_at_the_next_server_when_one_goes_away() -> None:
    async with clouds.cloud() as first, clouds.cloud() as second, second.listen() as second_url:
        leaving = first.listen()
        first_url = await leaving.__aenter__()
        quick = foredraft.Retry(first_s=0.0)
        async with foredraft.connect(first_url, second_url, draft=clouds.drafter(), retry=quick) as edge:
            generation = edge.generate(PROMPT, policy="sync", max_new_tokens=400)
            left = False
            async for _ in generation:
                if not left:
                    left = True
                    await leaving.__aexit__(None, None, None)
    assert generation.report.text == clouds.text_between(START, START + 400)
    assert generation.report.reconnects > 0
    assert second.service.counters.tokens > 0


async def test_no_server_there_is_an_error_after_the_retries() -> None:
    async with clouds.cloud() as cloud, cloud.listen() as url:
        pass
    patience = foredraft.Retry(attempts=2, first_s=0.0)
    with pytest.raises(UnreachableError, match="gave up after 2 retries"):
        await foredraft.connect(url, retry=patience).__aenter__()


async def test_of_several_servers_that_are_gone_each_is_named() -> None:
    gone = ("http://127.0.0.1:1", "http://127.0.0.1:2")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2"):
        await foredraft.connect(*gone, retry=NO_RETRY).__aenter__()


async def test_a_wrong_key_is_refused_at_once_and_the_right_one_serves() -> None:
    async with clouds.cloud(api_key="right") as cloud, cloud.listen() as url:
        with pytest.raises(RefusedError, match="API key"):
            await foredraft.connect(url, api_key="wrong").__aenter__()
        async with foredraft.connect(url, api_key="right") as edge:
            assert (await edge.generate(PROMPT, max_new_tokens=5).finish()).new_tokens == 5


async def test_a_key_that_none_of_several_servers_knows_is_refused_at_once() -> None:
    first, second = clouds.cloud("one"), clouds.cloud("another")
    async with first, second, first.listen() as one, second.listen() as other:
        with pytest.raises(RefusedError, match=r"no server lets us in: .*API key; .*API key$"):
            async with foredraft.connect(one, other, api_key="a third"):
                pass


async def test_of_servers_that_are_all_busy_the_one_that_is_free_first_says_when_to_try_again() -> None:
    async def busy(retry_after_s: float | None) -> Link:
        raise RefusedError("busy" if retry_after_s else "unauthorized", "no", retry_after_s)

    with pytest.raises(RefusedError) as raised:
        await Servers([partial(busy, retry_after_s) for retry_after_s in (5.0, None, 2.0)]).connect()
    assert (raised.value.code, raised.value.retry_after_s) == ("busy", 2.0)


async def test_a_draft_with_another_tokenizer_is_refused() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter("another")) as edge:
        with pytest.raises(ModelError, match="the draft's tokenizer"):
            await edge.generate(PROMPT).finish()


async def test_a_prompt_longer_than_the_context_is_refused_with_the_way_out() -> None:
    async with (
        foredraft.Cloud(clouds.target(context=8), clouds.TOKENIZER) as cloud,
        foredraft.connect(cloud) as edge,
    ):
        with pytest.raises(RefusedError, match="shorten the prompt"):
            await edge.generate(PROMPT).finish()


async def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud) as edge:
        with pytest.raises(UnknownNameError, match="did you mean 'sync'"):
            edge.generate(PROMPT, policy="sink")
        with pytest.raises(ConfigError, match="the prompt is empty"):
            edge.generate("")
        with pytest.raises(ConfigError, match="token id 257 is outside"):
            edge.generate([1, 257])
        with pytest.raises(ConfigError, match="temperature"):
            edge.generate(PROMPT, temperature=-1.0)
        with pytest.raises(ConfigError, match="max_new_tokens"):
            edge.generate(PROMPT, max_new_tokens=0)
    assert cloud.service.counters.sessions == 0


async def test_an_edge_that_is_not_connected_says_how_to() -> None:
    async with clouds.cloud() as cloud:
        with pytest.raises(ConfigError, match="async with connect"):
            foredraft.connect(cloud).generate(PROMPT)
    with pytest.raises(ConfigError, match="no server"):
        foredraft.connect()
    with pytest.raises(ConfigError, match="not an address"):
        foredraft.connect("cloud:8471")


async def test_a_target_of_token_ids_alone_needs_no_tokenizer() -> None:
    async with foredraft.Cloud(clouds.target()) as cloud, foredraft.connect(cloud) as edge:
        report = await edge.generate([1, 2, 3], max_new_tokens=9).finish()
        with pytest.raises(ConfigError, match="token ids"):
            edge.generate("text")
        with pytest.raises(ConfigError, match="without a tokenizer cannot listen"):
            await cloud.listen().__aenter__()
    assert report.tokens == [clouds.truth(p) for p in range(3, 12)]
    assert report.text == ""


async def test_an_observer_sees_the_commits_that_make_the_text() -> None:
    events: list[Event] = []
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        report = await edge.generate(PROMPT, max_new_tokens=30, observer=events.append).finish()
    committed = [token for event in events if event.kind == "commit" for token in event.data["tokens"]]  # type: ignore[union-attr]
    assert committed == report.tokens


def test_every_public_name_is_there_and_no_other() -> None:
    assert [getattr(foredraft, name) for name in foredraft.__all__]
    assert sorted(foredraft.__all__) == foredraft.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        foredraft.nothing  # noqa: B018


def test_importing_foredraft_imports_neither_torch_nor_a_web_library() -> None:
    program = "import sys, foredraft; foredraft.ConfigError; print({'torch', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_edge_with_the_ngram_drafter_imports_neither_torch_nor_transformers() -> None:
    program = """
import asyncio, sys
from api import clouds
import foredraft

async def main():
    async with clouds.cloud() as cloud, cloud.listen() as url, foredraft.connect(url, draft="ngram") as edge:
        report = await edge.generate(clouds.TEXT * 2, policy="sync", max_new_tokens=50).finish()
        print(report.new_tokens, [m for m in ("torch", "transformers", "numpy", "matplotlib") if m in sys.modules])

asyncio.run(main())
"""
    folder = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == "50 []"


async def test_several_texts_at_once_have_a_drafter_each_and_are_what_each_is_alone() -> None:
    made: list[object] = []

    def new_drafter() -> object:
        made.append(clouds.drafter())
        return made[-1]

    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=new_drafter) as edge:  # type: ignore[arg-type]
        prompts = [clouds.TOKENS[: 5 + number] for number in range(8)]
        texts = [edge.generate(prompt, policy="seed", max_new_tokens=50) for prompt in prompts]
        reports = await asyncio.gather(*(text.finish() for text in texts))
        again = await edge.generate(prompts[0], max_new_tokens=50).finish()
    for prompt, report in zip(prompts, reports, strict=True):
        assert report.tokens == [clouds.truth(p) for p in range(len(prompt), len(prompt) + 50)]
    assert again.tokens == reports[0].tokens
    assert len(made) == 8


async def test_a_text_is_left_with_its_context_and_the_cloud_stops() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud) as edge:
        async with edge.generate(PROMPT, max_new_tokens=10_000) as generation:
            await anext(generation)
            assert cloud.service.counters.active == 1
        await asyncio.sleep(0.01)
        assert cloud.service.counters.active == 0


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_end_of_an_edge_ends_the_texts_that_other_tasks_iterate_over(cancelled: bool) -> None:
    drafters: list[ClosedOnce] = []

    def new_drafter() -> ClosedOnce:
        drafters.append(ClosedOnce())
        return drafters[-1]

    async with clouds.cloud() as cloud:
        async with foredraft.connect(cloud, draft=new_drafter) as edge:
            texts = [edge.generate(PROMPT, max_new_tokens=1 << 30) for _ in range(2)]
            tasks = [asyncio.create_task(text.finish()) for text in texts]
            await asyncio.sleep(0.01)
            if cancelled:  # and not waited for, as a gather that is cancelled leaves its tasks
                for task in tasks:
                    task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert cloud.service.counters.active == 0
    assert [type(one) for one in ended] == [asyncio.CancelledError if cancelled else LinkClosedError] * 2
    assert [drafter.closed for drafter in drafters] == [1, 1]


async def test_the_end_of_an_edge_ends_a_text_that_has_only_just_begun_elsewhere() -> None:
    async with clouds.cloud() as cloud:
        async with foredraft.connect(cloud, draft=clouds.drafter) as edge:
            task = asyncio.create_task(edge.generate(PROMPT, max_new_tokens=1 << 30).finish())
            await asyncio.sleep(0)  # it waits for its session's task, which has not had its turn
        with pytest.raises(LinkClosedError, match="the edge was closed"):
            await task


class ClosedOnce(ScriptedDrafter):
    """A drafter that counts how often it is closed."""

    def __init__(self) -> None:
        super().__init__(lambda position, width: [])
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


async def test_texts_over_http_share_a_connection_and_a_full_server_takes_back_one_that_is_idle() -> None:
    cloud = foredraft.Cloud(clouds.target(), clouds.TOKENIZER, max_sessions=1)
    async with cloud, cloud.listen() as url, foredraft.connect(url) as first, foredraft.connect(url) as second:
        for edge in (first, first, second, first, second):
            assert (await edge.generate(PROMPT, max_new_tokens=10).finish()).new_tokens == 10
        assert cloud.service.counters.sessions == 5


@pytest.mark.parametrize("policy", ["cloud", "sync", "seed"])
async def test_each_token_has_its_log_probabilities_also_where_the_session_goes_on_elsewhere(policy: str) -> None:
    async with clouds.cloud() as first, clouds.cloud() as second, second.listen() as second_url:
        leaving = first.listen()
        first_url = await leaving.__aenter__()
        quick = foredraft.Retry(first_s=0.0)
        async with foredraft.connect(first_url, second_url, draft=clouds.drafter(), retry=quick) as edge:
            generation = edge.generate(PROMPT, policy=policy, max_new_tokens=400, logprobs=3)
            pieces = [await anext(generation)]
            await leaving.__aexit__(None, None, None)
            pieces += [piece async for piece in generation]
    assert generation.report.reconnects > 0
    scored = [one for piece in pieces for one in piece.logprobs]
    assert [own[0] for own, *_ in scored] == generation.report.tokens
    assert {len(one) for one in scored} == {4}


async def test_log_probabilities_that_nobody_tells_are_an_error_and_too_many_are_refused() -> None:
    class Silent(ScriptedTarget):
        async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
            return SilentSlot(self.card.layers, self.script)

    class SilentSlot(ScriptedSlot):
        async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
            return await super().verify(msgspec.structs.replace(batch, logprobs=None), on_exit)

    async with foredraft.Cloud(Silent(clouds.truth)) as cloud, foredraft.connect(cloud) as edge:
        with pytest.raises(RefusedError, match="tells no log-probabilities"):
            await edge.generate([1, 2], logprobs=0).finish()
        with pytest.raises(ConfigError, match="logprobs must be 0 to 20, not 21"):
            edge.generate([1, 2], logprobs=21)
