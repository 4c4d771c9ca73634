"""Where the tokens of a simulation come from: a synthetic pair, or real models that take no simulated time."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from foredraft.cloud.session import NewDetokenizer
from foredraft.demo_models.pair import FOLDERS, bundled_pair
from foredraft.edge.estimates import Estimates
from foredraft.errors import ProfileError, extras_named
from foredraft.profiles import check_model
from foredraft.protocol.ports import Drafter, Target
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.text.tokenizer import Tokenizer
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import ModelPair, RecordedPair, length_of
from foredraft_sim.tokens.fitted import DrawnPair
from foredraft_sim.tokens.recorded import RecordedDrafter, RecordedTarget, read_replays
from foredraft_sim.tokens.synthetic import SyntheticDrafter, SyntheticTarget
from foredraft_sim.workers.files import brought

if TYPE_CHECKING:
    from foredraft.api.loading import Draft
    from foredraft.engines.torch_model import LoadedModel

_CACHE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Request:
    """What one session is asked for. ``estimates``: what its edge knows already; None: nothing."""

    prompt: list[int]
    sampling: Sampling
    rules: StopRules
    estimates: Estimates | None = None


class TokenSource(Protocol):
    """Makes engines that take no time; the emulation gives them a device's.

    ``new_detokenizer``: finds stop strings; None where there are none.
    """

    new_detokenizer: NewDetokenizer | None

    def target(self) -> Target:
        """A server's target."""

    def drafter(self) -> Drafter:
        """A device's drafter."""

    def cloud_drafter(self) -> Drafter:
        """The drafter of a session on a server."""

    def prompt(self, seed: int, request: int) -> list[int]:
        """The tokens that a request begins with. The same for all policies."""

    def request(self, seed: int, request: int) -> Request:
        """All that a request asks for. The same for all policies."""

    def text(self, tokens: list[int]) -> str:
        """What tokens read as; empty where they are no text."""


@extras_named()
def token_source(scenario: Scenario) -> TokenSource:
    """What the scenario's pair is. Raises ScenarioError, ModelError."""
    if isinstance(scenario.pair, DrawnPair):
        return SyntheticSource(scenario, scenario.pair)
    if isinstance(scenario.pair, RecordedPair):
        return RecordedSource(scenario, scenario.pair)
    return ModelSource(scenario, scenario.pair)


class _ScenarioSource(ABC):
    """What is asked, as a scenario says."""

    new_detokenizer: NewDetokenizer | None = None
    stop_tokens: tuple[int, ...] = ()

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    @abstractmethod
    def drafter(self) -> Drafter:
        """The source's own."""

    def cloud_drafter(self) -> Drafter:
        """It guesses what a device's would."""
        return self.drafter()

    @abstractmethod
    def prompt(self, seed: int, request: int) -> list[int]:
        """The source's own."""

    def request(self, seed: int, request: int) -> Request:
        """By the scenario's workload and sampling."""
        work = self._scenario.workload
        _, new_tokens = self._scenario.lengths_of(request)
        most = length_of(new_tokens, seed, "new tokens", request)
        rules = StopRules(most, self.stop_tokens if work.end_marks else ())
        return Request(self.prompt(seed, request), self._scenario.sampling(seed, request), rules)


class SyntheticSource(_ScenarioSource):
    """Statistics in the place of models."""

    def __init__(self, scenario: Scenario, pair: DrawnPair) -> None:
        super().__init__(scenario)
        self._pair = pair
        self._starts: dict[int, int] = {}  # how long the prompts of requests are, by their seeds

    def target(self) -> Target:
        """A target that says the pair's truth."""
        table = self._scenario.file.cloud
        return SyntheticTarget(
            self._pair,
            max_pass_nodes=table.max_pass_nodes,
            prefill_chunk=table.prefill_chunk,
            starts=self._starts,
        )

    def drafter(self) -> Drafter:
        """A drafter that says the pair's choices."""
        return SyntheticDrafter(self._pair, starts=self._starts, proposes=self._scenario.rejects)

    def prompt(self, seed: int, request: int) -> list[int]:
        """Random tokens, as long as the workload says."""
        own = self._scenario.sampling(seed, request).seed
        prompt_tokens, _ = self._scenario.lengths_of(request)
        count = self._starts[own] = length_of(prompt_tokens, seed, "prompt tokens", request)
        return [self._pair.truth(own, position) for position in range(count)]

    def text(self, tokens: list[int]) -> str:
        """Nothing: the tokens are random numbers."""
        return ""


