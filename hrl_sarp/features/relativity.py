"""Scale-free features of single bars: shape, width, and distance to the last swings.

They are made of open, high, low and close, without a unit, and clipped. Row t reads rows <= t of
its own instrument. `range` is high - low. A `safe` divisor is at least `ohlc_eps` of the close, so
a bar that does not move gives 0 and no division by 0.

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
| displacement_k | (close - close k bars before) / safe ATR of that bar; 0: none yet | -10..10 |

There is one displacement for each k of `displacement_bars`, which may be empty. Its ATR is the mean
of `displacement_atr_bars` true ranges, so that a move is measured in the ranges before it.

The exponential mean has alpha = 2 / (period + 1) and starts at the first range.

A leg is a move in one direction. The extreme of a leg up is the highest high since it began (the
first of equal ones). A later bar that does not exceed the extreme confirms it as a swing high, and
the leg turns, if the bar's close lies below the extreme by

* `zigzag_k` ATR, or
* `zigzag_hybrid_min_retrace_atr` ATR, once the extreme has stood, and the leg been known, for
  `zigzag_hybrid_confirm_lookback` bars.

The new leg starts from the lowest low after the extreme. Legs down are the mirror image. Before the
first swing there is no leg. The first leg begins at the bar that confirms the highest high or the
lowest low so far (the high, if it confirms both). ATR is at least `ohlc_eps` of the close, so a
price that does not move confirms nothing.

The second rule requires an old extreme. With extremes of at most 5 bars and a retrace of 0.5 ATR
the leg turned on 32-50 % of the bars of random walks. With this rule it turns on 16-23 %.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, Int64
from numba import njit

from hrl_sarp.config.encoder_schema import RelativityConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.features.technical import true_range
from hrl_sarp.run.damage import UNREADABLE
from hrl_sarp.run.files import atomic_path, remove_unfinished, sha256_plain, source_hash

CANDLE_COLUMNS = (
    *("open_norm", "close_norm", "body_pct", "upper_wick_pct", "lower_wick_pct", "range_z"),
    *("dist_to_prev_swing_high", "dist_to_prev_swing_low"),
    *("bars_since_swing_high", "bars_since_swing_low", "expansion_proxy", "consolidation_proxy"),
)
"""In the order of the table's last axis; displacements follow them."""
PRETRAINING_COLUMNS = CANDLE_COLUMNS[:11]
"""The columns that the masked autoencoder reconstructs, without displacements."""
DISPLACEMENT = "displacement_"
"""Start of the names of the columns that say how far the close moved over some bars."""
FARTHEST = 10.0
"""Bound of displacements, in ATR."""
POSITION = "position_encoding"
"""Place of a bar in its window; not a column of the table, `window_features` appends it."""
LIMITS = (
    *((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 3.0)),
    *((-3.0, 3.0), (-3.0, 3.0), (0.0, 3.0), (0.0, 3.0), (-2.0, 2.0), (0.0, 3.0)),
)
"""Least and greatest value of each column of `CANDLE_COLUMNS`."""
WIDEST_RANGE = LIMITS[CANDLE_COLUMNS.index("range_z")][1]
NO_BAR = -1
"""Row of a swing that does not exist yet."""
TIE = 1e-12
"""Share of the close: a retrace this near to a threshold reaches it, whatever the price's unit."""
_CODE_FILES = ("features/relativity.py", "features/technical.py", "data/bars.py")
"""Source files that the table depends on."""


@dataclass(frozen=True)
class Swings:
    """The leg and the last confirmed swings, as known at the close of each bar."""

    direction: Int8[np.ndarray, " N"]
    """Direction of the leg: 1 up, -1 down, 0 before the first confirmed swing."""
    high_row: Int64[np.ndarray, " N"]
    """Row of the bar whose high is the last confirmed swing high; -1 if there is none."""
    low_row: Int64[np.ndarray, " N"]
    """Row of the bar whose low is the last confirmed swing low; -1 if there is none."""


