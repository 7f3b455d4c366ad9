"""Training in several processes that torchrun starts: their ranks, shares and sums."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

RANK, SIZE, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
"""Environment variables that torchrun sets in each process."""


@dataclass(frozen=True)
class World:
    """All processes of a run, seen from one of them.

    Examples:
        >>> World(rank=1, size=2, device=torch.device("cpu")).share(7)
        slice(3, 7, None)
    """

    rank: int
    size: int
    device: torch.device
    """Device of this process."""

    @classmethod
    def alone(cls, device: torch.device) -> "World":
        """Return the world of a run in a single process.

        Args:
            device: device to train on.

        Returns:
            One process.
        """
        return cls(0, 1, device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.rank == 0

    def share(self, n_rows: int) -> slice:
        """Return the rows of a global batch that belong to this process.

        Args:
            n_rows: rows of the global batch.

        Returns:
            Consecutive rows; the shares of two processes differ by one row at most.
        """
        return slice(self.rank * n_rows // self.size, (self.rank + 1) * n_rows // self.size)

    def add_up(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place.

        Args:
            values: a tensor of the same shape in all processes.

        Returns:
            The same tensor, now with the sum.
        """
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, *, is_wanted: bool) -> bool:
        """Return whether any process wants something, for example to stop.

        Args:
            is_wanted: whether this process wants it.

        Returns:
            The same answer in all processes.
        """
        if self.size == 1:
            return is_wanted
        return bool(self.add_up(torch.tensor(float(is_wanted), device=self.device)))

    def connect(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are the means over all processes.

        Args:
            module: a module on this process's device.

        Returns:
            The module itself in a run of one process.
        """
        if self.size == 1:
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun a process is alone.

    Args:
        device: CPU (processes talk through gloo) or CUDA (NCCL, one GPU per process).

    Returns:
        A context that gives the world and leaves it when the block ends.
    """
    size = int(os.environ.get(SIZE, "1"))
    if size == 1:
        yield World.alone(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ[LOCAL_RANK]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(int(os.environ[RANK]), size, device)
    finally:
        dist.destroy_process_group()
