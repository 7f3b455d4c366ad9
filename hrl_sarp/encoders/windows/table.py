"""What pretraining reads: bars on a device, in units of their spread, and where windows begin."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from hrl_sarp.encoders.windows.cut import Windows


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of every column over the training bars."""

    mean: Float32[np.ndarray, " F"]
    std: Float32[np.ndarray, " F"]
    """1 where a column does not move."""

    def apply(self, features: Float32[np.ndarray, "N F"]) -> Float32[np.ndarray, "N F"]:
        """Return the columns in standard deviations from their means."""
        return (features - self.mean) / self.std

    def as_plain(self) -> dict[str, list[float]]:
        """Return `mean` and `std` as an encoder's description holds them."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}


@dataclass(frozen=True)
class WindowTable:
    """Bars on a device, and the first rows of the windows of each split."""

    table: Float[Tensor, "N F"]
    train: Int[Tensor, " W1"]
    validation: Int[Tensor, " W2"]
    test: Int[Tensor, " W3"]
    """May be empty."""
    length: int
    """Bars of a window."""
    mean: Float[Tensor, " F"]
    """Of the training bars: the simplest rebuild of a hidden one."""

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
    bars = features[edges.cumsum()[:-1] > 0]
    mean = bars.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = bars.std(axis=0, dtype=np.float64).astype(np.float32)
    # rounding leaves a constant column a spread of its own last digit
    moves = std > np.finfo(np.float32).eps * np.maximum(np.abs(mean), 1)
    return Scaler(mean, np.where(moves, std, np.float32(1)))


def place_windows(
    features: Float32[np.ndarray, "N F"], windows: Windows, device: torch.device
) -> tuple[WindowTable, Scaler]:
    """Put bars on a device, in standard deviations of the training bars.

    In that unit every column weighs alike in the loss, 1 is the typical error of the mean, and
    the bend of the Huber loss means the same for all columns.
    """
    scaler = fit_scaler(features, windows)
    parts = (windows.train, windows.validation, windows.test)
    train, validation, test = (torch.from_numpy(starts).to(device) for starts in parts)
    table = torch.from_numpy(scaler.apply(features)).to(device)
    mean = torch.zeros(features.shape[1], device=device)
    return WindowTable(table, train, validation, test, windows.length, mean), scaler
