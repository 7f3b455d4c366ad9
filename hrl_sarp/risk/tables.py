"""Makes the risk tables of a market: inputs, priors and exposure, each row from its past alone."""

import numpy as np
from jaxtyping import Bool, Float

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, RiskTables
from hrl_sarp.risk.inputs import PriorColumns, market_inputs, sector_inputs
from hrl_sarp.risk.priors import (
    classical_weights,
    equal_weight_return,
    held_rows,
    neutral_exposure,
    normal_variance,
    prior_days,
    variance_forecast,
)


def risk_tables(market: Market, config: RunConfig) -> RiskTables:
    """Compute what the agents see of risk, and the portfolios that they start from.

    Priors are decided at week ends and on days whose slots differ from the day before, and held
    between. A stock that has no bar keeps its share; users spread it over those that can be traded.
    Shares of 0 are common: minimum variance leaves out most stocks.

    Args:
        market: without risk tables; rows after t do not change row t, except through the training
            span, whose moments scale the inputs.
        config: sections `objective` and `risk_model`.

    Returns:
        Inputs in float32, everything else in float64.

    Raises:
        MarketError: if a prior cannot be computed.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange, Split
        >>> from hrl_sarp.known_markets.small_market import market_of_returns
        >>> split = Split(DayRange(0, 60), DayRange(60, 80), DayRange(80, 99))
        >>> moves = np.resize([[0.01, 0.02], [-0.01, 0.02]], (99, 2))
        >>> market = market_of_returns("two stocks", moves, np.arange(2), split)
        >>> risk_tables(market, load_config(market="sample")).sector_prior[-1].round(2).tolist()
        [0.67, 0.33]
    """
    model, clip = config.risk_model, config.risk_model.input_clip
    days = prior_days(market)
    names = (model.sector_prior, model.stock_prior)
    weights, mean_correlation = classical_weights(market, days, names, model)
    by_sector = weights[model.sector_prior].reshape(len(days), market.n_sectors, -1).sum(axis=2)
    inside = shares_inside_sectors(weights[model.stock_prior], market.slots[days] >= 0, market)
    whole = np.repeat(by_sector, market.n_slots // market.n_sectors, axis=1) * inside
    normal = normal_variance(equal_weight_return(market), config.objective, market.sessions.year)
    variance = variance_forecast(market, days, whole, model.exposure_decay)
    exposure = neutral_exposure(variance, normal, config.objective, model.min_history_days)
    held = held_rows(days, market.n_days)
    prior = PriorColumns(by_sector[held], exposure, mean_correlation[held])
    inputs, input_names = market_inputs(market, prior, model.exposure_decay, clip)
    of_sectors, sector_names = sector_inputs(market, prior, model.exposure_decay, clip)
    return RiskTables(
        inputs=inputs,
        input_names=input_names,
        sector_inputs=of_sectors,
        sector_input_names=sector_names,
        sector_prior=prior.sector_prior,
        stock_prior=inside[held],
        prior_exposure=exposure,
        normal_variance=normal,
    )


def shares_inside_sectors(
    weights: Float[np.ndarray, "D N"], filled: Bool[np.ndarray, "D N"], market: Market
) -> Float[np.ndarray, "D N"]:
    """Divide weights by the sum of their sector, evenly where that is 0.

    Args:
        weights: of the slots, at least 0.
        filled: slots that hold a stock.
        market: its sectors.

    Returns:
        Each sector with a filled slot sums to 1.
    """
    shape = (len(weights), market.n_sectors, -1)
    parts, there = weights.reshape(shape), filled.reshape(shape)
    total = parts.sum(axis=2, keepdims=True)
    even = there / np.maximum(there.sum(axis=2, keepdims=True), 1)
    inside = np.divide(parts, total, out=even, where=total > 0)
    return inside.reshape(weights.shape)
