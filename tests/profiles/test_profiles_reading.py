"""Profile files: what is read, what is refused, and what the refusal says."""

from pathlib import Path

import pytest

from foredraft.errors import ProfileError, UnknownNameError
from foredraft.profiles import LinkProfile, TargetProfile, load_profile, lookup, parse_profile, shipped_folder

WHERE = Path("some/target.toml")


def number(value: object) -> str:
    return f'{{ value = {value}, provenance = "assumed", source = "for a test" }}'


TARGET = f"""
name = "t"
title = "A target"
kind = "target"
[model]
name = "m"
layers = {number(32)}
[target_pass]
shape = "line"
base_s = {number(0.01)}
flat_tokens = {number(8)}
range.new_tokens = {number([1, 64])}
range.context = {number([0, 4096])}
"""

LINK = f"""
name = "l"
title = "A link"
kind = "link"
[up]
delay_s = {number(0.01)}
[down]
delay_s = {number(0.02)}
jitter_s = {number(0.005)}
[range]
message_bytes = {number([0, 1000])}
[[outages]]
start_s = {number(2.0)}
duration_s = {number(1.0)}
"""


def test_a_target_profile_gives_plain_numbers_and_their_provenance_by_path() -> None:
    profile = parse_profile(TARGET, WHERE)
    assert isinstance(profile, TargetProfile)
    assert profile.target_pass.range.new_tokens == (1, 64)
    assert profile.provenance["target_pass.base_s"].provenance == "assumed"
    assert profile.provenance["target_pass.base_s"].source == "for a test"
    assert len(profile.provenance) == 5
    assert profile.path == WHERE


def test_a_link_profile_gives_directions_outages_and_round_trip() -> None:
    profile = parse_profile(LINK, WHERE)
    assert isinstance(profile, LinkProfile)
    assert profile.round_trip_s == pytest.approx(0.035)
    assert profile.outages[0].duration_s == 1.0
    assert "outages.0.start_s" in profile.provenance


BAD_TARGETS = {
    "misspelt key names the nearest": ("base_s =", "bsae_s =", "target_pass.bsae_s: did you mean 'base_s'"),
    "other unit in the key names the right one": ("base_s =", "base_ms =", "did you mean 'base_s'"),
    "unknown top-level table": ("[model]", "[modle]", "modle: did you mean 'model'"),
    "negative duration": (number(0.01), number(-0.01), "target_pass.base_s = -0.01"),
    "milliseconds in a seconds field": (number(0.01), number(620), "target_pass.base_s = 620"),
    "infinite number": (number(0.01), number("inf"), "target_pass.base_s = inf"),
    "not a number at all": (number(0.01), number("nan"), "target_pass.base_s = nan"),
    "boolean": (number(0.01), number("true"), "target_pass.base_s = True"),
    "text for a number": (number(0.01), number('"fast"'), "target_pass.base_s = 'fast'"),
    "fraction for a count": (number(32), number(32.5), "model.layers = 32.5"),
    "no layers": (number(32), number(0), "model.layers = 0"),
    "number without provenance": (number(0.01), "0.01", "target_pass.base_s = 0.01 has no provenance"),
    "made-up provenance": (
        'base_s = { value = 0.01, provenance = "assumed"',
        'base_s = { value = 0.01, provenance = "guessed"',
        "'guessed'",
    ),
    "no source": (number(0.01), '{ value = 0.01, provenance = "assumed" }', "source"),
    "empty source": (
        number(0.01),
        '{ value = 0.01, provenance = "assumed", source = " " }',
        "source is empty",
    ),
    "misspelt mark of a number": (
        number(0.01),
        '{ value = 0.01, provenence = "assumed", source = "x" }',
        "did you mean 'provenance'",
    ),
    "range upside down": (number([1, 64]), number([64, 1]), "new_tokens must be [least, most]"),
    "range of one number": (number([1, 64]), number([64]), "target_pass.range.new_tokens"),
    "missing curve": (TARGET[TARGET.index("[target_pass]") :], "", "target_pass"),
    "unknown shape": ('shape = "line"', 'shape = "lines"', "target_pass.shape = 'lines'"),
    "shape left out": ('shape = "line"', "", "shape"),
    "unknown kind": ('kind = "target"', 'kind = "server"', "draft, link, target, not 'server'"),
    "kind left out": ('kind = "target"', "", "kind"),
    "kind is a table": ('kind = "target"', "kind = {}", "kind"),
    "a draft's key in a target": ("[target_pass]", "[draft_step]", "draft_step"),
    "a field of the program as a key": ('title = "A target"', 'title = "A"\npath = "x"', "unknown key path"),
    "not TOML": ("[model]", "[model", "not TOML"),
}


