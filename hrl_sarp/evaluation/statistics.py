"""Uncertainty of figures: block bootstrap intervals and appraisal ratios corrected for search.

Dates are resampled in blocks of random length (stationary bootstrap), because daily returns are
not independent. All policies get the same dates, so that differences are paired.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2

from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.resampling import draw_counts, stationary_bootstrap

EULER_MASCHERONI = 0.5772156649015329
POWER = 0.80
"""Probability with which an effect of the smallest detectable size is found."""
SIGNIFICANCE = 0.05
"""Two-sided level of the smallest detectable effect."""
CERTIFIED = 0.95
"""Deflated Sharpe ratio from which a policy is certified."""
FEWEST_PERIODS = 3
"""Alpha, beta and deviation take two periods."""
NO_NOISE = 1e-9
"""Deviation of the residual, relative to the returns, that is rounding only."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate with the equal-tailed interval of its bootstrap distribution."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Appraisal:
    """What a policy earns beyond a benchmark diluted with cash, per unit of risk, per period."""

    ratio: float
    """Alpha over the deviation of the residual: the Sharpe ratio of residual and alpha."""
    error: float
    """Standard error of the ratio."""


@dataclass(frozen=True)
class Trials:
    """The configurations that were evaluated on a span; the one in question is one of them."""

    count: int
    ratios: tuple[float, ...]
    """Appraisal ratios per period of those for which it is known."""


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
    mean, deviation = _resampled_moments(excess_returns, counts)
    ratio = np.divide(mean, deviation, out=np.zeros_like(deviation), where=deviation > ROUNDING)
    return ratio * math.sqrt(periods_per_year)


def bootstrap_volatility(
    simple_returns: Float[np.ndarray, "T P"],
    counts: Float[np.ndarray, "samples T"],
    periods_per_year: int,
) -> Float[np.ndarray, "samples P"]:
    """Compute the annualised deviation of every column in every sample; NaN is not skipped."""
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


def appraise(
    excess: Float[np.ndarray, "T P"],
    benchmark_excess: Float[np.ndarray, " T"],
    lags: int | None = None,
) -> list[Appraisal]:
    """Appraise every column: the alpha over the benchmark diluted with cash, per its deviation.

    The error allows for the estimates of beta and deviation, for skewness and fat tails, and for
    sessions that depend on each other. With independent normal sessions, no benchmark and no lags
    it is that of the Sharpe ratio of Lo (2002), with other moments that of Mertens (2002). A column
    that is the benchmark times a number has the ratio 0. Both inputs are returns less cash; NaN is
    not skipped.

    Args:
        excess: of the policies.
        benchmark_excess: of the benchmark.
        lags: sessions that may depend on each other; None takes 4 (T / 100) ^ (2 / 9).

    Source:
        Treynor and Black (1973) for the ratio, Newey and West (1987, 1994) for error and lags.
    """
    n_periods = len(excess)
    if n_periods < FEWEST_PERIODS:
        raise MetricError(
            f"appraisal of {n_periods} periods: expected at least {FEWEST_PERIODS}; use a longer "
            "span"
        )
    deviation = benchmark_excess - benchmark_excess.mean()
    variance = float((deviation**2).mean())
    moves = math.sqrt(variance) > ROUNDING
    beta = deviation @ excess / (n_periods * variance) if moves else np.zeros(excess.shape[1])
    earned = excess - beta * benchmark_excess[:, None]
    alpha = earned.mean(axis=0)
    noise = earned - alpha
    # a move of the benchmark's mean moves alpha by way of beta
    leverage = 1.0 - benchmark_excess.mean() / variance * deviation if moves else np.ones(n_periods)
    spread = np.sqrt((noise**2).sum(axis=0) / (n_periods - 2))
    still = spread <= NO_NOISE * np.sqrt((excess**2).mean(axis=0))
    scaled = noise / np.where(still, 1.0, spread)
    ratio = np.where(still, 0.0, alpha / np.where(still, 1.0, spread))
    influence = leverage[:, None] * scaled - 0.5 * ratio * (scaled**2 - (scaled**2).mean(axis=0))
    count = int(4 * (n_periods / 100) ** (2 / 9)) if lags is None else lags
    error = np.sqrt(np.where(still, 1.0, _long_run_variance(influence, count)) / n_periods)
    return [Appraisal(float(r), float(e)) for r, e in zip(ratio, error, strict=True)]


def _long_run_variance(series: Float[np.ndarray, "T P"], lags: int) -> Float[np.ndarray, " P"]:
    """Add the covariances of neighbouring rows to the variance, with falling (Bartlett) weights.

    Rows have the mean 0.
    """
    total = (series**2).mean(axis=0)
    for lag in range(1, lags + 1):
        weight = 2.0 * (1.0 - lag / (lags + 1))
        total = total + weight * (series[lag:] * series[:-lag]).sum(axis=0) / len(series)
    return np.maximum(total, 0.0)


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


def luck_of_trials(error: float, trials: Trials) -> float:
    """Compute the best appraisal ratio that trials without skill are expected to reach by luck.

    Configurations of one family are alike, so their luck differs by less than the error of one.
    How much it differs is read from the ratios that they have reached on the span: by the upper
    95 % bound of their variance, because few ratios tell it badly. With fewer than two ratios, or
    a wider spread, which has other reasons than luck, it is the error.

    Args:
        error: of the ratio of one configuration without skill.
        trials: evaluated on the span.
    """
    known = len(trials.ratios)
    variance = error**2
    if known > 1:
        low = float(chi2.ppf(SIGNIFICANCE, known - 1))
        variance = min(variance, (known - 1) * float(np.var(trials.ratios, ddof=1)) / low)
    return expected_max_sharpe_ratio(variance, trials.count)


def deflated_sharpe_ratio(appraisal: Appraisal, trials: Trials) -> float:
    """Compute the probability that the true appraisal ratio exceeds the luck of all trials."""
    excess = appraisal.ratio - luck_of_trials(appraisal.error, trials)
    return NORMAL.cdf(excess / appraisal.error)


def needed_appraisal_ratio(appraisal: Appraisal, trials: Trials) -> float:
    """Compute the ratio per session from which the policy would be certified, given its error."""
    quantile = NORMAL.inv_cdf(CERTIFIED)
    return luck_of_trials(appraisal.error, trials) + quantile * appraisal.error


def smallest_detectable_information_ratio(n_years: int | float) -> float:
    """Compute the annual information ratio that a test of `n_years` finds with 80 % power.

    The test is two-sided at 5 %; with 3 years the ratio is 1.6.
    """
    if n_years <= 0:
        raise MetricError(f"power needs a positive number of years, found {n_years}")
    quantiles = NORMAL.inv_cdf(1.0 - SIGNIFICANCE / 2) + NORMAL.inv_cdf(POWER)
    return quantiles / math.sqrt(n_years)
