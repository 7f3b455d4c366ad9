"""Fourteen features of a candle, known from charts: prices, volume, RSI, ATR, averages, bands.

Row t reads rows <= t of its own column only. Prices, levels and ATR are in the price's unit.
The code that cuts windows divides them by a close, because prices drift.
"""

import numpy as np
from jaxtyping import Float
from loguru import logger

from hrl_sarp.data.bars import Bars
from hrl_sarp.features import technical

LEVELS = ("open", "high", "low", "close", "ema_50", "ema_200", "bb_middle", "bb_upper", "bb_lower")
"""Columns in the unit of the price level."""
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
"""`bb_percent` where both bands are equal."""
_NEGLIGIBLE_DEVIATION = 1e-12
"""Share of the mean: a smaller deviation is rounding, and the close did not move."""

Table = Float[np.ndarray, "T A"]


def candle_features(
    open_price: Table, high: Table, low: Table, close: Table, volume: Table | None
) -> Float[np.ndarray, "T A 14"]:
    """Compute the columns `COLUMNS` of every candle; each table has one column per instrument.

    RSI and ATR use Wilder's mean. The exponential means start at the mean of their first candles.
    The bands lie two sample deviations of the last 20 closes around their mean. NaN in a table is a
    missing candle. The result is NaN until there are enough candles. Without a volume table the
    column is 0.
    """
    middle, deviation = technical.window_moments(close, _BAND_BARS)
    deviation = np.where(deviation > _NEGLIGIBLE_DEVIATION * middle, deviation, 0.0 * deviation)
    upper = middle + _BAND_DEVIATIONS * deviation
    lower = middle - _BAND_DEVIATIONS * deviation
    ranges = technical.true_range(high, low, technical.lagged(close, 1))
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
        "atr_14": technical.wilder_mean(ranges, _RANGE_BARS),
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
    """Compute `candle_features` of every bar of a file, one instrument after the other.

    As on a chart, averages run on over nights and weekends.
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
