"""The walk: which way down the draft tree the target goes, and which way an exit thinks it goes.

Nodes come as two parallel sequences, as in ``ports.Pass``: ``tokens[i]`` is attached below node
``parents[i]``, or below the tip where that is -1. ``said[0]`` is what follows the tip and
``said[i + 1]`` what follows node i.
"""

from collections.abc import Sequence

from foredraft.protocol.ports import Prediction

TIP = -1


def _children(tokens: Sequence[int], parents: Sequence[int]) -> dict[tuple[int, int], int]:
    return {(parent, token): index for index, (parent, token) in enumerate(zip(parents, tokens, strict=True))}


def accept(tokens: Sequence[int], parents: Sequence[int], said: Sequence[int]) -> tuple[list[int], int]:
    """The accepted nodes, top down, and the bonus token that comes after the last of them.

    Speculative decoding's acceptance rule (Leviathan et al., 2023) with shared noise: a draft
    token is accepted when it equals what the target says there, so the text is the target's.
    """
    path: list[int] = []
    node, token = TIP, said[0]
    for child, parent in enumerate(parents):  # parents come before children, so one look at each is enough
        if parent == node and tokens[child] == token:
            path.append(child)
            node, token = child, said[child + 1]
    return path, token


def predict(
    tokens: Sequence[int], parents: Sequence[int], prediction: Prediction, threshold: float
) -> tuple[list[int], float]:
    """What will probably commit, as an exit sees it, and the probability that all of it is right.

    The same walk with the exit's tokens in the place of the target's, the one after the last
    match included. It is cut before the first token with which the probability of the whole
    would fall below ``threshold``.
    """
    children = _children(tokens, parents)
    predicted: list[int] = []
    confidence = 1.0
    node: int | None = TIP
    while node is not None:
        token = prediction.tokens[node + 1]
        with_token = confidence * prediction.confidence[node + 1]
        if not with_token >= threshold:  # NaN is no hint either
            break
        confidence = with_token
        predicted.append(token)
        node = children.get((node, token))
    return predicted, confidence
