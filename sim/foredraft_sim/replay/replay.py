"""Replaying a record: the same tokens in simulated time, as they were recorded or under another set-up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeVar

import msgspec

from foredraft.cloud.session import NewDetokenizer
from foredraft.engines.pace import Pace
from foredraft.errors import RecordError
from foredraft.observe.aggregate import COUNTS, TIMES
from foredraft.observe.record.event_lines import event_lines
from foredraft.observe.record.plain_profiles import profile_from_plain
from foredraft.observe.record.reading import Record
from foredraft.profiles import DraftProfile, LinkProfile, TargetProfile
from foredraft.protocol.ports import Drafter, Target
from foredraft_sim.replay.recorded_profiles import (
    NAME,
    measured_cloud_draft,
    measured_draft,
    measured_link,
    measured_target,
)
from foredraft_sim.scenario.emulation import NewPace
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.pairs import Request
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import CloudTable, EdgeTable, Override, RecordedPair, ScenarioFile, Workload
from foredraft_sim.tokens.recorded import RecordedDrafter, RecordedTarget, Replays, StopsWhereRecorded
from foredraft_sim.tokens.recorded_times import RecordedPace, cloud_draft_calls, draft_calls, target_calls

FIGURES: Final = (*TIMES, *COUNTS, "tokens_per_pass")
"""What is compared: fields of a session's report, as means over the sessions."""

CLOUD_DRAFTED: Final = ("colocated", "both")
"""Policies that let the cloud draft."""

EDGE_RESTS: Final = ("cloud", "colocated")
"""Policies that never let the edge draft."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be different from the recorded set-up; None: as recorded.

    ``cloud_draft``: a draft model in the cloud, whether or not there was one; it guesses what the recorded one did, or,
    where nobody knows that, what the edge's did.
    """

    policy: str | None = None
    edge: DraftProfile | None = None
    cloud: TargetProfile | None = None
    cloud_draft: DraftProfile | None = None
    link: LinkProfile | None = None

    @property
    def none(self) -> bool:
        """Whether everything is as recorded."""
        return self == Changes()


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay. ``recorded``, ``replayed``: FIGURES; the former is empty where the record was cut off.

    ``same_tokens``: whether each text is the recorded one. ``same_events``: whether everything happened as
    recorded; None where that cannot be asked: a live or private record, one that was cut off, another set-up.
    """

    record: Record
    scenario: Scenario
    policy: str
    replication: Replication
    recorded: dict[str, float]
    replayed: dict[str, float]
    same_tokens: bool
    same_events: bool | None


def replay(record: Record, changes: Changes | None = None) -> Replayed:
    """Replay all sessions of a record. Raises RecordError, ScenarioError, ConfigError.

    A simulated record is replayed with its own profiles, luck and load, a live one with devices and link as
    its durations tell. A private record is replayed with stand-ins for its tokens.
    """
    changes = changes or Changes()
    source = ReplaySource(record)
    policy = changes.policy or record.setup.policy
    scenario, paces = set_up(record, changes, len(source.replays.texts))
    scenario.policy(policy)
    done = replicate(scenario, policy, record.setup.seed, log=True, texts=True, source=source, new_pace=paces)
    texts = [text.tokens for text in source.replays.texts]
    whole = [session for session in record.sessions if session.ended is not None]
    comparable = record.setup.simulated and not record.setup.private and record.cut is None and changes.none
    return Replayed(
        record,
        scenario,
        policy,
        done,
        recorded=_means([session.figures for session in whole]) if len(whole) == len(record.sessions) else {},
        replayed=_means([msgspec.to_builtins(finished.report) for finished in done.finished]),
        same_tokens=[finished.report.tokens for finished in done.finished] == texts,
        same_events=done.log == event_lines(record) if comparable else None,
    )


def _means(reports: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: fmean(float(report[name]) for report in reports) for name in FIGURES} if reports else {}


class ReplaySource:
    """A record's sessions as the requests of a simulation: request r is the r-th of them that has a text."""

    def __init__(self, record: Record) -> None:
        self.replays = Replays(record)
        strings = any(text.rules.strings for text in self.replays.texts)
        self.new_detokenizer: NewDetokenizer | None = self._detokenizer if strings else None

    def target(self) -> Target:
        """A target that says what was recorded."""
        return RecordedTarget(self.replays)

    def drafter(self) -> Drafter:
        """A drafter that guesses what was recorded."""
        return RecordedDrafter(self.replays)

    def cloud_drafter(self) -> Drafter:
        """A drafter that guesses what was recorded of one beside the target, else what the edge's did."""
        return RecordedDrafter(self.replays, in_cloud=True)

    def prompt(self, seed: int, request: int) -> list[int]:
        """The session's."""
        return self.request(seed, request).prompt

    def request(self, seed: int, request: int) -> Request:
        """What the session was asked for."""
        text = self.replays.assign(self.replays.texts[request].sampling.seed, request)
        return Request(list(text.prompt), text.sampling, text.rules, text.estimates())

    def text(self, tokens: list[int]) -> str:
        """Nothing: a record has no tokenizer."""
        return ""

    def _detokenizer(self, prompt: Sequence[int]) -> StopsWhereRecorded:
        text = next(one for one in self.replays.texts if list(one.prompt) == list(prompt))
        return StopsWhereRecorded(text)


