"""Where the bundled pair lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foredraft.errors import ModelError

BUNDLED = Path(__file__).parent
"""The folder that holds the pair, its card and its README."""

FOLDERS = {"demo": BUNDLED, "demo-robot": BUNDLED / "robot"}
"""The bundled pairs, as users name them: one writes Python, the other sees."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The folders of a target, of the exits trained for it, and of a draft with the same tokenizer."""

    target: Path
    exits: Path
    draft: Path
    card: Path

    @classmethod
    def below(cls, folder: Path) -> Pair:
        """The pair whose parts lie in `folder`, whether or not they are there."""
        return cls(folder / "target", folder / "exits", folder / "draft", folder / "card.json")

    @property
    def size_bytes(self) -> int:
        """Bytes of everything in the three folders."""
        folders = (self.target, self.exits, self.draft)
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def bundled_pair(name: str = "demo") -> Pair:
    """The pair of that name (see `FOLDERS`) that comes with the package.

    Raises:
        ModelError: the installation lacks it.
    """
    pair = Pair.below(FOLDERS[name])
    for folder in (pair.target, pair.draft):
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"the bundled models are missing ({folder}); make them with `make {name}-models`")
    return pair
