"""Protocols of the policies of both levels, simple rules, and the decode from scores to weights.

Actor, rules and backtest use the same decode.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import SlotRequest, micro_view, slot_request
from hrl_sarp.errors import SimulatorError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.projection import (
    project_sectors,
    project_weights,
    project_within_sectors,
)

Observation = Mapping[str, Tensor]
PolicyT = TypeVar("PolicyT")


@runtime_checkable
class MacroPolicy(Protocol):
    """Sets a goal once a week from index observations."""

    def goal(self, observation: Observation) -> Goal:
        """Return the goal of B decisions."""
        ...


@runtime_checkable
class MicroPolicy(Protocol):
    """Chooses target weights of the day's slots from index observations."""

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Return the target weights of B decisions, before the limits."""
        ...


NO_VIEW = (0.0, 0.5, 0.5)
"""Regime entries of a goal whose policy does not forecast the regime, in the order of `Regime`.

Reports do not score them as a forecast."""
SHARE_ROUNDING = 1e-9
"""By which the shares of a mixture may miss the sum 1."""


def no_view(like: Float[Tensor, "B _"]) -> Float[Tensor, "B R"]:
    """Return `NO_VIEW` for each row of `like`, in its dtype."""
    return like.new_tensor(NO_VIEW).expand(len(like), -1)


def decode_within_sector(
    scores: Float[Tensor, "B N"], request: SlotRequest, temperature: float, trade_speed: float
) -> Float[Tensor, "B N"]:
    """Multiply the classical preference by exp(temperature x score) inside each sector's budget.

    Scores lie in [-1, 1]; scores of 0 follow the goal. The sector weights stay those of the goal.
    Below a trade speed of 1 the holdings move only that share of the way. The result is within all
    limits and differentiable in the scores.
    """
    limits = request.limits
    caps = limits.stock_caps
    tilt = torch.exp(temperature * scores).unflatten(1, caps.shape[1:])
    allowed = torch.minimum(request.budgets, limits.sector_caps)
    room = limits.exposure / allowed.sum(dim=1).clamp(min=1e-12)
    budgets = allowed * room.clamp(max=1.0)[:, None]
    target = project_within_sectors(tilt * request.preference, caps, budgets)
    if trade_speed < 1:
        target = _moved_towards(target, request.held.view_as(target), caps, trade_speed)
    return target.flatten(1)


def _moved_towards(
    target: Float[Tensor, "B S K"],
    held: Float[Tensor, "B S K"],
    caps: Float[Tensor, "B S K"],
    trade_speed: float,
) -> Float[Tensor, "B S K"]:
    """Keep 1 - speed of what a sector holds within its target sum; the rest is spread as targeted.

    So a sector that holds its sum moves `speed` of the way to its target, money that is new to a
    sector goes to the target at once, and a sector's sum is the target's.
    """
    total = target.sum(dim=2, keepdim=True)
    open_held = held * (caps > 0)
    fits = total / open_held.sum(dim=2, keepdim=True).clamp(min=1e-12)
    kept = (1 - trade_speed) * open_held * fits.clamp(max=1.0)
    renewed = 1 - kept.sum(dim=2, keepdim=True) / total.clamp(min=1e-12)
    moved = (kept + renewed * target).flatten(0, 1)  # a row is a sector, and its sum fits
    return project_sectors(moved, caps.flatten(0, 1), total.flatten()).view_as(target)


def decode_free(
    scores: Float[Tensor, "B N"], request: SlotRequest, temperature: float
) -> Float[Tensor, "B N"]:
    """Spread the exposure over all stocks by exp(temperature x score), whatever the goal."""
    limits = request.limits
    caps = limits.stock_caps
    tilt = torch.exp(temperature * scores).unflatten(1, caps.shape[1:]) * (caps > 0)
    return project_weights(tilt, caps, limits.sector_caps, limits.exposure).flatten(1)


def follow_goal(request: SlotRequest) -> Float[Tensor, "B N"]:
    """Return the prior of a request, inside the caps: what scores of 0 decode to."""
    no_scores = torch.zeros_like(request.prior)
    return decode_within_sector(no_scores, request, temperature=1.0, trade_speed=1.0)


class ProportionalGoal:
    """The goal weighs each sector by its share of the eligible stocks, and forecasts no regime.

    A micro agent that follows this goal holds 1/N at full exposure.
    """

    has_view = False
    """False: the regime entries are `NO_VIEW`. Policies without this attribute do forecast."""

    def __init__(self, tensors: MarketTensors) -> None:
        self.tensors = tensors

    def goal(self, observation: Observation) -> Goal:
        """Return sector shares and no regime view."""
        day = observation["day"].long().flatten()
        shares = self.tensors.sector_shares[day].float()
        return Goal(shares, torch.zeros_like(shares[:, 0]), no_view(shares))


class ClassicalGoal:
    """The goal is the classical portfolio of the market's risk tables, with its neutral exposure.

    Without risk tables it is 1/N, fully invested. Untrained macro agents set this goal.
    """

    has_view = False

    def __init__(self, tensors: MarketTensors) -> None:
        self.tensors = tensors

    def goal(self, observation: Observation) -> Goal:
        """Return the portfolio's sector shares and cash, and no regime view."""
        day = observation["day"].long().flatten()
        shares = self.tensors.sector_prior[day].float()
        return Goal(shares, 1 - self.tensors.prior_exposure[day].float(), no_view(shares))


