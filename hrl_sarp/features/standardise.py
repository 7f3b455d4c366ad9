"""Standardising raw measures: across the stocks of a day, or over a trailing window."""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

NORMAL_PER_MAD = 1.4826
"""Deviation of a normal variable per median absolute deviation."""
NORMAL_PER_MEAN_DEVIATION = 1.2533
"""Deviation of a normal variable per mean absolute deviation, used where half the day is equal."""
MIN_WINDOW_SHARE = 0.08
"""Part of the trailing window (20 of 252 sessions) below which a series has no z-score yet."""


def robust_z(
    values: Float[np.ndarray, "T A"], present: Bool[np.ndarray, "T A"], clip: float
) -> Float[np.ndarray, "T A"]:
    """Standardise each day across its stocks: (x - median) / (1.4826 MAD), clipped to +-clip.

    Args:
        values: raw measure; NaN where it cannot be computed.
        present: stocks that count on the day; the others get 0, the neutral value, as NaN does.
        clip: bound of the result.

    Returns:
        float32, free of NaN. A day on which all stocks are equal is 0.

    Source: Iglewicz and Hoaglin (1993) for the scale when the MAD is 0.
    """
    usable = np.where(present, values, np.nan).astype(np.float32)
    # sorted once per day: median and MAD are exact order statistics, blind to the columns' order
    return _robust_z(usable, np.sort(usable, axis=1), np.float32(clip))


def trailing_z(
    values: Float[np.ndarray, " T"], window: int, clip: float
) -> Float[np.ndarray, " T"]:
    """Standardise by mean and deviation of the last `window` rows, row t included.

    0 where the value is NaN, where fewer than a twelfth of the window is there, and where the
    window does not move. Clipped to +-clip.
    """
    needed = max(2, int(np.ceil(MIN_WINDOW_SHARE * window)))
    return _trailing_z(np.ascontiguousarray(values, dtype=np.float64), window, needed, clip)


@njit(cache=True, nogil=True)
@no_type_check
def _robust_z(values, ordered, clip):
    n_days, n_assets = values.shape
    result = np.zeros((n_days, n_assets), np.float32)
    for t in range(n_days):
        n = n_assets
        while n > 0 and np.isnan(ordered[t, n - 1]):  # NaN sorts last
            n -= 1
        if n < 2:
            continue
        row = ordered[t, :n]
        centre = (row[(n - 1) // 2] + row[n // 2]) / np.float32(2.0)
        scale = _scale(row, centre)
        if scale <= 0.0:
            continue
        for a in range(n_assets):
            if not np.isnan(values[t, a]):
                z = (values[t, a] - centre) / scale
                result[t, a] = min(max(z, -clip), clip)
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _scale(row, centre):
    """Walk outwards from the median: deviations come in order without a second sort."""
    n = len(row)
    low = n // 2 - 1
    while low >= 0 and row[low] > centre:
        low -= 1
    high = low + 1
    total, before, current = 0.0, np.float32(0.0), np.float32(0.0)
    median = np.float32(0.0)
    for k in range(n):
        take_low = low >= 0 and (high >= n or centre - row[low] <= row[high] - centre)
        before = current
        if take_low:
            current = centre - row[low]
            low -= 1
        else:
            current = row[high] - centre
            high += 1
        total += current
        if k == n // 2:
            median = current if n % 2 else (before + current) / np.float32(2.0)
    if median > 0.0:
        return np.float32(NORMAL_PER_MAD) * median
    return np.float32(NORMAL_PER_MEAN_DEVIATION * total / n)


@njit(cache=True, nogil=True)
@no_type_check
def _trailing_z(values, window, needed, clip):
    n_days = len(values)
    result = np.zeros(n_days)
    for t in range(n_days):
        if np.isnan(values[t]):
            continue
        total, count = 0.0, 0
        for i in range(max(0, t - window + 1), t + 1):
            if not np.isnan(values[i]):
                total += values[i]
                count += 1
        if count < needed:
            continue
        mean, squares = total / count, 0.0
        for i in range(max(0, t - window + 1), t + 1):
            if not np.isnan(values[i]):
                squares += (values[i] - mean) ** 2
        deviation = np.sqrt(squares / count)
        if deviation > 1e-10 * (abs(mean) + 1e-10):
            result[t] = min(max((values[t] - mean) / deviation, -clip), clip)
    return result
