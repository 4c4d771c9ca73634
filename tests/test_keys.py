"""Keys: the file, who is found by which secret, and what changes while it is watched."""

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.errors import ConfigError
from foredraft.keys import (
    EVERYBODY,
    METRICS,
    ROLES,
    SERVE,
    Key,
    KeyFile,
    Keys,
    hash_of,
    new_secret,
    parse_keys,
    with_key,
    without_key,
)

HERE = Path("keys.toml")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,12}", fullmatch=True)
KEYS = st.builds(
    Key,
    hash=st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__),
    roles=st.lists(st.sampled_from(ROLES), min_size=1, max_size=3, unique=True).map(tuple),
    expires=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    sessions=st.integers(0, 99),
    connections=st.integers(0, 99),
)


def named(name: str, key: Key) -> Key:
    return Key(**{field: getattr(key, field) for field in key.__struct_fields__} | {"name": name})


@given(st.dictionaries(NAMES, KEYS, max_size=5), st.data())
def test_what_is_added_is_read_and_what_is_revoked_is_gone_and_nothing_else(
    keys: dict[str, Key], data: st.DataObject
) -> None:
    keys = {name: named(name, key) for name, key in keys.items()}
    text = "# ours\n"
    for key in keys.values():
        text = with_key(text, key)
    assert parse_keys(text, HERE) == keys
    if keys:
        gone = data.draw(st.sampled_from(sorted(keys)))
        left = without_key(text, gone)
        assert parse_keys(left, HERE) == {name: key for name, key in keys.items() if name != gone}
        assert left.startswith("# ours\n")


@given(st.dictionaries(NAMES, st.text(min_size=1), min_size=1, max_size=5), st.text())
def test_a_key_is_found_by_its_secret_and_by_no_other(secrets: dict[str, str], other: str) -> None:
    keys = Keys({name: Key(name=name, hash=hash_of(secret)) for name, secret in secrets.items()})
    for secret in secrets.values():
        found = keys.find(secret)
        assert found is not None
        assert secrets[found.name] == secret
    if other not in secrets.values():
        assert keys.find(other) is None


def test_without_keys_everybody_may_do_everything_and_one_key_may_too() -> None:
    assert Keys.of("").find("anything") is EVERYBODY
    assert not Keys.of("").needed
    keys = Keys.of("geheim")
    assert keys.find("") is None
    found = keys.find("geheim")
    assert found is not None
    assert found.roles == ROLES
    assert keys.holds(found)


def test_a_key_that_has_expired_is_none_any_more() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    keys = Keys({"a": Key(name="a", hash=hash_of("s"), expires=now + timedelta(seconds=1))}, now=lambda: now)
    found = keys.find("s")
    assert found is not None
    assert keys.holds(found)
    now += timedelta(seconds=1)
    assert keys.find("s") is None
    assert not keys.holds(found)


def test_a_voucher_stands_for_a_key_within_its_process_only() -> None:
    keys = Keys({"a": Key(name="a", hash=hash_of("s"))})
    found = keys.find("s")
    assert found is not None
    assert keys.find(keys.vouch(found)) == found
    assert keys.find(keys.vouch(EVERYBODY)) is EVERYBODY
    assert keys.holds(EVERYBODY)
    assert Keys({"a": Key(name="a", hash=hash_of("s"))}).find(keys.vouch(found)) is None
    assert keys.find(":a") is None


def written(path: Path, *keys: Key) -> Path:
    text = ""
    for key in keys:
        text = with_key(text, key)
    path.write_text(text, encoding="utf-8")
    then_ns = path.stat().st_mtime_ns
    os.utime(path, ns=(then_ns, then_ns + 1_000_000))
    return path


def test_a_file_that_changes_is_read_again_and_each_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Key(name="one", hash=hash_of("1")), Key(name="two", hash=hash_of("2"))
    file = written(tmp_path / "keys.toml", one)
    keys = KeyFile(file)
    assert not keys.reload()
    with caplog.at_level(logging.WARNING):
        written(file, two, Key(name="three", hash=hash_of("3"), roles=(METRICS,)))
        assert keys.reload()
    assert keys.find("1") is None
    assert not keys.holds(one)
    assert keys.holds(two)
    told = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    changes = {(said["key"], said["change"]) for said in told}
    assert changes == {("two", "added"), ("three", "added"), ("one", "revoked")}
    assert "sha256" not in caplog.text


@pytest.mark.parametrize("broken", ["[keys", "[keys.a]\nhash = 3", None])
def test_a_file_that_is_broken_meanwhile_changes_nothing_and_says_so(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path / "keys.toml", Key(name="one", hash=hash_of("1")))
    keys = KeyFile(file)
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken, encoding="utf-8")
    assert not keys.reload()
    assert keys.find("1") is not None
    assert "stay as they were" in caplog.text
    assert not keys.reload()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys.a]\n", "has no hash"),
        ('[keys.a]\nhash = "abc"', "has no hash"),
        (f'[keys.a]\nhash = "{hash_of("x")}"\nroles = ["cook"]', "known: serve, metrics, probe"),
        (f'[keys.a]\nhash = "{hash_of("x")}"\nroles = []', "has the roles"),
        (f'[keys.a]\nhash = "{hash_of("x")}"\nsessions = -1', "below 0"),
        (f'[keys.a]\nhash = "{hash_of("x")}"\nsecret = "x"', "unknown field"),
        (f'[keys."a b"]\nhash = "{hash_of("x")}"', "a key's name"),
        ("[key.a]\n", "write \\[keys.NAME\\]"),
        ("keys = 3\n", "write \\[keys.NAME\\]"),
        ("[keys", "no file of keys"),
        ("x = " + "9" * 5_000, "no file of keys"),
        ("x = " + "[" * 5_000, "no file of keys"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"keys\.toml.*{said}"):
        parse_keys(text, HERE)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the keys"):
        KeyFile(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read the keys"):
        KeyFile(tmp_path / "a\0b")


def test_secrets_differ_and_do_not_fit_into_a_log_line_by_chance() -> None:
    drawn = {new_secret() for _ in range(100)}
    assert len(drawn) == 100
    assert all(len(secret) >= 43 for secret in drawn)
    assert Key().roles == (SERVE,)
