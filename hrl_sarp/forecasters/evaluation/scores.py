"""Measures of forecasts: pure functions of what was forecast and of what came.

Errors and widths are in the unit of the target. Points are medians, but squared errors take means.
Empty arrays and NaN are refused, never skipped. A measure that has no value, because it would
divide by 0, is NaN.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import ROUNDING

Values = Float[np.ndarray, " n"]
Beside = Float[np.ndarray, " _"]  # its length is checked here, with a readable error
Quantiles = Float[np.ndarray, "n Q"]
FEWEST_RANKED = 5
"""Series from which a rank correlation of one date is taken."""


def mean_absolute_error(target: Values, point: Beside) -> float:
    """Compute the mean distance of forecast and value.

    Args:
        target: what came; NaN is refused.
        point: what was forecast, the median.

    Returns:
        The error in the unit of the target.
    """
    _require_pair(target, point)
    return float(np.abs(target - point).mean())


def root_mean_squared_error(target: Values, mean: Beside) -> float:
    """Compute the root of the mean squared distance of forecast and value.

    Args:
        target: what came; NaN is refused.
        mean: what was forecast, the mean, because that minimises this error.

    Returns:
        The error in the unit of the target.
    """
    _require_pair(target, mean)
    return float(np.sqrt(((target - mean) ** 2).mean()))


def percent_mae(target: Values, point: Beside) -> float:
    """Compute 100 x the mean absolute error over the mean absolute value.

    Args:
        target: what came; NaN is refused.
        point: what was forecast, the median.

    Returns:
        Percent: 1.0 means that the mean error is a hundredth of the mean value. NaN if all values
        are 0.
    """
    return 100.0 * _over(mean_absolute_error(target, point), float(np.abs(target).mean()))


def naive_ratio(target: Values, point: Beside, last: Beside) -> float:
    """Compute the mean absolute error in multiples of that of repeating the last value.

    Args:
        target: what came; NaN is refused.
        point: what was forecast, the median.
        last: the value at the origin of each forecast.

    Returns:
        Below 1 the forecast is closer than the last value. NaN if no value ever moved.
    """
    return _over(mean_absolute_error(target, point), mean_absolute_error(target, last))


def scaled_error(target: Values, point: Beside, scale: Beside) -> float:
    """Compute MASE: absolute errors in multiples of the usual change of the series before.

    Args:
        target: what came; NaN is refused.
        point: what was forecast, the median.
        scale: mean absolute change over m rows before each origin, at least 0. Rows whose scale is
            0 are left out.

    Returns:
        The mean ratio; NaN if all scales are 0.

    Source:
        Hyndman and Koehler (2006), "Another look at measures of forecast accuracy".
    """
    _require_pair(target, point)
    _require_pair(target, scale)
    moves = scale > 0.0
    if not moves.any():
        return float("nan")
    return float((np.abs(target - point)[moves] / scale[moves]).mean())


def pinball(target: Values, quantiles: Quantiles, levels: Sequence[float]) -> Quantiles:
    """Compute the quantile loss of each row and level.

    Args:
        target: what came; NaN is refused.
        quantiles: a row for each target, a column for each level.
        levels: of the columns, ascending.

    Returns:
        Losses in the unit of the target, at least 0.
    """
    _require_quantiles(target, quantiles, levels)
    above = target[:, None] - quantiles
    tau = np.array(levels)
    return np.maximum(tau * above, (tau - 1.0) * above)


def quantile_crps(target: Values, quantiles: Quantiles, levels: Sequence[float]) -> Values:
    """Compute the ranked probability score of each row as twice its mean quantile loss.

    The nine levels from 0.1 to 0.9 lack the tails, so the score is about 9 % above the exact one
    for a normal density. Compare it with scores of the same levels alone.

    Args:
        target: what came; NaN is refused.
        quantiles: a row for each target, a column for each level.
        levels: of the columns, evenly spaced.

    Returns:
        Scores in the unit of the target. That of a point is its absolute error.
    """
    return 2.0 * pinball(target, quantiles, levels).mean(axis=1)


def path_crps(target: Values, paths: Float[np.ndarray, "S n"]) -> Values:
    """Compute the fair estimate of the ranked probability score from draws.

    Args:
        target: what came; NaN is refused.
        paths: S draws of each row.

    Returns:
        Scores in the unit of the target; a single one may be below 0, their expectation is not.

    Raises:
        MetricError: also for fewer than two draws.

    Source:
        Ferro (2014), "Fair scores for ensemble forecasts", QJRMS 140(683).
    """
    _require(target, "target")
    _require(paths, "paths")
    n_paths = len(paths)
    if n_paths < 2:
        raise MetricError(f"expected at least 2 draws of each forecast, found {n_paths}")
    ordered = np.sort(paths, axis=0)
    # sum over pairs of |x_i - x_j| = 2 sum_k (2 k - S + 1) x_(k), k from 0
    weights = 2.0 * np.arange(n_paths) - n_paths + 1.0
    spread = (weights[:, None] * ordered).sum(axis=0) / (n_paths * (n_paths - 1))
    return np.abs(paths - target).mean(axis=0) - spread


def weighted_quantile_loss(target: Values, quantiles: Quantiles, levels: Sequence[float]) -> float:
    """Compute WQL: twice the quantile losses, averaged over levels, over the absolute values.

    Args:
        target: what came; NaN is refused.
        quantiles: a row for each target, a column for each level.
        levels: of the columns.

    Returns:
        A fraction of the mean absolute value; NaN if all values are 0.
    """
    scores = quantile_crps(target, quantiles, levels)
    return _over(float(scores.mean()), float(np.abs(target).mean()))


def coverage(target: Values, low: Beside, high: Beside) -> float:
    """Compute the share of values inside their interval, its ends included.

    Args:
        target: what came; NaN is refused.
        low: lower end of each interval.
        high: upper end.

    Returns:
        A share in [0, 1].
    """
    _require_pair(target, low)
    _require_pair(target, high)
    return float(((low <= target) & (target <= high)).mean())


def has_density(quantiles: Quantiles) -> Bool[np.ndarray, " n"]:
    """Say which rows are more than a point.

    Args:
        quantiles: ascending along the last axis.

    Returns:
        True where the outermost quantiles differ.
    """
    return quantiles[:, -1] > quantiles[:, 0]


def quantile_pit(target: Values, quantiles: Quantiles, levels: Sequence[float]) -> Values:
    """Find the level at which each value fell, between the quantiles beside it.

    Args:
        target: what came; NaN is refused.
        quantiles: a row for each target, ascending.
        levels: of the columns.

    Returns:
        Levels in (0, 1). Below the lowest quantile half its level, above the highest the middle
        between its level and 1: the shares of bins that end at a level are right. Equal quantiles
        count as the middle of their levels. NaN where the forecast is a point.
    """
    _require_quantiles(target, quantiles, levels)
    tau = np.array([0.5 * levels[0], *levels, 0.5 * (1.0 + levels[-1])])
    below = (quantiles < target[:, None]).sum(axis=1)
    reached = (quantiles <= target[:, None]).sum(axis=1)
    first, after = below, reached + 1  # columns of tau around the value
    rows = np.arange(len(target))
    ends = np.pad(quantiles, ((0, 0), (1, 1)), constant_values=np.nan)
    low, high = ends[rows, first], ends[rows, after]
    share = (target - low) / (high - low)
    inside = tau[first] + (tau[after] - tau[first]) * share
    touched = 0.5 * (tau[np.minimum(below + 1, reached)] + tau[reached])
    found = np.where(reached > below, touched, inside)
    found = np.where(reached == 0, tau[0], np.where(below == len(levels), tau[-1], found))
    return np.where(has_density(quantiles), found, np.nan)


def path_pit(target: Values, paths: Float[np.ndarray, "S n"]) -> Values:
    """Compute the share of draws below each value; equal ones count half.

    Args:
        target: what came; NaN is refused.
        paths: S draws of each row.

    Returns:
        Shares in [0, 1].
    """
    _require(target, "target")
    _require(paths, "paths")
    return (paths < target).mean(axis=0) + 0.5 * (paths == target).mean(axis=0)


def direction_accuracy(target: Values, point: Beside, last: Beside) -> float:
    """Compute the share of moves whose direction was forecast.

    Args:
        target: what came; NaN is refused. Values equal to the last one did not move: left out.
        point: what was forecast, the median. A point equal to the last value is half right.
        last: the value at the origin of each forecast.

    Returns:
        A share; NaN if nothing moved, or if every point equals the last value.
    """
    _require_pair(target, point)
    _require_pair(target, last)
    moved = target != last
    guess = np.sign(change(point, last))[moved]
    if not guess.any():
        return float("nan")
    return float((0.5 + 0.5 * guess * np.sign(target - last)[moved]).mean())


def change(point: Values, last: Beside) -> Values:
    """Return by how much a forecast leaves the last value; what may be rounding counts as 0.

    Args:
        point: what was forecast, the median.
        last: the value at the origin of each forecast.

    Returns:
        Changes in the unit of the target.
    """
    return np.where(np.abs(point - last) <= ROUNDING * np.abs(last), 0.0, point - last)


def base_rate(target: Values, last: Beside) -> float:
    """Compute the direction accuracy of always saying the commoner direction.

    Args:
        target: what came; NaN is refused.
        last: the value at the origin of each forecast.

    Returns:
        A share, at least 0.5; NaN if nothing moved.
    """
    _require_pair(target, last)
    moved = target != last
    if not moved.any():
        return float("nan")
    rises = float((target > last)[moved].mean())
    return max(rises, 1.0 - rises)


def qlike(target: Values, last: Beside, log_variance: Beside) -> float:
    """Compute QLIKE of the forecast variance of log(target / last): mean of ln v + r^2 / v.

    The usual form subtracts ln r^2 + 1, which does not depend on the forecast and which a return
    of 0 lacks.

    Args:
        target: what came, above 0; NaN is refused.
        last: the value at the origin of each forecast, above 0.
        log_variance: v, above 0.

    Returns:
        Lower is better; only differences have a meaning.

    Raises:
        MetricError: if a value or variance is not above 0.

    Source:
        Patton (2011), "Volatility forecast comparison using imperfect volatility proxies".
    """
    _require_pair(target, last)
    _require_pair(target, log_variance)
    if min(target.min(), last.min(), log_variance.min()) <= 0.0:
        raise MetricError("qlike: expected values and variances above 0; leave such rows out")
    squared = np.log(target / last) ** 2
    return float((np.log(log_variance) + squared / log_variance).mean())


def rank_correlations(
    forecast: Float[np.ndarray, "D A"], came: Float[np.ndarray, "D A"]
) -> Float[np.ndarray, " D"]:
    """Compute Spearman's correlation over the series, for each date.

    Args:
        forecast: change of each series that was forecast; NaN where a series was not.
        came: change that came; NaN where there is none.

    Returns:
        One correlation a date; NaN where fewer than 5 series are there, or where either side
        does not differ between them.
    """
    from scipy.stats import rankdata

    found = np.full(len(forecast), np.nan)
    for date, (first, second) in enumerate(zip(forecast, came, strict=True)):
        known = np.isfinite(first) & np.isfinite(second)
        if known.sum() < FEWEST_RANKED:
            continue
        ranks = [rankdata(side[known]) for side in (first, second)]
        centred = [side - side.mean() for side in ranks]
        size = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
        if size > 0.0:
            found[date] = (centred[0] * centred[1]).sum() / size
    return found


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else float("nan")


def _require(values: Float[np.ndarray, "..."], name: str) -> None:
    if values.size == 0:
        raise MetricError(f"{name} is empty: expected at least one forecast; widen the window")
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise MetricError(
            f"{name}: expected finite numbers, found {wrong} of {values.size} NaN or infinite; "
            "leave those rows out"
        )


def _require_pair(first: Float[np.ndarray, " a"], second: Float[np.ndarray, " b"]) -> None:
    _require(first, "target")
    _require(second, "forecast")
    if len(first) != len(second):
        raise MetricError(f"expected a forecast for each value, found {len(second)}, {len(first)}")


def _require_quantiles(
    target: Values, quantiles: Float[np.ndarray, "n Q"], levels: Sequence[float]
) -> None:
    _require(target, "target")
    _require(quantiles, "quantiles")
    if quantiles.shape[1] != len(levels) or list(levels) != sorted(set(levels)):
        raise MetricError(
            f"expected ascending levels, one for each of {quantiles.shape[1]} quantiles, found "
            f"{list(levels)}"
        )
    if not all(0.0 < level < 1.0 for level in levels):
        raise MetricError(f"expected levels between 0 and 1, found {list(levels)}")
    if (np.diff(quantiles, axis=1) < 0.0).any():
        raise MetricError("quantiles: expected them to ascend with their levels; sort them")
