"""``make fuzz``: inputs without end for everything that reads what others wrote; none may raise but as documented.

    make fuzz INPUTS=1000000 SEED=1           every subject
    python -m chaos.fuzz --subject keys       one of them (PYTHONPATH=tests)
    python -m chaos.fuzz --again FILE         a finding's input, once more

By coverage where atheris is installed, else blindly. A finding's input is kept in a file, named after its subject.
"""

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

SHARES = {
    **{"cloud": 4, "policy": 4, "keys": 4, "profile": 2, "scenario": 1, "openai": 1, "edge": 2, "image": 6},
    **{"record": 2, "tokenizer": 1, "card": 6, "estimates": 6, "decoder": 11},
}
"""Of the inputs, by subject: what is read quickly gets more."""


def main() -> int:
    """Fuzz each subject in a process of its own; 1 if something was found."""
    said = _arguments()
    if said.again is not None:
        return _again(said.again)
    if said.in_this_process is not None:
        return _in_this_process(said)
    names, failed, read = said.subject or list(SHARES), [], 0
    for name in names:
        inputs, began_s = -(-said.inputs * SHARES[name] // sum(SHARES[one] for one in names)), time.monotonic()
        if code := _in_a_process(name, inputs, said):
            failed.append(name)
        read += inputs
        how = f"ended with {code}" if code else "nothing found"
        print(f"{name}: {inputs:,} inputs in {time.monotonic() - began_s:.0f} s: {how}", flush=True)
    most_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{read:,} inputs; no process was larger than {most_mb} MB; found in: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _in_a_process(name: str, inputs: int, said: argparse.Namespace) -> int:
    """Its exit code."""
    words = ["--subject", name, "--inputs", str(inputs), "--seed", str(said.seed), "--keep", str(said.keep)]
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "chaos.fuzz", "--in-this-process", folder, *words, *["--blind"] * said.blind]
        return subprocess.run(command, check=False).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all subjects together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subject", action="append", choices=list(SHARES), help="this one alone; may be repeated")
    parser.add_argument("--blind", action="store_true", help="not by coverage, even where atheris is installed")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder for inputs that find something")
    parser.add_argument("--again", type=Path, help="read this kept input once more")
    parser.add_argument("--in-this-process", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_this_process(said: argparse.Namespace) -> int:
    guided = find_spec("atheris") is not None and not said.blind
    if guided:
        import atheris

        with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(["foredraft", "foredraft_sim"]):
            import_module("chaos.fuzz.subjects")  # all that it imports tells from now on where an input gets to
    from chaos.fuzz import blind
    from chaos.fuzz.finding import Finding
    from chaos.fuzz.subjects import opened

    found: list[Finding] = []

    def on_finding(finding: Finding) -> None:
        found.append(finding)
        file = finding.keep(said.keep)
        print(f"{finding.subject}: {finding.place}; again: python -m chaos.fuzz --again {file}", flush=True)

    folder: Path = said.in_this_process
    with opened(folder) as subjects:
        subject = subjects[said.subject[0]]
        if guided:
            from chaos.fuzz import guided as by_coverage

            by_coverage.fuzz(subject, said.inputs, said.seed, folder, on_finding)
        else:
            blind.fuzz(subject, said.inputs, said.seed, on_finding)
    return 1 if found else 0


def _again(file: Path) -> int:
    from chaos.fuzz.finding import find
    from chaos.fuzz.subjects import opened

    with TemporaryDirectory() as folder, opened(Path(folder)) as subjects:
        finding = find(subjects[file.name.rpartition("-")[0]], file.read_bytes())
    print("nothing" if finding is None else finding.told)
    return 0 if finding is None else 1


if __name__ == "__main__":
    sys.exit(main())
