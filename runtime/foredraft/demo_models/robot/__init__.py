"""The bundled pair with eyes, for the walking robot, and the recipe that trains it.

`python -m foredraft.demo_models.robot.recipe`. Importing this package loads no model library.
"""

from __future__ import annotations

from pathlib import Path

from foredraft.demo_models.pair import Pair
from foredraft.errors import ModelError

ROBOT = Path(__file__).parent
"""The folder that holds the pair, its card and its README."""


def robot_pair() -> Pair:
    """The pair with eyes that comes with the package.

    Raises:
        ModelError: the installation lacks it.
    """
    pair = Pair.below(ROBOT)
    for folder in (pair.target, pair.draft):
        if not (folder / "model.safetensors").is_file():
            raise ModelError(
                f"the robot's models are missing ({folder}); "
                "make them with `python -m foredraft.demo_models.robot.recipe`"
            )
    return pair
