"""What can be seen to be impossible in a scenario before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from foredraft.errors import ConfigError, RecordError
from foredraft_sim.errors import ScenarioError
from foredraft_sim.network.channel import Channel
from foredraft_sim.network.traces import read_trace
from foredraft_sim.scenario.scenario_file import AsRecorded, ModelPair, RecordedPair
from foredraft_sim.streams import Streams
from foredraft_sim.tokens.fitted import DrawnPair
from foredraft_sim.tokens.recorded import read_replays

if TYPE_CHECKING:
    from foredraft_sim.scenario.scenario import Scenario


def check_link(scenario: "Scenario") -> None:
    """A link that could not be emulated is refused before anything runs."""
    link = scenario.link
    for name, direction in (("up", link.up), ("down", link.down)):
        try:
            trace = None
            if direction.trace is not None:
                folder = Path() if link.path is None else link.path.parent
                trace = read_trace(folder / direction.trace)
            Channel(direction, Streams(0), trace=trace, loss=link.loss)
        except ConfigError as error:
            named = scenario.file.link.profile
            raise ScenarioError(f"{scenario.path}: link.profile = {named!r}, {name}: {error}") from error


def check_workload(scenario: "Scenario") -> None:
    """What can be seen to be impossible before anything runs."""
    path, work = scenario.path, scenario.workload
    _check_keys(scenario)
    _check_traffic(scenario)
    _check_acceptance(scenario)
    if isinstance(scenario.pair, ModelPair):
        if not work.prompts and not work.prompts_file:
            raise ScenarioError(f"{path}: workload.prompts is missing: models need texts (or workload.prompts_file)")
        return
    if work.prompts or work.prompts_file:
        kind = "synthetic" if isinstance(scenario.pair, DrawnPair) else "recorded"
        name = "prompts" if work.prompts else "prompts_file"
        raise ScenarioError(f"{path}: workload.{name}: a {kind} pair reads no text; leave it out")
    if isinstance(scenario.pair, RecordedPair):
        _check_recording(scenario, scenario.pair)
        return
    longest = sum(scenario.longest)
    if longest > scenario.pair.context:
        raise ScenarioError(
            f"{path}: workload: {longest} tokens of prompt and text are more than pair.context = "
            f"{scenario.pair.context}"
        )
    memory = scenario.target.memory
    if memory is not None:
        needed_bytes = memory.weights_bytes + longest * memory.cache_bytes_per_token
        if needed_bytes > memory.device_bytes:
            raise ScenarioError(
                f"{path}: workload: one request of {longest} tokens needs {needed_bytes:,} bytes on cloud.profile = "
                f"{scenario.file.cloud.profile!r}, which has {memory.device_bytes:,}: it could never begin"
            )


def _check_traffic(scenario: "Scenario") -> None:
    """Arrivals as recorded need a record of them. Raises ScenarioError."""
    if not isinstance(scenario.workload.arrivals, AsRecorded):
        return
    where = f'{scenario.path}: workload.arrivals: kind = "traffic"'
    if scenario.traffic is None:
        raise ScenarioError(f"{where}: workload.traffic is missing: name the file of the requests")
    if not scenario.traffic.arrived_s:
        raise ScenarioError(
            f"{where}: {scenario.workload.traffic} tells no times: give it a column TIMESTAMP, or take poisson arrivals"
        )


def _check_acceptance(scenario: "Scenario") -> None:
    """Rejection sampling needs chance, and a draft that may draw. Raises ScenarioError."""
    where = f'{scenario.path}: sampling.acceptance = "rejection"'
    if scenario.rejects and isinstance(scenario.pair, RecordedPair):
        raise ScenarioError(f"{where}: what was recorded was drawn already; take a pair of models, or a synthetic one")
    if scenario.rejects and isinstance(scenario.pair, ModelPair) and not scenario.file.sampling.temperature:
        raise ScenarioError(f"{where}: at temperature 0 both rules are one; give sampling.temperature, too")


def _check_keys(scenario: "Scenario") -> None:
    keys, path, devices = scenario.file.keys, scenario.path, scenario.workload.devices
    held = sum(table.devices for table in keys)
    if keys and held != devices:
        raise ScenarioError(f"{path}: keys: {held} devices have one, and workload.devices is {devices}")
    if len({table.name for table in keys}) < len(keys):
        raise ScenarioError(f"{path}: keys: two have the same name")
    if any(table.prompt_tokens for table in keys) and not isinstance(scenario.pair, DrawnPair):
        raise ScenarioError(f"{path}: keys: prompt_tokens are a synthetic pair's; leave them out")


def _check_recording(scenario: "Scenario", pair: RecordedPair) -> None:
    try:
        replays = read_replays(scenario.path.parent / pair.file)
    except RecordError as error:
        raise ScenarioError(f"{scenario.path}: pair.file = {pair.file!r}: {error}") from error
    _, most = scenario.longest
    for number, text in enumerate(replays.texts):
        ended = text.tokens[-1] in replays.record.setup.models.stop_tokens and scenario.workload.end_marks
        if not ended and len(text.tokens) < most:
            raise ScenarioError(
                f"{scenario.path}: workload.new_tokens: up to {most} tokens, and session "
                f"{number} of pair.file = {pair.file!r} has {len(text.tokens)}"
            )
