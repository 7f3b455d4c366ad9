"""Realised volatility and range of the next candles, and base rates: HAR and the hour of the day.

Both targets are logs, because risk is skewed and moves in proportion. Everything is per instrument,
and returns across a border (a night, a closed session) are left out: targets do not hold any.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.cut import number_stretches
from hrl_sarp.price_action.buys.windows import HOURS, CandleWindows

RiskTarget = Literal["volatility", "range"]
RISKS: tuple[RiskTarget, ...] = ("volatility", "range")
LEAST = 1e-6
"""Smallest volatility and range, as shares of the price, where no price moves."""
HAR_BARS = (1, 6, 30)
"""Spans of the means that HAR reads, in horizons: of hourly candles 4, 24 and 120 hours."""
BASES = ("mean", "HAR", "hour of the day", "HAR and hour")
"""What `base_rates` gives: least squares on the training windows, all in logs."""


@dataclass(frozen=True)
class Risk:
    """The target of every row, and what HAR reads there."""

    target: Float[np.ndarray, " N"]
    """Log; NaN where the horizon reaches across a border or past the end."""
    past: Float[np.ndarray, "N 3"]
    """Logs of the mean over the last spans of `HAR_BARS`; NaN where a span has no return."""


def risk_of(bars: Bars, kind: RiskTarget, horizon: int, max_missing: int) -> Risk:
    """Compute target and past of every row.

    `volatility` is the root of the mean square of the next `horizon` log returns of the close.
    `range` is the log of the highest high over the lowest low of the next `horizon` candles. The
    past of row t reads rows <= t: mean squares of returns, or mean logs of high over low.

    Args:
        bars: of a file.
        kind: what is predicted.
        horizon: candles that the target looks ahead.
        max_missing: a longer stretch of missing candles is a border.

    Returns:
        Both, by row.
    """
    stretch = number_stretches(bars.timestamps, (bars.instrument,), max_missing)
    inside = np.diff(stretch, prepend=-1) == 0
    returns = np.where(inside, np.diff(np.log(bars.close), prepend=np.nan), np.nan)
    spread = np.log(bars.high / bars.low)
    each = returns**2 if kind == "volatility" else spread
    target = np.full(len(bars), np.nan)
    n_known = max(0, len(bars) - horizon)
    if n_known:
        whole = stretch[horizon:] == stretch[:n_known]
        if kind == "volatility":
            ahead = np.sqrt(sliding_window_view(each[1:], horizon).mean(axis=1))
        else:
            high, low = (sliding_window_view(p[1:], horizon) for p in (bars.high, bars.low))
            ahead = np.log(high.max(axis=1) / low.min(axis=1))
        target[:n_known] = np.where(whole, np.log(np.maximum(ahead, LEAST)), np.nan)
    power = 0.5 if kind == "volatility" else 1.0
    spans = [_mean_of_last(each, bars.instrument, n * horizon) ** power for n in HAR_BARS]
    return Risk(target, np.log(np.maximum(np.stack(spans, axis=1), LEAST)))


def base_rates(risk: Risk, windows: CandleWindows, span: str) -> dict[str, Float[np.ndarray, " W"]]:
    """Forecast the targets of a span by each of `BASES`, fitted on the training windows.

    Args:
        risk: of the rows.
        windows: whose targets are forecast.
        span: of the windows.

    Returns:
        Base rate -> forecast logs, in the order of time.
    """
    designs = {
        name: (_design(risk, windows, "train", name), _design(risk, windows, span, name))
        for name in BASES
    }
    truth = risk.target[windows.targets("train")]
    found = {}
    for name, (train, asked) in designs.items():
        weights = np.linalg.lstsq(train, truth, rcond=None)[0]
        found[name] = asked @ weights
    return found


def _design(risk: Risk, windows: CandleWindows, span: str, name: str) -> Float[np.ndarray, "W C"]:
    rows = windows.targets(span)
    parts = [np.ones((len(rows), 1))]
    if "HAR" in name:
        parts.append(risk.past[rows])
    if "hour" in name:
        parts.append(_one_hot(windows.hours(span)))
    return np.concatenate(parts, axis=1)


def _one_hot(hours: Int[np.ndarray, " W"]) -> Float[np.ndarray, "W 24"]:
    return np.eye(HOURS)[hours]


def _mean_of_last(
    values: Float[np.ndarray, " N"], instrument: Int[np.ndarray, " N"], n_bars: int
) -> Float[np.ndarray, " N"]:
    """Average the known values among the last `n_bars` rows of the instrument."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    row = np.arange(len(values))
    first = np.maximum.accumulate(np.where(np.diff(instrument, prepend=-1) != 0, row, 0))
    start = np.maximum(row + 1 - n_bars, first)
    total, count = sums[row + 1] - sums[start], counts[row + 1] - counts[start]
    # a running sum may end a little below 0 where nothing moved
    return np.divide(
        np.maximum(total, 0.0), count, out=np.full(len(values), np.nan), where=count > 0
    )
