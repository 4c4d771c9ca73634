"""What no scheduler can beat, given how often the draft's choices are right and what target passes take.

The bound has drafting and the link for nothing, and always verifies the best tree of N nodes:
the least over N of T_v(N) / tau(N), with tau the tokens that such a pass brings on average. A
drafter that always knows the tokens brings N + 1.
"""

from collections.abc import Callable, Sequence

from foredraft.edge.path_probability import expected_tokens

PassTime = Callable[[int], float]
"""Seconds of a target pass over so many draft nodes and the tip."""


def bound_s(ranks: Sequence[float], pass_s: PassTime, most_nodes: int) -> float:
    """Least seconds per token with this draft; ``ranks`` as in ``edge.path_probability.expected_tokens``."""
    return min(pass_s(nodes) / expected_tokens(tuple(ranks), nodes, nodes) for nodes in range(most_nodes + 1))


def knowing_bound_s(pass_s: PassTime, most_nodes: int) -> float:
    """Least seconds per token with a drafter that always knows."""
    return min(pass_s(nodes) / (nodes + 1) for nodes in range(most_nodes + 1))
