"""The ranks of one model: processes that hold a share of its weights each, and run every forward together.

The engine is torch.distributed with transformers' tensor-parallel plans: each rank has some of the heads, the
hidden states between layers are whole on all of them. Rank 0 decides what runs and tells the others (``tell``,
``hear``); all then do the same. A rank that fails cannot be waited for, so the first one that is missed ends
them all (``lose``).
"""

import os
import signal
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from foredraft.engines.worker import RETRY_AFTER_S, first_line
from foredraft.errors import ConfigError, ModelError, RefusedError
from foredraft.protocol.messages import BUSY

_IDLE = timedelta(days=365)
"""How long the others wait for rank 0 to have something for them."""

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher leaves in the environment."""


class Ranks:
    """This process as rank ``rank`` of ``count``."""

    def __init__(self, rank: int, count: int, device: torch.device, orders: Any) -> None:
        self.rank, self.count, self.device = rank, count, device
        self._orders = orders
        self.reason = ""
        """Why the ranks cannot go on; empty while they can."""

    @classmethod
    def join(cls, count: int, device: torch.device) -> "Ranks":
        """Meet the others, on the devices that ``device`` names the kind of. Raises ConfigError.

        Each rank takes the accelerator of its own number on its machine (``LOCAL_RANK``).
        """
        missing = [name for name in LAUNCHED if name not in os.environ]
        if missing:
            raise ConfigError(f"no {missing[0]} in the environment: start the ranks with torchrun or foredraft serve")
        if int(os.environ["WORLD_SIZE"]) != count:
            raise ConfigError(f"{os.environ['WORLD_SIZE']} ranks were launched, not {count} (--tensor-parallel)")
        accelerator = torch.accelerator.current_accelerator()
        kind = "cpu" if accelerator is None else accelerator.type
        if device.type != kind or device.index is not None:
            raise ConfigError(f"ranks share the model on {kind!r} here, each a device of its own: --device {kind}")
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
            orders = dist.new_group(backend="gloo", timeout=_IDLE)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"the ranks did not meet: {first_line(error)}") from error
        if kind != "cpu":
            device = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")))
        return cls(dist.get_rank(), count, device, orders)

    def tell(self, order: object) -> None:
        """Rank 0 says what comes next; None: that is all. On the others it does nothing.

        Raises ModelError where the ranks cannot go on.
        """
        if self.reason:
            raise ModelError(self.reason)
        if self.rank == 0:
            try:
                dist.broadcast_object_list([order], src=0, group=self._orders)
            except RuntimeError as error:
                raise ModelError(f"rank 0 lost another rank: {first_line(error)}") from error

    def hear(self) -> Any:
        """The others wait for it. Raises ModelError where rank 0 is gone."""
        order: list[Any] = [None]
        try:
            dist.broadcast_object_list(order, src=0, group=self._orders)
        except RuntimeError as error:
            raise ModelError(f"rank {self.rank} lost rank 0: {first_line(error)}") from error
        return order[0]

    def agree(self, said: bool) -> bool:
        """What rank 0 says, on all ranks."""
        self.tell(said)
        return said if self.rank == 0 else bool(self.hear())

    def lose(self, error: Exception) -> RefusedError:
        """A forward failed here: the others are in the middle of it, and nobody knows how far. What sessions get.

        The process is asked to stop, as a launcher asks it that has seen a rank die: it sees its sessions off.
        """
        if not self.reason:
            self.reason = f"the ranks that share the model cannot go on: {error}"
            os.kill(os.getpid(), signal.SIGTERM)
        return RefusedError(BUSY, self.reason, RETRY_AFTER_S)

    def leave(self) -> None:
        """Rank 0 lets the others go, and they go. Twice is fine. Raises ModelError where they are lost."""
        if dist.is_initialized():
            self.tell(None)
            dist.destroy_process_group()
