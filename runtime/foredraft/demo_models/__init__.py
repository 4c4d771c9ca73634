"""The bundled pair of models, and the recipe that trains it: `python -m foredraft.demo_models.recipe`.

Importing this package loads no model library.
"""

from foredraft.demo_models.pair import BUNDLED, Pair, bundled_pair

__all__ = ["BUNDLED", "Pair", "bundled_pair"]
