"""Baselines that optimise a trailing covariance, by skfolio's estimators.

Imported only when the configuration asks for one of them: skfolio takes seconds to import.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from skfolio.moments import LedoitWolf
from skfolio.optimization import (
    HierarchicalRiskParity,
    MeanRisk,
    ObjectiveFunction,
    RiskBudgeting,
)
from skfolio.prior import EmpiricalPrior

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.evaluation.baselines.schedule import (
    Days,
    WeightRule,
    Weights,
    trailing,
    usable_slots,
)

MIN_BARS_SHARE = 0.9
"""A stock with fewer printed bars in the window is left out: its covariance would be guessed."""


def minimum_variance(market: Market, days: Days, config: RunConfig) -> Weights:
    """Minimise the variance, Ledoit-Wolf shrunk."""
    return _optimised(market, days, config, _minimum_variance)


def mean_variance(market: Market, days: Days, config: RunConfig) -> Weights:
    """Maximise mean - variance of the window: the sample means make it the noisiest of all."""
    return _optimised(market, days, config, _mean_variance)


def risk_budgeting(market: Market, days: Days, config: RunConfig) -> Weights:
    """Let every stock contribute the same variance."""
    return _optimised(market, days, config, lambda _: RiskBudgeting())


def hierarchical_risk_parity(market: Market, days: Days, config: RunConfig) -> Weights:
    """Split weights along a tree of correlations (Lopez de Prado, 2016)."""
    return _optimised(market, days, config, lambda _: HierarchicalRiskParity())


OPTIMISED_RULES: dict[str, tuple[str, WeightRule]] = {
    "minimum_variance": ("minimum variance", minimum_variance),
    "mean_variance": ("mean-variance", mean_variance),
    "risk_budgeting": ("risk budgeting", risk_budgeting),
    "hierarchical_risk_parity": ("hierarchical risk parity", hierarchical_risk_parity),
}
"""Name in the configuration -> name in tables, rule."""


def _optimised(
    market: Market, days: Days, config: RunConfig, make: Callable[[float], Any]
) -> Weights:
    """Fit the estimator on each decision day's window; cash where fewer than two stocks remain."""
    returns = market.session_return()
    usable = usable_slots(market, days)
    weights = np.zeros(usable.shape)
    for row, day in enumerate(days.tolist()):
        slots = np.flatnonzero(usable[row] & _has_history(market, day, config))
        if len(slots) < 2:
            continue
        window = trailing(returns, day, config.evaluation.covariance_days)
        max_weight = max(config.risk.stock_cap, 1.0 / len(slots))
        weights[row, slots] = _fit(make(max_weight), window[:, market.slots[day, slots]])
    return weights


def _minimum_variance(max_weight: float) -> Any:
    prior = EmpiricalPrior(covariance_estimator=LedoitWolf())
    return MeanRisk(prior_estimator=prior, max_weights=max_weight)


def _mean_variance(max_weight: float) -> Any:
    return MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
        prior_estimator=EmpiricalPrior(covariance_estimator=LedoitWolf()),
        max_weights=max_weight,
    )


def _fit(estimator: Any, window: Float[np.ndarray, "W n"]) -> Float[np.ndarray, " n"]:
    with warnings.catch_warnings():  # solvers warn about accuracy far below a basis point
        warnings.simplefilter("ignore")
        found = np.asarray(estimator.fit(window).weights_, dtype=np.float64)
    return np.maximum(found, 0.0)


def _has_history(market: Market, day: int, config: RunConfig) -> Bool[np.ndarray, " N"]:
    """Mark slots whose stock printed nearly every bar of a full window and moved in it."""
    n_days = config.evaluation.covariance_days
    if day + 1 < n_days:
        return np.zeros(market.n_slots, dtype=bool)
    bars = trailing(market.tradable, day, n_days).mean(axis=0) >= MIN_BARS_SHARE
    return bars[np.maximum(market.slots[day], 0)]
