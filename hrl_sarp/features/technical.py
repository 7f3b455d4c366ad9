"""Measures over (T, A) tables: rolling windows, smoothing, true ranges, sums of rows.

NaN is a missing bar. It is skipped, and a result is NaN where too few bars remain. Row t of every
result reads rows <= t only. Rolling and smoothed measures read their own column only. So neither
later rows nor stocks that are listed later can change the last bit of a result.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

MIN_BARS_SHARE = 0.8
"""Share of a window that must hold bars. It is below 1, so that one halt does not make a year of
features NaN."""
NEGLIGIBLE_VARIANCE = 1e-13
"""Share of the mean square: a smaller running variance is rounding and counts as 0."""
MIN_VARIANCE = 1e-14
"""A smaller running variance counts as 0: a large move leaves it in the sums as it drops out."""

NEGLIGIBLE_DEVIATION = 1e-12
"""A column with a smaller deviation over the training rows is only centred."""

Table = Float[np.ndarray, "T A"]
Column = Float[np.ndarray, " T"]


def rolling_mean(values: Table, window: int) -> Table:
    """Compute the mean of the window's bars; NaN where it has fewer than `MIN_BARS_SHARE`."""
    return _rolling_mean(_table(values), window, _min_bars(window))


def rolling_std(values: Table, window: int) -> Table:
    """Compute the population deviation of the window's bars by running sums; NaN as `rolling_mean`.

    For values around 0, such as returns. Running sums of levels lose digits: use `window_moments`.
    """
    values = _table(values)
    return np.sqrt(_rolling_cross(values, values, window, _min_bars(window))[1])


def rolling_cross(left: Table, right: Table, window: int) -> tuple[Table, Table, Table]:
    """Compute covariance, variance of `left` and variance of `right` over pairs of bars.

    Population moments of the rows where both have a bar; NaN as in `rolling_mean`.
    """
    return _rolling_cross(_table(left), _table(right), window, _min_bars(window))


def rolling_correlation(left: Table, right: Table, window: int) -> Table:
    """Compute Pearson's correlation over pairs of bars; NaN also where one side is constant."""
    covariance, left_variance, right_variance = rolling_cross(left, right, window)
    return divide(covariance, np.sqrt(left_variance * right_variance))


def rolling_skewness(values: Table, window: int) -> Table:
    """Compute the moment skewness m3 / m2^1.5 of the window's bars.

    NaN as in `rolling_mean` and where the values are constant.
    """
    return _rolling_skewness(_table(values), window, _min_bars(window))


def rolling_max(values: Table, window: int) -> Table:
    """Compute the largest of the window's bars; NaN where it holds none.

    Source:
        van Herk (1992), Gil and Werman (1993): running maxima from both ends of each block.
    """
    return _rolling_max(_table(values), window)


def window_moments(values: Table, window: int) -> tuple[Table, Table]:
    """Compute mean and sample deviation of each full window, summed anew in each row.

    It is slower than `rolling_std`, but exact on levels whose moves are small beside them. NaN
    before row `window - 1` and as in `rolling_mean`.
    """
    return _window_moments(_table(values), window, _min_bars(window))


def wilder_mean(values: Table, period: int) -> Table:
    """Smooth by Wilder: the mean of the first `period` bars, then m += (x - m) / period.

    NaN before the first mean; a missing bar leaves the mean as it was.

    Source:
        Wilder (1978), "New Concepts in Technical Trading Systems".
    """
    return _smoothed(_table(values), 1.0 / period, period)


def exponential_mean(values: Table, span: int) -> Table:
    """Smooth exponentially with alpha = 2 / (span + 1), started at the mean of `span` bars.

    NaN before the first mean; a missing bar leaves the mean as it was.
    """
    return _smoothed(_table(values), 2.0 / (span + 1.0), span)


