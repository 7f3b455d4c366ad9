"""Scoring a pair of policies on fresh paths: the share of the oracle's advantage over 1/N."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, MicroPolicy, ProportionalGoal
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, rollout
from hrl_sarp.known_markets.two_level import PathPlan
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR


@dataclass(frozen=True)
class PathJudge:
    """Rolls pairs of policies over the same test paths, net of costs, all paths as one batch."""

    tensors: MarketTensors
    config: RunConfig
    plan: PathPlan

    def growth(self, macro: MacroPolicy, micro: MicroPolicy) -> Float[np.ndarray, " P"]:
        """Roll a pair of policies over every path.

        Args:
            macro: sets goals.
            micro: trades.

        Returns:
            Net log growth a year of each path, from cash at its first row.
        """
        n_days = self.plan.path_days
        spans = [DayRange(start, start + n_days + 1) for start in self.plan.path_starts().tolist()]
        costs, risk = self.config.market_profile.costs, self.config.risk
        frictions = Variant(costs, risk, keeps_weights=False)
        pair = HierarchicalPolicy("pair", macro, micro)
        ledgers = rollout([pair], self.tensors, spans, [frictions])
        wealth = np.array([ledger.wealth[-1, 1] for ledger in ledgers])
        return np.log(np.maximum(wealth, 1e-12)) * SESSIONS_PER_YEAR / n_days

    def equal_weight(self) -> Float[np.ndarray, " P"]:
        """Growth of 1/N: what untrained networks hold.

        Returns:
            One number a path.
        """
        rule = FollowGoal(self.tensors, self.config.risk)
        return self.growth(ProportionalGoal(self.tensors), rule)


def share_of_gap(
    policy: Float[np.ndarray, " P"],
    oracle: Float[np.ndarray, " P"],
    equal_weight: Float[np.ndarray, " P"],
) -> float:
    """Return (policy - 1/N) / (oracle - 1/N) of the mean growths over common paths.

    Args:
        policy: growth on each path.
        oracle: growth of the best known policy on the same paths.
        equal_weight: growth of 1/N on the same paths.

    Returns:
        1 is as good as the oracle, 0 as 1/N.
    """
    return float((policy - equal_weight).mean() / (oracle - equal_weight).mean())