class RecordedSource(_ScenarioSource):
    """What models said once, in the place of models."""

    def __init__(self, scenario: Scenario, pair: RecordedPair) -> None:
        super().__init__(scenario)
        self._replays = read_replays(brought(scenario.path.parent / pair.file))
        self.stop_tokens = self._replays.record.setup.models.stop_tokens

    def target(self) -> Target:
        """A target that says what was recorded."""
        return RecordedTarget(self._replays, max_pass_nodes=self._scenario.file.cloud.max_pass_nodes)

    def drafter(self) -> Drafter:
        """A drafter that guesses what was recorded."""
        return RecordedDrafter(self._replays)

    def cloud_drafter(self) -> Drafter:
        """A drafter that guesses what was recorded of one beside the target, else what the edge's did."""
        return RecordedDrafter(self._replays, in_cloud=True)

    def prompt(self, seed: int, request: int) -> list[int]:
        """The recorded texts' prompts, one after another, again and again."""
        return list(self._replays.assign(self._scenario.sampling(seed, request).seed, request).prompt)

    def text(self, tokens: list[int]) -> str:
        """Nothing: a recording has no tokenizer."""
        return ""


class ModelSource(_ScenarioSource):
    """Real models, loaded once in this process."""

    def __init__(self, scenario: Scenario, pair: ModelPair) -> None:
        super().__init__(scenario)
        target, draft, self._exits = _places(scenario.path.parent, pair)
        self._target, loaded = _loaded(target, pair.threads), _loaded_draft(draft, pair.threads)
        _check_profiles(scenario, self._target.digest, loaded.digest)
        self.stop_tokens = self._target.stop_tokens
        self.tokenizer = Tokenizer.from_folder(self._target.folder)
        self._draft = loaded.speaking(self.tokenizer, self.tokenizer.digest)
        texts = list(scenario.workload.prompts)
        if scenario.workload.prompts_file:
            texts += read_prompts(scenario.path, scenario.workload.prompts_file)
        self._prompts = [self.tokenizer.encode(text) for text in texts]

    def target(self) -> Target:
        """The model with its exits."""
        from foredraft.engines.torch_target import TorchTarget
        from foredraft.exits.heads import ExitHeads

        heads = ExitHeads.load(self._exits, self._target) if self._exits else None
        most = self._scenario.file.cloud.max_pass_nodes
        slots = self._scenario.workload.devices
        return TorchTarget(self._target, heads, cache_bytes=_CACHE_BYTES, max_slots=max(64, slots), max_pass_nodes=most)

    def drafter(self) -> Drafter:
        """The draft model; the weights are shared."""
        return self._draft.new()

    def prompt(self, seed: int, request: int) -> list[int]:
        """The workload's texts, one after another, again and again."""
        return self._prompts[request % len(self._prompts)]

    def text(self, tokens: list[int]) -> str:
        """The text."""
        return self.tokenizer.decode(tokens)


def _check_profiles(scenario: Scenario, target_digest: str, draft_digest: str) -> None:
    """Profiles that were measured with a model lend their times to no other."""
    for table, profile, digest in (("cloud", scenario.target, target_digest), ("edge", scenario.draft, draft_digest)):
        try:
            check_model(profile, digest)
        except ProfileError as error:
            raise ScenarioError(f"{scenario.path}: {table}.profile: {error}") from error


def _places(folder: Path, pair: ModelPair) -> tuple[str, str, Path | None]:
    """Target, draft and exits: the bundled ones, folders relative to the scenario's, or hub ids."""
    names = [pair.target, pair.draft]
    exits = folder / pair.exits if pair.exits else None
    if pair.target in FOLDERS:
        bundled = bundled_pair(pair.target)
        names[0], exits = str(bundled.target), exits or bundled.exits
    if pair.draft in FOLDERS:
        names[1] = str(bundled_pair(pair.draft).draft)
    target, draft = (str(folder / name) if (folder / name).exists() else name for name in names)
    return target, draft, exits


@lru_cache(maxsize=4)
def _loaded(model: str, threads: int) -> "LoadedModel":
    """A model by its folder or hub id; loaded once per process. Raises ModelError."""
    import torch
    from transformers.utils import logging

    from foredraft.engines.torch_model import load_model

    logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    return load_model(model, "float32", "cpu")


@lru_cache(maxsize=4)
def _loaded_draft(model: str, threads: int) -> "Draft":
    """A draft by its folder, hub id or GGUF file; loaded once per process. Raises ModelError."""
    from foredraft.api.loading import ModelOptions, load_draft

    return load_draft(model, ModelOptions(threads=threads))


def read_prompts(path: Path, name: str) -> list[str]:
    """The prompts in a file that the scenario in ``path`` names. Raises ScenarioError."""
    file = path.parent / name
    where = f"{path}: workload.prompts_file = {name!r}"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{where}: cannot be read: {error}") from error
    if file.suffix != ".jsonl":
        prompts = [text] if text.strip() else []
    else:
        lines = enumerate(text.splitlines(), 1)
        prompts = [_prompt_in(line, f"{where}: line {number}") for number, line in lines if line.strip()]
    if not prompts:
        raise ScenarioError(f"{where}: no prompt in it")
    return prompts


def _prompt_in(line: str, where: str) -> str:
    try:
        entry = json.loads(line)
        prompt = entry["prompt"] if "prompt" in entry else entry["turns"][0]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ScenarioError(f'{where}: neither a "prompt" nor "turns": {error}') from error
    if not isinstance(prompt, str) or not prompt:
        raise ScenarioError(f"{where}: the prompt must be a text, not {prompt!r}")
    return prompt