def true_range(
    high: Float[np.ndarray, "*shape"],
    low: Float[np.ndarray, "*shape"],
    close_before: Float[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    """Compute each bar's range, extended to the close before it if there is one.

    Source:
        Wilder (1978), "New Concepts in Technical Trading Systems".
    """
    return np.fmax(high, close_before) - np.fmin(low, close_before) + 0.0 * (high + low)


def relative_strength_index(level: Table, period: int) -> Table:
    """Compute Wilder's RSI: 0..100, 50 where nothing moved, NaN before `period` changes.

    Source:
        Wilder (1978), "New Concepts in Technical Trading Systems".
    """
    change = difference(level, 1)
    gain = wilder_mean(np.maximum(change, 0.0), period)
    loss = wilder_mean(np.maximum(-change, 0.0), period)
    total = gain + loss
    return np.where(total == 0.0, 50.0, 100.0 * divide(gain, total))


def macd_histogram(level: Table, fast: int, slow: int, signal: int) -> Table:
    """Compute the MACD line (fast less slow exponential mean) minus its signal line.

    In the unit of the level; NaN until all three means have begun.
    """
    line = exponential_mean(level, fast) - exponential_mean(level, slow)
    return line - exponential_mean(line, signal)


def difference(values: Table, lag: int) -> Table:
    """Subtract the row `lag` sessions earlier; NaN in the first `lag` rows."""
    return values - lagged(values, lag)


def lagged(values: Table, lag: int) -> Table:
    """Shift rows down: row t holds row t - `lag`; NaN in the first `lag` rows."""
    shifted = np.full_like(values, np.nan)
    shifted[lag:] = values[: max(0, len(values) - lag)]
    return shifted


def divide(numerator: Table, denominator: Table) -> Table:
    """Divide without a warning; NaN where the denominator is 0."""
    safe = np.where(denominator == 0.0, np.nan, denominator)
    return numerator / safe


def log_positive(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Take the natural logarithm; NaN where the value is not positive."""
    return np.log(np.where(values > 0.0, values, np.nan))


def row_sum(values: Table) -> Column:
    """Sum the finite entries of each row in the order of the columns; 0 without an entry.

    `np.sum` groups terms by position, so a stock that is listed years later would change the last
    bit of earlier rows. A running sum does not.
    """
    if values.shape[1] == 0:
        return np.zeros(len(values))
    return np.where(np.isfinite(values), values, 0.0).cumsum(axis=1)[:, -1]


def row_mean(values: Table) -> Column:
    """Average the finite entries of each row by `row_sum`; NaN without an entry."""
    count = np.isfinite(values).sum(axis=1)
    return row_sum(values) / np.where(count > 0, count, np.nan)


def fitted_scale(
    rows: Float[np.ndarray, "X D"],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Compute mean and population deviation of each column of the training rows.

    A constant column gets the deviation 1, so that one can divide by it.
    """
    deviation = rows.std(axis=0)
    return rows.mean(axis=0), np.where(deviation > NEGLIGIBLE_DEVIATION, deviation, 1.0)


def _min_bars(window: int) -> int:
    return int(np.ceil(MIN_BARS_SHARE * window))


def _table(values: Table) -> Table:
    return np.ascontiguousarray(values, dtype=np.float64)


# The kernels below carry no shape annotations: the run-time checks of the tests would wrap them and
# the compiler could not read them.


@njit(cache=True, nogil=True)
@no_type_check
def _rolling_mean(values, window, needed):
    n_days, n_assets = values.shape
    total, count = np.zeros(n_assets), np.zeros(n_assets)
    result = np.empty((n_days, n_assets))
    for t in range(n_days):
        for a in range(n_assets):
            new = values[t, a]
            if not np.isnan(new):
                total[a] += new
                count[a] += 1
            if t >= window and not np.isnan(values[t - window, a]):
                total[a] -= values[t - window, a]
                count[a] -= 1
            result[t, a] = total[a] / count[a] if count[a] >= needed else np.nan
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _rolling_cross(left, right, window, needed):
    n_days, n_assets = left.shape
    sums = np.zeros((6, n_assets))  # count, x, y, xy, xx, yy
    covariance = np.empty((n_days, n_assets))
    left_variance = np.empty((n_days, n_assets))
    right_variance = np.empty((n_days, n_assets))
    for t in range(n_days):
        for a in range(n_assets):
            _add_pair(sums, a, left[t, a], right[t, a], 1.0)
            if t >= window:
                _add_pair(sums, a, left[t - window, a], right[t - window, a], -1.0)
            n = sums[0, a]
            if n < needed:
                covariance[t, a] = left_variance[t, a] = right_variance[t, a] = np.nan
                continue
            x, y = sums[1, a] / n, sums[2, a] / n
            covariance[t, a] = sums[3, a] / n - x * y
            left_variance[t, a] = _variance(sums[4, a] / n, x)
            right_variance[t, a] = _variance(sums[5, a] / n, y)
    return covariance, left_variance, right_variance


@njit(cache=True, nogil=True)
@no_type_check
def _add_pair(sums, a, x, y, sign):
    if np.isnan(x) or np.isnan(y):
        return
    sums[0, a] += sign
    sums[1, a] += sign * x
    sums[2, a] += sign * y
    sums[3, a] += sign * x * y
    sums[4, a] += sign * x * x
    sums[5, a] += sign * y * y


@njit(cache=True, nogil=True)
@no_type_check
def _variance(mean_square, mean):
    variance = mean_square - mean * mean
    noise = max(NEGLIGIBLE_VARIANCE * mean_square, MIN_VARIANCE)
    return variance if variance > noise else 0.0


@njit(cache=True, nogil=True)
@no_type_check
def _rolling_skewness(values, window, needed):
    n_days, n_assets = values.shape
    sums = np.zeros((4, n_assets))  # count, x, xx, xxx
    result = np.empty((n_days, n_assets))
    for t in range(n_days):
        for a in range(n_assets):
            _add_powers(sums, a, values[t, a], 1.0)
            if t >= window:
                _add_powers(sums, a, values[t - window, a], -1.0)
            n = sums[0, a]
            if n < needed:
                result[t, a] = np.nan
                continue
            mean, square = sums[1, a] / n, sums[2, a] / n
            variance = _variance(square, mean)
            third = sums[3, a] / n - 3.0 * mean * square + 2.0 * mean**3
            result[t, a] = third / variance**1.5 if variance > 0.0 else np.nan
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _add_powers(sums, a, x, sign):
    if np.isnan(x):
        return
    sums[0, a] += sign
    sums[1, a] += sign * x
    sums[2, a] += sign * x * x
    sums[3, a] += sign * x * x * x


@njit(cache=True, nogil=True)
@no_type_check
def _rolling_max(values, window):
    n_days, n_assets = values.shape
    from_start = np.empty((n_days, n_assets))  # maximum since the block of `window` rows began
    to_end = np.empty((n_days, n_assets))  # maximum until that block ends
    for t in range(n_days):
        for a in range(n_assets):
            new = -np.inf if np.isnan(values[t, a]) else values[t, a]
            fresh = t % window == 0
            from_start[t, a] = new if fresh else max(from_start[t - 1, a], new)
    for t in range(n_days - 1, -1, -1):
        for a in range(n_assets):
            new = -np.inf if np.isnan(values[t, a]) else values[t, a]
            last = t % window == window - 1 or t == n_days - 1
            to_end[t, a] = new if last else max(to_end[t + 1, a], new)
    for t in range(n_days):
        # row t - window + 1 lies in the block before t's or starts t's: no row after t is read
        for a in range(n_assets):
            if t >= window - 1:
                from_start[t, a] = max(from_start[t, a], to_end[t - window + 1, a])
            if from_start[t, a] == -np.inf:
                from_start[t, a] = np.nan
    return from_start


@njit(cache=True, nogil=True)
@no_type_check
def _smoothed(values, alpha, warm_up):
    n_days, n_assets = values.shape
    mean, count = np.zeros(n_assets), np.zeros(n_assets)
    result = np.empty((n_days, n_assets))
    for t in range(n_days):
        for a in range(n_assets):
            new = values[t, a]
            if not np.isnan(new):
                count[a] += 1
                gap = new - mean[a]
                mean[a] += gap / count[a] if count[a] <= warm_up else alpha * gap
            result[t, a] = mean[a] if count[a] >= warm_up else np.nan
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _window_moments(values, window, needed):
    n_days, n_assets = values.shape
    means = np.full((n_days, n_assets), np.nan)
    deviations = np.full((n_days, n_assets), np.nan)
    for t in range(window - 1, n_days):
        for a in range(n_assets):
            means[t, a], deviations[t, a] = _moments(values[t - window + 1 : t + 1, a], needed)
    return means, deviations


@njit(cache=True, nogil=True)
@no_type_check
def _moments(values, needed):
    total, count, squares = 0.0, 0, 0.0
    for value in values:
        if not np.isnan(value):
            total += value
            count += 1
    if count < needed:
        return np.nan, np.nan
    for value in values:
        if not np.isnan(value):
            squares += (value - total / count) ** 2
    return total / count, np.sqrt(squares / (count - 1))
