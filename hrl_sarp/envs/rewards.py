"""The reward terms of both levels, in % of log growth."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import MacroRewardConfig, MicroRewardConfig
from hrl_sarp.contracts import StepResult, goal_size
from hrl_sarp.market.tensors import MarketTensors

PERCENT = 100.0
TOTAL_LOSS_FLOOR = 1e-12
"""Share of wealth that counts as left after a total loss, where the precision can hold it."""


@dataclass(frozen=True)
class MacroReward:
    """Terms of one week; their sum is the reward."""

    growth: Float[Tensor, " B"]
    """100 [ln(W'/W) - ln(B'/B)]. B is the 1/N benchmark, which reduces the variance."""
    concentration: Float[Tensor, " B"]
    drawdown: Float[Tensor, " B"]

    @property
    def total(self) -> Float[Tensor, " B"]:
        """Sum of the terms."""
        total: Tensor = sum(vars(self).values(), torch.zeros_like(self.growth))
        return total


def macro_reward(
    active_growth: Float[Tensor, " B"],
    drawdowns: tuple[Tensor, Tensor],
    sector_weights: Float[Tensor, "B S"],
    n_listed: Float[Tensor, " B"],
    config: MacroRewardConfig,
) -> MacroReward:
    """Reward a week, in %.

    Args:
        active_growth: ln(W'/W) - ln(B'/B) of the week, net of costs.
        drawdowns: active drawdown (of W/B since the episode began) before and after the week.
        sector_weights: the goal that was set.
        n_listed: sectors that could get weight.
        config: weights of the terms.
    """
    herfindahl = sector_weights.square().sum(dim=1)
    before, after = drawdowns
    threshold = config.drawdown_threshold
    worse = (after - threshold).clamp(min=0) - (before - threshold).clamp(min=0)
    return MacroReward(
        growth=PERCENT * active_growth,
        concentration=-config.concentration_weight * (herfindahl - 1 / n_listed),
        drawdown=-config.drawdown_weight * PERCENT * worse.clamp(min=0),
    )


def micro_gain(
    tensors: MarketTensors, result: StepResult, config: MicroRewardConfig
) -> Float[Tensor, " B"]:
    """Return what a session gained, in %. It does not depend on the goal.

    The selection gain is 100 x (returns over the own sector's mean, overnight and intraday, minus
    cost). It is linear in the weights, so it does not reward diversification. The gain `growth`
    does: log growth falls with the variance.
    """
    if config.gain == "growth":
        benchmark = tensors.reward_benchmark[result.day]
        return PERCENT * (log1p_growth(result.net_return) - log1p_growth(benchmark))
    night = (result.weights_start * tensors.overnight_relative[result.day]).sum(dim=1)
    day = (result.weights_after * tensors.intraday_relative[result.day]).sum(dim=1)
    return PERCENT * (night + day - result.cost)


def goal_alignment(achieved: Any, desired: Any, n_sectors: int) -> Any:
    """Return 1 - half the L1 distance of the first `n_sectors` entries, of arrays or tensors."""
    distance = abs(achieved[..., :n_sectors] - desired[..., :n_sectors])
    return 1 - 0.5 * distance.sum(-1)


def micro_reward(gain: Any, achieved: Any, desired: Any, config: MicroRewardConfig) -> Any:
    """Return gain - weight x (1 - alignment), in %. The env and hindsight replay both call it.

    Takes arrays or tensors: gain (B,), achieved sector shares and desired goal (B, G). With
    `reached` the reward is 0 where the goal is reached and -1 elsewhere, whatever the gain.
    """
    n_sectors = desired.shape[-1] - goal_size(0)
    misaligned = 1 - goal_alignment(achieved, desired, n_sectors)
    if config.gain == "reached":
        return -1.0 * (misaligned > config.reached_distance)
    return gain - config.alignment_weight * misaligned


def log1p_growth(simple_return: Tensor) -> Tensor:
    """Return ln(1 + r), finite at a total loss: about -27.6 in float64, -15.9 in float32.

    The floor depends on the precision: in float32, -1 + 1e-12 would round to -1, whose log is -inf.
    """
    floor = max(TOTAL_LOSS_FLOOR, torch.finfo(simple_return.dtype).eps)
    return torch.log1p(simple_return.clamp(min=floor - 1))
