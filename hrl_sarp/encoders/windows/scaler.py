"""Scales columns to mean 0 and deviation 1 over the training bars."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from hrl_sarp.errors import CheckpointError

SMALLEST_SPREAD = float(np.finfo(np.float32).eps)
"""A column whose deviation is smaller, as a share of max(1, abs(mean)), is constant.

Such a deviation is rounding of float32, and a division by it would turn noise into signal.
"""


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of every column over the bars that training reads.

    Examples:
        >>> import numpy as np
        >>> scaler = Scaler.fit(np.array([[1, 7], [3, 7]], dtype=np.float32))
        >>> scaler.apply(np.array([[5, 7]], dtype=np.float32)).tolist()
        [[3.0, 0.0]]
    """

    mean: Float32[np.ndarray, " F"]
    std: Float32[np.ndarray, " F"]
    """1 where a column does not move, so that it is centred only."""

    @classmethod
    def fit(cls, values: Float[np.ndarray, "*rows F"]) -> "Scaler":
        """Measure the columns over training rows in float64; a NaN makes its column NaN."""
        rows = tuple(range(values.ndim - 1))
        return cls.of(values.mean(axis=rows, dtype=np.float64), values.std(rows, np.float64))

    @classmethod
    def of(cls, mean: Float[np.ndarray, " F"], std: Float[np.ndarray, " F"]) -> "Scaler":
        """Return the scaler of given moments; a deviation below `SMALLEST_SPREAD` becomes 1."""
        moves = std > SMALLEST_SPREAD * np.maximum(np.abs(mean), 1.0)
        return cls(mean.astype(np.float32), np.where(moves, std, 1.0).astype(np.float32))

    @classmethod
    def from_plain(cls, found: Any, n_columns: int, where: str, command: str) -> "Scaler":
        """Read what `as_plain` wrote; the messages name the file (`where`) and what writes it.

        Raises:
            CheckpointError: if a number is missing, not finite, or a deviation is not above 0.
        """
        parts = found if isinstance(found, dict) else {}
        for name in ("mean", "std"):
            values = parts.get(name)
            plain = [x for x in values or () if isinstance(x, int | float) and math.isfinite(x)]
            if not isinstance(values, list) or not len(values) == len(plain) == n_columns:
                raise CheckpointError(
                    f"{where}: {name} must be {n_columns} finite numbers, found "
                    f"{str(values)[:60]}; run `{command}` again"
                )
        if min(parts["std"]) <= 0:
            raise CheckpointError(f"{where}: std must be above 0 throughout; run `{command}` again")
        return cls(np.array(parts["mean"], np.float32), np.array(parts["std"], np.float32))

    def as_plain(self) -> dict[str, list[float]]:
        """Return `mean` and `std` as files hold them."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def apply(self, values: Float32[np.ndarray, "*rows F"]) -> Float32[np.ndarray, "*rows F"]:
        """Return the columns in standard deviations from their means; NaN stays."""
        return (values - self.mean) / self.std

    def apply_to(self, values: Float[Tensor, "*rows F"]) -> Float[Tensor, "*rows F"]:
        """Return a tensor's columns as `apply` does, on the tensor's device."""
        mean, std = (torch.from_numpy(part).to(values.device) for part in (self.mean, self.std))
        return (values - mean) / std
