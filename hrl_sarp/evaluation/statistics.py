"""Uncertainty of figures: block bootstrap intervals and Sharpe ratios corrected for search.

Dates are resampled in blocks of random length (stationary bootstrap), because daily returns are
not independent. All policies get the same dates, so that differences are paired.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from hrl_sarp.errors import MetricError
from hrl_sarp.resampling import draw_counts, stationary_bootstrap

EULER_MASCHERONI = 0.5772156649015329
POWER = 0.80
"""Probability with which an effect of the smallest detectable size is found."""
SIGNIFICANCE = 0.05
"""Two-sided level of the smallest detectable effect."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate with the equal-tailed interval of its bootstrap distribution."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BootstrapPlan:
    """How dates are resampled. It is stored with the results, so that runs can be aggregated."""

    block_days: int
    samples: int
    confidence: float
    seed: int

    def counts(self, n_periods: int) -> Float[np.ndarray, "samples T"]:
        """Count how often each session is drawn in each sample.

        The draws depend on seed and length only, so that all policies of a report share them.
        """
        rng = np.random.default_rng([self.seed, n_periods])
        return draw_counts(stationary_bootstrap(n_periods, self.block_days, self.samples, rng))


def bootstrap_annual_mean(
    series: Float[np.ndarray, "T P"], counts: Float[np.ndarray, "samples T"], periods_per_year: int
) -> Float[np.ndarray, "samples P"]:
    """Compute the annualised mean of every column in every sample; NaN is not skipped."""
    return counts @ series * (periods_per_year / len(series))


def bootstrap_sharpe(
    excess_returns: Float[np.ndarray, "T P"],
    counts: Float[np.ndarray, "samples T"],
    periods_per_year: int,
) -> Float[np.ndarray, "samples P"]:
    """Compute the annualised Sharpe ratio of every column in every sample.

    A column that does not move has the ratio 0; NaN is not skipped.
    """
    n_periods = len(excess_returns)
    centre = excess_returns.mean(axis=0)  # subtracted first, to keep digits of the variance
    deviations = excess_returns - centre
    shift = counts @ deviations / n_periods
    second = counts @ deviations**2 / n_periods
    variance = np.maximum(second - shift**2, 0.0) * n_periods / max(n_periods - 1, 1)
    deviation = np.sqrt(variance)
    ratio = np.divide(
        shift + centre, deviation, out=np.zeros_like(deviation), where=deviation > 1e-15
    )
    return ratio * math.sqrt(periods_per_year)


def interval(value: float, samples: Float[np.ndarray, " samples"], confidence: float) -> Interval:
    """Take the equal-tailed percentile interval; a confidence of 0.9 leaves 5 % on each side."""
    tail = 0.5 * (1.0 - confidence)
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high))


def bootstrap_dates_and_seeds(
    series: Float[np.ndarray, "seeds T"],
    counts: Float[np.ndarray, "samples T"],
    periods_per_year: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " samples"]:
    """Resample dates and seeds together and average over both, annualised: one mean per sample.

    All seeds of a sample share one draw of dates, because they were run on the same dates.
    `series` has one row per seed.
    """
    n_seeds = len(series)
    by_seed = bootstrap_annual_mean(series.T, counts, periods_per_year)  # (samples, seeds)
    drawn = rng.integers(n_seeds, size=(len(counts), n_seeds))
    return np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)


def interquartile_mean(values: Float[np.ndarray, " n"]) -> float:
    """Compute the mean of the middle half. Values on its border count in part.

    Source:
        Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice".
    """
    ordered = np.sort(values)
    edges = np.arange(len(ordered) + 1) / len(ordered)
    inside = np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25)
    return float((ordered * inside.clip(min=0.0)).sum() / 0.5)


def probabilistic_sharpe_ratio(
    sharpe: float, threshold: float, n_periods: int, skewness: float, kurtosis: float
) -> float:
    """Compute the probability that the true Sharpe ratio exceeds the threshold.

    Both ratios are per period, not annualised. A normal series has skewness 0 and kurtosis 3.

    Source:
        Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier".
    """
    variance = 1.0 - skewness * sharpe + 0.25 * (kurtosis - 1.0) * sharpe**2
    if n_periods < 2 or variance <= 0.0:
        raise MetricError(
            f"probabilistic Sharpe ratio of {n_periods} periods with variance {variance:.3g}: "
            "expected at least 2 periods and a positive variance; use a longer span"
        )
    return NORMAL.cdf((sharpe - threshold) * math.sqrt((n_periods - 1) / variance))


def expected_max_sharpe_ratio(variance: float, n_trials: int) -> float:
    """Compute the expected best Sharpe ratio of `n_trials` without skill.

    `variance` is that of the Sharpe ratios over the trials. The result has the unit of its root.

    Source:
        Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio", equation 1.
    """
    if n_trials < 2:
        return 0.0
    first = NORMAL.inv_cdf(1.0 - 1.0 / n_trials)
    second = NORMAL.inv_cdf(1.0 - 1.0 / (n_trials * math.e))
    return math.sqrt(variance) * ((1.0 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second)


def deflated_sharpe_ratio(
    simple_returns: Float[np.ndarray, " T"], trial_variance: float, n_trials: int
) -> float:
    """Compute the probability that the true Sharpe ratio exceeds the luck of many trials.

    Args:
        simple_returns: net returns less those of a benchmark, so that beta earns no credit.
        trial_variance: variance of the per-period Sharpe ratios over the trials.
        n_trials: number of all configurations tried, also those that are not shown.

    Returns:
        The probability; 0.5 for a series that does not move.
    """
    deviation = float(simple_returns.std(ddof=1)) if len(simple_returns) > 1 else 0.0
    if deviation == 0.0:
        return 0.5
    centred = (simple_returns - simple_returns.mean()) / simple_returns.std()
    return probabilistic_sharpe_ratio(
        float(simple_returns.mean()) / deviation,
        expected_max_sharpe_ratio(trial_variance, n_trials),
        len(simple_returns),
        float((centred**3).mean()),
        float((centred**4).mean()),
    )


def smallest_detectable_information_ratio(n_years: int | float) -> float:
    """Compute the annual information ratio that a test of `n_years` finds with 80 % power.

    The test is two-sided at 5 %; with 3 years the ratio is 1.6.
    """
    if n_years <= 0:
        raise MetricError(f"power needs a positive number of years, found {n_years}")
    quantiles = NORMAL.inv_cdf(1.0 - SIGNIFICANCE / 2) + NORMAL.inv_cdf(POWER)
    return quantiles / math.sqrt(n_years)
