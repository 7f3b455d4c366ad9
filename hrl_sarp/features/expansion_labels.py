"""The rule that labels expansions in windows of bars; like `labels.py`, it looks ahead."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp.config.encoder_schema import ExpansionConfig
from hrl_sarp.features.zigzag import average_true_range

NOWHERE = -1
"""Start and end of an expansion that is not there."""


@dataclass(frozen=True)
class Expansions:
    """What `expansion_label` found in each window; rows without an expansion hold `NOWHERE`."""

    count: Int[np.ndarray, " W"]
    """Expansions that do not overlap: 0, 1, or 2 where there are more."""
    start: Int[np.ndarray, " W"]
    """First bar of the shortest, in the window."""
    end: Int[np.ndarray, " W"]
    """Its last bar."""
    direction: Int[np.ndarray, " W"]
    """1 up, -1 down, 0 where there is none."""
    is_retracement: Bool[np.ndarray, " W"]
    """What came before it: a move against it, or (False) a consolidation."""


def expansion_label(ohlc: Float[np.ndarray, "W L 4"], config: ExpansionConfig) -> Expansions:
    """Find the shortest run of bars in each window that moves far in one direction.

    The run s..e qualifies if from the base, the close of bar s - 1, to the close of e it moves at
    least `min_move_atr` ATR of bar s - 1, while no close inside falls behind an earlier one, base
    included, by more than `max_retrace` of that move. Closes only: which of a bar's high and low
    came first is unknown. An expansion is a qualifying run of at most `max_bars` bars; of those
    that overlap the shortest counts, of equally short ones the first.
    It is a retracement if the base lies `context_atr` ATR or more behind the best close of the
    `context_bars` bars before s, else a consolidation.

    Nothing outside the window is read: s is at least `context_bars` and leaves room for the ATR of
    `atr_bars`. A bar's label is known once the expansion has ended: it describes, and no more.

    Args:
        ohlc: open, high, low and close of W windows; positive.
        config: the rule.
    """
    close = ohlc[..., 3]
    atr = _true_range_before(ohlc, config)
    rising, falling = (_shortest_runs(sign * close, atr, config) for sign in (1.0, -1.0))
    start = np.maximum(rising, falling)
    rows, bars = np.arange(len(close)), np.arange(close.shape[1])
    end = np.where(start > NOWHERE, bars - start, len(bars)).argmin(axis=1)
    first = start[rows, end]
    found = first > NOWHERE
    apart = (start > NOWHERE) & ((bars < first[:, None]) | (start > end[:, None]))
    direction = np.where(found, np.where(rising[rows, end] == first, 1, -1), 0)
    behind = _move_against(close, first, direction, config.context_bars)
    return Expansions(
        count=np.where(found, 1 + apart.any(axis=1), 0),
        start=first,
        end=np.where(found, end, NOWHERE),
        direction=direction,
        is_retracement=found & (behind >= config.context_atr * atr[rows, first - 1]),
    )


def _true_range_before(
    ohlc: Float[np.ndarray, "W L 4"], config: ExpansionConfig
) -> Float[np.ndarray, "W L"]:
    """Return the ATR of each bar that can be a base; NaN before there is enough to look back on."""
    n_windows, length, _ = ohlc.shape
    window = np.repeat(np.arange(n_windows, dtype=np.int32), length)
    high, low, close = (np.ascontiguousarray(ohlc[..., k]).ravel() for k in (1, 2, 3))
    atr = average_true_range(high, low, close, window, config.atr_bars).reshape(n_windows, length)
    atr[:, : max(config.atr_bars, config.context_bars - 1)] = np.nan
    return atr


def _shortest_runs(
    close: Float[np.ndarray, "W L"], atr: Float[np.ndarray, "W L"], config: ExpansionConfig
) -> Int[np.ndarray, "W L"]:
    """Find the first bar of the shortest rising run that ends at each bar.

    Runs grow backwards from their end, all at once: a base further back adds one retrace, its own
    height above the lowest close after it.
    """
    start = np.full(close.shape, NOWHERE)
    retrace, lowest = np.zeros_like(close), close.copy()
    for n_bars in range(1, min(config.max_bars, close.shape[1] - 1) + 1):
        ends, base = np.s_[:, n_bars:], close[:, :-n_bars]
        retrace[ends] = np.maximum(retrace[ends], base - lowest[ends])
        lowest[ends] = np.minimum(lowest[ends], base)
        move, yardstick = close[ends] - base, atr[:, :-n_bars]
        far = (yardstick > 0.0) & (move >= config.min_move_atr * yardstick)
        new = far & (retrace[ends] <= config.max_retrace * move) & (start[ends] == NOWHERE)
        start[ends] = np.where(new, np.arange(1, close.shape[1] - n_bars + 1), start[ends])
    return start


def _move_against(
    close: Float[np.ndarray, "W L"],
    first: Int[np.ndarray, " W"],
    direction: Int[np.ndarray, " W"],
    n_bars: int,
) -> Float[np.ndarray, " W"]:
    """Measure how far the close before `first` lies behind the best of the bars before it."""
    columns = np.maximum(first[:, None] - 1 - np.arange(n_bars), 0)
    past = np.take_along_axis(close, columns, axis=1) * direction[:, None]
    return past.max(axis=1) - past[:, 0]
