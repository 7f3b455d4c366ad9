"""Uncertainty of means, Sharpe ratios and volatilities, by block bootstraps.

Dates are resampled in blocks of random length (stationary bootstrap), because daily returns are
not independent. All policies get the same dates, so that differences are paired.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.resampling import draw_counts, stationary_bootstrap

SHORTEST_SERIES = 20
"""Periods from which the rule of the block length has lags to look at."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the equal-tailed interval of its bootstrap distribution.

    Examples:
        >>> Interval(0.02, -0.01, 0.05).low
        -0.01
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BootstrapPlan:
    """How dates are resampled. It is stored with the results, so that runs can be aggregated.

    Examples:
        >>> BootstrapPlan(block_days=10, samples=3, confidence=0.9, seed=0).counts(5).sum(axis=1)
        array([5., 5., 5.])
    """

    block_days: int | float
    samples: int
    confidence: float
    seed: int

    def counts(self, n_periods: int) -> Float[np.ndarray, "samples T"]:
        """Count how often each session is drawn in each sample.

        The draws depend on seed and length only, so that all policies of a report share them.

        Args:
            n_periods: T, at least 1.

        Returns:
            One row for each sample; every row sums to T.
        """
        rng = np.random.default_rng([self.seed, n_periods])
        return draw_counts(stationary_bootstrap(n_periods, self.block_days, self.samples, rng))


def optimal_block_days(series: Float[np.ndarray, " T"]) -> float:
    """Compute the mean block that serves the stationary bootstrap of a mean best.

    Args:
        series: what is averaged, one per session; NaN is refused.

    Returns:
        Sessions, at least 1, which draws them independently; 1.0 if the series does not move.

    Raises:
        MetricError: for a series that is too short to tell, or not finite.

    Source:
        Politis and White (2004), corrected by Patton, Politis and White (2009); library `arch`.
    """
    from arch.bootstrap import optimal_block_length  # here, because it takes seconds to import

    if len(series) < SHORTEST_SERIES or not np.isfinite(series).all():
        raise MetricError(
            f"block length of {len(series)} periods: expected at least {SHORTEST_SERIES} finite "
            "numbers; use a longer span"
        )
    if series.std() <= ROUNDING:
        return 1.0
    return max(1.0, float(optimal_block_length(series)["stationary"].iloc[0]))


def bootstrap_annual_mean(
    series: Float[np.ndarray, "T P"], counts: Float[np.ndarray, "samples T"], periods_per_year: int
) -> Float[np.ndarray, "samples P"]:
    """Compute the annualised mean of every column in every sample.

    Args:
        series: one column for each policy; NaN is not skipped.
        counts: of `BootstrapPlan.counts`.
        periods_per_year: 252 for sessions.

    Returns:
        One row for each sample.
    """
    return counts @ series * (periods_per_year / len(series))


def bootstrap_sharpe(
    excess_returns: Float[np.ndarray, "T P"],
    counts: Float[np.ndarray, "samples T"],
    periods_per_year: int,
) -> Float[np.ndarray, "samples P"]:
    """Compute the annualised Sharpe ratio of every column in every sample.

    Args:
        excess_returns: returns less cash, one column for each policy; NaN is not skipped.
        counts: of `BootstrapPlan.counts`.
        periods_per_year: 252 for sessions.

    Returns:
        One row for each sample; a column that does not move has the ratio 0.
    """
    mean, deviation = _resampled_moments(excess_returns, counts)
    ratio = np.divide(mean, deviation, out=np.zeros_like(deviation), where=deviation > ROUNDING)
    return ratio * math.sqrt(periods_per_year)


def bootstrap_volatility(
    simple_returns: Float[np.ndarray, "T P"],
    counts: Float[np.ndarray, "samples T"],
    periods_per_year: int,
) -> Float[np.ndarray, "samples P"]:
    """Compute the annualised deviation of every column in every sample.

    Args:
        simple_returns: one column for each policy, as fractions; NaN is not skipped.
        counts: of `BootstrapPlan.counts`.
        periods_per_year: 252 for sessions.

    Returns:
        One row for each sample, as fractions.
    """
    return _resampled_moments(simple_returns, counts)[1] * math.sqrt(periods_per_year)


def _resampled_moments(
    series: Float[np.ndarray, "T P"], counts: Float[np.ndarray, "samples T"]
) -> tuple[Float[np.ndarray, "samples P"], Float[np.ndarray, "samples P"]]:
    """Return mean and sample standard deviation of every column in every sample."""
    n_periods = len(series)
    centre = series.mean(axis=0)  # subtracted first, to keep digits of the variance
    deviations = series - centre
    shift = counts @ deviations / n_periods
    second = counts @ deviations**2 / n_periods
    variance = np.maximum(second - shift**2, 0.0) * n_periods / max(n_periods - 1, 1)
    return shift + centre, np.sqrt(variance)


def interval(value: float, samples: Float[np.ndarray, " samples"], confidence: float) -> Interval:
    """Take the equal-tailed percentile interval.

    Args:
        value: the estimate itself.
        samples: its bootstrap distribution.
        confidence: 0.9 leaves 5 % on each side.

    Returns:
        The estimate with the interval.
    """
    tail = 0.5 * (1.0 - confidence)
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high))


def redraw_seeds(
    values: Float[np.ndarray, "*rows K"], rng: np.random.Generator
) -> Float[np.ndarray, "*rows K"]:
    """Draw as many seeds again as there are, with replacement, in every row by itself.

    Args:
        values: one column for each seed.
        rng: source of the draws.

    Returns:
        The values of the drawn seeds.
    """
    drawn = rng.integers(values.shape[-1], size=values.shape)
    return np.take_along_axis(values, drawn, axis=-1)


def bootstrap_dates_and_seeds(
    series: Float[np.ndarray, "seeds T"],
    counts: Float[np.ndarray, "samples T"],
    periods_per_year: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " samples"]:
    """Resample dates and seeds together and average over both, annualised.

    All seeds of a sample share one draw of dates, because they were run on the same dates.

    Args:
        series: one row for each seed; NaN is not skipped.
        counts: of `BootstrapPlan.counts`.
        periods_per_year: 252 for sessions.
        rng: draws the seeds.

    Returns:
        One mean for each sample.
    """
    by_seed = bootstrap_annual_mean(series.T, counts, periods_per_year)  # (samples, seeds)
    return redraw_seeds(by_seed, rng).mean(axis=1)
