"""Risk as networks see it: logs that keep their level, scaled by the training span alone.

A trailing standardisation would take away exactly the level that exposure needs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp.contracts import USUAL_SESSIONS, DayRange, Market, SessionCounts
from hrl_sarp.features.technical import fitted_scale
from hrl_sarp.risk.priors import equal_weight_return, slot_returns

MONTH, QUARTER = 22, 66
"""Sessions of a month and a quarter in a year of 252, as in Corsi (2009)."""
LEAST_VARIANCE = 1e-8
"""Daily variance below which logs count no differences: a volatility of 0.01 % a day."""
LEAST_SHARE = 1e-3
"""Share of a sector and of cash below which logs count no differences."""
STOCK_COLUMNS = (
    "volatility_20d",
    "volatility_ratio_20_120",
    "downside_volatility_20d",
    "residual_volatility_60d",
    "beta_120d",
    "atr_pct_14",
)
"""Stock features whose means are inputs of sectors, where a market has them."""

Column = Float[np.ndarray, " T"]


@dataclass(frozen=True)
class PriorColumns:
    """What the priors of a market give to its inputs."""

    sector_prior: Float[np.ndarray, "T S"]
    exposure: Column
    mean_correlation: Column


def market_inputs(
    market: Market, prior: PriorColumns, decay: float, clip: float
) -> tuple[Float[np.ndarray, "T C"], tuple[str, ...]]:
    """Compute the risk of the whole market, with names.

    Columns of ranges need highs and lows, those of implied volatility an index of it; they are left
    out where the training span has none. A value that is not known yet is 0, the mean.
    """
    daily = equal_weight_return(market)
    columns = _realised(daily, market, decay)
    columns |= _ranges(market)
    columns |= _implied(market, columns[f"log_volatility_{horizons(market.sessions)[1]}d"])
    columns["mean_correlation"] = prior.mean_correlation
    columns["log_prior_cash"] = _log_share(1.0 - prior.exposure)
    train = slice(market.split.train.start, market.split.train.stop)
    known = {name: column for name, column in columns.items() if np.isfinite(column[train]).any()}
    table = np.stack(list(known.values()), axis=1)
    return _standardised(table, train, clip), tuple(known)


def sector_inputs(
    market: Market, prior: PriorColumns, decay: float, clip: float
) -> tuple[Float[np.ndarray, "T S D"], tuple[str, ...]]:
    """Compute the risk of each sector, with names; 0 for a sector without stocks.

    All sectors share a scale, so that the same number means the same in each of them.
    """
    filled: Bool[np.ndarray, "T N"] = market.slots >= 0
    listed = filled.reshape(market.n_days, market.n_sectors, -1).any(axis=2)
    whole = 0.5 * _log_variance(_decayed(equal_weight_return(market) ** 2, decay))
    volatility = 0.5 * _log_variance(_decayed(_sector_return(market) ** 2, decay))
    columns = {
        "log_prior_share": _log_share(prior.sector_prior),
        "log_volatility": volatility,
        "log_volatility_relative": volatility - whole[:, None],
    }
    columns |= _stock_columns(market)
    table = np.where(np.expand_dims(listed, 2), np.stack(list(columns.values()), axis=2), np.nan)
    train = slice(market.split.train.start, market.split.train.stop)
    return _standardised(table, train, clip), tuple(columns)


def horizons(sessions: SessionCounts) -> tuple[int, int, int]:
    """Return the sessions of a week, a month and a quarter, over which variances are measured."""
    return sessions.week, sessions.scaled(MONTH), sessions.scaled(QUARTER)


def har_forecast(
    daily: Column, span: DayRange, sessions: SessionCounts = USUAL_SESSIONS
) -> tuple[Column, Float[np.ndarray, " 4"]]:
    """Forecast the log variance of the next sessions by the heterogeneous autoregressive model.

    Logs of the realised variance over a week, a month and a quarter explain that of the next week,
    by least squares over the rows of the span whose target lies inside it. A span without such a
    row keeps the month's variance.

    Source:
        Corsi (2009), "A Simple Approximate Long-Memory Model of Realized Volatility".
    """
    squares, windows = daily**2, horizons(sessions)
    horizon = windows[0]
    trailing = [_log_variance(trailing_mean(squares, n)) for n in windows]
    design = np.stack([np.ones(len(daily)), *trailing], axis=1)
    rows: Int[np.ndarray, " n"] = np.arange(max(1, span.start), max(1, span.stop - horizon))
    if len(rows) == 0:
        coefficients = np.array([0.0, 0.0, 1.0, 0.0])
    else:
        ahead = _log_variance(trailing_mean(squares, horizon))[rows + horizon]
        coefficients = np.linalg.lstsq(design[rows], ahead, rcond=None)[0]
    # a running sum, because a product may group its terms by the number of rows
    return (design * coefficients).cumsum(axis=1)[:, -1], coefficients


def trailing_mean(values: Float[np.ndarray, " T"], window: int) -> Float[np.ndarray, " T"]:
    """Average the last `window` rows from row 1 on, as many as there are; NaN in row 0.

    Row 0 of a market holds no return.
    """
    total = np.cumsum(values[1:])
    result = np.full(len(values), np.nan)
    result[1:] = total
    result[1 + window :] -= total[:-window]
    result[1:] /= np.minimum(np.arange(1, len(values)), window)
    return result


def _realised(daily: Column, market: Market, decay: float) -> dict[str, Column]:
    squares, falls = daily**2, np.minimum(daily, 0.0)
    week, month, quarter = horizons(market.sessions)
    columns = {
        f"log_volatility_{n}d": 0.5 * _log_variance(trailing_mean(squares, n))
        for n in (week, month, quarter)
    }
    short, long = columns[f"log_volatility_{week}d"], columns[f"log_volatility_{month}d"]
    columns["log_volatility_ewma"] = 0.5 * _log_variance(_decayed(squares, decay))
    columns[f"log_volatility_{week}d_over_{month}d"] = short - long
    forecast = har_forecast(daily, market.split.train, market.sessions)[0]
    columns["log_volatility_har"] = 0.5 * forecast
    for n in (week, month):
        columns[f"falls_{n}d"] = trailing_mean(falls, n) * n
    return columns


def _ranges(market: Market) -> dict[str, Column]:
    """Return the volatility of the mean stock from its ranges, and that over the one of closes."""
    if market.range_variance is None:
        return {}
    returns, counted = slot_returns(market)
    before = np.concatenate([market.slots[:1], market.slots[:-1]])
    ranges = np.take_along_axis(market.range_variance, np.maximum(before, 0), axis=1)
    count = np.maximum(counted.sum(axis=1), 1)
    by_range = np.where(counted, ranges, 0.0).sum(axis=1) / count
    by_close = (returns**2).sum(axis=1) / count
    week, month, _ = horizons(market.sessions)
    columns = {
        f"log_range_volatility_{n}d": 0.5 * _log_variance(trailing_mean(by_range, n))
        for n in (week, month)
    }
    closes = 0.5 * _log_variance(trailing_mean(by_close, month))
    columns["log_range_over_close"] = columns[f"log_range_volatility_{month}d"] - closes
    return columns


def _implied(market: Market, realised: Column) -> dict[str, Column]:
    if market.implied_volatility is None:
        return {}
    level = market.implied_volatility / np.sqrt(market.sessions.year)
    known = np.where(level > 0, 0.5 * _log_variance(level**2), np.nan)
    return {"log_implied_volatility": known, "log_implied_over_realised": known - realised}


def _stock_columns(market: Market) -> dict[str, Float[np.ndarray, "T S"]]:
    """Average features over the stocks of each sector that have a bar; NaN without one."""
    counted = market.slot_tradable()
    assets = np.maximum(market.slots, 0)
    shape = (market.n_days, market.n_sectors, -1)
    count = counted.reshape(shape).sum(axis=2)
    columns = {}
    for name in STOCK_COLUMNS:
        if name not in market.feature_names:
            continue
        values = market.stock_features[:, :, market.feature_column(name)].astype(np.float64)
        chosen = np.where(counted, np.take_along_axis(values, assets, axis=1), 0.0)
        mean = chosen.reshape(shape).sum(axis=2) / np.maximum(count, 1)
        columns[f"mean_{name}"] = np.where(count > 0, mean, np.nan)
    return columns


def _sector_return(market: Market) -> Float[np.ndarray, "T S"]:
    returns, counted = slot_returns(market)
    shape = (market.n_days, market.n_sectors, -1)
    count = counted.reshape(shape).sum(axis=2)
    return returns.reshape(shape).sum(axis=2) / np.maximum(count, 1)


def _decayed(values: Float[np.ndarray, "*shape"], decay: float) -> Float[np.ndarray, "*shape"]:
    """Average the rows from 1 on, weighted by age; NaN in row 0."""
    result = np.full_like(values, np.nan)
    mean, mass = np.zeros_like(values[0]), 0.0
    for t in range(1, len(values)):
        mean = (decay * mass * mean + values[t]) / (decay * mass + 1.0)
        mass = decay * mass + 1.0
        result[t] = mean
    return result


def _log_variance(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.log(np.maximum(values, LEAST_VARIANCE))


def _log_share(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.log(np.maximum(values, LEAST_SHARE))


def _standardised(
    table: Float[np.ndarray, "*shape"], train: slice, clip: float
) -> Float[np.ndarray, "*shape"]:
    """Scale the last axis by the known training values; unknown values become 0."""
    width = table.shape[-1]
    fitted = table[train].reshape(-1, width)
    scaled = np.zeros_like(table, dtype=np.float32)
    for column in range(width):
        values = fitted[np.isfinite(fitted[:, column]), column]
        if len(values) == 0:
            continue
        centre, deviation = fitted_scale(values[:, None])
        scaled[..., column] = np.nan_to_num((table[..., column] - centre[0]) / deviation[0])
    return np.clip(scaled, -clip, clip)
