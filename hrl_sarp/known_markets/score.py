"""Scoring a pair of policies on fresh paths: the share of the oracle's advantage over 1/N."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.envs.levels import MicroLevel
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, MicroPolicy, ProportionalGoal
from hrl_sarp.known_markets.two_level import PathPlan
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR


@dataclass(frozen=True)
class PathJudge:
    """Rolls pairs of policies over the same test paths, net of costs, all paths as one batch."""

    tensors: MarketTensors
    config: RunConfig
    plan: PathPlan

    @torch.no_grad()
    def growth(self, macro: MacroPolicy, micro: MicroPolicy) -> Float[np.ndarray, " P"]:
        """Net log growth a year of each path, from cash at its first row."""
        plan = self.plan
        level = MicroLevel(self.tensors, self.config, plan.n_paths, macro, plan.path_days)
        everyone = torch.ones(plan.n_paths, dtype=torch.bool)
        level.reset(torch.as_tensor(plan.path_starts()), everyone)
        for _ in range(plan.path_days):
            level.step(micro.target(level.observe("index")))
        wealth = level.clocks.simulator.state.wealth.double()
        years = plan.path_days / SESSIONS_PER_YEAR
        growth: np.ndarray = (wealth.clamp(min=1e-12).log() / years).cpu().numpy()
        return growth

    def equal_weight(self) -> Float[np.ndarray, " P"]:
        """Growth of 1/N: what untrained networks hold."""
        rule = FollowGoal(self.tensors, self.config.risk)
        return self.growth(ProportionalGoal(self.tensors), rule)


def share_of_gap(
    policy: Float[np.ndarray, " P"],
    oracle: Float[np.ndarray, " P"],
    equal_weight: Float[np.ndarray, " P"],
) -> float:
    """Return (policy - 1/N) / (oracle - 1/N) of the mean growths over common paths."""
    return float((policy - equal_weight).mean() / (oracle - equal_weight).mean())
