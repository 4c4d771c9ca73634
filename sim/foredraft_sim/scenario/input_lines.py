"""What figures rest on, in lines to read: the profiles, what of them is assumed, and the pair."""

from typing import Any

from foredraft_sim.scenario.scenario_file import RecordedPair
from foredraft_sim.tokens.synthetic import SyntheticPair


def input_lines(inputs: dict[str, Any]) -> list[str]:
    """Edge, cloud, link and pair; ``inputs`` as of ``results.inputs_of``."""
    lines = [_input_line(name, inputs[name]) for name in ("edge", "cloud", "link")]
    return [*lines, f"pair: {_pair_line(inputs['pair'])}"]


def _input_line(name: str, said: dict[str, Any]) -> str:
    line = f"{name}: {said['title']} ({said['profile']})"
    if said["overridden"]:
        line += f", OVERRIDDEN here: {said['overridden']}"
    if said["provenance"].get("measured", 0) == 0:
        line += ", nothing measured"
    if said["assumed"]:
        line += f"; ASSUMED: {', '.join(said['assumed'])}"
    return line


def _pair_line(pair: Any) -> str:
    if isinstance(pair, dict):
        shares = ", ".join(f"{share:.0%}" for share in pair["topics"])
        return f"fitted to {pair['source'] or 'what its file does not say'}; topics: {shares}"
    if isinstance(pair, SyntheticPair):
        exits = ", ".join(f"layer {layer}: {share:g}" for layer, share in pair.exits)
        return f"synthetic (ASSUMED), ranks {list(pair.ranks)}, exits right: {exits or 'none'}"
    if isinstance(pair, RecordedPair):
        return f"recorded, {pair.file}"
    return f"real models, target {pair.target!r}, draft {pair.draft!r}"
