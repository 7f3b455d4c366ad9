"""Scores pairs of policies on the validation span."""

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, StepResult
from hrl_sarp.envs.observations import achieved_sectors
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, MicroPolicy, ProportionalGoal
from hrl_sarp.envs.rewards import PERCENT, goal_alignment, log1p_growth, micro_gain, micro_reward
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, sessions
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR
from hrl_sarp.run.session import one_thread


@dataclass(frozen=True)
class ValidationScore:
    """One deterministic rollout over a span, net of costs."""

    excess_growth_pct: float
    """Net log growth less that of the 1/N rule under the same costs and limits, % a year."""
    growth_pct: float
    """Net log growth, % a year."""
    turnover_annual: float
    alignment: float
    """Mean of 1 - half L1 distance of achieved and desired sector weights."""
    reward_per_day: float
    daily: Float[np.ndarray, " T"] = field(repr=False, compare=False)
    """Objective of each session less that of the 1/N rule, % a day. It selects."""

    def figures(self) -> dict[str, float]:
        """Return the numbers without the series."""
        return {name: value for name, value in vars(self).items() if name != "daily"}


@one_thread()
def validate_pair(
    tensors: MarketTensors,
    config: RunConfig,
    macro: MacroPolicy,
    micro: MicroPolicy,
    span: DayRange | None = None,
) -> ValidationScore:
    """Score a pair by a backtest from cash over the validation span, or over the given one.

    The 1/N rule runs beside it, so that following the rule scores 0.
    """
    span = span or tensors.market.split.validation
    frictions = Variant(config.market_profile.costs, config.risk)
    rule = HierarchicalPolicy("1/N", ProportionalGoal(tensors), FollowGoal(tensors, config.risk))
    policies = [HierarchicalPolicy("pair", macro, micro), rule]
    days = list(sessions(policies, tensors, [span], [frictions]))
    earned, by_rule = (
        StepResult(
            **{f.name: torch.stack([getattr(d.result, f.name)[p] for d in days]) for f in RESULTS}
        )
        for p in range(len(policies))
    )
    growth = log1p_growth(earned.net_return)
    excess = growth - log1p_growth(by_rule.net_return)
    goal = torch.stack([day.goal[0] for day in days]).float().to(growth.dtype)
    achieved = achieved_sectors(tensors, earned.weights_after).float().to(growth.dtype)
    rewards = config.micro_agent.reward
    reward = micro_reward(micro_gain(tensors, earned, rewards), achieved, goal, rewards)
    years = len(days) / SESSIONS_PER_YEAR
    return ValidationScore(
        excess_growth_pct=PERCENT * float(excess.double().sum()) / years,
        growth_pct=PERCENT * float(growth.double().sum()) / years,
        turnover_annual=float(earned.turnover.double().sum()) / years,
        alignment=float(goal_alignment(achieved, goal, tensors.n_sectors).double().mean()),
        reward_per_day=float(reward.double().mean()),
        daily=_objective(earned) - _objective(by_rule),
    )


RESULTS = fields(StepResult)


def _objective(earned: StepResult) -> Float[np.ndarray, " T"]:
    """Return what selection maximises: net log growth, % a day."""
    growth: Tensor = PERCENT * log1p_growth(earned.net_return)
    values: np.ndarray = growth.double().cpu().numpy()
    return values
