"""What pretraining reads: bars on a device, in units of their spread, and where windows begin."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from hrl_sarp.encoders.windows.cut import SPLITS, Windows
from hrl_sarp.encoders.windows.scaler import Scaler


@dataclass(frozen=True)
class WindowTable:
    """Bars on a device, and the first rows of the windows of each split.

    In deviations of the training bars every column weighs alike in a loss, 1 is the typical error
    of the mean, which is 0, and the bend of the Huber loss means the same for all columns.
    """

    table: Float[Tensor, "N F"]
    train: Int[Tensor, " W1"]
    validation: Int[Tensor, " W2"]
    test: Int[Tensor, " W3"]
    """May be empty."""
    length: int
    """Bars of a window."""

    @classmethod
    def place(
        cls, scaled: Float32[np.ndarray, "N F"], windows: Windows, device: torch.device
    ) -> "WindowTable":
        """Put scaled bars and the windows of all splits on a device."""
        parts = (scaled, *(getattr(windows, name) for name in SPLITS))
        table, train, validation, test = (torch.from_numpy(part).to(device) for part in parts)
        return cls(table, train, validation, test, windows.length)

    @property
    def n_features(self) -> int:
        """Columns of the table."""
        return self.table.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the table and the windows are."""
        return self.table.device


def fit_scaler(features: Float32[np.ndarray, "N F"], windows: Windows) -> Scaler:
    """Measure the columns over the bars of the training windows, each bar once."""
    edges = np.zeros(len(features) + 1, dtype=np.int64)
    np.add.at(edges, windows.train, 1)
    np.add.at(edges, windows.train + windows.length, -1)
    return Scaler.fit(features[edges.cumsum()[:-1] > 0])
