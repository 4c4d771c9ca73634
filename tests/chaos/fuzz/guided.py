"""Fuzzing by coverage: atheris keeps the inputs that reach something new, and changes those further.

One subject to a process: libFuzzer ends the one it runs in.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris

from chaos.fuzz.finding import Finding, find
from chaos.fuzz.mutation import MOST_BYTES, mutated
from chaos.fuzz.subject import Subject

_LIBFUZZERS_OWN = 0.2
"""How often its own changes are taken: they know what the code compares with."""


def fuzz(subject: Subject, inputs: int, seed: int, folder: Path, on_finding: Callable[[Finding], None]) -> None:
    """Read ``inputs`` inputs and end the process, with 1 if something was found.

    ``folder``: for inputs that reach something new.
    """
    corpus = folder / subject.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(subject.examples):
        (corpus / f"example-{number}").write_bytes(data)
    known: set[str] = set()
    done = 0

    def read(data: bytes) -> None:
        nonlocal done
        wrong = find(subject, data)
        if wrong is not None and wrong.place not in known:
            known.add(wrong.place)
            on_finding(wrong)
        done += 1
        if done >= inputs:
            sys.stdout.flush()
            os._exit(1 if known else 0)

    def change(data: bytes, max_size: int, number: int) -> bytes:
        luck = Random(number)
        if luck.random() < _LIBFUZZERS_OWN:
            return bytes(atheris.Mutate(data, max_size))
        return mutated([data, data, *subject.examples], subject.form, luck)[:max_size]

    options = [f"-seed={seed or 1}", f"-max_len={MOST_BYTES}", "-len_control=0", "-timeout=600"]
    quiet = [f"-artifact_prefix={folder}/", "-verbosity=0", "-print_final_stats=0", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], str(corpus), *options, *quiet], read, custom_mutator=change, internal_libfuzzer=True)
    atheris.Fuzz()
