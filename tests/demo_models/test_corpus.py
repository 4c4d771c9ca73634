"""The corpus: the same every time, held-out files held out, and one line per statement."""

from pathlib import Path

import pytest

from foredraft.demo_models import corpus
from foredraft.demo_models.judge import reads_as_python


def write_files(root: Path, names: list[str]) -> None:
    body = "".join(f"def function_{i}(value):\n    return value + {i}\n" for i in range(10))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""A file."""\n# {name}\n{body}', encoding="utf-8")


def test_the_parts_are_disjoint_and_the_same_every_time(tmp_path: Path) -> None:
    write_files(tmp_path, [f"package/module_{i}.py" for i in range(100)])
    first, second = corpus.load_corpus(tmp_path), corpus.load_corpus(tmp_path)
    assert first == second
    train, held_out = ({file.name for file in part} for part in (first.train, first.held_out))
    assert not train & held_out
    assert len(train | held_out) == 100
    assert 1 <= len(held_out) <= 12


def test_a_new_file_moves_no_other_across_the_line(tmp_path: Path) -> None:
    names = [f"module_{i}.py" for i in range(60)]
    write_files(tmp_path, names)
    before = {file.name for file in corpus.load_corpus(tmp_path).held_out}
    write_files(tmp_path, ["aaa.py", "zzz/new.py"])
    after = {file.name for file in corpus.load_corpus(tmp_path).held_out}
    assert before == after & set(names)


def test_tests_packages_and_tables_stay_out(tmp_path: Path) -> None:
    kept = ["json/decoder.py", "os.py"]
    write_files(tmp_path, [*kept, "test/test_os.py", "site-packages/other.py", "encodings/cp437.py", "x/tests/y.py"])
    assert corpus.list_files(tmp_path) == kept


def test_broken_and_short_files_are_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, ["good.py"])
    (tmp_path / "broken.py").write_text("def (:\n" * 20, encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n" * 20)
    (tmp_path / "short.py").write_text("x = 1\n", encoding="utf-8")
    assert [file.name for file in corpus.read_files(tmp_path)] == ["good.py"]


@pytest.mark.parametrize(
    ("source", "normalised"),
    [
        ("", ""),
        ('"""Only a docstring."""', ""),
        ("x = (1,\n     2)  # a comment\n", "x = (1, 2)\n"),
        ('def f():\n    """Nothing else."""\n', "def f():\n    pass\n"),
        ("class A:\n\n    x = 1\n\n\n    y = 2\n", "class A:\n    x = 1\n    y = 2\n"),
        ("x = 'a\\n\"quoted\" (text)'\n", "x = 'aquoted text'\n"),
        ("x = f'{a!r} of {b:>3}'\n", "x = ' of '.format(a, b)\n"),
        ("x = f'plain'\n", "x = 'plain'\n"),
        ("if a:\n    x = [" + "1, " * 60 + "]\nelse:\n    y = 1\n", "if a:\n    pass\nelse:\n    y = 1\n"),
        ("if f(g(a)):\n    x = 1\ny = f(h(a))\nz = f(g(), [])\n", "z = f(g(), [])\n"),
        ("@d\nclass A(B):\n    @property\n    def f(self):\n        pass\n",) * 2,
        ("match x:\n    case 'a':\n        pass\n", "match x:\n    case 'a':\n        pass\n"),
    ],
)
def test_normalise(source: str, normalised: str) -> None:
    assert corpus.normalise(source) == normalised
    assert reads_as_python(normalised)


def test_strings_are_cut_at_a_word() -> None:
    cut = corpus.plain_string("word " * 20)
    assert len(cut) <= corpus.MAX_STRING_CHARS
    assert cut.endswith("word")
    assert corpus.plain_string("x" * 100) == "x" * corpus.MAX_STRING_CHARS


def test_normalising_twice_changes_nothing() -> None:
    for name in ("bisect.py", "textwrap.py", "contextlib.py"):
        once = corpus.normalise((corpus.library_root() / name).read_text(encoding="utf-8"))
        assert corpus.normalise(once) == once
        assert reads_as_python(once)
