"""Files that users hand around, each read from a disk as it would be."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from chaos.fuzz.forms import JSON, RECORD, TOML
from chaos.fuzz.subject import Subject
from foredraft.edge.estimates import Estimates
from foredraft.edge.saved_estimates import load_estimates, save_estimates
from foredraft.keys import METRICS, PROBE, SERVE, Key, Keys, hash_of, read_keys, with_key, without_key
from foredraft.observe.record.frames import HEADER, Setup, decode_frame, encode_frame
from foredraft.observe.record.reading import read_record
from foredraft.policies import make_policy
from foredraft.policies.policy_file import policy_file_of, read_policy_file, render_policy_file
from foredraft.profiles import DraftProfile, LinkProfile, load_profile, parse_profile, render_profile, seconds
from foredraft_sim.scenario.results import inputs_of
from foredraft_sim.scenario.scenario import read_scenario
from observe.record.recorded_sessions import recorded
from paths import EXAMPLES, PROFILES, SCENARIOS
from policies.test_policy_file import ORIGIN


def _profile(path: Path) -> None:
    """Read, asked for a time, and written so that it is read to the same."""
    profile = load_profile(path)
    if isinstance(profile, DraftProfile):
        seconds(profile.draft_step, 1, 100)
    elif isinstance(profile, LinkProfile):
        _ = profile.round_trip_s
    again = parse_profile(render_profile(profile), path)
    assert again == profile, "it is not read to what was written"


def _scenario(path: Path) -> None:
    msgspec.json.encode(inputs_of(read_scenario(path)))


def _policy(path: Path) -> None:
    file = read_policy_file(path)
    make_policy(str(path))
    path.write_text(render_policy_file(file), encoding="utf-8")
    assert read_policy_file(path) == file, "it is not read to what was written"


def _keys(path: Path) -> None:
    found = read_keys(path)
    keys, text = Keys(found), path.read_text(encoding="utf-8")
    for name, key in found.items():
        keys.find(key.hash)
        keys.holds(key)
        without_key(text, name)


def _record(path: Path) -> None:
    record = read_record(path)
    for session in record.sessions:
        _ = session.positions, session.said, session.figures, session.finish
    str(record.cut)


def subjects(folder: Path) -> list[Subject]:
    """The subjects that are files; each is written into ``folder`` before it is read."""

    def at(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def written(data: bytes) -> None:
            path = folder / name
            path.write_bytes(data)
            read(path)

        return written

    profiles = [path.read_bytes() for path in sorted(PROFILES.glob("*.toml"))]
    scenarios = [path.read_bytes() for path in sorted(SCENARIOS.glob("*.toml")) if path.name != "plan.toml"]
    scenarios += [(EXAMPLES / "robot" / "robot.toml").read_bytes()]
    return [
        Subject("profile", TOML, profiles, at("profile.toml", _profile)),
        Subject("scenario", TOML, scenarios, at("scenario.toml", _scenario)),
        Subject("policy", TOML, _policies(), at("policy.toml", _policy)),
        Subject("keys", TOML, [_some_keys()], at("keys.toml", _keys)),
        Subject("record", RECORD, _records(folder), at("session.rec", _record)),
        Subject("estimates", JSON, [_some_estimates(folder)], at("estimates.json", load_estimates)),
    ]


def _policies() -> list[bytes]:
    specs = ("cloud", "sync:gamma=6", "seed:gamma=3,threshold=0.35,exits=8+16", "ahead:patience_s=0.02", "auto", "both")
    return [render_policy_file(policy_file_of(spec, ORIGIN)).encode() for spec in specs]


def _some_keys() -> bytes:
    text = ""
    for key in (
        Key(name="robot", hash=hash_of("1"), weight=2.5, sessions=3, tokens_per_minute=1000, cache=4096),
        Key(name="scraper", hash=hash_of("2"), roles=(SERVE, METRICS, PROBE), connections=2),
    ):
        text = with_key(text, key)
    return f"{text}expires = 2030-01-01T00:00:00Z\n".encode()


def _records(folder: Path) -> list[bytes]:
    """A short session as it is, and privately."""
    file, found = folder / "example.rec", []
    for private in (False, True):
        recorded(file, private=private, max_new_tokens=6, policy="seed")
        found.append(_at_another_time(file.read_bytes()))
    return found


def _at_another_time(data: bytes) -> bytes:
    """The record without what differs from run to run in its first frame."""
    setup, begin = decode_frame(memoryview(data), len(HEADER))
    assert isinstance(setup, Setup)
    return HEADER + encode_frame(msgspec.structs.replace(setup, written_at="2026-01-01T00:00:00")) + data[begin:]


def _some_estimates(folder: Path) -> bytes:
    path = folder / "estimates.json"
    save_estimates(Estimates(), path)
    return path.read_bytes()
