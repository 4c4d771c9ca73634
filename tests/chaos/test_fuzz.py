"""A few thousand of the fuzzer's inputs, and whether it finds what is there to be found."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest

from chaos.fuzz import blind
from chaos.fuzz.__main__ import SHARES
from chaos.fuzz.finding import Finding
from chaos.fuzz.forms import JSON, MESSAGES, RECORD, TOML, Form, framed
from chaos.fuzz.mutation import mutated
from chaos.fuzz.subject import Subject
from chaos.fuzz.subjects import opened
from chaos.fuzz.wire import TO_CLOUD, TO_EDGE
from foredraft.errors import ConfigError
from foredraft.protocol.messages import Message, ToCloud, ToEdge
from paths import ROOT

INPUTS = 300


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Subject]]:
    with opened(tmp_path_factory.mktemp("files")) as found:
        yield found


@pytest.mark.parametrize("name", SHARES)
def test_nothing_but_documented_errors_comes_of_changed_inputs(subjects: dict[str, Subject], name: str) -> None:
    found: list[Finding] = []
    blind.fuzz(subjects[name], INPUTS, 1, found.append)
    assert [f"{one.place}\n{one.told}" for one in found] == []


def test_every_subject_has_a_share_of_the_inputs(subjects: dict[str, Subject]) -> None:
    assert subjects.keys() == SHARES.keys()


@pytest.mark.parametrize(("examples", "kinds"), [(TO_CLOUD, ToCloud), (TO_EDGE, ToEdge)])
def test_every_message_is_among_those_that_are_changed(examples: Sequence[Sequence[Message]], kinds: Any) -> None:
    assert {type(message) for said in examples for message in said} >= {*get_args(kinds)}


def strict(data: bytes) -> None:
    """A reader that forgot something."""
    said = JSON.apart(data)
    if not isinstance(said, dict) or not isinstance(said.get("length"), int):
        raise ConfigError("no length")
    _ = [0][min(0, said["length"])]


def test_a_mistake_behind_a_check_is_found_once_and_with_its_place() -> None:
    found: list[Finding] = []
    blind.fuzz(Subject("strict", JSON, [b'{"length": 3, "name": "x"}'], strict), 500, 1, found.append)
    places = [one.place for one in found]
    assert [place for place in places if place.startswith("IndexError")]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (JSON, b'{"a": [1, 2.5, null, "x"]}'),
        (TOML, b'a = 1\n[b]\nc = [1979-05-27, true, "x"]\n'),
        (MESSAGES, framed([b"\x92\x00\x01", b"\xc1"])),
    ],
)
def test_what_is_taken_apart_is_put_together_to_the_same(form: Form, data: bytes) -> None:
    said = form.apart(data)
    assert form.apart(form.together(said)) == said


def test_a_changed_record_is_still_one(subjects: dict[str, Subject]) -> None:
    (example, *_) = subjects["record"].examples
    assert RECORD.together(RECORD.apart(example)) == example


def test_an_input_depends_on_its_number_and_seed_alone(subjects: dict[str, Subject]) -> None:
    subject = subjects["openai"]
    drawn = [mutated(subject.examples, subject.form, Random(f"1 {number}")) for number in (5, 3, 5, 4)]
    assert drawn[0] == drawn[2]
    assert len(set(drawn)) == 3


def test_a_kept_input_is_read_again(tmp_path: Path) -> None:
    kept = Finding("card", "nowhere", "told", b'{"name": "\xff"}').keep(tmp_path)
    command = [sys.executable, "-m", "chaos.fuzz", "--again", str(kept)]
    paths = {"PYTHONPATH": ":".join([str(ROOT / "tests"), *filter(None, sys.path)])}
    done = subprocess.run(command, env=paths, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "nothing\n"), done.stderr


def test_atheris_sees_where_inputs_get_to(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="installed by make fuzz")
    command = [sys.executable, "-m", "chaos.fuzz", "--subject", "card", "--inputs", "500", "--keep", str(tmp_path)]
    paths = {"PYTHONPATH": ":".join([str(ROOT / "tests"), *filter(None, sys.path)])}
    done = subprocess.run(command, env=paths, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no interesting inputs" not in done.stderr
