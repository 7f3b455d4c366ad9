"""Ratios corrected for search: appraisal and Sharpe ratios, their errors, the luck of all trials.

All ratios are per period. Annualising one first would multiply it by the root of the periods of a
year, and every policy would pass.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from scipy.special import gammaincinv

from hrl_sarp import metrics
from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.resampling import default_lags, long_run_variance

EULER_MASCHERONI = 0.5772156649015329
POWER = 0.80
"""Probability with which an effect of the smallest detectable size is found."""
SIGNIFICANCE = 0.05
"""Two-sided level of the smallest detectable effect."""
BEYOND_LUCK = 0.95
"""Deflated Sharpe ratio above which luck does not explain a policy."""
FEWEST_PERIODS = 3
"""Alpha, beta and deviation take two periods."""
NO_NOISE = 1e-9
"""Deviation of the residual, relative to the returns, that is rounding only."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Appraisal:
    """What a policy earns beyond a benchmark, per unit of risk, per period.

    Examples:
        >>> Appraisal(ratio=0.05, error=0.02).probability_above(0.05)
        0.5
    """

    ratio: float
    """Alpha over the deviation of the residual: the Sharpe ratio of residual and alpha."""
    error: float
    """Standard error of the ratio."""

    def probability_above(self, threshold: float) -> float:
        """Compute the probability that the true ratio exceeds a threshold.

        Args:
            threshold: per period.

        Returns:
            A probability; of the threshold 0 it is the probabilistic Sharpe ratio.

        Source:
            Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier".
        """
        return NORMAL.cdf((self.ratio - threshold) / self.error)


@dataclass(frozen=True)
class Trials:
    """The configurations that were evaluated on a span; the one in question is one of them.

    Examples:
        >>> Trials(count=40, ratios=(0.01, 0.03)).count
        40
    """

    count: int
    ratios: tuple[float, ...]
    """Appraisal ratios per period of those for which it is known."""


def appraise(
    excess: Float[np.ndarray, "T P"],
    benchmark_excess: Float[np.ndarray, " T"],
    lags: int | None = None,
) -> list[Appraisal]:
    """Appraise every column: the alpha over the benchmark diluted with cash, per its deviation.

    The error allows for the estimates of beta and deviation, for skewness and fat tails, and for
    sessions that depend on each other. With independent normal sessions, no benchmark and no lags
    it is that of the Sharpe ratio of Lo (2002), with other moments that of Mertens (2002). A column
    that is the benchmark times a number has the ratio 0.

    Args:
        excess: returns of the policies less cash; NaN is not skipped.
        benchmark_excess: of the benchmark.
        lags: sessions that may depend on each other; None takes `default_lags`.

    Returns:
        One appraisal for each column.

    Raises:
        MetricError: for fewer than `FEWEST_PERIODS` periods.

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
    count = default_lags(n_periods) if lags is None else lags
    error = np.sqrt(np.where(still, 1.0, long_run_variance(influence, count)) / n_periods)
    return [Appraisal(float(r), float(e)) for r, e in zip(ratio, error, strict=True)]


def sharpe_error(ratio: float, n_periods: int, skewness: float, kurtosis: float) -> float:
    """Compute the standard error of a Sharpe ratio of independent periods, whatever their tails.

    Args:
        ratio: per period.
        n_periods: T, at least 2.
        skewness: of the returns.
        kurtosis: 3 for a normal series; the excess over 3 would say too little.

    Returns:
        The error, per period.

    Raises:
        MetricError: for fewer than two periods, or moments that no series has.

    Source:
        Mertens (2002); Bailey and Lopez de Prado (2012), equation 4.
    """
    variance = 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    if n_periods < 2 or variance <= 0.0 or kurtosis < 1.0:
        raise MetricError(
            f"error of a Sharpe ratio of {n_periods} periods with skewness {skewness} and kurtosis "
            f"{kurtosis}: expected at least 2 periods and a kurtosis (not its excess over 3) of at "
            "least 1 + skewness^2; check the series"
        )
    return math.sqrt(variance / (n_periods - 1))


def active_appraisal(active_returns: Float[np.ndarray, " T"]) -> Appraisal:
    """Appraise the difference to a benchmark by its Sharpe ratio: the bet of holding both.

    Args:
        active_returns: net returns less those of the benchmark, as fractions; NaN is refused.

    Returns:
        Ratio and error per period; the ratio is 0 if the series does not move.

    Raises:
        MetricError: for fewer than two periods.
    """
    ratio = metrics.sharpe_ratio(active_returns, 1)
    moments = metrics.skewness(active_returns), metrics.kurtosis(active_returns)
    return Appraisal(ratio, sharpe_error(ratio, len(active_returns), *moments))


def expected_max_sharpe_ratio(variance: float, n_trials: int) -> float:
    """Compute the expected best Sharpe ratio of `n_trials` without skill.

    Args:
        variance: of the Sharpe ratios over the trials.
        n_trials: that were made; one is no search.

    Returns:
        A ratio in the unit of the root of the variance; 0.0 for one trial.

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

    Returns:
        A ratio per period.
    """
    known = len(trials.ratios)
    variance = error**2
    if known > 1:
        low = 2 * float(gammaincinv((known - 1) / 2, SIGNIFICANCE))
        variance = min(variance, (known - 1) * float(np.var(trials.ratios, ddof=1)) / low)
    return expected_max_sharpe_ratio(variance, trials.count)


def deflated_sharpe_ratio(appraisal: Appraisal, trials: Trials) -> float:
    """Compute the probability that the true ratio exceeds the luck of all trials.

    Args:
        appraisal: of the policy, per period.
        trials: evaluated on the span, the policy's own among them.

    Returns:
        A probability; above `BEYOND_LUCK` luck does not explain the policy.

    Source:
        Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio".
    """
    return appraisal.probability_above(luck_of_trials(appraisal.error, trials))


def needed_appraisal_ratio(appraisal: Appraisal, trials: Trials) -> float:
    """Compute the ratio per session from which luck would not explain the policy, given its error.

    Args:
        appraisal: of the policy; only its error is read.
        trials: evaluated on the span.

    Returns:
        A ratio per period.
    """
    quantile = NORMAL.inv_cdf(BEYOND_LUCK)
    return luck_of_trials(appraisal.error, trials) + quantile * appraisal.error


def smallest_detectable_effect(error: int | float) -> float:
    """Compute the true effect that a two-sided test at 5 % finds with 80 % power.

    Args:
        error: standard error of the estimate; 0 where nothing varies.

    Returns:
        The effect, in the unit of the error: 2.80 errors.

    Raises:
        MetricError: for an error below 0, or NaN.
    """
    if not error >= 0:
        raise MetricError(f"power needs a standard error of at least 0, found {error}")
    return (NORMAL.inv_cdf(1.0 - SIGNIFICANCE / 2) + NORMAL.inv_cdf(POWER)) * error


def smallest_detectable_information_ratio(n_years: int | float) -> float:
    """Compute the annual information ratio that a test of `n_years` finds with 80 % power.

    Args:
        n_years: of the test.

    Returns:
        The ratio; with 3 years it is 1.6.

    Raises:
        MetricError: for a number of years that is not above 0.
    """
    if n_years <= 0:
        raise MetricError(f"power needs a positive number of years, found {n_years}")
    return smallest_detectable_effect(1 / math.sqrt(n_years))
