"""Scores pairs of policies on the validation span."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Goal, StepResult
from hrl_sarp.envs.observations import achieved_sectors
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, MacroPolicy, MicroPolicy
from hrl_sarp.envs.rewards import (
    PERCENT,
    followed_variance,
    goal_alignment,
    log1p_growth,
    micro_gain,
    micro_reward,
    session_objective,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy, Session, Variant, sessions
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import one_thread
from hrl_sarp.simulator.limits import exposure_limit


@dataclass(frozen=True)
class ValidationScore:
    """One deterministic rollout over a span, net of costs."""

    objective_pct: float
    """Objective less that of the classical rule under the same costs and limits, % a year. It
    selects. The rule is 1/N, fully invested, where the market has no risk tables."""
    excess_growth_pct: float
    """Net log growth less that of the rule, % a year."""
    growth_pct: float
    """Net log growth, % a year."""
    turnover_annual: float
    alignment: float
    """Mean of 1 - half L1 distance of achieved and desired sector weights."""
    reward_per_day: float
    daily: Float[np.ndarray, " T"] = field(repr=False, compare=False)
    """Objective of each session less that of the rule, % a day."""

    def figures(self) -> dict[str, float]:
        """Return the numbers without the series."""
        return {name: value for name, value in vars(self).items() if name != "daily"}


@dataclass(frozen=True)
class _Run:
    """What one policy earned over a span, and the goals that it followed; a row a session."""

    earned: StepResult
    goal: Float[Tensor, "T G"]
    exposure: Float[Tensor, " T"]

    @classmethod
    def of(cls, days: Sequence[Session], policy: int, config: RunConfig) -> "_Run":
        table = {
            f.name: torch.stack([getattr(d.result, f.name)[policy] for d in days]) for f in RESULTS
        }
        earned = StepResult(**table)
        goal = torch.stack([day.goal[policy] for day in days]).float().to(earned.net_return.dtype)
        cash = Goal.from_vector(goal).cash
        return cls(earned, goal, exposure_limit(cash, config.risk, torch.zeros_like(earned.day)))

    def objective(self, tensors: MarketTensors, config: RunConfig) -> Float[np.ndarray, " T"]:
        """Return what selection maximises, % a day."""
        terms = session_objective(tensors, config.objective, self.earned, self.exposure)
        total: Tensor = torch.stack(list(terms.values())).sum(dim=0)
        values: np.ndarray = total.double().cpu().numpy()
        return values


class Validation:
    """Scores pairs by a backtest from cash over the validation span, or over the given one.

    The classical rule is rolled out once, so that following the rule scores 0.
    """

    def __init__(
        self, tensors: MarketTensors, config: RunConfig, span: DayRange | None = None
    ) -> None:
        self.tensors, self.config = tensors, config
        self.span = span or tensors.market.split.validation

    def score(self, macro: MacroPolicy, micro: MicroPolicy) -> ValidationScore:
        """Score one pair."""
        return self.scores([(macro, micro)])[0]

    @one_thread()
    def scores(self, pairs: Sequence[tuple[MacroPolicy, MicroPolicy]]) -> list[ValidationScore]:
        """Score several pairs side by side."""
        rule = self._rule
        return [self._compare(own, rule) for own in self._runs(pairs)]

    @cached_property
    def _rule(self) -> _Run:
        pair = ClassicalGoal(self.tensors), FollowGoal(self.tensors, self.config.risk)
        return self._runs([pair])[0]

    def _runs(self, pairs: Sequence[tuple[MacroPolicy, MicroPolicy]]) -> list[_Run]:
        policies = [HierarchicalPolicy(f"pair {i}", *pair) for i, pair in enumerate(pairs)]
        return _roll_out(self.tensors, self.config, policies, self.span)

    def _compare(self, own: _Run, rule: _Run) -> ValidationScore:
        tensors, config = self.tensors, self.config
        earned, goal, objective = own.earned, own.goal, config.objective
        growth = log1p_growth(earned.net_return)
        excess = growth - log1p_growth(rule.earned.net_return)
        achieved = achieved_sectors(tensors, earned.weights_after).float().to(growth.dtype)
        rewards = config.micro_agent.reward
        gain = micro_gain(tensors, earned, objective, rewards)
        followed = followed_variance(tensors, objective, earned.day, own.exposure)
        reward = micro_reward(gain, achieved, goal, rewards, followed)
        daily = own.objective(tensors, config) - rule.objective(tensors, config)
        years = len(daily) / tensors.market.sessions.year
        return ValidationScore(
            objective_pct=float(daily.sum()) / years,
            excess_growth_pct=PERCENT * float(excess.double().sum()) / years,
            growth_pct=PERCENT * float(growth.double().sum()) / years,
            turnover_annual=float(earned.turnover.double().sum()) / years,
            alignment=float(goal_alignment(achieved, goal, tensors.n_sectors).double().mean()),
            reward_per_day=float(reward.double().mean()),
            daily=daily,
        )


@one_thread()
def daily_objective(
    tensors: MarketTensors,
    config: RunConfig,
    policies: Sequence[HierarchicalPolicy],
    span: DayRange,
    measured: tuple[MarketTensors, RunConfig] | None = None,
) -> Float[np.ndarray, "P T"]:
    """Return the objective of each policy in each session of a backtest from cash, % a day.

    It is that of the market and configuration in `measured`, which have the same sessions, where
    the policies of another objective or risk model are compared; else that of the policies' own.
    """
    runs = _roll_out(tensors, config, policies, span)
    return np.stack([run.objective(*(measured or (tensors, config))) for run in runs])


def _roll_out(
    tensors: MarketTensors,
    config: RunConfig,
    policies: Sequence[HierarchicalPolicy],
    span: DayRange,
) -> list[_Run]:
    frictions = Variant(config.market_profile.costs, config.risk)
    days = list(sessions(policies, tensors, [span], [frictions]))
    return [_Run.of(days, policy, config) for policy in range(len(policies))]


RESULTS = fields(StepResult)
