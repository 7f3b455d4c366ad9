"""Labels: what a decision at row t earned afterwards.

This file and `expansion_labels.py` alone look ahead.

A decision at the close of t is filled at the open of t + 1, so every return starts there and ends
at the open at which the next decision would be filled.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp.config.schema import RegimeConfig
from hrl_sarp.contracts import Market, Regime

INVALID_CLASS = -1


def stock_label(
    market: Market, horizon: int
) -> tuple[Float[np.ndarray, "T A"], Bool[np.ndarray, " T"]]:
    """Compute each stock's simple return from fill to fill, `horizon` sessions apart.

    Row t: (1 + intraday[t+1]) x prod_{d=t+2..t+h} (1 + overnight[d]) (1 + intraday[d])
    x (1 + overnight[t+1+h]) - 1. A delisted stock earns 0 from then on.

    Returns:
        The returns, NaN in rows whose horizon is not complete, and the mask of complete rows.
    """
    start = np.arange(market.n_days)
    return stock_label_between(market, start, start + horizon)


def stock_label_between(
    market: Market, start: Int[np.ndarray, " W"], stop: Int[np.ndarray, " W"]
) -> tuple[Float[np.ndarray, "W A"], Bool[np.ndarray, " W"]]:
    """Compute returns between the fills of two decisions, at rows `start` and `stop`.

    Returns:
        As `stock_label`, one row per pair.
    """
    fill_wealth = _wealth_at_open(market)
    valid = (start >= 0) & (stop > start) & (stop + 1 < market.n_days)
    values = np.full((len(start), market.n_assets), np.nan)
    values[valid] = fill_wealth[stop[valid] + 1] / fill_wealth[start[valid] + 1] - 1
    return values, valid


def sector_label(
    market: Market, horizon: int
) -> tuple[Float[np.ndarray, "T S"], Bool[np.ndarray, " T"]]:
    """Average `stock_label` over the stocks eligible at row t, sector by sector.

    Returns:
        NaN for sectors without an eligible stock and in rows whose horizon is not complete, and
        the mask of complete rows.
    """
    values, valid = stock_label(market, horizon)
    return sector_mean(values, market.eligible, market), valid


def sector_label_between(
    market: Market, start: Int[np.ndarray, " W"], stop: Int[np.ndarray, " W"]
) -> tuple[Float[np.ndarray, "W S"], Bool[np.ndarray, " W"]]:
    """Average `stock_label_between` over the stocks eligible at `start`, sector by sector."""
    values, valid = stock_label_between(market, start, stop)
    return sector_mean(values, market.eligible[start], market), valid


def sector_mean(
    values: Float[np.ndarray, "T A"], eligible: Bool[np.ndarray, "T A"], market: Market
) -> Float[np.ndarray, "T S"]:
    """Average over the eligible stocks of each sector; NaN where there is none."""
    member = np.eye(market.n_sectors)[market.sector_of]
    total = np.where(eligible, values, 0.0) @ member
    count = eligible.astype(np.float64) @ member
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def regime_label(market: Market, config: RegimeConfig) -> Int[np.ndarray, " T"]:
    """Classify the benchmark's log return over the horizon after the next session.

    The benchmark has no open, so row t sums days t+2 .. t+1+horizon. Bull above +k, bear below -k
    trailing volatility x sqrt(horizon), else sideways; the volatility reads rows <= t.

    Returns:
        `Regime` values, -1 where the horizon or the look-back is not complete.
    """
    log_return = np.log1p(market.benchmark_return)
    horizon, window = config.label_horizon_days, config.volatility_days
    label = np.full(market.n_days, INVALID_CLASS, dtype=np.int64)
    for t in range(window - 1, market.n_days - 1 - horizon):
        past_volatility = log_return[t - window + 1 : t + 1].std()
        band = config.label_band * past_volatility * np.sqrt(horizon)
        next_return = log_return[t + 2 : t + 2 + horizon].sum()
        if next_return > band:
            label[t] = Regime.BULL
        elif next_return < -band:
            label[t] = Regime.BEAR
        else:
            label[t] = Regime.SIDEWAYS
    return label


def buy_label(
    close: Float[np.ndarray, " N"],
    mean_true_range: Float[np.ndarray, " N"],
    stretch: Int[np.ndarray, " N"],
    horizon: int,
    threshold_atr: float,
) -> Int[np.ndarray, " N"]:
    """Say whether the close rises by more than `threshold_atr` true ranges within `horizon` bars.

    Row t: 1 if close[t + horizon] - close[t] > threshold_atr x mean_true_range[t], else 0.

    Args:
        close: of every bar.
        mean_true_range: known at the bar's close, in the price's unit.
        stretch: number of the uninterrupted stretch of bars, equal for all its bars.
        horizon: in bars.
        threshold_atr: in mean true ranges.

    Returns:
        -1 where the horizon ends in another stretch or the true range is not known.
    """
    label = np.full(len(close), INVALID_CLASS, dtype=np.int64)
    now, later = slice(0, max(0, len(close) - horizon)), slice(horizon, None)
    rise = close[later] - close[now]
    usable = (stretch[later] == stretch[now]) & np.isfinite(rise + mean_true_range[now])
    label[now] = np.where(usable, rise > threshold_atr * mean_true_range[now], INVALID_CLASS)
    return label


def standardise_cross_section(
    label: Float[np.ndarray, "T X"], mask: Bool[np.ndarray, "T X"]
) -> Float[np.ndarray, "T X"]:
    """Subtract the mean and divide by the deviation of each row's masked, finite entries.

    Entries outside get 0, as does a row without spread.
    """
    usable = mask & np.isfinite(label)
    filled = np.where(usable, label, 0.0)
    count = np.maximum(usable.sum(axis=1, keepdims=True), 1)
    centred = np.where(usable, filled - filled.sum(axis=1, keepdims=True) / count, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return np.where(deviation > 0.0, centred / np.where(deviation > 0.0, deviation, 1.0), 0.0)


def oracle_weights(
    label: Float[np.ndarray, "T X"], temperature: float, mask: Bool[np.ndarray, "T X"]
) -> Float[np.ndarray, "T X"]:
    """Compute softmax(temperature x standardised label) over each row's masked entries.

    Standardised first: the softmax of raw returns is uniform to three digits. Rows sum to 1; a row
    without a usable entry is 0.
    """
    usable = mask & np.isfinite(label)
    score = temperature * standardise_cross_section(label, mask)
    peak = np.max(np.where(usable, score, -np.inf), axis=1, keepdims=True)
    weight = np.where(usable, np.exp(score - np.where(np.isfinite(peak), peak, 0.0)), 0.0)
    total = weight.sum(axis=1, keepdims=True)
    return np.divide(weight, total, out=np.zeros_like(weight), where=total > 0.0)


def _wealth_at_open(market: Market) -> Float[np.ndarray, "T A"]:
    """Compound every stock from the first row to the open of each row."""
    day = (1.0 + market.overnight_return) * (1.0 + market.intraday_return)
    before = np.ones((market.n_days, market.n_assets))
    before[1:] = np.cumprod(day[:-1], axis=0)
    return before * (1.0 + market.overnight_return)
