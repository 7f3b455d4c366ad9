"""B portfolios run on two clocks: a goal each week, orders each day. Shared by all envs.

Timing: a decision at the close of day t sees rows <= t, fills at the open of t+1 and is rewarded
with what is earned until the close of t+1 (micro) or of the next week end (macro).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Goal, StepResult, goal_size
from hrl_sarp.envs.observations import achieved_sectors, macro_index, micro_index
from hrl_sarp.envs.rewards import log1p_growth
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.limits import exposure_limit, feasible_goal, target_weights
from hrl_sarp.simulator.portfolio import PortfolioSimulator

Rows = Int[Tensor, " _"] | slice
"""Some of the portfolios; a slice reads them without a copy."""


@dataclass
class EpisodeState:
    """What an episode adds to the portfolio: goal, last trade, growth over the benchmark, steps."""

    goal: Float[Tensor, "B G"]
    """In force; all 0 before the first one."""
    traded: Float[Tensor, "B A"]
    """Weights just after the last trade; all 0 before the first one."""
    active_growth: Float[Tensor, " B"]
    """ln W - ln B since the episode began, B the reward benchmark."""
    active_peak: Float[Tensor, " B"]
    """Running maximum of `active_growth`."""
    steps: Int[Tensor, " B"]


class TwoClocks:
    """The mechanics that both levels, the validation and the backtest share; decides nothing.

    `costs` is one section for all rows, or one for each row. `gated` marks the rows that have the
    drawdown gate; None is all of them, if `risk` has it.
    """

    def __init__(
        self,
        tensors: MarketTensors,
        costs: CostConfig | Sequence[CostConfig],
        risk: RiskConfig,
        n_envs: int,
        gated: Bool[Tensor, " B"] | None = None,
    ) -> None:
        self.tensors, self.risk, self.n_envs = tensors, risk, n_envs
        self.simulator = PortfolioSimulator(
            tensors, costs, risk, n_envs, tensors.dtype, tensors.device, gated
        )
        zeros = torch.zeros(n_envs, dtype=tensors.dtype, device=tensors.device)
        self.simulator.reset(zeros.long())
        self.episode = EpisodeState(
            goal=zeros.new_zeros(n_envs, goal_size(tensors.n_sectors)),
            traded=zeros.new_zeros(n_envs, tensors.n_assets),
            active_growth=zeros,
            active_peak=zeros,
            steps=zeros.long(),
        )

    @property
    def day(self) -> Int[Tensor, " B"]:
        """Current day of each portfolio."""
        return self.simulator.state.day

    def reset(self, days: Int[Tensor, " B"], rows: Bool[Tensor, " B"]) -> None:
        """Start the rows that are True at their day: all cash, no goal yet."""
        rows = rows.to(self.tensors.device)
        self.simulator.reset(days, rows)
        episode = self.episode
        keep = ~rows
        self.episode = EpisodeState(
            goal=episode.goal * keep[:, None],
            traded=episode.traded * keep[:, None],
            active_growth=episode.active_growth * keep,
            active_peak=episode.active_peak * keep,
            steps=episode.steps * keep,
        )

    def set_goal(self, goal: Goal, renewed: Bool[Tensor, " B"], rows: Rows | None = None) -> None:
        """Make goals feasible and hold them until the next ones.

        `goal` is of the portfolios in `rows`, all of them if None. Only portfolios that are
        `renewed` get a new goal.
        """
        day, held = self.day, self.episode.goal
        if rows is not None:
            day, held, renewed = day[rows], held[rows], renewed[rows]
        weights = goal.sector_weights.to(self.tensors.dtype)
        weights = feasible_goal(self.tensors, day, weights, self.risk)
        cash, regime = (v.to(self.tensors.dtype) for v in (goal.cash, goal.regime_probabilities))
        vector = torch.where(renewed[:, None], Goal(weights, cash, regime).to_vector(), held)
        if rows is None:
            self.episode.goal = vector
        else:
            self.episode.goal = self.episode.goal.clone()
            self.episode.goal[rows] = vector

    def goal_cash(self) -> Float[Tensor, " B"]:
        """Return the share of wealth that the goal in force leaves in cash; 0 without a goal."""
        return self.episode.goal[:, self.tensors.n_sectors]

    def exposure_asked(self) -> Float[Tensor, " B"]:
        """Return the share of wealth that the goal in force invests; the gate is not asked."""
        cash = self.goal_cash()
        return exposure_limit(cash, self.risk, torch.zeros_like(self.day))

    def start_with(self, days: Int[Tensor, " B"], weights: Float[Tensor, "B A"]) -> None:
        """Start every row at the close of its day with holdings instead of cash, and no goal yet.

        Gradients flow to the weights.
        """
        self.reset(days, torch.ones_like(days, dtype=torch.bool))
        state = self.simulator.state
        self.simulator.state = replace(state, weights=weights, cash=1 - weights.sum(dim=1))

    def trade_day(
        self,
        slot_action: Float[Tensor, "B N"],
        active: Bool[Tensor, " B"] | None = None,
        hold: Bool[Tensor, " B"] | None = None,
        cash: Float[Tensor, " B"] | None = None,
    ) -> StepResult:
        """Project the action, trade at the next open and book the day.

        Args:
            slot_action: target weights of the day's slots, before the limits.
            active: rows whose clock moves; all of them if None.
            hold: rows without orders, whose action is ignored; none if None.
            cash: share of wealth to leave in cash; that of the goal in force if None.
        """
        return self.book_day(self.targets(slot_action, hold, cash), active, hold)

    def targets(
        self,
        slot_action: Float[Tensor, "B N"],
        hold: Bool[Tensor, " B"] | None = None,
        cash: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B A"]:
        """Project an action onto the limits: the orders for the next open, as weights of wealth.

        See `trade_day` for the arguments. Rows without orders get their holdings.
        """
        cash = self.goal_cash() if cash is None else cash
        state, action = self.simulator.state, slot_action.to(self.tensors.dtype)
        wanted = (state.day, state.weights, action, cash, state.gate_days)
        if hold is None:
            return self._target(*wanted)
        rows, target = (~hold).nonzero().flatten(), state.weights
        if len(rows):
            chosen = self._target(*(values.index_select(0, rows) for values in wanted))
            target = target.index_copy(0, rows, chosen)
        return target

    def book_day(
        self,
        target: Float[Tensor, "B A"],
        active: Bool[Tensor, " B"] | None = None,
        hold: Bool[Tensor, " B"] | None = None,
    ) -> StepResult:
        """Trade to weights within the limits at the next open, and book the day."""
        result = self.simulator.step(target, active, hold)
        benchmark = log1p_growth(self.tensors.reward_benchmark[result.day])
        growth = log1p_growth(result.net_return) - benchmark
        if active is not None:
            growth = growth * active
        episode = self.episode
        episode.traded = result.weights_after
        episode.active_growth = episode.active_growth + growth
        episode.active_peak = torch.maximum(episode.active_peak, episode.active_growth)
        return result

    def _target(
        self,
        day: Int[Tensor, " B"],
        weights: Float[Tensor, "B A"],
        action: Float[Tensor, "B N"],
        cash: Float[Tensor, " B"],
        gate_days: Int[Tensor, " B"],
    ) -> Float[Tensor, "B A"]:
        exposure = exposure_limit(cash, self.risk, gate_days)
        return target_weights(self.tensors, day, weights, action, exposure, self.risk)

    def is_week_end(self) -> Bool[Tensor, " B"]:
        """Mark the portfolios whose macro agent decides at this close."""
        return self.tensors.week_end[self.day]

    def goal_is_due(self) -> Bool[Tensor, " B"]:
        """Mark the portfolios at a week end, and those that have no goal yet."""
        return self.is_week_end() | ~self.episode.goal.any(dim=1)

    def active_drawdown(self) -> Float[Tensor, " B"]:
        """Return the fraction by which W/B is below its maximum of the episode."""
        return 1 - torch.exp(self.episode.active_growth - self.episode.active_peak)

    def macro_observation(self) -> dict[str, Tensor]:
        """Return the index observation of the macro agent at the current close."""
        return macro_index(self.tensors, self.simulator.state, self.active_drawdown())

    def micro_observation(self) -> dict[str, Tensor]:
        """Return the index observation of the micro agent, without what it achieved."""
        state = self.simulator.state
        return micro_index(self.tensors, state, self.episode.goal, self.active_drawdown())

    def achieved_goal(self) -> Float[Tensor, "B G"]:
        """Return what the last trade reached: sector shares, then cash and regimes as the goal.

        The shares are those of the invested part, 0 before the first trade.
        """
        sectors = achieved_sectors(self.tensors, self.episode.traded)
        return torch.cat([sectors, self.episode.goal[:, self.tensors.n_sectors :]], dim=1)

    def state_dict(self) -> dict[str, Any]:
        """Return every tensor of the episode and the portfolio."""
        return {
            "portfolio": {k: v.clone() for k, v in vars(self.simulator.state).items()},
            "episode": {k: v.clone() for k, v in vars(self.episode).items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict` of clocks of the same market and batch."""
        device = self.tensors.device
        portfolio = {name: v.to(device) for name, v in state["portfolio"].items()}
        self.simulator.state = type(self.simulator.state)(**portfolio)
        self.episode = EpisodeState(**{k: v.to(device) for k, v in state["episode"].items()})