@pytest.mark.parametrize(("old", "new", "says"), BAD_TARGETS.values(), ids=BAD_TARGETS.keys())
def test_a_bad_target_profile_is_refused_by_file_key_and_value(old: str, new: str, says: str) -> None:
    assert old in TARGET
    with pytest.raises(ProfileError) as caught:
        parse_profile(TARGET.replace(old, new), WHERE)
    assert str(WHERE) in str(caught.value)
    assert says in str(caught.value)


BAD_LINKS = {
    "unknown key in a list of tables": ("start_s =", "begin_s =", "outages[0].begin_s"),
    "kilobits for bits per second": (
        "delay_s = " + number(0.02),
        f"delay_s = {number(0.02)}\nrate_bps = {number(768)}",
        "down.rate_bps = 768",
    ),
    "unknown jitter": ("[down]", '[down]\njitter_shape = "pareto"', "down.jitter_shape = 'pareto'"),
    "outage of no length": (number(1.0), number(0.0), "outages[0].duration_s = 0.0"),
}


@pytest.mark.parametrize(("old", "new", "says"), BAD_LINKS.values(), ids=BAD_LINKS.keys())
def test_a_bad_link_profile_is_refused_by_file_key_and_value(old: str, new: str, says: str) -> None:
    assert old in LINK
    with pytest.raises(ProfileError) as caught:
        parse_profile(LINK.replace(old, new), WHERE)
    assert says in str(caught.value)


def grid(seconds: object) -> str:
    start = TARGET[: TARGET.index("[target_pass]")]
    return f"""{start}
[target_pass]
shape = "grid"
new_tokens = {number([1, 16])}
context = {number([0, 1024])}
seconds_s = {number(seconds)}
range.new_tokens = {number([1, 16])}
range.context = {number([0, 1024])}
"""


def test_a_grid_must_have_a_row_for_each_point_of_its_axes() -> None:
    parse_profile(grid([[[0.01, 0.02], [0.02, 0.04]]]), WHERE)
    with pytest.raises(ProfileError, match=r"\[batch\]\[context\]\[new_tokens\], here \[1\]\[2\]\[2\]"):
        parse_profile(grid([[[0.01, 0.02], [0.02]]]), WHERE)
    with pytest.raises(ProfileError, match=r"new_tokens must be a rising list"):
        parse_profile(grid([[[0.01, 0.02], [0.02, 0.04]]]).replace("[1, 16]", "[16, 1]", 1), WHERE)
    with pytest.raises(ProfileError, match=r"target_pass.bsae_s"):
        parse_profile(grid([[[0.01, 0.02], [0.02, 0.04]]]) + f"bsae_s = {number(1)}", WHERE)


def test_a_name_is_looked_up_and_a_path_always_wins(tmp_path: Path) -> None:
    own = tmp_path / "lte.toml"
    own.write_text(LINK, encoding="utf-8")
    assert load_profile("lte", "link").name == "lte"
    assert load_profile(own, "link").name == "l"
    assert load_profile(str(own)).path == own


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'jetson-nano-vicuna-68m'"):
        load_profile("jetson-nano-vicuna")


def test_a_profile_of_another_kind_is_refused() -> None:
    with pytest.raises(ProfileError, match="a link profile, where a draft profile is needed"):
        load_profile("lte", "draft")


def test_files_that_cannot_be_read_are_profile_errors(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"absent.toml: cannot be read"):
        load_profile(tmp_path / "absent.toml")
    with pytest.raises(ProfileError, match="cannot be read: embedded null"):
        load_profile("a\0b.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="UTF-8"):
        load_profile(binary)
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ProfileError, match="more than such a file has"):
        load_profile(huge)


@pytest.mark.parametrize("value", ["9" * 5_000, "0x" + "f" * 16, "-9223372036854775809", "[" * 5_000])
def test_what_no_reader_of_toml_takes_is_a_profile_error(value: str) -> None:
    with pytest.raises(ProfileError, match=r"x\.toml: (not TOML|an integer of more than 64 bits)"):
        parse_profile(f"name = {value}", Path("x.toml"))


def test_the_shipped_profiles_are_found_in_the_checkout() -> None:
    assert (shipped_folder() / "README.md").is_file()


def test_an_installed_package_has_its_own_copy_which_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "foredraft"
    (package / "hardware_profiles").mkdir(parents=True)
    (package / "hardware_profiles" / "mine.toml").write_text(LINK, encoding="utf-8")
    monkeypatch.setattr(lookup, "_PACKAGE", package)
    assert load_profile("mine").name == "l"
    (package / "hardware_profiles" / "mine.toml").unlink()
    (package / "hardware_profiles").rmdir()
    with pytest.raises(ProfileError, match="missing; give the path"):
        load_profile("mine")
