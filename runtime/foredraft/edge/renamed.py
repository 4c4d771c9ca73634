"""What policies written for version 0.1 call by an older name; whoever meets one is told the new name."""

from typing import Final

METHODS: Final = {"orders": "verify_params"}
STATE: Final = {
    "reaches": "path_probabilities",
    "told": "hinted_steps",
}
PARAMETERS: Final = {"min_reach": "min_probability"}
MODULES: Final = (
    "foredraft.core is foredraft.protocol, foredraft.edge and foredraft.cloud since version 0.2: take Step and "
    "VerifyParams (once Orders) from foredraft.edge.step, EdgeState (once Grower) from foredraft.edge.state, and Node "
    "from foredraft.protocol.tree"
)
"""Said of an import that no longer finds what it names."""
