"""Baselines that optimise a trailing covariance, by skfolio's estimators.

Imported only when the configuration asks for one of them: skfolio takes seconds to import.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
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


def _optimised(
    market: Market, days: Days, config: RunConfig, make: Callable[[float], Any]
) -> Weights:
    """Fit the estimator on each decision day's window; cash where fewer than two stocks remain.

    A stock that did not move in the window is left out.
    """
    returns, n_days = market.session_return(), config.evaluation.covariance_days
    usable = usable_slots(market, days)
    weights = np.zeros(usable.shape)
    for row, day in enumerate(days.tolist()):
        if day + 1 < n_days:
            continue
        bars = trailing(market.tradable, day, n_days).mean(axis=0) >= MIN_BARS_SHARE
        moves = np.ptp(trailing(returns, day, n_days), axis=0) > 0  # no estimator takes a constant
        slots = np.flatnonzero(usable[row] & (bars & moves)[np.maximum(market.slots[day], 0)])
        if len(slots) < 2:
            continue
        window = trailing(returns, day, n_days)[:, market.slots[day, slots]]
        with warnings.catch_warnings():  # solvers warn about accuracy far below a basis point
            warnings.simplefilter("ignore")
            estimator = make(max(config.risk.stock_cap, 1.0 / len(slots))).fit(window)
        weights[row, slots] = np.maximum(np.asarray(estimator.weights_, dtype=np.float64), 0.0)
    return weights


def _mean_risk(max_weight: float, objective: ObjectiveFunction) -> MeanRisk:
    prior = EmpiricalPrior(covariance_estimator=LedoitWolf())
    return MeanRisk(objective_function=objective, prior_estimator=prior, max_weights=max_weight)


ESTIMATORS: dict[str, tuple[str, Callable[[float], Any]]] = {
    "minimum_variance": (
        "minimum variance",
        partial(_mean_risk, objective=ObjectiveFunction.MINIMIZE_RISK),
    ),
    "mean_variance": (  # the sample means make it the noisiest of all
        "mean-variance",
        partial(_mean_risk, objective=ObjectiveFunction.MAXIMIZE_UTILITY),
    ),
    "risk_budgeting": ("risk budgeting", lambda _: RiskBudgeting()),
    "hierarchical_risk_parity": ("hierarchical risk parity", lambda _: HierarchicalRiskParity()),
}
"""Name in the configuration -> name in tables, estimator for a largest weight of a stock.

Covariances are Ledoit and Wolf's where weights are bounded. Risk budgeting lets every stock
contribute the same variance. Hierarchical risk parity splits weights along a tree of correlations
(Lopez de Prado, 2016).
"""
OPTIMISED_RULES: dict[str, tuple[str, WeightRule]] = {
    name: (title, partial(_optimised, make=make)) for name, (title, make) in ESTIMATORS.items()
}
"""Name in the configuration -> name in tables, rule."""
