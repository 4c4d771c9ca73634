"""Fuzzing without a look at coverage: input n of a seed is the same everywhere, whatever ran before it."""

from collections.abc import Callable
from random import Random

from chaos.fuzz.finding import Finding, find
from chaos.fuzz.mutation import mutated
from chaos.fuzz.subject import Subject


def fuzz(subject: Subject, inputs: int, seed: int, on_finding: Callable[[Finding], None]) -> None:
    """Read ``inputs`` inputs; each place where something is wrong is told once."""
    for data in subject.examples:
        if (wrong := find(subject, data)) is not None:
            on_finding(wrong)
    known: set[str] = set()
    for number in range(inputs):
        luck = Random(f"{seed} {subject.name} {number}")
        wrong = find(subject, mutated(subject.examples, subject.form, luck))
        if wrong is not None and wrong.place not in known:
            known.add(wrong.place)
            on_finding(wrong)
