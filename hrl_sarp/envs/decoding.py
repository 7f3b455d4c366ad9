"""From scores to target weights: the one path of the actor, the rule partner and the backtest."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.envs.observations import MICRO_SCALARS, MicroView
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.projection import project_weights, project_within_sectors
from hrl_sarp.simulator.risk import exposure_limit

GATE_ON = MICRO_SCALARS.index("gate_on")


@dataclass(frozen=True)
class SlotRequest:
    """Prior and limits of B decisions over the day's slots, from what the agent observes."""

    stock_caps: Float[Tensor, "B S K"]
    """0 in empty or halted slots."""
    sector_caps: Float[Tensor, "B S"]
    """Less what halted holdings already take."""
    exposure: Float[Tensor, " B"]
    """Less what halted holdings already take."""
    budgets: Float[Tensor, "B S"]
    """Exposure x goal sector weight: what each sector may hold."""
    prior: Float[Tensor, "B N"]
    """Budget spread evenly over the sector's tradable slots: what following the goal means."""


def slot_request(view: MicroView, risk: RiskConfig) -> SlotRequest:
    """Work out prior and limits of a decision."""
    gate = (view.scalars[:, GATE_ON] > 0.5).long()
    p_bear = view.goal.regime_probabilities[:, Regime.BEAR]
    invested = exposure_limit(p_bear, risk, gate)
    sectors = (len(p_bear), view.goal.sector_weights.shape[1], -1)
    tradable = view.tradable.to(view.weights.dtype).view(sectors)
    halted = (view.weights * ~view.tradable).view(sectors).sum(dim=2)
    budgets = (invested[:, None] * view.goal.sector_weights - halted).clamp(min=0)
    spread = tradable / tradable.sum(dim=2, keepdim=True).clamp(min=1)
    return SlotRequest(
        stock_caps=risk.stock_cap * tradable,
        sector_caps=(risk.sector_cap - halted).clamp(min=0),
        exposure=(invested - halted.sum(dim=1)).clamp(min=0),
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
    caps = request.stock_caps
    tilt = torch.exp(temperature * scores).unflatten(1, caps.shape[1:])
    allowed = torch.minimum(request.budgets, request.sector_caps)
    room = request.exposure / allowed.sum(dim=1).clamp(min=1e-12)
    budgets = allowed * room.clamp(max=1.0)[:, None]
    return project_within_sectors(tilt * (caps > 0), caps, budgets).flatten(1)


def decode_free(
    scores: Float[Tensor, "B N"], request: SlotRequest, temperature: float
) -> Float[Tensor, "B N"]:
    """Spread the exposure over all stocks by exp(temperature x score); the goal is only seen."""
    caps = request.stock_caps
    tilt = torch.exp(temperature * scores).unflatten(1, caps.shape[1:]) * (caps > 0)
    return project_weights(tilt, caps, request.sector_caps, request.exposure).flatten(1)


def achieved_sectors(
    tensors: MarketTensors, weights_after: Float[Tensor, "B A"]
) -> Float[Tensor, "B S"]:
    """Return sector shares of the invested part; all 0 when nothing is invested."""
    sums = weights_after @ tensors.sector_member
    return sums / sums.sum(dim=1, keepdim=True).clamp(min=1e-12)
