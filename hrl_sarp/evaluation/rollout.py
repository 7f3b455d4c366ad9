"""One rollout of many policies through one simulator: decisions in, the per-step ledger out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrl_sarp.config.schema import CostConfig, RiskConfig
from hrl_sarp.contracts import DayRange, Market, Regime, StepResult, Trajectory
from hrl_sarp.errors import SimulatorError
from hrl_sarp.evaluation.policies import HOLD, Decision, DecisionView, Policy
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.limits import exposure_limit, target_weights
from hrl_sarp.simulator.portfolio import PortfolioSimulator

INDEX = "index"


@dataclass(frozen=True)
class RolloutOptions:
    """What may differ between rollouts of the same policies over the same span."""

    costs: CostConfig
    risk: RiskConfig
    lag_days: int = 0
    """Sessions by which every order is late, on top of the fill at the next open."""
    keeps_weights: bool = True
    """False leaves the weights of the trajectory without assets: shape (D, P, 0)."""


def rollout(
    tensors: MarketTensors, policies: Sequence[Policy], span: DayRange, options: RolloutOptions
) -> Trajectory:
    """Step all policies together from cash at the close of `span.start`, the index in front.

    The index pays no costs and holds no stocks. The first row is earned on the session after the
    start, the last on session `span.stop` - 1. All targets go through the same limits.

    Raises:
        SimulatorError: if the span is shorter than two sessions or two policies share a name.
    """
    _check(tensors.market, policies, span)
    for policy in policies:
        policy.prepare(tensors, span)
    simulator = PortfolioSimulator(
        tensors, options.costs, options.risk, len(policies), tensors.dtype, tensors.device
    )
    simulator.reset(torch.full((len(policies),), span.start))
    desk = _OrderDesk(tensors, len(policies), options)
    record = _Recorder(tensors.market, [policy.name for policy in policies], span, options)
    for step, day in enumerate(range(span.start, span.stop - 1)):
        decisions = _decide(policies, simulator, day, is_first=step == 0)
        targets, hold = desk.orders(decisions, simulator, day)
        result = simulator.step(targets, hold=hold)
        record.add(step, targets, decisions, result)
    return record.trajectory(tensors.market)


def _check(market: Market, policies: Sequence[Policy], span: DayRange) -> None:
    if span.start < 0 or span.stop > market.n_days or len(span) < 2:
        raise SimulatorError(
            f"backtest of rows [{span.start}, {span.stop}): expected at least 2 sessions inside "
            f"the market's {market.n_days}; choose another span"
        )
    names = [INDEX, *(policy.name for policy in policies)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if not policies or doubled:
        found = f"doubled: {', '.join(doubled)}" if doubled else "none"
        raise SimulatorError(
            f"backtest: expected policies with unique names, found {found}; rename or add them"
        )


def _decide(
    policies: Sequence[Policy], simulator: PortfolioSimulator, day: int, *, is_first: bool
) -> list[Decision]:
    states, tensors = simulator.state, simulator.tensors
    is_week_end = bool(tensors.market.is_week_end[day])
    return [
        policy.decide(DecisionView(day, tensors, states, row, is_first, is_week_end))
        for row, policy in enumerate(policies)
    ]


class _OrderDesk:
    """Turns decisions into target weights: delay, exposure and limits, the same for every policy.

    Actions are kept by stock, because the slots of a later day may serve other stocks.
    """

    def __init__(self, tensors: MarketTensors, n_policies: int, options: RolloutOptions) -> None:
        self._tensors, self._options = tensors, options
        self._late: list[tuple[Float[Tensor, "B A"], Float[Tensor, " B"], Bool[Tensor, " B"]]] = []
        shape = (n_policies, tensors.n_assets)
        self._last_action = torch.zeros(shape, dtype=tensors.dtype, device=tensors.device)
        self._last_bear = torch.zeros(n_policies, dtype=tensors.dtype, device=tensors.device)
        self._was_gated = torch.zeros(n_policies, dtype=torch.bool, device=tensors.device)

    def orders(
        self, decisions: Sequence[Decision], simulator: PortfolioSimulator, day: int
    ) -> tuple[Float[Tensor, "B A"], Bool[Tensor, " B"]]:
        """Return target weights and the mask of portfolios without orders today."""
        state = simulator.state
        hold = self._receive(decisions, day)
        if self._options.risk.drawdown_gate:  # the gate moves exposure also between decisions
            is_gated = state.gate_days > 0
            hold = hold & (is_gated == self._was_gated)
            self._was_gated = is_gated
        targets = state.weights.clone()
        rows = torch.nonzero(~hold).flatten()
        if len(rows) == 0:
            return targets, hold
        days = torch.full_like(rows, day)
        slot_action = self._tensors.to_slots(self._last_action[rows], days)
        risk = self._options.risk
        exposure = exposure_limit(self._last_bear[rows], risk, state.gate_days[rows])
        targets[rows] = target_weights(
            self._tensors, days, state.weights[rows], slot_action, exposure, risk
        )
        return targets, hold

    def _receive(self, decisions: Sequence[Decision], day: int) -> Bool[Tensor, " B"]:
        """Put the decisions that are due today in force; returns who keeps the portfolio."""
        self._late.append(self._stacked(decisions, day))
        if len(self._late) <= self._options.lag_days:
            return torch.ones_like(self._was_gated)
        action, p_bear, hold = self._late.pop(0)
        self._last_action = torch.where(hold[:, None], self._last_action, action)
        self._last_bear = torch.where(hold, self._last_bear, p_bear)
        return hold

    def _stacked(
        self, decisions: Sequence[Decision], day: int
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"], Bool[Tensor, " B"]]:
        tensors = self._tensors
        action = torch.zeros_like(self._last_action)
        hold = torch.tensor([d.slot_action is None for d in decisions], device=tensors.device)
        p_bear = torch.tensor([d.p_bear for d in decisions], dtype=tensors.dtype)
        given = [d.slot_action for d in decisions if d.slot_action is not None]
        if given:
            slots = torch.stack([row.to(tensors.device, tensors.dtype) for row in given])
            days = torch.full((len(given),), day, device=tensors.device)
            action[~hold] = tensors.to_assets(slots, days)
        return action, p_bear.to(tensors.device), hold


class _Recorder:
    """Arrays of a trajectory, filled step by step."""

    def __init__(
        self, market: Market, names: Sequence[str], span: DayRange, options: RolloutOptions
    ) -> None:
        n_steps, n_assets = len(span) - 1, market.n_assets if options.keeps_weights else 0
        self._names = (INDEX, *names)
        self._rows = slice(span.start + 1, span.stop)
        self._keeps_weights = options.keeps_weights
        per_policy = (n_steps, len(self._names))
        per_stock = (*per_policy, n_assets)
        scalars = ("net_return", "gross_return", "cost", "turnover", "delisted_value")
        self._scalars = {name: np.zeros(per_policy) for name in scalars}
        self._before, self._after = np.zeros(per_stock), np.zeros(per_stock)
        self._target = np.zeros(per_stock)
        self._goal = np.full((*per_policy, market.n_sectors + len(Regime)), np.nan)
        for name in ("net_return", "gross_return"):
            self._scalars[name][:, 0] = market.benchmark_return[self._rows]

    def add(
        self,
        step: int,
        targets: Float[Tensor, "B A"],
        decisions: Sequence[Decision],
        result: StepResult,
    ) -> None:
        """Write one step."""
        for name, values in self._scalars.items():
            values[step, 1:] = getattr(result, name).cpu().numpy()
        for row, decision in enumerate(decisions, start=1):
            if decision is not HOLD and decision.goal is not None:
                self._goal[step, row] = decision.goal.cpu().numpy()
        if self._keeps_weights:
            self._target[step, 1:] = targets.cpu().numpy()
            self._before[step, 1:] = result.weights_before.cpu().numpy()
            self._after[step, 1:] = result.weights_after.cpu().numpy()

    def trajectory(self, market: Market) -> Trajectory:
        """Freeze what was recorded."""
        return Trajectory(
            names=self._names,
            dates=market.dates[self._rows],
            wealth=np.cumprod(1.0 + self._scalars["net_return"], axis=0),
            target_weights=self._target,
            weights_before=self._before,
            weights_after=self._after,
            goal=self._goal,
            **self._scalars,
        )
