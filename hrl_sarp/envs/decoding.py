"""From scores to target weights: the one path of the actor, the rule partner and the backtest."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.envs.observations import MICRO_SCALARS, MicroView
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.limits import DecisionLimits, decision_limits, exposure_limit
from hrl_sarp.simulator.projection import project_weights, project_within_sectors

GATE_ON = MICRO_SCALARS.index("gate_on")


@dataclass(frozen=True)
class SlotRequest:
    """Limits and prior of B decisions over the day's slots, from what the agent observes."""

    limits: DecisionLimits
    budgets: Float[Tensor, "B S"]
    """Exposure x goal sector weight: what each sector may hold."""
    prior: Float[Tensor, "B N"]
    """Budget spread evenly over the sector's tradable slots: what following the goal means."""


def slot_request(view: MicroView, risk: RiskConfig) -> SlotRequest:
    """Work out limits and prior of a decision.

    Args:
        view: what the agent sees of its portfolio and of its goal.
        risk: caps and exposure.
    """
    gate = (view.scalars[:, GATE_ON] > 0.5).long()
    p_bear = view.goal.regime_probabilities[:, Regime.BEAR]
    invested = exposure_limit(p_bear, risk, gate)
    sectors = (len(p_bear), view.goal.sector_weights.shape[1], -1)
    tradable = view.tradable.to(view.weights.dtype).view(sectors)
    halted = (view.weights * ~view.tradable).view(sectors).sum(dim=2)
    budgets = (invested[:, None] * view.goal.sector_weights - halted).clamp(min=0)
    spread = tradable / tradable.sum(dim=2, keepdim=True).clamp(min=1)
    return SlotRequest(
        limits=decision_limits(tradable, halted, invested, risk),
        budgets=budgets,
        prior=(budgets[:, :, None] * spread).flatten(1),
    )


def decode_within_sector(
    scores: Float[Tensor, "B N"], request: SlotRequest, temperature: float
) -> Float[Tensor, "B N"]:
    """Tilt the goal's prior by exp(temperature x score) inside each sector's budget.

    Score 0 follows the goal; the sector weights stay the macro agent's. Differentiable in the
    scores. Source: spec of the micro action, decode `within_sector`.
    """
    limits = request.limits
    caps = limits.stock_caps
    tilt = torch.exp(temperature * scores).unflatten(1, caps.shape[1:])
    allowed = torch.minimum(request.budgets, limits.sector_caps)
    room = limits.exposure / allowed.sum(dim=1).clamp(min=1e-12)
    budgets = allowed * room.clamp(max=1.0)[:, None]
    return project_within_sectors(tilt * (caps > 0), caps, budgets).flatten(1)


def decode_free(
    scores: Float[Tensor, "B N"], request: SlotRequest, temperature: float
) -> Float[Tensor, "B N"]:
    """Spread the exposure over all stocks by exp(temperature x score); the goal is only seen."""
    limits = request.limits
    caps = limits.stock_caps
    tilt = torch.exp(temperature * scores).unflatten(1, caps.shape[1:]) * (caps > 0)
    return project_weights(tilt, caps, limits.sector_caps, limits.exposure).flatten(1)


def achieved_sectors(
    tensors: MarketTensors, weights_after: Float[Tensor, "B A"]
) -> Float[Tensor, "B S"]:
    """Return sector shares of the invested part; all 0 when nothing is invested."""
    sums = weights_after @ tensors.sector_member
    return sums / sums.sum(dim=1, keepdim=True).clamp(min=1e-12)
