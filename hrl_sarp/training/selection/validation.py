"""Scores pairs of policies on the validation span."""

from dataclasses import dataclass, fields

import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, StepResult
from hrl_sarp.envs.observations import achieved_sectors
from hrl_sarp.envs.policies import MacroPolicy, MicroPolicy
from hrl_sarp.envs.rewards import goal_alignment, log1p_growth, micro_gain, micro_reward
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, sessions
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR
from hrl_sarp.run.session import one_thread


@dataclass(frozen=True)
class ValidationScore:
    """One deterministic rollout over a span, net of costs."""

    excess_growth_pct: float
    """Net log growth less the gross growth of the 1/N benchmark, % a year. It selects."""
    growth_pct: float
    """Net log growth, % a year."""
    turnover_annual: float
    alignment: float
    """Mean of 1 - half L1 distance of achieved and desired sector weights."""
    reward_per_day: float


@one_thread()
def validate_pair(
    tensors: MarketTensors,
    config: RunConfig,
    macro: MacroPolicy,
    micro: MicroPolicy,
    span: DayRange | None = None,
) -> ValidationScore:
    """Score a pair by a backtest from cash over the validation span, or over the given one."""
    span = span or tensors.market.split.validation
    frictions = Variant(config.market_profile.costs, config.risk)
    pair = HierarchicalPolicy("pair", macro, micro)
    days = list(sessions([pair], tensors, [span], [frictions]))
    earned = StepResult(
        **{f.name: torch.cat([getattr(d.result, f.name) for d in days]) for f in fields(StepResult)}
    )
    growth = log1p_growth(earned.net_return)
    excess = growth - log1p_growth(tensors.reward_benchmark[earned.day])
    goal = torch.cat([day.goal for day in days]).float().to(growth.dtype)
    achieved = achieved_sectors(tensors, earned.weights_after).float().to(growth.dtype)
    rewards = config.micro_agent.reward
    reward = micro_reward(micro_gain(tensors, earned, rewards), achieved, goal, rewards)
    years = len(days) / SESSIONS_PER_YEAR
    return ValidationScore(
        excess_growth_pct=100 * float(excess.double().sum()) / years,
        growth_pct=100 * float(growth.double().sum()) / years,
        turnover_annual=float(earned.turnover.double().sum()) / years,
        alignment=float(goal_alignment(achieved, goal, tensors.n_sectors).double().mean()),
        reward_per_day=float(reward.double().mean()),
    )
