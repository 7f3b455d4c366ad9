"""Windows that nothing is learned from, with masks that never change, so that losses compare."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hrl_sarp.encoders.pretrain.reconstruction import (
    BASELINES,
    Errors,
    ErrorSums,
    baseline_rebuilds,
)
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.encoders.windows.table import WindowTable
from hrl_sarp.fitting.distributed import World

Block = tuple[Float[Tensor, "B L F"], Bool[Tensor, "B L"]]


@dataclass(frozen=True)
class HeldOut:
    """The windows of one split and which of their bars are hidden."""

    data: WindowTable
    starts: Int[Tensor, " W"]
    hidden: Bool[Tensor, "W L"]
    """On the device of the data."""
    huber_delta: float
    batch_size: int
    """Windows rebuilt at once."""

    def module_errors(self, module: nn.Module, world: World, pause: Callable[[], None]) -> Errors:
        """Return the errors of a module, which is put into evaluation mode, over all processes.

        Args:
            module: the autoencoder.
            world: the processes that share the windows.
            pause: called between batches; may raise.
        """
        mine = world.share(len(self.starts))
        sums = self._sums()
        module.eval()
        for bars, hidden in self._blocks(mine):
            with torch.no_grad(), precision(self.data.device):
                rebuilt = module(bars, hidden)
            sums.add(rebuilt, bars, hidden)
            pause()
        world.add_up(sums.sums)
        return sums.means()

    def baseline_errors(self) -> dict[str, Errors]:
        """Return the errors of every baseline; each process computes all of them."""
        sums = {name: self._sums() for name in BASELINES}
        for bars, hidden in self._blocks(slice(None)):
            rebuilds = baseline_rebuilds(bars, hidden)
            for part, rebuilt in zip(sums.values(), rebuilds, strict=True):
                part.add(rebuilt, bars, hidden)
        return {name: part.means() for name, part in sums.items()}

    def _sums(self) -> ErrorSums:
        return ErrorSums(self.data.n_features, self.huber_delta, self.data.device)

    def _blocks(self, mine: slice) -> Iterator[Block]:
        starts, hidden = self.starts[mine], self.hidden[mine]
        for first in range(0, len(starts), self.batch_size):
            rows = slice(first, first + self.batch_size)
            yield gather(self.data.table, starts[rows], self.data.length), hidden[rows]


def precision(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 on CUDA, in float32 elsewhere."""
    is_cuda = device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16) if is_cuda else nullcontext()
