"""Means of dates that depend on each other: the stationary bootstrap, and errors of Newey-West.

Daily differences are not independent, so dates are drawn in blocks. Reports take intervals from
these draws, and training takes the bounds by which it accepts what was learned. The errors add the
covariances of neighbouring dates instead.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import ROUNDING


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


def default_lags(n_periods: int) -> int:
    """Count the sessions that may depend on each other: 4 (T / 100) ^ (2 / 9).

    Args:
        n_periods: T.

    Returns:
        Lags, rounded down.

    Source:
        Newey and West (1994).
    """
    return int(4 * (n_periods / 100) ** (2 / 9))


def long_run_variance(series: Float[np.ndarray, "T P"], lags: int) -> Float[np.ndarray, " P"]:
    """Add the covariances of neighbouring rows to the variance, with falling (Bartlett) weights.

    Args:
        series: every column has the mean 0.
        lags: rows that may depend on each other; 0 leaves the variance.

    Returns:
        One number for each column, at least 0.

    Source:
        Newey and West (1987).
    """
    total = (series**2).mean(axis=0)
    for lag in range(1, lags + 1):
        weight = 2.0 * (1.0 - lag / (lags + 1))
        total = total + weight * (series[lag:] * series[:-lag]).sum(axis=0) / len(series)
    return np.maximum(total, 0.0)


def newey_west_error(series: Float[np.ndarray, " T"], lags: int | None = None) -> float:
    """Compute the standard error of a mean whose sessions depend on each other.

    Args:
        series: what is averaged; NaN is not skipped.
        lags: sessions that may depend on each other; None takes `default_lags`.

    Returns:
        The error, in the unit of the series.
    """
    centred = series - series.mean()
    count = default_lags(len(series)) if lags is None else lags
    return math.sqrt(float(long_run_variance(centred[:, None], count)[0]) / len(series))


def newey_west_t(series: Float[np.ndarray, " T"], lags: int | None = None) -> float:
    """Compute the t statistic of a mean: a check that needs no resampling.

    Args:
        series: what is averaged; NaN is not skipped.
        lags: sessions that may depend on each other; None takes `default_lags`.

    Returns:
        Mean over its error; 0.0 if the series does not move.
    """
    error = newey_west_error(series, lags)
    return float(series.mean()) / error if error > ROUNDING else 0.0
