"""Whether one forecast is better than another: the test of Diebold and Mariano, rank correlation.

Differences of losses are model less reference, so a value below 0 favours the model. Every text
that is made here says so.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from hrl_sarp.errors import MetricError
from hrl_sarp.forecasters.evaluation.scores import FEWEST_RANKED, rank_correlations
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.reporting.table import number
from hrl_sarp.resampling import long_run_variance, newey_west_t

FEWEST_ORIGINS = 10
"""Origins from which the test is made."""
SIGNIFICANT = 0.05
"""Below this p a difference counts as shown."""
SIGN = "above 0 is against the model, below 0 is for it"
"""What is said beside a statistic."""
TOO_FEW, SAME, CONSTANT = "too few origins", "the same losses", "the same difference everywhere"


@dataclass(frozen=True)
class DieboldMariano:
    """Whether mean losses differ, by origins that may depend on each other.

    Examples:
        >>> found = diebold_mariano(np.tile([1.0, 2.0], 10), lags=0)
        >>> found.mean_difference, found.favours, round(found.statistic, 2)
        (1.5, 'the reference', 13.08)
        >>> print(found.text)
        Diebold-Mariano +13.08, p < 0.001 (above 0 is against the model, below 0 is for it)
    """

    statistic: float
    """Mean difference over its error; NaN where `reason` tells why there is none."""
    p_value: float
    """Two-sided, of Student's t; NaN without a statistic."""
    mean_difference: float
    """Mean loss of the model less that of the reference."""
    n_origins: int
    lags: int
    """Neighbouring origins that may depend on each other."""
    reason: str = ""
    """Why there is no statistic; empty if there is one."""

    @property
    def favours(self) -> str:
        """Which side has the lower mean loss."""
        if not abs(self.mean_difference) > ROUNDING:  # also without any origin
            return "neither"
        return "the model" if self.mean_difference < 0 else "the reference"

    @property
    def is_significant(self) -> bool:
        """Whether a difference is shown at the level 0.05."""
        return self.p_value < SIGNIFICANT  # False for NaN

    @property
    def verdict(self) -> str:
        """What the test shows, in words."""
        if self.reason:
            return f"not tested: {self.reason}"
        if not self.is_significant:
            return "no difference shown"
        return f"significantly {'better' if self.statistic < 0 else 'worse'}"

    @property
    def text(self) -> str:
        """The statistic with its p and what its sign means."""
        if self.reason:
            return f"no Diebold-Mariano test ({self.reason})"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        sign = "+" if self.statistic > 0 else ""
        return f"Diebold-Mariano {sign}{number(self.statistic)}, {p} ({SIGN})"


def overlap_lags(horizon: int, every: int) -> int:
    """Count the origins after one whose forecasts overlap with its own: ceil(h / every) - 1.

    Args:
        horizon: rows that are forecast.
        every: rows from an origin to the next.

    Returns:
        Lags, at least 0.
    """
    return math.ceil(horizon / every) - 1


def origin_means(
    origins: Shaped[np.ndarray, " n"], differences: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " origins"]:
    """Average differences over the series and steps of each origin.

    Args:
        origins: time of each row.
        differences: loss of the model less that of the reference; NaN is left out.

    Returns:
        One mean for each origin that has any, in the order of time.
    """
    known = np.isfinite(differences)
    times, place = np.unique(origins[known], return_inverse=True)
    sums = np.bincount(place, weights=differences[known], minlength=len(times))
    counts: Int[np.ndarray, " origins"] = np.bincount(place, minlength=len(times))
    return sums / counts


