"""The best policies of the planted two-level market: they know the process, not the regimes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.data.sources.synthetic import SIGNAL_NAME
from hrl_sarp.envs.observations import micro_view, slot_request
from hrl_sarp.envs.policies import Observation, decode_within_sector
from hrl_sarp.known_markets.bayes_filter import sector_variance
from hrl_sarp.known_markets.two_level import PlantedMarket, sector_drift
from hrl_sarp.market.tensors import MarketTensors

SIGNAL_STRENGTH = 4.0
"""The micro oracle holds a stock in proportion to exp(4 x signal) inside its sector."""
BISECTIONS = 60


def oracle_shares(
    drift: Float[np.ndarray, "T S"], variance: float, cap: float
) -> Float[np.ndarray, "T S"]:
    """Maximise drift'w - variance/2 w'w over 0 <= w <= cap, sum w = 1, for each row.

    Solution w = clip((drift - nu) / variance, 0, cap); nu by bisection on the monotone sum.
    """
    low = drift.min(axis=1, keepdims=True) - variance
    high = drift.max(axis=1, keepdims=True)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_too_much = np.clip((drift - middle) / variance, 0, cap).sum(axis=1, keepdims=True) > 1
        low, high = np.where(is_too_much, middle, low), np.where(is_too_much, high, middle)
    shares = np.clip((drift - high) / variance, 0, cap)
    return shares / shares.sum(axis=1, keepdims=True)


class MacroOracle:
    """Kelly weights of the sectors under the Bayes belief, within the sector cap."""

    def __init__(self, tensors: MarketTensors, planted: PlantedMarket, risk: RiskConfig) -> None:
        variance = sector_variance(planted.synthetic)
        shares = oracle_shares(sector_drift(planted), variance, risk.sector_cap)
        self.shares = torch.as_tensor(shares, dtype=torch.float32, device=tensors.device)
        self.beliefs = torch.as_tensor(planted.beliefs, dtype=torch.float32, device=tensors.device)

    def goal(self, observation: Observation) -> Goal:
        """Return the oracle's sector shares and the Bayes belief."""
        day = observation["day"].long().flatten()
        return Goal(self.shares[day], self.beliefs[day])


@dataclass(frozen=True)
class MicroOracle:
    """Moves a part of the way each day to exp(4 x signal) inside the goal's budgets."""

    tensors: MarketTensors
    risk: RiskConfig
    speed: float
    """Part of the way per day, between 0 and 1: the answer to costs."""

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Return the holdings moved towards the ideal ones."""
        view = micro_view(self.tensors, observation)
        column = self.tensors.market.feature_names.index(SIGNAL_NAME)
        signal = self.tensors.slot_features[observation["day"].long().flatten(), :, column]
        ideal = decode_within_sector(signal, slot_request(view, self.risk), SIGNAL_STRENGTH)
        is_new = view.weights.sum(dim=1, keepdim=True) == 0
        speed = torch.where(is_new, 1.0, self.speed)
        return view.weights + speed * (ideal - view.weights)
