"""Baselines that need a forecast of risk and none of returns, at full and at neutral exposure.

A method whose volatility is lower than that of 1/N has shown little: so is that of the same
portfolio with cash beside it, and of any classical portfolio of low risk.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from hrl_sarp.config.objective_schema import PriorName, RiskModelConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.evaluation.baselines.schedule import (
    Days,
    ScheduledPolicy,
    WeightRule,
    Weights,
    equal_shares,
    normalise,
    usable_slots,
)
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.risk.inputs import har_forecast
from hrl_sarp.risk.priors import (
    classical_weights,
    equal_weight_return,
    neutral_exposure,
    normal_variance,
    variance_forecast,
)

NEUTRAL = "_neutral"
"""Ends the name in the configuration of a portfolio at neutral exposure."""
TITLES: dict[PriorName, str] = {
    "equal_weight": "1/N",
    "equal_risk_contribution": "equal risk contribution",
    "minimum_variance_ridge": "minimum variance, ridge",
    "maximum_diversification": "maximum diversification",
    "sector_minimum_variance": "sector minimum variance",
}
VarianceForecast = Callable[[Market, Days, RunConfig], Float[np.ndarray, " D"]]
"""Annual variance of 1/N, forecast at the close of each day; 0 where nothing is known."""


@dataclass(frozen=True)
class _Pass:
    """The portfolios of one pass over the returns of a market."""

    market: weakref.ref[Market]
    days: Days
    model: RiskModelConfig
    weights: dict[str, Weights]

    def answers(self, market: Market, days: Days, model: RiskModelConfig, name: str) -> bool:
        is_same = self.market() is market and self.model == model and name in self.weights
        return is_same and np.array_equal(self.days, days)


_last: list[_Pass] = []
"""At most one, of the market that was asked for last. It does not keep that market alive."""


def _in_one_pass(market: Market, days: Days, config: RunConfig, name: PriorName) -> Weights:
    """Compute all configured portfolios at once.

    The forecasts of covariances take most of the time of a backtest with hundreds of stocks, and
    up to nine baselines ask for the same days.
    """
    model = config.risk_model
    if not (_last and _last[0].answers(market, days, model, name)):
        asked = (baseline.removesuffix(NEUTRAL) for baseline in config.evaluation.baselines)
        configured = set(asked)
        names = [name, *(other for other in TITLES if other in configured)]
        weights, _ = classical_weights(market, days, names, model)
        _last[:] = [_Pass(weakref.ref(market), days.copy(), model, weights)]
    return _last[0].weights[name]


def classical(market: Market, days: Days, config: RunConfig, name: PriorName) -> Weights:
    """Hold the portfolio with all the wealth that limits allow."""
    weights = _in_one_pass(market, days, config, name)
    return normalise(np.where(usable_slots(market, days), weights, 0.0))


def classical_neutral(market: Market, days: Days, config: RunConfig, name: PriorName) -> Weights:
    """Hold the portfolio with less where its variance is forecast above the normal one of 1/N."""
    weights = classical(market, days, config, name)
    model = config.risk_model
    variance = variance_forecast(market, days, weights, model.exposure_decay)
    normal = normal_variance(equal_weight_return(market), config.objective, market.sessions.year)
    exposure = neutral_exposure(variance, normal, config.objective, model.min_history_days)
    return weights * exposure[days, None]


def volatility_target(
    market: Market, days: Days, config: RunConfig, target: float, forecast: VarianceForecast
) -> Weights:
    """Hold 1/N with so much of the wealth that its volatility is forecast at the target."""
    variance = forecast(market, days, config)
    known = variance > ROUNDING**2  # a deviation of more than rounding
    ratio = target / np.sqrt(np.where(known, variance, 1.0))
    exposure = np.where(known, np.minimum(ratio, config.objective.invested_share), 1.0)
    return exposure[:, None] * equal_shares(usable_slots(market, days))


def constant_exposure(market: Market, days: Days, config: RunConfig, share: float) -> Weights:
    """Hold 1/N with a constant share of the wealth."""
    return share * equal_shares(usable_slots(market, days))


def make_constant_exposure(config: RunConfig, share: float) -> ScheduledPolicy:
    """Build 1/N at a constant exposure, so that cash alone does not pass for skill.

    Args:
        config: how often it trades.
        share: of the wealth, for example the mean exposure of an agent.

    Returns:
        A policy that is named by its share.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> make_constant_exposure(load_config(market="sample"), 0.75).name
        '75 % 1/N'
    """
    rule = partial(constant_exposure, share=share)
    return ScheduledPolicy(f"{100 * share:.0f} % 1/N", rule, config)


def risk_rules(name: str, config: RunConfig) -> dict[str, WeightRule]:
    """Return what a name of the configuration stands for: name in tables, rule.

    A volatility target stands for one policy per value of `evaluation.volatility_targets`.
    """
    if name in FORECASTS:
        how, forecast = FORECASTS[name]
        return {
            f"1/N at {100 * target:.0f} % volatility, {how}": partial(
                volatility_target, target=target, forecast=forecast
            )
            for target in config.evaluation.volatility_targets
        }
    title, rule = CLASSICAL[name]
    return {title: rule}


def _by_ewma(market: Market, days: Days, config: RunConfig) -> Float[np.ndarray, " D"]:
    even = equal_shares(usable_slots(market, days))
    return variance_forecast(market, days, even, config.risk_model.exposure_decay)[days]


def _by_har(market: Market, days: Days, config: RunConfig) -> Float[np.ndarray, " D"]:
    logs, _ = har_forecast(equal_weight_return(market), market.split.train, market.sessions)
    return market.sessions.year * np.nan_to_num(np.exp(logs))[days]


def _by_options(market: Market, days: Days, config: RunConfig) -> Float[np.ndarray, " D"]:
    level = market.implied_volatility
    return np.zeros(len(days)) if level is None else level[days] ** 2


CLASSICAL: dict[str, tuple[str, WeightRule]] = {
    name: (title, partial(classical, name=name))
    for name, title in TITLES.items()
    if name != "equal_weight"  # it is a rule of its own
} | {
    f"{name}{NEUTRAL}": (f"{title}, neutral", partial(classical_neutral, name=name))
    for name, title in TITLES.items()
}
"""Name in the configuration -> name in tables, rule."""
IMPLIED = "volatility_target_implied"
"""Needs an index of implied volatility."""
FORECASTS: dict[str, tuple[str, VarianceForecast]] = {
    "volatility_target_ewma": ("EWMA", _by_ewma),
    "volatility_target_har": ("HAR", _by_har),
    IMPLIED: ("implied", _by_options),
}
"""Name in the configuration -> forecast in tables, forecast."""
RISK_NAMES = (*CLASSICAL, *FORECASTS)
"""All names of the configuration that `risk_rules` reads."""