class SampledGoal:
    """Goals for training: some drawn from Dirichlet(1) over listed sectors, some of another policy.

    `share` is the part of the decisions that is drawn. The others come from `policy`, usually the
    frozen macro agent.
    """

    def __init__(
        self, tensors: MarketTensors, share: float, policy: MacroPolicy, seed: int
    ) -> None:
        self.tensors = tensors
        self.share = share
        self.policy = policy
        self.generator = torch.Generator().manual_seed(seed)

    def goal(self, observation: Observation) -> Goal:
        """Return B goals; cash and regime probabilities are always those of `policy`."""
        asked = self.policy.goal(observation)
        day = observation["day"].long().flatten()
        shape = asked.sector_weights.shape
        exponential = -torch.log1p(-torch.rand(shape, generator=self.generator))
        drawn = exponential.to(asked.sector_weights) * self.tensors.sector_listed[day]
        drawn = drawn / drawn.sum(dim=1, keepdim=True).clamp(min=1e-12)
        sampled = torch.rand(shape[0], generator=self.generator) < self.share
        weights = torch.where(sampled.to(drawn.device)[:, None], drawn, asked.sector_weights)
        return Goal(weights, asked.cash, asked.regime_probabilities)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the generator's state."""
        self.generator.set_state(state["generator"])


class FollowGoal:
    """Holds the goal's sector weights, with the classical portfolio inside each sector."""

    def __init__(self, tensors: MarketTensors, risk: RiskConfig) -> None:
        self.tensors = tensors
        self.risk = risk

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Return the goal's prior, inside the caps."""
        return follow_goal(slot_request(micro_view(self.tensors, observation), self.risk))


class MixedGoal:
    """The goal of a portfolio that divides its wealth among the goals of several policies.

    Cash and regime probabilities are weighted means. Sector weights are weighted by what each
    policy invests, too, because they are shares of the invested part. A policy with the share 1 is
    asked alone, bit by bit.

    Args:
        policies: a prior and a learned policy, or the agents of several seeds.
        shares: of each policy; they sum to 1. None takes equal ones.
    """

    def __init__(
        self, policies: Sequence[MacroPolicy], shares: Sequence[float] | None = None
    ) -> None:
        self.parts, self.shares = _parts(policies, shares)

    @property
    def has_view(self) -> bool:
        """False if a part does not forecast the regime, because then the mixture is no forecast."""
        return all(getattr(part, "has_view", True) for part in self.parts)

    def goal(self, observation: Observation) -> Goal:
        """Return B mixed goals."""
        goals = [part.goal(observation) for part in self.parts]
        if len(goals) == 1:
            return goals[0]
        invested = _mix([(1 - goal.cash)[:, None] * goal.sector_weights for goal in goals], self)
        total = invested.sum(dim=1, keepdim=True)
        plain = _mix([goal.sector_weights for goal in goals], self)
        return Goal(
            torch.where(total > 0, invested / total.clamp(min=1e-12), plain),
            _mix([goal.cash for goal in goals], self),
            _mix([goal.regime_probabilities for goal in goals], self),
        )


class MixedTarget:
    """The weighted mean of the target weights of several policies, which follow one goal.

    Limits are convex, `max_positions` apart, so the mixture keeps them. A policy with the share 1
    is asked alone, bit by bit. See `MixedGoal` for the arguments.
    """

    def __init__(
        self, policies: Sequence[MicroPolicy], shares: Sequence[float] | None = None
    ) -> None:
        self.parts, self.shares = _parts(policies, shares)

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Return B mixed target weights."""
        return _mix([part.target(observation) for part in self.parts], self)


def mixed_pair(
    pairs: Sequence[tuple[MacroPolicy, MicroPolicy]],
) -> tuple[MacroPolicy, MicroPolicy]:
    """Return the pair that decides as the mean of several pairs does; a single one as it is."""
    if len(pairs) == 1:
        return pairs[0]
    macros, micros = zip(*pairs, strict=True)
    return MixedGoal(macros), MixedTarget(micros)


def _parts(
    policies: Sequence[PolicyT], shares: Sequence[float] | None
) -> tuple[tuple[PolicyT, ...], tuple[float, ...]]:
    """Return the policies that a mixture asks, and their shares."""
    given = [1.0 / len(policies) for _ in policies] if shares is None else shares
    usable = bool(policies) and len(given) == len(policies) and all(share >= 0 for share in given)
    if not usable or abs(sum(given) - 1.0) > SHARE_ROUNDING:
        raise SimulatorError(
            f"mixture of {len(policies)} policies: expected as many shares from 0 to 1 that sum to "
            f"1, found {list(given)}; correct the shares"
        )
    asked = [(policy, share) for policy, share in zip(policies, given, strict=True) if share > 0]
    return tuple(policy for policy, _ in asked), tuple(share for _, share in asked)


def _mix(parts: list[Tensor], mixture: MixedGoal | MixedTarget) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.stack([s * part for s, part in zip(mixture.shares, parts, strict=True)]).sum(dim=0)
