"""The pages: the command line's is the verbs' own, and what README and ARCHITECTURE point to is there."""

import inspect
import re

import pytest

import foredraft
from foredraft.cli.reference import page
from paths import ROOT


def test_the_command_lines_page_is_that_of_the_verbs() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page(), (
        "write it anew: python -m foredraft.cli.reference > docs/cli.md"
    )


def test_every_error_of_the_troubleshooting_page_is_one_that_the_code_can_say() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = page[page.index("| it says |") : page.index("What is no error")]
    said = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(said) > 10
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "runtime").rglob("*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))  # strings over several lines are one
    for error in said:
        fixed = re.split(r"\.\.\.|URL|FOLDER|\b[A-Z]\b|\d+|'[a-z_]+'|\b(?:torch|policy)\b", error)
        parts = [part.strip() for part in fixed if len(part.strip()) >= 6]
        assert parts, error
        assert all(part in code for part in parts), error


def test_the_python_page_names_parameters_that_there_are() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    calls = re.findall(r"^\| `([\w.]+)\((.*?)\)` \|", text, re.MULTILINE)
    assert len(calls) >= 5
    for name, listed in calls:
        what: object = foredraft
        for part in name.split("."):
            what = getattr(what, part)
        known = inspect.signature(what).parameters  # type: ignore[arg-type]
        named = [word.strip(" *") for word in listed.split(",") if word.strip(" .")]
        assert set(named) <= set(known), name


def test_the_plan_of_the_architecture_lists_every_folder_and_no_other() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    plan = text[text.index("## The plan") : text.index("## A token's journey")]
    listed = set(re.findall(r"^      (\w+)/ ", plan, re.MULTILINE))
    homes = (ROOT / "runtime" / "foredraft", ROOT / "sim" / "foredraft_sim")
    folders = {file.parent.name for home in homes for file in home.glob("*/*.py")}
    assert listed == folders


def test_every_row_of_a_table_has_the_cells_of_its_head() -> None:
    for file in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]:
        cells = 0
        for line in file.read_text(encoding="utf-8").splitlines():
            bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (cells and bars) or bars == cells, f"{file.name}: {line}"
            cells = bars


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"])
def test_what_a_page_at_the_top_points_to_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_path_in_the_architecture_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:\w+/)+\w+\.py)`", text))
    assert len(paths) > 15
    homes = (ROOT / "runtime" / "foredraft", ROOT / "sim" / "foredraft_sim", ROOT)
    assert [path for path in sorted(paths) if not any((home / path).exists() for home in homes)] == []


def test_the_front_door_is_no_corridor() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    for record in (ROOT / "docs" / "adr").glob("0*.md"):
        assert len(record.read_text(encoding="utf-8").splitlines()) <= 45, f"{record.name}: a record fits one screen"