def set_up(record: Record, changes: Changes, requests: int) -> tuple[Scenario, NewPace]:
    """The recorded set-up, with the changes. Raises RecordError where the record does not tell enough."""
    setup, path = record.setup, record.path
    recorded, paces = _simulated_places(record) if setup.simulated else _live_places(record, changes)
    file, replaced = recorded.file, msgspec.structs.replace
    scenario = replace(
        recorded,
        file=replaced(file, workload=replaced(file.workload, requests=requests)),
        draft=changes.edge or recorded.draft,
        target=changes.cloud or recorded.target,
        link=changes.link or recorded.link,
        cloud_draft=changes.cloud_draft or recorded.cloud_draft,
    )
    spec = changes.policy or setup.policy
    if scenario.cloud_draft is None and _named(spec, CLOUD_DRAFTED):
        raise RecordError(
            f"{path}: no draft model in the cloud is recorded in it, so it does not tell how long one takes, which "
            f"{spec!r} needs; name a profile with --cloud-draft, or replay another policy with --policy"
        )
    given = {"edge": changes.edge, "cloud": changes.cloud, "cloud draft": changes.cloud_draft}
    return scenario, lambda where: paces[where]() if where in paces and given[where] is None else None


Paces = dict[str, Callable[[], Pace]]
"""What makes the paces of devices that take what they took."""


def _simulated_places(record: Record) -> tuple[Scenario, Paces]:
    """The scenario that was simulated."""
    setup, path = record.setup, record.path
    draft = profile_from_plain(_told(setup.edge, path), "draft", path)
    target = profile_from_plain(_told(setup.cloud, path), "target", path)
    link = profile_from_plain(_told(setup.link, path), "link", path)
    cloud_draft = None if setup.cloud_draft is None else profile_from_plain(setup.cloud_draft, "draft", path)
    pair = RecordedPair(file=str(path))
    return Scenario(path, _scenario_file(record), draft, target, link, pair, cloud_draft), {}


def _live_places(record: Record, changes: Changes) -> tuple[Scenario, Paces]:
    """Devices and link as a live session has met them."""
    steps, passes, cloud_steps = draft_calls(record), target_calls(record), cloud_draft_calls(record)
    drafts = changes.policy is not None and not _named(changes.policy, EDGE_RESTS)
    draft = measured_draft(record, steps, needed=drafts and changes.edge is None)
    target = measured_target(record, passes)
    paces: Paces = {
        "edge": partial(RecordedPace, draft, "step", steps),
        "cloud": partial(RecordedPace, target, "pass", passes),
    }
    cloud_draft = None
    if cloud_steps.taken_s:
        cloud_draft = measured_cloud_draft(record, cloud_steps)
        paces["cloud draft"] = partial(RecordedPace, cloud_draft, "step", cloud_steps)
    path = record.path
    pair, link = RecordedPair(file=str(path)), measured_link(record)
    return Scenario(path, _live_file(record), draft, target, link, pair, cloud_draft), paces


def _named(spec: str, policies: Sequence[str]) -> bool:
    return spec.partition(":")[0] in policies


def _told(value: _T | None, path: Path) -> _T:
    if value is None:
        raise RecordError(f"{path}: a simulated record without its profiles; record again")
    return value


def _scenario_file(record: Record) -> ScenarioFile:
    try:
        return msgspec.convert(_told(record.setup.scenario, record.path), ScenarioFile)
    except msgspec.ValidationError as error:
        raise RecordError(f"{record.path}: its scenario does not fit this Foredraft ({error}); record again") from error


def _live_file(record: Record) -> ScenarioFile:
    models = record.setup.models
    return ScenarioFile(
        title="a live session, replayed",
        policies=(record.setup.policy,),
        seeds=(record.setup.seed,),
        edge=EdgeTable(profile=NAME),
        cloud=CloudTable(profile=NAME, max_pass_nodes=models.max_pass_nodes),
        link=Override(profile=NAME),
        pair=RecordedPair(file=str(record.path)),
        workload=Workload(new_tokens=max(session.began.max_new_tokens for session in record.sessions)),
    )
