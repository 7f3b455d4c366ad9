"""Forecasts the covariance of each day's slots from the rows up to it.

The model is classical and has no fitted parameter: volatilities and correlations are exponentially
weighted, and correlations are shrunk to their mean. Sums are carried from day to day. A day costs
one pass over the pairs of stocks, and no window is gathered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit

from hrl_sarp.config.objective_schema import RiskModelConfig
from hrl_sarp.contracts import Market

UNKNOWN_VOLATILITY = 0.01
"""Daily volatility of every stock while none has a history. Portfolios do not depend on it."""
LEAST_VOLATILITY_SHARE = 0.1
"""Of the mean volatility: a stock whose price stands still does not get the whole portfolio."""
DEFINITE = 1e-6
"""Smallest eigenvalue of a correlation matrix whose pairs contradict each other, once mended."""


@dataclass(frozen=True)
class CovarianceForecast:
    """Forecast of a day for the stocks in its n filled slots.

    Examples:
        >>> forecast = CovarianceForecast(7, np.arange(2), np.array([0.01, 0.02]), np.eye(2), 0.0)
        >>> forecast.covariance().round(4).tolist()
        [[0.0001, 0.0], [0.0, 0.0004]]
    """

    day: int
    slots: Int[np.ndarray, " n"]
    """The filled slots of the day, in order."""
    volatility: Float[np.ndarray, " n"]
    """Daily, positive."""
    correlation: Float[np.ndarray, "n n"]
    """Shrunk and positive definite."""
    mean_correlation: float
    """Mean over the pairs before shrinkage; 0 while no pair has a history."""

    def covariance(self) -> Float[np.ndarray, "n n"]:
        """Return the daily covariance.

        Returns:
            Symmetric and positive definite.
        """
        return self.correlation * np.outer(self.volatility, self.volatility)


def forecast_covariances(
    market: Market, days: Int[np.ndarray, " D"], config: RiskModelConfig
) -> Iterator[CovarianceForecast]:
    """Forecast the covariance of the filled slots at the close of each of the days.

    A session without a bar leaves a stock's sums as they were, so a halt is not calm. The move over
    it counts once, on the next bar. A correlation reads the sessions on which both stocks have
    bars. Stocks and pairs with fewer than `min_history_days` bars take means: of the sector's
    volatilities, else of all, and of all correlations.

    Args:
        market: rows after a day do not change its forecast in any bit.
        days: increasing rows.
        config: half-lives and shrinkage.

    Yields:
        One forecast per day; a day without a filled slot has an empty one.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange, Split
        >>> from hrl_sarp.known_markets.small_market import market_of_returns
        >>> split = Split(DayRange(0, 60), DayRange(60, 80), DayRange(80, 99))
        >>> moves = np.resize([[0.01, 0.02], [-0.01, 0.02]], (99, 2))
        >>> market = market_of_returns("two stocks", moves, np.arange(2), split)
        >>> config = load_config(market="sample").risk_model
        >>> (found,) = forecast_covariances(market, np.array([98]), config)
        >>> found.volatility.round(3).tolist()
        [0.01, 0.02]
    """
    has_bar = bars_with_return(market)
    returns = np.where(has_bar, market.session_return(), 0.0)
    sums = _Sums(market.n_assets)
    done = 0
    for day in days.tolist():
        _advance(
            returns[done : day + 1],
            has_bar[done : day + 1].astype(np.float64),
            *(_decay(config.volatility_half_life_days), _decay(config.correlation_half_life_days)),
            *(sums.bars, sums.squares, sums.weight, sums.products, sums.own),
        )
        done = day + 1
        yield _forecast(market, day, sums, config)


def bars_with_return(market: Market) -> Bool[np.ndarray, "T A"]:
    """Mark the bars that have a bar before them in the market, so that they hold a whole return."""
    return market.tradable & (np.cumsum(market.tradable, axis=0) > 1)


class _Sums:
    """Exponentially weighted sums that are carried from day to day."""

    def __init__(self, n_assets: int) -> None:
        self.bars = np.zeros(n_assets)
        self.squares, self.weight = np.zeros(n_assets), np.zeros(n_assets)
        self.products = np.zeros((n_assets, n_assets))
        self.own = np.zeros((n_assets, n_assets))
        """Squares of the row's stock over the sessions on which the column's has a bar, too."""


def _decay(half_life: float) -> float:
    return float(0.5 ** (1.0 / half_life))


def _forecast(market: Market, day: int, sums: _Sums, config: RiskModelConfig) -> CovarianceForecast:
    slots: Int[np.ndarray, " n"] = np.flatnonzero(market.slots[day] >= 0)
    assets = market.slots[day, slots]
    known = sums.bars[assets] >= config.min_history_days
    weight = np.maximum(sums.weight[assets], 1.0)  # the first bar's weight is 1
    volatility = _filled_volatility(
        np.sqrt(sums.squares[assets] / weight), known, market.sector_of[assets]
    )
    pairs = np.ix_(assets, assets)
    scale = np.sqrt(sums.own[pairs] * sums.own[pairs].T)
    found = (scale > 0) & known[:, None] & known[None, :]
    np.fill_diagonal(found, val=False)
    raw = np.where(found, sums.products[pairs] / np.where(found, scale, 1.0), 0.0)
    mean = float(raw.sum() / found.sum()) if found.any() else 0.0
    kept = 1.0 - config.correlation_shrinkage
    correlation = np.where(found, kept * raw + (1.0 - kept) * mean, mean)
    np.fill_diagonal(correlation, 1.0)
    return CovarianceForecast(day, slots, volatility, _made_definite(correlation), mean)


def _filled_volatility(
    volatility: Float[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
    sector: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Give stocks without a history the mean of their sector, else of all; apply the floor."""
    moving = known & (volatility > 0)
    if not moving.any():
        return np.full(len(volatility), UNKNOWN_VOLATILITY)
    overall = volatility[moving].mean()
    filled = np.where(known, np.maximum(volatility, LEAST_VOLATILITY_SHARE * overall), overall)
    for index in np.unique(sector[~known]):
        peers = moving & (sector == index)
        if peers.any():
            filled[~known & (sector == index)] = volatility[peers].mean()
    return filled


def _made_definite(correlation: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return the matrix, moved towards independence as far as it takes to be definite.

    Pairs that read different sessions can contradict each other.
    """
    try:
        np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        lift = DEFINITE - float(np.linalg.eigvalsh(correlation)[0])
        return (correlation + lift * np.eye(len(correlation))) / (1.0 + lift)
    return correlation


# No shape annotations: the run-time checks of the tests would wrap the kernel.


@njit(cache=True, nogil=True)
@no_type_check
def _advance(returns, has_bar, fast, slow, bars, squares, weight, products, own):
    """Add the rows to the sums; a stock without a bar keeps its own and all its pairs."""
    n_days, n_assets = returns.shape
    keep = np.empty(n_assets)
    for t in range(n_days):
        for j in range(n_assets):
            keep[j] = slow if has_bar[t, j] > 0.0 else 1.0
        for i in range(n_assets):
            if has_bar[t, i] == 0.0:
                continue
            move = returns[t, i]
            square = move * move
            bars[i] += 1.0
            squares[i] = fast * squares[i] + square
            weight[i] = fast * weight[i] + 1.0
            for j in range(n_assets):
                products[i, j] = products[i, j] * keep[j] + move * returns[t, j]
                own[i, j] = own[i, j] * keep[j] + square * has_bar[t, j]
