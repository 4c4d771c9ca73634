"""A server's recommendation: taken up by edges that were given no policy, never imported, never fatal."""

import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import foredraft
from api import clouds
from foredraft.edge.session_report import EDGE, NOBODY, SERVER
from foredraft.edge.state import EdgeState
from foredraft.errors import ConfigError
from foredraft.observe.report import read_sources, report_page
from foredraft.policies import make_policy, policy_class
from foredraft.policies.recommended import Recommended, own_names, recommendation, recommended_policy
from foredraft.protocol.messages import PROTOCOL_VERSION, Ready, Steer, decode, encode
from foredraft.protocol.sampling import StopRules

READY = Ready(PROTOCOL_VERSION, "m", "t", 2000, 1000, 8, (2, 4), 64, 8, 8, ())
PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())


def ready(policy: str, cloud_drafts: int = 0) -> Ready:
    return msgspec.structs.replace(READY, policy=policy, cloud_drafts=cloud_drafts)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that must not be imported, with a policy in it, and a policy file."""
    (tmp_path / "trap.py").write_text("from foredraft.policies.sync import SyncPolicy as Trap\n")
    (tmp_path / "trap.toml").write_text('policy = "sync"\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    assert sys.modules.pop("trap", None) is None


@pytest.mark.parametrize("spec", ["sync:gamma=4", "seed:gamma=2,threshold=0.25,exits=2", "cloud", "auto:cost_weight=1"])
def test_what_the_server_recommends_decides(spec: str) -> None:
    policy = Recommended(ready(spec))
    assert policy.running == make_policy(spec)
    assert (policy.spec.partition(":")[0], policy.origin, policy.refusal) == (policy.name, SERVER, "")
    assert make_policy(policy.spec) == policy.running
    state = EdgeState((1, 2), StopRules(8))
    state.connected(ready(spec))
    assert policy.verify_params(state) == make_policy(spec).verify_params(state)
    assert policy.step(state) == make_policy(spec).step(state)
    assert list(policy.ship(state)) == []


def test_where_nothing_is_recommended_it_is_auto_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    policy = Recommended(READY)
    assert (policy.name, policy.spec, policy.origin, policy.refusal) == ("auto", "auto", NOBODY, "")
    assert not caplog.records


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("later", "unknown built-in policy"),
        ("sync:later=3", "unknown parameter of policy sync 'later'"),
        ("sync:gamma=many", "gamma must be of type int"),
        ("sync:gamma=17", "gamma must be 1 to 16, not 17"),
        ("colocated:cloud_gamma=99999999999999999999", "cloud_gamma must be 1 to 16"),
        ("ahead:patience_s=nan", "patience_s must be 0.001 to 4.0, not nan"),
        ("seed:exits=3", "no exit after layer 3; the target has [2, 4]"),
        ("colocated", "'colocated' drafts in the cloud, and this server has no draft model"),
        ("both", "'both' drafts in the cloud, and this server has no draft model"),
        ("trap:Trap", "unknown built-in policy"),
        ("trap:Trap:gamma=2", "unknown built-in policy"),
        ("trap.toml", "unknown built-in policy"),
        ("sync:gamma=4,trap.toml", "unknown parameter of policy sync"),
        ("x" * 301, "a specification of 301 letters"),
        ("\x1b[2J\n", "unknown built-in policy"),
    ],
)
@pytest.mark.usefixtures("trap")
def test_what_an_edge_does_not_know_or_cannot_run_is_auto_with_a_warning(
    spec: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Recommended(ready(spec))
    assert (policy.name, policy.origin) == ("auto", NOBODY)
    assert reason in policy.refusal
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    said = warning.getMessage()
    assert said.isprintable()
    assert said.startswith(f"the server recommends {spec[:60]!r}, which is not followed: ")
    assert said.endswith("the policy is auto")
    with pytest.raises(ConfigError, match="cannot be recommended to edges"):
        recommendation(spec if spec != "trap.toml" else "missing.toml", READY.exits, False)


WORDS = (*own_names(), "gamma", "width", "exits", "name", "trap", "=", ":", ",", "+", "-1", "4", "1e999")
PIECES = st.sampled_from(WORDS)
SPECS = st.text() | st.lists(PIECES | st.text(max_size=2), max_size=8).map("".join)


@given(SPECS, st.integers(0, 2))
def test_no_text_of_a_server_ends_a_session_or_gives_orders_that_a_cloud_would_refuse(spec: str, drafts: int) -> None:
    said = decode(encode(ready(spec, drafts)))
    assert isinstance(said, Ready)
    policy = Recommended(said)
    state = EdgeState((1, 2), StopRules(8))
    state.connected(said)
    verify_params = policy.verify_params(state)
    steer = Steer(1, 1, **msgspec.structs.asdict(verify_params))
    assert decode(encode(steer)) == steer
    assert set(verify_params.exits) <= set(READY.exits)
    assert drafts or not verify_params.cloud_drafts
    assert policy.spec.isprintable()
    assert policy.name in own_names()


def test_every_number_that_a_server_may_set_has_a_range() -> None:
    for name in own_names():
        factory, _ = policy_class(name)
        declared = {one.name for one in getattr(factory, "parameters", ())}
        assert {field.name for field in fields(factory)} - declared <= {"name", "exits"}, name


def test_a_policy_of_another_package_is_not_run_even_under_one_of_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = [EntryPoint(name, "elsewhere:Policy", "foredraft.policies") for name in ("sync", "theirs")]
    recommended_policy.cache_clear()
    monkeypatch.setattr("foredraft.policies.recommended.entry_points", lambda group: EntryPoints(foreign))
    assert own_names() == []
    assert Recommended(ready("theirs")).name == Recommended(ready("sync")).name == "auto"


def test_a_session_that_comes_to_another_server_follows_that_one(caplog: pytest.LogCaptureFixture) -> None:
    policy, state = Recommended(ready("colocated", 8)), EdgeState((1, 2), StopRules(8))
    assert policy.verify_params(state).cloud_drafts == 4
    for served, name in ((ready("colocated", 8), "colocated"), (ready("colocated"), "auto"), (ready("cloud"), "cloud")):
        state.connected(served)
        policy.verify_params(state)
        assert policy.name == name
        state.disconnected()
        policy.verify_params(state)
        assert policy.name == name
    assert len(caplog.records) == 1


async def test_an_edge_without_a_policy_takes_the_servers_and_the_report_says_so() -> None:
    async with clouds.cloud(policy="sync:gamma=3") as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        taken = edge.generate(PROMPT, max_new_tokens=40)
        report = await taken.finish()
        own = edge.generate(PROMPT, max_new_tokens=40, policy="seed")
        kept = await own.finish()
    assert (report.policy, report.policy_from, taken.policy_spec) == ("sync", SERVER, "sync:gamma=3")
    assert taken.explanation()[0] == "policy: sync:gamma=3, recommended by the server"
    assert (kept.policy, kept.policy_from, own.policy_spec) == ("seed", EDGE, "seed")
    assert own.explanation()[0] == "policy: seed, named at the edge"
    assert report.text == kept.text == clouds.text_between(START, START + 40)


@pytest.mark.parametrize("said", ["later:gamma=2", "colocated:cloud_gamma=4", "trap:Trap", "\x00", "ahead:width=0"])
@pytest.mark.usefixtures("trap")
async def test_a_text_is_whole_whatever_a_server_recommends(said: str) -> None:
    cloud = clouds.cloud()
    cloud.service._policy = said
    cloud.service.limits = replace(cloud.service.limits, cloud_drafts=0)
    async with cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, max_new_tokens=40)
        report = await generation.finish()
    assert report.text == clouds.text_between(START, START + 40)
    assert (report.policy, report.policy_from) == ("auto", NOBODY)
    assert "which is not followed" in generation.explanation()[0]


async def test_the_record_of_a_session_names_the_servers_policy(tmp_path: Path) -> None:
    file = tmp_path / "session.rec"
    async with clouds.cloud(policy="sync:gamma=3") as cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        await edge.generate(PROMPT, max_new_tokens=20, record=file).finish()
    record = foredraft.read_record(file)
    assert record.setup.policy == "sync:gamma=3"
    assert record.sessions[0].figures["policy_from"] == SERVER
    assert record.sessions[0].figures["exact"] is False
    assert "1 session(s), sync:gamma=3, recommended by the server" in report_page(read_sources([file]))


def test_a_cloud_of_ones_own_refuses_what_it_cannot_serve() -> None:
    with pytest.raises(ConfigError, match=r"'both' drafts in the cloud, and this server has no draft model"):
        foredraft.Cloud(clouds.target(), clouds.TOKENIZER, policy="both")
    assert foredraft.Cloud(clouds.target(), clouds.TOKENIZER).recommends == ""
