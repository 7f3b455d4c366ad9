"""Resampling of dates in blocks of random length: the stationary bootstrap.

Daily differences are not independent, so dates are drawn in blocks. Reports take intervals from
these draws, and training takes the bounds by which it accepts what was learned.
"""

import numpy as np
from jaxtyping import Float, Int

from hrl_sarp.errors import MetricError


def stationary_bootstrap(
    n_periods: int, block_days: int | float, n_samples: int, rng: np.random.Generator
) -> Int[np.ndarray, "samples T"]:
    """Draw row indices in blocks of geometric length that wrap around the end.

    `block_days` is the mean length of a block; 1 draws rows independently. Each line of the result
    is one resampled history.

    Source:
        Politis and Romano (1994), "The stationary bootstrap", JASA 89(428).
    """
    if n_periods < 1 or block_days < 1:
        raise MetricError(
            f"bootstrap of {n_periods} periods in blocks of {block_days}: expected at least 1 of "
            "each; check the span of dates"
        )
    starts = rng.integers(n_periods, size=(n_samples, n_periods))
    is_start = rng.random((n_samples, n_periods)) < 1.0 / block_days
    position = np.arange(n_periods)  # row 0 begins a block, drawn or not: its place is 0
    block_start = np.maximum.accumulate(np.where(is_start, position, 0), axis=1)
    first = np.take_along_axis(starts, block_start, axis=1)
    return (first + position - block_start) % n_periods


def draw_counts(indices: Int[np.ndarray, "samples T"]) -> Float[np.ndarray, "samples T"]:
    """Count how often each row was drawn: means over a sample become one matrix product."""
    n_samples, n_periods = indices.shape
    flat = indices + np.arange(n_samples)[:, None] * n_periods
    counts = np.bincount(flat.ravel(), minlength=n_samples * n_periods)
    return counts.reshape(n_samples, n_periods).astype(np.float64)
