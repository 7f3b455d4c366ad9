"""A small configuration, policies that do what a test says, and markets with a known best rule."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig, ShockConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.envs.rollout import HOLD, Decision, DecisionView
from hrl_sarp.market.tensors import MarketTensors
from tests import factories

CHEAP_BASELINES = [
    "equal_weight",
    "inverse_volatility",
    "momentum",
    "sector_momentum",
    "ridge",
    "ridge_shuffled",
    "ridge_in_sectors",
    "random_policy",
    "least_traded",
]


def small_config(**evaluation: Any) -> RunConfig:
    """Shorten every window so that it fits a few hundred sessions."""
    changes = {
        "baselines": CHEAP_BASELINES,
        "ridge_label_days": 5,
        "momentum_days": 40,
        "momentum_skip_days": 5,
        "momentum_sectors": 1,
        "volatility_days": 20,
        "covariance_days": 40,
        "bootstrap_samples": 200,
        "random_portfolios": 4,
        "rolling_days": 20,
        **evaluation,
    }
    config = load_config(market="us", overrides={"evaluation": changes})
    profile = config.market_profile.model_copy(update={"costs": factories.cost_config()})
    risk = factories.risk_config()
    return config.model_copy(update={"market_profile": profile, "risk": risk})


def stress_config(
    sector_map: dict[str, str], shocks: list[ShockConfig], **changes: Any
) -> RunConfig:
    """Shocks told by sectors A and B, three sessions of warm-up, no costs; `risk`, `costs`,
    `windows` and fields of the section `stress` may be changed.
    """
    config = small_config(baselines=["equal_weight"])
    free = factories.cost_config(buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0)
    market_stress = config.market_profile.stress.model_copy(
        update={"sectors": sector_map, "windows": changes.pop("windows", [])}
    )
    profile = config.market_profile.model_copy(
        update={"stress": market_stress, "costs": changes.pop("costs", free)}
    )
    values = {"sectors": ["A", "B"], "shocks": shocks, "warm_up_days": 3, "recovery_days": 10}
    risk = changes.pop("risk", config.risk)
    stress = config.stress.model_copy(update={**values, **changes})
    return config.model_copy(update={"market_profile": profile, "risk": risk, "stress": stress})


class ScriptedPolicy:
    """Does what a function of the view returns; remembers which days it was asked about."""

    def __init__(self, name: str, script: Callable[[DecisionView], Decision]) -> None:
        self.name = name
        self._script = script
        self.days: list[int] = []

    def prepare(self, tensors: MarketTensors, spans: Sequence[DayRange]) -> None:
        self.days = []

    def decide(self, view: DecisionView) -> Decision:
        self.days += view.days.tolist()
        return self._script(view)


def buy_once(*shares: float) -> Callable[[DecisionView], Decision]:
    """Order these slot weights on the first day, then hold."""
    action = torch.tensor(shares, dtype=torch.float64)
    return lambda view: Decision(action) if view.is_first else HOLD


def even_goal_policy(name: str, n_sectors: int) -> ScriptedPolicy:
    """Trade to equal weight daily with an even goal and an undecided regime."""
    goal = torch.cat([torch.full((n_sectors,), 1 / n_sectors), torch.tensor([0.1, 0.2, 0.5, 0.3])])

    def script(view: DecisionView) -> Decision:
        usable = view.tradable[0].double()
        return Decision(usable / usable.sum(), cash=0.1, goal=goal.double())

    return ScriptedPolicy(name, script)


def steady_market(daily_returns: list[float], n_days: int, sectors: list[int]) -> Market:
    """Give every stock the same intraday return each day."""
    intraday = np.tile(daily_returns, (n_days, 1))
    return factories.market_with(np.zeros_like(intraday), intraday, sectors)
