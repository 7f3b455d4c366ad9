"""B portfolios run on two clocks: a goal each week, orders each day. Shared by all envs.

Timing: a decision at the close of day t sees rows <= t, fills at the open of t+1 and is rewarded
with what is earned until the close of t+1 (micro) or of the next week end (macro).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Goal, Regime, StepResult
from hrl_sarp.envs.decoding import achieved_sectors
from hrl_sarp.envs.observations import macro_index, micro_index
from hrl_sarp.envs.rewards import log1p_growth
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.limits import exposure_limit, feasible_goal, target_weights
from hrl_sarp.simulator.portfolio import PortfolioSimulator


@dataclass
class EpisodeState:
    """What an episode adds to the portfolio: goal, growth over the benchmark, steps taken."""

    goal: Float[Tensor, "B G"]
    active_growth: Float[Tensor, " B"]
    """ln W - ln B since the episode began, B the reward benchmark."""
    active_peak: Float[Tensor, " B"]
    """Running maximum of `active_growth`."""
    steps: Int[Tensor, " B"]


class TwoClocks:
    """The mechanics that macro and micro envs share; decides nothing itself."""

    def __init__(self, tensors: MarketTensors, config: RunConfig, n_envs: int) -> None:
        self.tensors = tensors
        self.config = config
        self.n_envs = n_envs
        self.simulator = PortfolioSimulator(
            tensors,
            config.market_profile.costs,
            config.risk,
            n_envs,
            dtype=tensors.dtype,
            device=str(tensors.device),
        )
        zeros = torch.zeros(n_envs, dtype=tensors.dtype, device=tensors.device)
        self.simulator.reset(zeros.long())
        goal = zeros.new_zeros(n_envs, tensors.n_sectors + len(Regime))
        self.episode = EpisodeState(goal, zeros, zeros, zeros.long())

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
            active_growth=episode.active_growth * keep,
            active_peak=episode.active_peak * keep,
            steps=episode.steps * keep,
        )

    def set_goal(self, goal: Goal, rows: Bool[Tensor, " B"]) -> None:
        """Make the goal feasible and hold it until the next one, in the rows that are True."""
        weights = goal.sector_weights.to(self.tensors.dtype)
        weights = feasible_goal(self.tensors, self.day, weights, self.config.risk)
        probabilities = goal.regime_probabilities.to(self.tensors.dtype)
        vector = Goal(weights, probabilities).to_vector()
        self.episode.goal = torch.where(rows[:, None], vector, self.episode.goal)

    def trade_day(
        self, slot_action: Float[Tensor, "B N"], active: Bool[Tensor, " B"] | None = None
    ) -> StepResult:
        """Project the action, trade at the next open and book the day."""
        state = self.simulator.state
        p_bear = self.episode.goal[:, self.tensors.n_sectors + Regime.BEAR]
        exposure = exposure_limit(p_bear, self.config.risk, state.gate_days)
        action = slot_action.to(self.tensors.dtype)
        target = target_weights(
            self.tensors, state.day, state.weights, action, exposure, self.config.risk
        )
        result = self.simulator.step(target, active)
        benchmark = log1p_growth(self.tensors.reward_benchmark[result.day])
        growth = log1p_growth(result.net_return) - benchmark
        if active is not None:
            growth = growth * active
        self.episode.active_growth = self.episode.active_growth + growth
        self.episode.active_peak = torch.maximum(
            self.episode.active_peak, self.episode.active_growth
        )
        return result

    def is_week_end(self) -> Bool[Tensor, " B"]:
        """True where the macro agent decides at this close."""
        return self.tensors.week_end[self.day]

    def active_drawdown(self) -> Float[Tensor, " B"]:
        """Fraction by which W/B is below its maximum of the episode."""
        return 1 - torch.exp(self.episode.active_growth - self.episode.active_peak)

    def macro_observation(self) -> dict[str, Tensor]:
        """Index observation of the macro agent at the current close."""
        return macro_index(self.tensors, self.simulator.state, self.active_drawdown())

    def micro_observation(self, result: StepResult | None = None) -> dict[str, Tensor]:
        """Index observation of the micro agent; achieved goal as of the last trade."""
        state = self.simulator.state
        observation = micro_index(self.tensors, state, self.episode.goal, self.active_drawdown())
        held = state.weights if result is None else result.weights_after
        regime = self.episode.goal[:, self.tensors.n_sectors :]
        achieved = torch.cat([achieved_sectors(self.tensors, held), regime], dim=1)
        return {**observation, "achieved_goal": achieved.float()}

    def state_dict(self) -> dict[str, Any]:
        """Return every tensor of the episode and the portfolio."""
        return {
            "portfolio": {k: v.clone() for k, v in vars(self.simulator.state).items()},
            "episode": {k: v.clone() for k, v in vars(self.episode).items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        device = self.tensors.device
        portfolio = {name: v.to(device) for name, v in state["portfolio"].items()}
        self.simulator.state = type(self.simulator.state)(**portfolio)
        self.episode = EpisodeState(**{k: v.to(device) for k, v in state["episode"].items()})
