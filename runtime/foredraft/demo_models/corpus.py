"""The text that the bundled pair is trained on and judged by: the standard library's own sources.

Every file is *normalised*: parsed, stripped of docstrings and written again by `ast.unparse`, so comments are gone,
quotes and blank lines follow one style, and one logical line is one physical line. Strings are cut to a few plain
words, f-strings become calls of `format`, and statements that are long or nest brackets deeply are left out. That is
a far easier language than hand-written Python, within reach of a model of a million parameters, and the card says
so. Which files are held out is decided by a hash of the path alone, so adding or changing a file never moves another
one across the line.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "ensurepip",
        "idle_test",
        "lib-dynload",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "__phello__",
    }
)
"""Folders that are no part of the corpus: tests, other people's packages, generated tables, demos."""

SKIPPED_PREFIXES = ("encodings/", "_sysconfigdata", "msilib/", "config-")
"""Paths below the library's root that hold tables or the build's own settings, which differ per machine."""

MAX_STATEMENT_CHARS = 72
"""A statement's line may be this long; a longer simple statement is left out, a longer header takes its block along."""

MAX_NESTING = 1
"""How deep brackets may nest in a line, empty pairs not counted. Small models lose count of closing ones first."""

_EMPTY_PAIRS = re.compile(r"\(\)|\[\]|\{\}")

MAX_STRING_CHARS = 16
"""Strings are cut at the last word that ends within this many characters."""

_PLAIN = re.compile(r"[A-Za-z0-9_ ]")

MIN_FILE_LINES = 12
"""A file with fewer normalised lines than this teaches nothing and cannot be judged."""

HELD_OUT_ONE_IN = 20
"""One file in this many is never trained on."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One normalised source file: its path below the library's root, with forward slashes, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The files to train on and the files to judge by; no file is in both."""

    train: tuple[SourceFile, ...]
    held_out: tuple[SourceFile, ...]


def is_held_out(name: str) -> bool:
    """Whether the file of this name (relative, forward slashes) is kept away from training."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def library_root() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def list_files(root: Path) -> list[str]:
    """The names of the corpus's files below `root`, sorted, with forward slashes."""
    names = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        name = relative.as_posix()
        skipped = SKIPPED_FOLDERS.intersection(relative.parts[:-1]) or name.startswith(SKIPPED_PREFIXES)
        if not skipped:
            names.append(name)
    return sorted(names)


class _Simplifier(ast.NodeTransformer):
    """Drops docstrings, other bare strings and simple statements that are too long; makes strings plain."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str):
            return ast.Constant(plain_string(node.value))
        if isinstance(node.value, bytes):
            return ast.Constant(plain_string(node.value.decode("latin-1")).encode("ascii"))
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """`f'{a} of {b}'` as `' of '.format(a, b)`: the names stay, the places go, as braces are not plain."""
        parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        values = [self.visit(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
        template = ast.Constant(plain_string("".join(map(str, parts))))
        return ast.Call(ast.Attribute(template, "format", ast.Load()), values, []) if values else template

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            old = getattr(node, field, None)
            if isinstance(old, list) and old:
                kept = [statement for statement in old if not _is_unwanted(statement)]
                required = field == "body" and not isinstance(node, ast.Module)
                setattr(node, field, kept if kept or not required else [ast.Pass()])
        return node


def plain_string(text: str) -> str:
    """The plain characters of a text, cut at a word's end: neither quotes nor brackets nor backslashes."""
    plain = "".join(_PLAIN.findall(text))
    if len(plain) <= MAX_STRING_CHARS:
        return plain
    words = plain[: MAX_STRING_CHARS + 1].rpartition(" ")[0]
    return words or plain[:MAX_STRING_CHARS]


def _is_unwanted(statement: ast.AST) -> bool:
    """Whether a statement, already simplified, is left out: bare strings, and lines that are too much to learn."""
    if not isinstance(statement, ast.stmt) or isinstance(statement, ast.Try | ast.Match):
        return False
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return isinstance(statement.value.value, str | bytes)
    lines = ast.unparse(_without_block(statement)).splitlines()
    return any(len(line) > MAX_STATEMENT_CHARS or nesting(line) > MAX_NESTING for line in lines)


def _without_block(statement: ast.stmt) -> ast.stmt:
    """A compound statement with an empty block, which its header is read off; a simple one as it is."""
    if not hasattr(statement, "body"):
        return statement
    fields = {name: value for name, value in ast.iter_fields(statement) if name != "orelse"}
    return type(statement)(**{**fields, "body": [ast.Pass()], "orelse": [], "lineno": 1})


def nesting(line: str) -> int:
    """How deep brackets nest in a line whose strings hold none; an empty pair is no nest."""
    depth = deepest = 0
    for sign in _EMPTY_PAIRS.sub("", line):
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest


def normalise(source: str) -> str:
    """Python source in the one style of the corpus, ending in a newline ("" where nothing is left).

    Raises:
        SyntaxError: the running interpreter cannot parse `source`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old sources hold invalid escapes, which is theirs to mend
        tree = _Simplifier().visit(ast.parse(source))
    lines = [line for line in ast.unparse(tree).splitlines() if line.strip()]
    return "\n".join(lines) + "\n" if lines else ""


def read_files(root: Path) -> Iterator[SourceFile]:
    """Every usable file below `root`, normalised, in order of its name. Files that do not parse are left out."""
    for name in list_files(root):
        try:
            text = normalise((root / name).read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, RecursionError):
            continue
        if text.count("\n") >= MIN_FILE_LINES:
            yield SourceFile(name, text)


def load_corpus(root: Path | None = None) -> Corpus:
    """The corpus below `root`, by default the running interpreter's standard library."""
    files = list(read_files(root or library_root()))
    train = tuple(file for file in files if not is_held_out(file.name))
    return Corpus(train, tuple(file for file in files if is_held_out(file.name)))
