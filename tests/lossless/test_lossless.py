"""Whoever drafts, whatever the policy and the weather: the text is what the target alone writes."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import pytest
import pytest_asyncio

from engines.tiny_models import FAMILIES, save_model
from engines.torch_reference import PlainHeads, prompt_of
from foredraft.api.cloud import Cloud
from foredraft.edge.connections import Connect, Retry
from foredraft.edge.session import EdgeSession
from foredraft.edge.session_report import SessionReport
from foredraft.engines.ngram import NgramDrafter
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.engines.torch_draft import TorchDrafter
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.policies import make_policy
from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling, StopRules
from lossless.oracle import Oracle, Text
from lossless.tally import EPSILON, Tally
from lossless.weather import Weather

LENGTH = 24
POLICIES = (
    "cloud",
    "sync",
    "seed:threshold=0.0",
    "ahead:threshold=0.0,patience_s=0.02",
    "auto:threshold=0.0",
    "colocated:cloud_gamma=3",
    "both:threshold=0.0,cloud_gamma=3,patience_s=0.02",
)
SAMPLINGS = {
    "greedy": Sampling(),
    "T 0.8": Sampling(temperature=0.8, seed=5),
    "T 0.8 filtered": Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=6),
}
PROMPTS = [prompt_of(length, seed=length) for length in (1, 5, 23)]
DRAFTERS = ("near", "same", "ngram", "wrong")


@dataclass
class Lab:
    """One cloud with the tiny target, and drafters to choose from."""

    cloud: Cloud
    drafters: dict[str, Drafter]

    async def write(
        self, policy: str, drafter: str, prompt: list[int], sampling: Sampling, connect: Connect | None = None
    ) -> SessionReport:
        """One text. What was shown on the way is the report's text: nothing twice, nothing taken back."""
        session = EdgeSession(
            prompt,
            connect=connect or self.cloud.connect,
            drafter=self.drafters[drafter],
            policy=make_policy(policy),
            sampling=sampling,
            rules=StopRules(LENGTH),
            retry=Retry(first_s=0.0),
        )
        shown: list[int] = []
        async with aclosing(session.stream()) as stream:
            async for tokens in stream:
                shown += tokens
        report = session.report()
        assert shown == report.tokens
        assert len(shown) == LENGTH
        return report


@pytest_asyncio.fixture(loop_scope="function")
async def lab(target_model: LoadedModel, draft_model: LoadedModel) -> AsyncIterator[Lab]:
    drafters: dict[str, Drafter] = {
        "near": TorchDrafter(draft_model),
        "same": TorchDrafter(target_model),
        "ngram": NgramDrafter(),
        "wrong": ScriptedDrafter(lambda position, width: [Guess((position * 31 + n) % 256, 0.9) for n in range(width)]),
    }
    target = TorchTarget(target_model, PlainHeads(target_model), prefill_chunk=16)
    async with Cloud(target, new_drafter=lambda: TorchDrafter(draft_model)) as cloud:
        yield Lab(cloud, drafters)
        for drafter in drafters.values():
            await drafter.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("policy", POLICIES)
async def test_the_text_is_what_the_target_alone_writes(lab: Lab, oracle: Oracle, policy: str, sampling: str) -> None:
    for number, drafter in enumerate(DRAFTERS if policy != "cloud" else ["wrong"] * len(PROMPTS)):
        prompt = PROMPTS[number % len(PROMPTS)]
        report = await lab.write(policy, drafter, prompt, SAMPLINGS[sampling])
        oracle.check(report.tokens, prompt, SAMPLINGS[sampling])


@pytest.mark.parametrize("sampling", ["greedy", "T 0.8 filtered"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_late_commits_made_up_hints_and_cuts_change_no_token(
    lab: Lab, oracle: Oracle, policy: str, sampling: str
) -> None:
    weather = Weather(lab.cloud.connect, late_s=0.004, lies=6, cut_every=7)
    report = await lab.write(policy, "near", PROMPTS[1], SAMPLINGS[sampling], weather.connect)
    oracle.check(report.tokens, PROMPTS[1], SAMPLINGS[sampling])
    assert report.reconnects == weather.cuts > 0
    assert weather.lied > 0


async def test_the_drafts_and_hints_of_these_tests_are_right_and_wrong_by_turns(lab: Lab) -> None:
    report = await lab.write("seed:gamma=4,threshold=0.0", "near", PROMPTS[1], SAMPLINGS["T 0.8"])
    assert 0 < report.accepted < report.drafted
    assert 0 < report.hints_right < report.hints
    same = await lab.write("sync:gamma=4", "same", PROMPTS[1], SAMPLINGS["T 0.8"])
    assert same.accepted == same.drafted > LENGTH / 2


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_writes_what_transformers_generate_writes(
    tmp_path_factory: pytest.TempPathFactory, family: str
) -> None:
    window = {"sliding_window": 9} if family == "mistral" else {}
    folder = save_model(tmp_path_factory.mktemp(family), family, seed=3, eos_token_id=None, **window)
    model, oracle = load_model(folder), Oracle.of(folder)
    drafter = TorchDrafter(model)
    async with Cloud(TorchTarget(model, PlainHeads(model))) as cloud:
        here = Lab(cloud, {"same": drafter})
        for policy in ("seed:threshold=0.0", "ahead:threshold=0.0,patience_s=0.02"):
            report = await here.write(policy, "same", PROMPTS[2], Sampling())
            oracle.check(report.tokens, PROMPTS[2], Sampling())
    await drafter.close()


def test_a_wrong_token_is_only_excused_where_the_oracle_itself_hardly_knows() -> None:
    said, judged = Text([5, 6, 7], [1.0, EPSILON / 2, 1.0]), Tally()
    oracle = Oracle(None, {((1,), Sampling(), 3): said}, judged)
    oracle.check([5, 9, 9], [1], Sampling())
    assert judged == Tally(compared=1, ties=1)
    with pytest.raises(AssertionError, match="token 0 is 9, not 5, which leads by 1"):
        oracle.check([9, 6, 7], [1], Sampling())
