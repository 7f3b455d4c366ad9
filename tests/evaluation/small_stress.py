"""Scenarios small enough to work out by hand, and policies that hold what they bought."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np

from hrl_sarp.config.market_schema import StressWindow
from hrl_sarp.config.schema import ShockConfig
from hrl_sarp.contracts import Market
from hrl_sarp.evaluation.stress import PoliciesOn, StressResult, run_stress_test
from tests import factories
from tests.evaluation.small_runs import ScriptedPolicy, buy_once, stress_config

SECTORS = {"Sector0": "A", "Sector1": "B"}
SHOCK = ShockConfig(
    name="fall", sector_returns=[-0.36, 0.21], days=2, recovery_days=4, probability=0.1
)
WIDE = factories.risk_config(stock_cap=1.0, sector_cap=1.0)


def holder(name: str, *shares: float) -> PoliciesOn:
    return lambda market: [ScriptedPolicy(name, buy_once(*shares))]


def still_market(n_days: int = 40) -> Market:
    """Two stocks of two sectors that never move, but once so long ago that no policy held them."""
    intraday = np.zeros((n_days, 2))
    intraday[1] = 0.01
    return factories.market_with(np.zeros((n_days, 2)), intraday, [0, 1])


def window(name: str, market: Market, first: int, last: int) -> StressWindow:
    start, end = (date.fromisoformat(str(market.dates[row])) for row in (first, last))
    return StressWindow(name=name, start=start, end=end)


def run(
    market: Market, policies: PoliciesOn, shocks: Sequence[ShockConfig] = (SHOCK,), **changes: Any
) -> StressResult:
    changes = {"risk": WIDE, **changes}
    return run_stress_test(market, policies, stress_config(SECTORS, list(shocks), **changes))


def falling_market() -> Market:
    """One stock: 10 % down on rows 21 and 22, then 5 % up a day from row 23 on."""
    intraday = np.zeros((60, 2))
    intraday[21:23], intraday[23:] = -0.10, 0.05
    return factories.market_with(np.zeros((60, 2)), intraday, [0, 1])
