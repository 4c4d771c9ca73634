"""Work in a process of its own: what it says, and that each bound ends it and not us."""

import gc
import os
from pathlib import Path

import pytest

from foredraft.text.confined import Confined, OutOfBoundsError
from paths import ROOT

PLENTY_S, PLENTY_BYTES = 60.0, 256 << 20


@pytest.fixture(autouse=True)
def _the_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [str(Path(__file__).parent), str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))


def confined(limit_s: float = PLENTY_S, *, greeting: bytes | None = None) -> Confined:
    return Confined("answering_program", limit_s, PLENTY_BYTES, greeting=greeting, greeting_s=limit_s)


def pid(program: Confined) -> int:
    return int(program.ask(b"hello").split()[0])


def test_one_process_answers_all_questions_and_ends_with_who_asks() -> None:
    program = confined(greeting=b"first")
    first, said = program.greeted().split()
    assert (int(first), said) == (pid(program), b"first")
    process = pid(program)
    del program
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize(
    ("question", "limit_s", "said"),
    [
        (b"spin", 0.2, r"takes more than 0\.2 s"),
        (b"grow", PLENTY_S, "takes more than 256 MB"),
        (b"long", PLENTY_S, "makes more than 32 MB"),
        (b"end", PLENTY_S, "or breaks a library"),
    ],
)
def test_what_leaves_its_bounds_is_ended_and_the_next_question_has_a_new_process(
    question: bytes, limit_s: float, said: str
) -> None:
    program = confined(limit_s)
    with pytest.raises(OutOfBoundsError, match=said):
        program.ask(question)
    program._limit_s = PLENTY_S
    assert pid(program) > 0
    program.close()


def test_a_process_that_has_gone_is_started_anew() -> None:
    program = confined()
    before = pid(program)
    os.kill(before, 9)
    while True:
        try:
            assert pid(program) != before
            break
        except OutOfBoundsError:  # it was still going
            continue
    program.close()


def test_nobody_is_needed_to_end_it_and_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    program = confined(7.0)
    assert 7.0 <= float(program.ask(b"seconds")) <= 9.0
    assert str(tmp_path) not in program.ask(b"path").decode().splitlines()
    program.close()
