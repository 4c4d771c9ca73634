"""The bundled pair with its trained exits: the text is what the bundled target alone writes."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

import foredraft
from foredraft.bench.exact import PROMPTS, differing
from foredraft.demo_models import bundled_pair
from foredraft.links.proxy import ShapingProxy, run_proxy_in_thread
from foredraft.links.shaping import Shape
from foredraft.protocol.sampling import Sampling
from lossless.oracle import Oracle

LENGTH = 32
PROMPT = "import os\n\ndef read(path, mode='r'):\n    with open(path, mode) as file:\n"
SAMPLINGS = {"greedy": Sampling(), "T 0.8": Sampling(temperature=0.8, seed=21)}


@pytest.fixture(scope="module")
def bundled() -> Oracle:
    return Oracle.of(bundled_pair().target)


@pytest_asyncio.fixture(loop_scope="function")
async def edge() -> AsyncIterator[foredraft.Edge]:
    async with foredraft.Cloud.load("demo") as cloud, foredraft.connect(cloud, draft="demo") as edge:
        yield edge


@pytest.mark.parametrize("sampling", SAMPLINGS)
async def test_each_policy_writes_what_the_bundled_target_alone_writes(
    edge: foredraft.Edge, bundled: Oracle, sampling: str
) -> None:
    assert edge.tokenizer is not None
    prompt, wanted = edge.tokenizer.encode(PROMPT), SAMPLINGS[sampling]
    hints = accepted = 0
    for policy in ("cloud", "sync", "seed", "ahead:patience_s=0.02", "auto"):
        asked = edge.generate(
            prompt,
            policy=policy,
            temperature=wanted.temperature,
            seed=wanted.seed,
            max_new_tokens=LENGTH,
            end_marks=False,
        )
        report = await asked.finish()
        bundled.check(report.tokens, prompt, wanted)
        hints, accepted = hints + report.hints, accepted + report.accepted
    assert hints > 0
    assert accepted > 0


async def test_in_bfloat16_exact_texts_are_one_text_each_in_any_policy_draft_and_company() -> None:
    options = foredraft.ModelOptions(dtype="bfloat16", exact="on")
    async with foredraft.Cloud.load("demo", options=options) as cloud, AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(foredraft.connect(cloud, draft=name)) for name in ("ngram", "demo")]
        assert await differing(edges, PROMPTS[5:9], 10) == (0, 48)
        asked = edges[0].generate(PROMPTS[5], policy="sync", max_new_tokens=4)
        assert (await asked.finish()).exact


async def test_an_exact_text_goes_on_to_the_bit_after_its_link_was_cut() -> None:
    options = foredraft.ModelOptions(dtype="bfloat16", exact="on")
    retry = foredraft.Retry(attempts=300, first_s=0.01, most_s=0.5)
    asked = {"temperature": 0.8, "seed": 5, "max_new_tokens": 64, "end_marks": False}
    async with foredraft.Cloud.load("demo", options=options) as cloud, cloud.listen() as url:
        slow = Shape(delay_s=0.002)
        proxy = ShapingProxy("127.0.0.1", int(url.rpartition(":")[2]), up=slow, down=slow)
        with run_proxy_in_thread(proxy):
            async with foredraft.connect(f"http://127.0.0.1:{proxy.port}", draft="demo", retry=retry) as edge:
                whole = await edge.generate(PROMPT, policy="cloud", **asked).finish()  # type: ignore[arg-type]
                cut = edge.generate(PROMPT, policy="seed", **asked)  # type: ignore[arg-type]
                await anext(cut)
                proxy.cut()
                await cut.finish()
                assert cut.report.reconnects > 0
                assert cut.report.tokens == whole.tokens
