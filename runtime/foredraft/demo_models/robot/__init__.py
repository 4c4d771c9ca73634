"""The recipe of the bundled pair with eyes, for the walking robot: `python -m foredraft.demo_models.robot.recipe`.

Importing this package loads no model library.
"""

from typing import Final

from foredraft.demo_models.pair import FOLDERS

ROBOT: Final = FOLDERS["demo-robot"]
"""The folder that holds the pair, its card and its README."""
