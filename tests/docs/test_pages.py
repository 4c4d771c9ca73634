"""The pages: the command line's is the verbs' own, and what README and ARCHITECTURE point to is there."""

import re

import pytest

from foredraft.cli.reference import page
from paths import ROOT


def test_the_command_lines_page_is_that_of_the_verbs() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page(), (
        "write it anew: python -m foredraft.cli.reference > docs/cli.md"
    )


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
