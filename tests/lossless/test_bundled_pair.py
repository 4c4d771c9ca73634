"""The bundled pair with its trained exits: the text is what the bundled target alone writes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import foredraft
from foredraft.demo_models import bundled_pair
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
