"""Fourteen features of a candle as charts show them: prices, volume, RSI, ATR, averages, bands.

Row t reads rows <= t of its own column only. Prices, levels and ATR are in the price's unit and
volume in its own; whoever cuts windows divides by the window's last close, so that nothing drifts.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from loguru import logger
from numba import njit

from hrl_sarp.data.bars import Bars
from hrl_sarp.features import technical

LEVELS = ("open", "high", "low", "close", "ema_50", "ema_200", "bb_middle", "bb_upper", "bb_lower")
"""Columns that are price levels."""
COLUMNS = (
    *("open", "high", "low", "close", "volume", "rsi_14", "atr_14", "ema_50", "ema_200"),
    *("bb_middle", "bb_upper", "bb_lower", "bb_width", "bb_percent"),
)
"""In the order of the last axis of `candle_features`."""

_STRENGTH_BARS = 14
_RANGE_BARS = 14
_FAST_SPAN, _SLOW_SPAN = 50, 200
_BAND_BARS, _BAND_DEVIATIONS = 20, 2.0
_UNMOVED_PERCENT = 0.5
"""Place of the close between bands that touch."""
_NEGLIGIBLE_DEVIATION = 1e-12
"""Of the mean: what rounding leaves of a close that did not move."""

Table = Float[np.ndarray, "T A"]


def candle_features(
    open_price: Table, high: Table, low: Table, close: Table, volume: Table | None
) -> Float[np.ndarray, "T A 14"]:
    """Compute the columns `COLUMNS` of every candle; NaN in a table is a missing candle.

    RSI and ATR smooth by Wilder, averages start at the mean of their first candles, bands lie two
    sample deviations of the last 20 closes around their mean.

    Returns:
        NaN where too few candles have been seen. Volume is 0 throughout where there is none.
    """
    middle, deviation = _band(np.ascontiguousarray(close, np.float64), _BAND_BARS)
    upper = middle + _BAND_DEVIATIONS * deviation
    lower = middle - _BAND_DEVIATIONS * deviation
    touching = np.where(np.isnan(close), np.nan, _UNMOVED_PERCENT)
    percent = np.where(
        deviation > 0.0, technical.divide(close - lower, upper - lower), touching + 0.0 * middle
    )
    columns = {
        "open": open_price,
        "high": high,
        "low": low,
        "close": close,
        "volume": np.zeros_like(close) if volume is None else volume,
        "rsi_14": technical.relative_strength_index(close, _STRENGTH_BARS),
        "atr_14": technical.wilder_mean(true_range(high, low, close), _RANGE_BARS),
        "ema_50": technical.exponential_mean(close, _FAST_SPAN),
        "ema_200": technical.exponential_mean(close, _SLOW_SPAN),
        "bb_middle": middle,
        "bb_upper": upper,
        "bb_lower": lower,
        "bb_width": (upper - lower) / middle,
        "bb_percent": percent,
    }
    return np.stack([columns[name] for name in COLUMNS], axis=-1)


def candle_table(bars: Bars) -> Float[np.ndarray, "N 14"]:
    """Compute `candle_features` of every bar of a file; each instrument starts afresh.

    Sessions do not: as on a chart, averages run on over nights and weekends.
    """
    if bars.volume is None:
        logger.info("the bars have no volume: that column is 0 throughout")
    starts = np.flatnonzero(np.diff(bars.instrument, prepend=-1))
    table = np.full((len(bars.close), len(COLUMNS)), np.nan)
    for start, stop in zip(starts, [*starts[1:], len(table)], strict=True):
        span = slice(start, stop)
        table[span] = candle_features(
            bars.open[span, None],
            bars.high[span, None],
            bars.low[span, None],
            bars.close[span, None],
            None if bars.volume is None else bars.volume[span, None],
        )[:, 0]
    return table


def true_range(high: Table, low: Table, close: Table) -> Table:
    """Compute the candle's range, stretched to the close before it where there is one.

    Source: Wilder (1978), "New Concepts in Technical Trading Systems".
    """
    before = technical.lagged(close, 1)
    return np.fmax(high, before) - np.fmin(low, before) + 0.0 * high


def _band(close: Table, window: int) -> tuple[Table, Table]:
    """Return mean and sample deviation of the window's closes."""
    # not technical.rolling_std: its running sums lose the digits that a quiet market moves in
    mean, deviation = _window_moments(close, window, technical.min_bars(window))
    return mean, np.where(deviation > _NEGLIGIBLE_DEVIATION * mean, deviation, 0.0 * deviation)


# no shape annotations below: the run-time checks of the tests would hide it from the compiler


@njit(cache=True)
@no_type_check
def _window_moments(values, window, needed):
    n_days, n_assets = values.shape
    means = np.full((n_days, n_assets), np.nan)
    deviations = np.full((n_days, n_assets), np.nan)
    for t in range(window - 1, n_days):
        for a in range(n_assets):
            means[t, a], deviations[t, a] = _moments(values[t - window + 1 : t + 1, a], needed)
    return means, deviations


@njit(cache=True)
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