def diebold_mariano(differences: Float[np.ndarray, " origins"], lags: int) -> DieboldMariano:
    """Test whether the mean of differences of losses is 0.

    Args:
        differences: loss of the model less that of the reference, one for each origin in the
            order of time; NaN is refused. There may be none.
        lags: of `overlap_lags`.

    Returns:
        The test with Bartlett weights and the correction for small samples. Without a statistic,
        and with the reason, where there are too few origins, or where the difference never
        changes.

    Raises:
        MetricError: for NaN, or for lags below 0.

    Source:
        Diebold and Mariano (1995); Harvey, Leybourne and Newbold (1997).
    """
    from scipy.stats import t as student

    n = len(differences)
    if lags < 0 or not np.isfinite(differences).all():
        raise MetricError(
            f"Diebold-Mariano of {n} origins with {lags} lags: expected finite differences and at "
            "least 0 lags; leave origins without a loss out"
        )
    mean = float(differences.mean()) if n else math.nan
    steps = lags + 1
    correction = (n + 1 - 2 * steps + steps * (steps - 1) / max(n, 1)) / max(n, 1)
    if n < FEWEST_ORIGINS or correction <= 0:
        return _without_statistic(mean, n, lags, f"{TOO_FEW}: {n}")
    size = float(np.abs(differences).max())
    if size <= ROUNDING:
        return _without_statistic(mean, n, lags, SAME)
    variance = float(long_run_variance((differences - mean)[:, None], lags)[0])
    if variance <= (ROUNDING * size) ** 2:
        return _without_statistic(mean, n, lags, CONSTANT)
    statistic = mean / math.sqrt(variance / n) * math.sqrt(correction)
    p_value = 2.0 * float(student.sf(abs(statistic), n - 1))
    return DieboldMariano(statistic, p_value, mean, n, lags)


def _without_statistic(mean: float, n: int, lags: int, reason: str) -> DieboldMariano:
    return DieboldMariano(math.nan, math.nan, mean, n, lags, reason)


def summary_text(percent_mae: float, ratio: float, test: DieboldMariano) -> str:
    """Say in one line how far off a forecast is, and whether that is worse than the last value.

    Args:
        percent_mae: mean absolute error in percent of the mean value.
        ratio: mean absolute error in multiples of that of the last value.
        test: of absolute errors against those of the last value.

    Returns:
        For example `pct_mae 116 %, 29.9 x naive, significantly worse`.
    """
    return f"pct_mae {significant(percent_mae)} %, {multiple(ratio)} x naive, {test.verdict}"


def significant(value: float) -> str:
    """Write a number with about three digits, and never with an exponent.

    Args:
        value: at least 0, or NaN.

    Returns:
        The number as text, or `no`.

    Examples:
        >>> significant(116.1), significant(1.234), significant(0.00567), significant(1234.5)
        ('116', '1.23', '0.0057', '1234')
    """
    if math.isnan(value):
        return "no"
    size = math.floor(math.log10(value)) if value > 0.0 else 0
    return f"{value:.{min(max(2 - size, 0), 4)}f}"


def multiple(ratio: float) -> str:
    """Write a multiple of the naive error, with three decimals near 1.

    Args:
        ratio: at least 0, or NaN.

    Returns:
        The number as text, or `no`.
    """
    if math.isnan(ratio):
        return "no"
    return f"{ratio:.3f}" if ratio < 2.0 else f"{ratio:.1f}"


@dataclass(frozen=True)
class RankIC:
    """Rank correlation of forecast and actual changes between series, over dates.

    Examples:
        >>> rank_ic(np.arange(20.0).reshape(4, 5), np.arange(20.0).reshape(4, 5), lags=0).mean
        1.0
    """

    mean: float
    """NaN where no date has enough series that differ."""
    icir: float
    """Mean over deviation of the dates; NaN if they do not differ."""
    t: float
    """Of Newey and West; NaN for fewer than 10 dates, or if they do not differ."""
    n_dates: int


def rank_ic(
    forecast: Float[np.ndarray, "D A"], came: Float[np.ndarray, "D A"], lags: int
) -> RankIC:
    """Correlate ranks between series on each date, and average over dates.

    Args:
        forecast: change of each series that was forecast; NaN where there is none.
        came: change that came.
        lags: dates that may depend on each other, of `overlap_lags`.

    Returns:
        The mean with its strength. Dates with fewer than 5 series are left out.
    """
    nothing = RankIC(math.nan, math.nan, math.nan, 0)
    if forecast.shape[1] < FEWEST_RANKED:
        return nothing
    found = rank_correlations(forecast, came)
    found = found[np.isfinite(found)]
    if not len(found):
        return nothing
    mean = float(found.mean())
    deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    if deviation <= ROUNDING:
        return RankIC(mean, math.nan, math.nan, len(found))
    t = newey_west_t(found, lags) if len(found) >= FEWEST_ORIGINS else math.nan
    return RankIC(mean, mean / deviation, t, len(found))
