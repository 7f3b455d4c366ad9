"""The portfolio simulator: limits, projection, costs and exact accounting, batched in torch."""

from hrl_sarp.simulator.limits import (
    DecisionLimits,
    decision_limits,
    exposure_limit,
    feasible_goal,
    next_gate_state,
    target_weights,
)
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from hrl_sarp.simulator.projection import (
    cap_turnover,
    limit_positions,
    project_sectors,
    project_weights,
    project_within_sectors,
)
from hrl_sarp.simulator.trades import TradeCosts

__all__ = [
    "DecisionLimits",
    "PortfolioSimulator",
    "TradeCosts",
    "cap_turnover",
    "decision_limits",
    "exposure_limit",
    "feasible_goal",
    "limit_positions",
    "next_gate_state",
    "project_sectors",
    "project_weights",
    "project_within_sectors",
    "target_weights",
]
