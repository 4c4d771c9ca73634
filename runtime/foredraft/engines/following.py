"""What all ranks of a model but the first do: every forward that rank 0 runs, in step with it."""

import torch

from foredraft.engines.target_pass import TargetForward, ignore
from foredraft.engines.torch_target import TorchTarget
from foredraft.protocol.ports import Target


@torch.inference_mode()
def follow(target: Target) -> None:
    """Run what rank 0 runs, until it lets go. Raises ModelError where it is gone, else what torch raises."""
    if not isinstance(target, TorchTarget) or target.model.ranks is None:
        raise TypeError("only a model that ranks share can follow")
    ranks = target.model.ranks
    while (order := ranks.hear()) is not None:
        moves, calls = order
        TargetForward(target.model, target.exits, target.memory, calls, ignore, exact=target.exact).run(moves)
    ranks.leave()
