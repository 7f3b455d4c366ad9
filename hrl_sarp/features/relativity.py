"""Scale-free features of single bars: where it closed, how wide it is, where the last swings lie.

OHLC only, causal, dimensionless, clipped; row t reads rows <= t of its own instrument. `range` is
high - low, `safe` a divisor that is at least `ohlc_eps` of the close, so that a bar which does not
move gives 0 and no division by 0.

| column | formula | within |
|---|---|---|
| open_norm, close_norm | (price - low) / safe range | 0..1 |
| body_pct | (close - open) / safe range | -1..1 |
| upper_wick_pct | (high - max(open, close)) / safe range | 0..1 |
| lower_wick_pct | (min(open, close) - low) / safe range | 0..1 |
| range_z | range / safe exponential mean of ranges, this bar included | 0..3 |
| dist_to_prev_swing_high | (last confirmed swing high - close) / safe ATR; 0: none yet | -3..3 |
| dist_to_prev_swing_low | (close - last confirmed swing low) / safe ATR; 0: none yet | -3..3 |
| bars_since_swing_high, _low | bars since its extreme / window length; 0: none yet | 0..3 |
| expansion_proxy | range_z x direction of the leg x body_pct | -2..2 |
| consolidation_proxy | (1 - range_z / 3) (1 - abs(body_pct)) x mean of both bars_since | 0..3 |

The exponential mean has alpha = 2 / (period + 1) and starts at the first range.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

from hrl_sarp.config.encoder_schema import RelativityConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.features.zigzag import average_true_range, find_swings

CANDLE_COLUMNS = (
    *("open_norm", "close_norm", "body_pct", "upper_wick_pct", "lower_wick_pct", "range_z"),
    *("dist_to_prev_swing_high", "dist_to_prev_swing_low"),
    *("bars_since_swing_high", "bars_since_swing_low", "expansion_proxy", "consolidation_proxy"),
)
"""In the order of the table's last axis."""
PRETRAINING_COLUMNS = CANDLE_COLUMNS[:11]
"""What the masked autoencoder rebuilds."""
POSITION = "position_encoding"
"""Place of a bar in its window: no column of the table, `encoders.windows.cut` appends it."""
LIMITS = (
    *((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 3.0)),
    *((-3.0, 3.0), (-3.0, 3.0), (0.0, 3.0), (0.0, 3.0), (-2.0, 2.0), (0.0, 3.0)),
)
"""Least and greatest value of each column."""
WIDEST_RANGE = LIMITS[CANDLE_COLUMNS.index("range_z")][1]


def relativity_features(
    bars: Bars, config: RelativityConfig, window_length: int
) -> Float32[np.ndarray, "N 12"]:
    """Compute the columns `CANDLE_COLUMNS` of every bar; the state restarts at each instrument.

    Args:
        bars: positive, finite prices in the order of `read_bars`.
        config: periods and thresholds.
        window_length: unit of the two bars_since columns.

    Returns:
        Values within `LIMITS`, never NaN; the same, but for rounding, if all prices are multiplied
        by one number.
    """
    swings = find_swings(bars.high, bars.low, bars.close, bars.instrument, config)
    atr = average_true_range(bars.high, bars.low, bars.close, bars.instrument, config.atr_period)
    return _columns(
        (bars.open, bars.high, bars.low, bars.close),
        bars.instrument,
        atr,
        (swings.direction, swings.high_row, swings.low_row),
        (config.ohlc_eps, 2.0 / (config.ohlc_ema_range_period + 1.0), float(window_length)),
        np.array(LIMITS),
    )


# The kernels below carry no shape annotations: the run-time checks of the tests would wrap them and
# the compiler could not read them.


@njit(cache=True)
@no_type_check
def _columns(prices, instrument, atr, swings, settings, limits):
    opens, high, low, close = prices
    direction, high_row, low_row = swings
    eps, alpha, window_length = settings
    n_bars = len(close)
    table = np.empty((n_bars, len(limits)), dtype=np.float32)
    row = np.zeros(len(limits))
    mean_range = 0.0
    for t in range(n_bars):
        width, least = high[t] - low[t], eps * close[t]
        is_first = t == 0 or instrument[t] != instrument[t - 1]
        mean_range = width if is_first else mean_range + alpha * (width - mean_range)
        safe = max(width, least)
        row[0] = (opens[t] - low[t]) / safe
        row[1] = (close[t] - low[t]) / safe
        row[2] = (close[t] - opens[t]) / safe
        row[3] = (high[t] - max(opens[t], close[t])) / safe
        row[4] = (min(opens[t], close[t]) - low[t]) / safe
        row[5] = min(width / max(mean_range, least), WIDEST_RANGE)
        unit = max(atr[t], least)
        row[6] = row[7] = row[8] = row[9] = 0.0
        if high_row[t] >= 0:
            row[6] = (high[high_row[t]] - close[t]) / unit
            row[8] = min((t - high_row[t]) / window_length, limits[8, 1])
        if low_row[t] >= 0:
            row[7] = (close[t] - low[low_row[t]]) / unit
            row[9] = min((t - low_row[t]) / window_length, limits[9, 1])
        row[10] = row[5] * direction[t] * row[2]
        row[11] = (1.0 - row[5] / WIDEST_RANGE) * (1.0 - abs(row[2])) * 0.5 * (row[8] + row[9])
        for column in range(len(limits)):
            table[t, column] = min(max(row[column], limits[column, 0]), limits[column, 1])
    return table
