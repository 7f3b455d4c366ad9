"""The portfolio simulator: limits, projection, costs and accounting, batched in PyTorch."""

from hrl_sarp.simulator.limits import exposure_limit, target_weights
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from hrl_sarp.simulator.projection import project_weights
from hrl_sarp.simulator.trades import TradeCosts

__all__ = [
    "PortfolioSimulator",
    "TradeCosts",
    "exposure_limit",
    "project_weights",
    "target_weights",
]
