"""The file of a fitted pair: TOML, an outcome to the line, for ``pair = "FILE"`` in a scenario."""

from collections.abc import Iterator, Sequence

from foredraft_sim.tokens.fitted import Distribution, FittedPair, Outcome, Topic

_OUTCOMES = """\
# states: by state the outcomes, each [weight, rank of the target's token among the draft's choices (-1: none of them),
#   the probabilities the draft gave its choices, by exit [what it named (-1: the target's token, -2: no choice of the
#   draft, else the number of a wrong one), how sure it was]]
"""


def render(pair: FittedPair, notes: Sequence[str]) -> str:
    """The file's text; ``notes`` are its first lines."""
    lines = [*(f"# {note}".rstrip() for note in notes), 'kind = "fitted"', f"source = {_quoted(pair.source)}"]
    lines += [f"{name} = {getattr(pair, name)}" for name in ("layers", "vocab_size", "context")]
    lines += [f"exits = {list(pair.exits)}", "", _OUTCOMES.rstrip()]
    for topic in pair.topics:
        lines += ["", "[[topics]]", *_topic(topic)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _topic(topic: Topic) -> Iterator[str]:
    yield f"share = {topic.share:.5f}"
    for name in ("head", "after_wrong", "after_right"):
        yield f"{name} = ["
        yield from (f"  {_row(row)}," for row in getattr(topic, name))
        yield "]"
    yield "states = ["
    for outcomes in topic.states:
        yield "  ["
        yield from (f"    {_outcome(one)}," for one in outcomes)
        yield "  ],"
    yield "]"


def _row(row: Distribution) -> str:
    return "[" + ", ".join(f"{share:.5f}" for share in row) + "]"


def _outcome(one: Outcome) -> str:
    exits = ", ".join(f"[{named}, {sure:g}]" for named, sure in one.exits)
    says = ", ".join(f"{probability:g}" for probability in one.says)
    return f"[{one.weight:g}, {one.rank}, [{says}], [{exits}]]"
