"""What `make` installs: each package has its hashes, a licence that is allowed, and its line in the bill."""

import json
import re
from typing import Any

import pytest

import audit
import sbom
from licences import licence_of, licences, wrong_with
from lock_file import HASHES, LOCK, locked, pinned


def test_every_package_but_torch_has_the_hashes_of_the_version_that_is_locked() -> None:
    """Else run: make hashes."""
    text = HASHES.read_text()
    assert pinned(text) | {"torch": locked()["torch"]} == locked()
    entries = re.split(r"\n(?=\S)", text)
    without = [entry.split()[0] for entry in entries if not entry.startswith("#") and "--hash=sha256:" not in entry]
    assert without == []


def test_the_lock_is_sorted_and_names_each_package_once() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=str.lower)
    assert len(locked()) == len(lines)


BSD, MIT = "License :: OSI Approved :: BSD License", "License :: OSI Approved :: MIT License"


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ({"License-Expression": ["MIT OR Apache-2.0"], "License": ["other"]}, "MIT OR Apache-2.0"),
        ({"Classifier": [BSD, "Typing :: Typed"]}, "BSD-3-Clause"),
        ({"Classifier": ["License :: DFSG approved", MIT]}, "MIT"),
        ({"License": ["MIT License\n\nCopyright (c) somebody"]}, "MIT"),
        ({"Classifier": ["License :: OSI Approved"], "License": ["Sell Your Soul 1.0"]}, "Sell Your Soul 1.0"),
        ({"Classifier": ["Typing :: Typed"]}, ""),
    ],
)
def test_a_licence_is_read_from_new_and_old_metadata(said: dict[str, list[str]], licence: str) -> None:
    assert licence_of(lambda field: said.get(field, [])) == licence


@pytest.mark.parametrize(
    ("name", "licence", "wrong"),
    [
        ("any", "MIT", ""),
        ("any", "Apache-2.0 WITH LLVM-exception AND (BSD-3-Clause OR MIT)", ""),
        ("any", "MIT OR AGPL-3.0-only", "AGPL-3.0-only is not"),
        ("psycopg", "LGPL-3.0-only", ""),
        ("any", "LGPL-3.0-only", "LGPL-3.0-only is not"),
        ("any", "Sell Your Soul 1.0", "Sell Your Soul 1.0 is not"),
        ("any", "", "says no licence"),
    ],
)
def test_a_licence_that_nobody_allowed_is_said(name: str, licence: str, wrong: str) -> None:
    said = wrong_with(name, licence)
    assert said.startswith(wrong)
    assert bool(said) == bool(wrong)


def test_all_that_is_installed_here_may_be_used() -> None:
    assert {
        name: wrong for name, licence in licences().items() if licence and (wrong := wrong_with(name, licence))
    } == {}


def test_the_bill_names_all_that_is_locked_and_is_the_same_twice() -> None:
    made = sbom.document()
    assert json.dumps(made) == json.dumps(sbom.document())
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert {one["name"]: one["version"] for one in made["components"]} == locked()
    assert f"pkg:pypi/torch@{locked()['torch']}" in [one["purl"] for one in made["components"]]


FLAW = {"id": "CVE-1", "fix_versions": ["2"]}


@pytest.mark.parametrize(
    ("said", "line", "well"),
    [
        (None, "vulnerabilities were not looked for", True),
        ([{"name": "a", "skip_reason": "Dependency not found"}], "vulnerabilities were not looked for", True),
        ([{"name": "a", "version": "1", "vulns": []}], "looked for in 1 packages: 0", True),
        ([{"name": "a", "version": "1", "vulns": [FLAW]}], "a 1: CVE-1, mended in 2", False),
    ],
)
def test_a_known_vulnerability_fails_and_a_service_that_does_not_answer_is_said_in_a_line(
    said: list[dict[str, Any]] | None, line: str, well: bool
) -> None:
    lines, all_well = audit.judge(said)
    assert line in lines[0]
    assert all_well is well
