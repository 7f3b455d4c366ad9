"""Swing highs and lows, known only once a later bar has confirmed them; and the true range.

A leg up has an extreme: the highest high since it began (the first of equal ones). A later bar that
does not exceed it confirms it as a swing high, and the leg turns, if its close lies below the
extreme by

* `zigzag_k` ATR, or
* `zigzag_hybrid_min_retrace_atr` ATR, once the extreme has stood, and the leg been known, for
  `zigzag_hybrid_confirm_lookback` bars.

The new leg starts from the lowest low after the extreme. Legs down are the mirror image. Before the
first swing there is no leg: the first bar that confirms the highest high or the lowest low so far
makes one (the high, if it confirms both). ATR is at least `ohlc_eps` of the close, so that a price
which does not move confirms nothing.

The early rule asks for an old extreme, not a young one: confirming extremes of at most 5 bars on a
retrace of 0.5 ATR turned the leg on 32-50 % of the bars of random walks, whether the retrace was
measured on the close or the low, and whatever the shape of the bars; this rule does on 16-23 %.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64
from numba import njit

from hrl_sarp.config.encoder_schema import RelativityConfig

NO_BAR = -1
"""Row of a swing that does not exist yet."""
TIE = 1e-12
"""Of the close: retraces this near to a threshold reach it, in whatever unit prices are given."""


@dataclass(frozen=True)
class Swings:
    """Per bar, what is known at its close: the leg, and the last confirmed swings."""

    direction: Int8[np.ndarray, " N"]
    """Of the leg: 1 up, -1 down, 0 before the first confirmed swing."""
    high_row: Int64[np.ndarray, " N"]
    """Row of the bar whose high is the last confirmed swing high; -1 if there is none."""
    low_row: Int64[np.ndarray, " N"]
    """Likewise for the low."""


def average_true_range(
    high: Float64[np.ndarray, " N"],
    low: Float64[np.ndarray, " N"],
    close: Float64[np.ndarray, " N"],
    instrument: Int32[np.ndarray, " N"],
    period: int,
) -> Float64[np.ndarray, " N"]:
    """Average the last `period` true ranges, fewer at the start of an instrument.

    The first bar's true range is its own range. In units of the price; 0 where nothing moved. The
    plain mean, not Wilder's: a value depends on `period` + 1 bars and on nothing before.
    """
    return _average_true_range(high, low, close, instrument, period)


def find_swings(
    high: Float64[np.ndarray, " N"],
    low: Float64[np.ndarray, " N"],
    close: Float64[np.ndarray, " N"],
    instrument: Int32[np.ndarray, " N"],
    config: RelativityConfig,
) -> Swings:
    """Follow the legs of every instrument; rows as in `Bars`, the state restarts at each.

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


# The kernels below carry no shape annotations: the run-time checks of the tests would wrap them and
# the compiler could not read them.


@njit(cache=True)
@no_type_check
def _average_true_range(high, low, close, instrument, period):
    n_bars = len(high)
    true_range, result = np.empty(n_bars), np.empty(n_bars)
    first = 0
    for t in range(n_bars):
        reach = high[t] - low[t]
        if t == 0 or instrument[t] != instrument[t - 1]:
            first = t
        else:
            reach = max(reach, abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
        true_range[t] = reach
        # summed anew for each bar: a running sum would remember bars that left it, by rounding
        start = max(first, t - period + 1)
        total = 0.0
        for s in range(start, t + 1):
            total += true_range[s]
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
    if ages[0] == 0:  # a bar does not say in which order it saw its high and its low
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