def load_relativity(
    bars: Bars, config: RelativityConfig, window_length: int, folder: Path
) -> Float32[np.ndarray, "N F"]:
    """Return `relativity_features`; the folder caches them.

    A cached table is mapped into memory. Writing to the array does not change the file.
    """
    depends_on = {
        "bars": bars.content_hash,
        "instruments": bars.instruments,  # a file may be read whole or one symbol at a time
        "n_bars": len(bars),
        "config": described(config),
        "window_length": window_length,
        "code": source_hash(*_CODE_FILES),
    }
    key = sha256_plain(depends_on)[:16]
    for path in folder.glob(f"relativity-{key}-*.npy"):
        table = _mapped(path)
        if table is not None:
            return table
        path.unlink(missing_ok=True)
    table = relativity_features(bars, config, window_length)
    remove_unfinished(folder)
    with atomic_path(folder / _name(key, table)) as temporary:
        np.save(temporary, table, allow_pickle=False)
    return table


def relativity_features(
    bars: Bars, config: RelativityConfig, window_length: int
) -> Float32[np.ndarray, "N F"]:
    """Compute the columns `table_columns` of every bar; the state restarts at each instrument.

    Values lie within `LIMITS` and are never NaN. Except for rounding, they do not change if all
    prices are multiplied by one number. `window_length` is the unit of the two bars_since columns.
    """
    swings = find_swings(bars.high, bars.low, bars.close, bars.instrument, config)
    atr = average_true_range(bars.high, bars.low, bars.close, bars.instrument, config.atr_period)
    table = _columns(
        (bars.open, bars.high, bars.low, bars.close),
        bars.instrument,
        atr,
        (swings.direction, swings.high_row, swings.low_row),
        (config.ohlc_eps, 2.0 / (config.ohlc_ema_range_period + 1.0), float(window_length)),
        np.array(LIMITS),
    )
    moves = displacements(bars.high, bars.low, bars.close, bars.instrument, config)
    return np.concatenate([table, moves], axis=1) if moves.shape[1] else table


def displacements(
    high: Float64[np.ndarray, " N"],
    low: Float64[np.ndarray, " N"],
    close: Float64[np.ndarray, " N"],
    instrument: Int32[np.ndarray, " N"],
    config: RelativityConfig,
) -> Float32[np.ndarray, "N K"]:
    """Measure how far the close moved over the last k bars, for each k of `displacement_bars`.

    Unit: the ATR of `displacement_atr_bars` bars at the bar where the move begins. Clipped at
    `FARTHEST`. 0 in the first k bars of an instrument.
    """
    table = np.zeros((len(close), len(config.displacement_bars)), dtype=np.float32)
    atr = average_true_range(high, low, close, instrument, config.displacement_atr_bars)
    unit = np.maximum(atr, config.ohlc_eps * close)
    for column, k in enumerate(config.displacement_bars):
        moves = (close[k:] - close[:-k]) / unit[:-k]
        is_one = instrument[k:] == instrument[:-k]
        table[k:, column] = np.where(is_one, np.clip(moves, -FARTHEST, FARTHEST), 0.0)
    return table


def displacement_columns(config: RelativityConfig) -> tuple[str, ...]:
    """Name the columns of `displacements`."""
    return tuple(f"{DISPLACEMENT}{k}" for k in config.displacement_bars)


def table_columns(config: RelativityConfig) -> tuple[str, ...]:
    """Name the columns of `relativity_features`."""
    return (*CANDLE_COLUMNS, *displacement_columns(config))


def described(config: RelativityConfig) -> dict[str, Any]:
    """Return the settings as files hold them; those of displacements only if there are any."""
    settings = config.model_dump(mode="json")
    if config.displacement_bars:
        return settings
    return {key: value for key, value in settings.items() if not key.startswith(DISPLACEMENT)}


def pretraining_columns(config: RelativityConfig) -> tuple[str, ...]:
    """Name the columns that the masked autoencoder reads."""
    return (*PRETRAINING_COLUMNS, *displacement_columns(config))


def pretraining_table(
    table: Float32[np.ndarray, "N F"], config: RelativityConfig
) -> Float32[np.ndarray, "N P"]:
    """Copy the columns `pretraining_columns` out of a table of `relativity_features`."""
    there = table_columns(config)
    places = [there.index(name) for name in pretraining_columns(config)]
    return np.ascontiguousarray(table[:, places])


def find_swings(
    high: Float64[np.ndarray, " N"],
    low: Float64[np.ndarray, " N"],
    close: Float64[np.ndarray, " N"],
    instrument: Int32[np.ndarray, " N"],
    config: RelativityConfig,
) -> Swings:
    """Follow the legs of every instrument; the state restarts at each.

    Row t reads rows <= t. A swing's row is always before the row that first reports it.
    """
    atr = average_true_range(high, low, close, instrument, config.atr_period)
    return Swings(
        *_find_swings(
            (high, low, close),
            instrument,
            np.maximum(atr, config.ohlc_eps * close),
            (config.zigzag_k, config.zigzag_hybrid_min_retrace_atr),
            config.zigzag_hybrid_confirm_lookback,
        )
    )


def average_true_range(
    high: Float64[np.ndarray, " N"],
    low: Float64[np.ndarray, " N"],
    close: Float64[np.ndarray, " N"],
    instrument: Int32[np.ndarray, " N"],
    period: int,
) -> Float64[np.ndarray, " N"]:
    """Average the last `period` true ranges, in the price's unit, by the plain mean.

    A value depends on the last `period` + 1 bars of its instrument only. The first bar's true range
    is its own range.
    """
    is_first = np.diff(instrument, prepend=-1) != 0
    before = np.where(is_first, np.nan, np.roll(close, 1))
    return _mean_of_last(true_range(high, low, before), instrument, period)


def _name(key: str, table: np.ndarray) -> str:
    form = zlib.crc32(f"{table.dtype.str} {table.shape}".encode())
    return f"relativity-{key}-{zlib.crc32(table.data, form):08x}.npy"


def _mapped(path: Path) -> np.ndarray | None:
    """Return the array of a file, or None if it does not hold what its name says."""
    try:
        table = np.load(path, mmap_mode="c", allow_pickle=False)
    except UNREADABLE:
        return None
    whole = table.ndim > 0 and table.flags.c_contiguous
    key = path.stem.split("-")[1]
    return table if whole and _name(key, table) == path.name else None


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


@njit(cache=True)
@no_type_check
def _mean_of_last(values, instrument, period):
    result = np.empty(len(values))
    first = 0
    for t in range(len(values)):
        if t > 0 and instrument[t] != instrument[t - 1]:
            first = t
        # summed anew for each bar, because a running sum keeps rounding errors of earlier bars
        start = max(first, t - period + 1)
        total = 0.0
        for s in range(start, t + 1):
            total += values[s]
        result[t] = total / (t - start + 1)
    return result


@njit(cache=True)
@no_type_check
def _find_swings(prices, instrument, unit, retraces, lookback):
    high, low, close = prices
    n_bars = len(high)
    direction = np.zeros(n_bars, dtype=np.int8)
    high_row = np.full(n_bars, NO_BAR)
    low_row = np.full(n_bars, NO_BAR)
    depth = -low
    leg, last_high, last_low, top, bottom, turn = 0, NO_BAR, NO_BAR, 0, 0, 0
    for t in range(n_bars):
        if t == 0 or instrument[t] != instrument[t - 1]:
            leg, last_high, last_low, top, bottom, turn = 0, NO_BAR, NO_BAR, t, t, t
        # `top` is the extreme of a leg up, `bottom` of a leg down; without a leg both count
        if leg >= 0 and high[t] > high[top]:
            top = t
        if leg <= 0 and low[t] < low[bottom]:
            bottom = t
        near = TIE * close[t]
        fall = high[top] - close[t] + near
        rise = close[t] - low[bottom] + near
        known = t - turn
        if leg >= 0 and _confirms(fall, (t - top, known), unit[t], retraces, lookback):
            leg, last_high, turn = -1, top, t
            bottom = _row_of_highest(depth, top + 1, t)
        elif leg <= 0 and _confirms(rise, (t - bottom, known), unit[t], retraces, lookback):
            leg, last_low, turn = 1, bottom, t
            top = _row_of_highest(high, bottom + 1, t)
        direction[t], high_row[t], low_row[t] = leg, last_high, last_low
    return direction, high_row, low_row


@njit(cache=True)
@no_type_check
def _confirms(retrace, ages, unit, retraces, lookback):
    ordinary, early = retraces
    if ages[0] == 0:  # a bar does not tell whether its high or its low came first
        return False
    return retrace >= ordinary * unit or (min(ages) >= lookback and retrace >= early * unit)


@njit(cache=True)
@no_type_check
def _row_of_highest(values, first, last):
    best = first
    for row in range(first + 1, last + 1):
        if values[row] > values[best]:
            best = row
    return best
