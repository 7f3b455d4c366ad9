"""Limits of every portfolio: exposure, caps, halted holdings and the drawdown gate."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.fused import fused_targets
from hrl_sarp.simulator.kernels import ROUNDING
from hrl_sarp.simulator.projection import (
    cap_turnover,
    limit_positions,
    project_sectors,
    project_weights,
)


@dataclass(frozen=True)
class DecisionLimits:
    """Limits of new target weights, reduced by the holdings that cannot trade."""

    stock_caps: Float[Tensor, "B S K"]
    """0 in empty slots and for stocks without a bar."""
    sector_caps: Float[Tensor, "B S"]
    """Less what halted holdings take already, down to 0."""
    exposure: Float[Tensor, " B"]
    """Less what halted holdings take already, down to 0."""


def decision_limits(
    tradable: Float[Tensor, "B S K"],
    halted: Float[Tensor, "B S"],
    exposure: Float[Tensor, " B"],
    risk: RiskConfig,
) -> DecisionLimits:
    """Return the limits of a decision, as agents see them and as the simulator applies them.

    `tradable` is 1 in slots whose stock has a bar, else 0. `halted` sums the holdings of each
    sector that are listed but have no bar, as shares of wealth.
    """
    return DecisionLimits(
        stock_caps=risk.stock_cap * tradable,
        sector_caps=(risk.sector_cap - halted).clamp_min(0.0),
        exposure=(exposure - halted.sum(dim=1)).clamp_min(0.0),
    )


def exposure_limit(
    cash: Float[Tensor, " B"], risk: RiskConfig, gate_days: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return the share of wealth that may be invested.

    min(1 - min_cash, 1 - cash), times `gate_exposure` while the drawdown gate is closed.

    Args:
        cash: share of wealth that the goal leaves in cash.
        risk: cash floor and gate.
        gate_days: sessions that the gate stays closed; 0 is open.

    Returns:
        Largest share of wealth in stocks.
    """
    exposure = (1.0 - cash).clamp(0.0, 1.0 - risk.min_cash)
    if not risk.drawdown_gate:
        return exposure
    return torch.where(gate_days > 0, risk.gate_exposure * exposure, exposure)


def next_gate_state(
    wealth: Float[Tensor, " B"],
    peak: Float[Tensor, " B"],
    gate_days: Int[Tensor, " B"],
    risk: RiskConfig,
    gated: Bool[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
    """Update peak and gate after a session that ended with `wealth`.

    An open gate closes for `gate_days` sessions at a drawdown of `gate_drawdown` or more. When it
    opens again, the peak restarts at the current wealth. Otherwise the old drawdown would close it
    at once. `gated` marks the rows that have a gate; None means all rows.
    """
    peak = torch.maximum(peak, wealth)
    if not risk.drawdown_gate:
        return peak, gate_days
    is_closed = gate_days > 0
    is_deep = wealth <= (1.0 - risk.gate_drawdown) * peak
    counted = (gate_days - 1).clamp_min(0)
    closes = is_deep & ~is_closed if gated is None else is_deep & ~is_closed & gated
    opens = is_closed & (counted == 0)
    counted = torch.where(closes, torch.full_like(gate_days, risk.gate_days), counted)
    return torch.where(opens, wealth, peak), counted


def feasible_goal(
    tensors: MarketTensors,
    day: Int[Tensor, " B"],
    sector_weights: Float[Tensor, "B S"],
    risk: RiskConfig,
) -> Float[Tensor, "B S"]:
    """Project a goal's sector weights onto what the sectors can hold on `day`.

    The cap of a sector is min(sector cap, tradable stocks x stock cap): shares of wealth at full
    investment, so a feasible goal stays feasible at every exposure.
    """
    tradable = tensors.by_sector(tensors.slot_open.index_select(0, day))
    return feasible_sectors(sector_weights, tradable, risk)


def feasible_sectors(
    sector_weights: Float[Tensor, "B S"], tradable: Float[Tensor, "B S K"], risk: RiskConfig
) -> Float[Tensor, "B S"]:
    """Compute `feasible_goal` from `tradable`: 1 in slots whose stock has a bar, else 0."""
    caps = (risk.stock_cap * tradable).sum(dim=2).clamp_max(risk.sector_cap)
    total = torch.ones_like(sector_weights[:, 0])
    return project_sectors(sector_weights, caps.to(sector_weights.dtype), total)


def target_weights(
    tensors: MarketTensors,
    day: Int[Tensor, " B"],
    weights: Float[Tensor, "B A"],
    slot_action: Float[Tensor, "B N"],
    exposure: Float[Tensor, " B"],
    risk: RiskConfig,
) -> Float[Tensor, "B A"]:
    """Turn an action on the day's slots into target weights of all stocks within the limits.

    An action within the limits comes back unchanged up to rounding. Its sum over tradable slots is
    what gets invested, at most what the exposure leaves. Halted holdings take up limits with their
    value of today; the simulator keeps their shares, and the position limit does not count them.
    Tradable holdings without a slot are sold. The turnover cap comes last, so it may leave old
    weights above a cap.

    Args:
        tensors: market.
        day: the decision is made at its close.
        weights: holdings at that close.
        slot_action: finite; values below 0 count as 0, as do empty and untradable slots.
        exposure: largest share of wealth to invest, see `exposure_limit`.
        risk: caps.

    Returns:
        Shares of wealth after costs; the rest is cash.
    """
    fused = fused_targets(tensors, day, weights, slot_action, exposure, risk)
    if fused is not None:
        return fused
    halted, tradable, wanted = _asked(tensors, day, weights, slot_action)
    by_sector = (tensors.by_sector(wanted), tensors.by_sector(tradable))
    slots = slot_targets(*by_sector, halted @ tensors.sector_member, exposure, risk)
    target = tensors.to_assets(slots.flatten(1), day) + halted
    return target if risk.turnover_cap >= 1 else cap_turnover(target, weights, risk.turnover_cap)


def slot_targets(
    wanted: Float[Tensor, "B S K"],
    tradable: Float[Tensor, "B S K"],
    halted: Float[Tensor, "B S"],
    exposure: Float[Tensor, " B"],
    risk: RiskConfig,
) -> Float[Tensor, "B S K"]:
    """Bring what is wanted of the tradable slots within all limits but the turnover cap.

    Args:
        wanted: at least 0, and 0 in slots that cannot be traded.
        tradable: 1 in slots whose stock has a bar, else 0.
        halted: holdings of each sector that are listed but have no bar, with a slot or without.
        exposure: largest share of wealth to invest, see `exposure_limit`.
        risk: caps.

    Returns:
        Shares of wealth after costs.
    """
    limits = decision_limits(tradable, halted, exposure, risk)
    slots = _within_limits(wanted, limits)
    return _limit_positions(slots, limits, risk.max_positions) if risk.max_positions > 0 else slots


def moved_by_limits(
    tensors: MarketTensors,
    day: Int[Tensor, " B"],
    weights: Float[Tensor, "B A"],
    slot_action: Float[Tensor, "B N"],
    exposure: Float[Tensor, " B"],
    target: Float[Tensor, "B A"],
) -> Float[Tensor, " B"]:
    """Return the share of wealth that limits put elsewhere than an action asked.

    It is half the L1 distance between action and target, cash included. An action that sums to more
    than the exposure is scaled down to it first: that leaves its proportions. What cannot trade
    counts neither as asked nor as moved.

    Args:
        tensors: market.
        day: the decision was made at its close.
        weights: holdings at that close.
        slot_action: as `target_weights` was given it, as are the next.
        exposure: largest share of wealth to invest.
        target: what `target_weights` made of it.

    Returns:
        0 where the action is within its limits.
    """
    halted, _, wanted = _asked(tensors, day, weights, slot_action)
    room = (exposure - halted.sum(dim=1)).clamp_min(0.0)
    share = (room / wanted.sum(dim=1).clamp_min(1e-12)).clamp(max=1.0)
    moved = target - halted - tensors.to_assets(wanted * share[:, None], day)
    return 0.5 * (moved.abs().sum(dim=1) + moved.sum(dim=1).abs())


def _asked(
    tensors: MarketTensors,
    day: Int[Tensor, " B"],
    weights: Float[Tensor, "B A"],
    slot_action: Float[Tensor, "B N"],
) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Return the halted holdings, the tradable slots, and what an action asks for in these."""
    halted = weights * tensors.halted.index_select(0, day)
    tradable = tensors.slot_open.index_select(0, day)
    return halted, tradable, slot_action.to(weights.dtype).clamp_min(0.0) * tradable


def _within_limits(
    wanted: Float[Tensor, "B S K"], limits: DecisionLimits
) -> Float[Tensor, "B S K"]:
    """Project onto the limits, and skip the work where the weights are within them already.

    Most decisions in training are, because the decode respects the limits.
    """
    by_sector = wanted.sum(dim=2)
    asked = by_sector.sum(dim=1)
    if not torch.is_grad_enabled() and not torch.compiler.is_exporting():
        excess = (
            (wanted - limits.stock_caps).max(),
            (by_sector - limits.sector_caps).max(),
            (asked - limits.exposure).max(),
        )
        if bool(torch.stack(excess).max() <= ROUNDING * torch.finfo(wanted.dtype).eps):
            return wanted
    invested = torch.minimum(asked, limits.exposure)
    return project_weights(wanted, limits.stock_caps, limits.sector_caps, invested)


def _limit_positions(
    slots: Float[Tensor, "B S K"], limits: DecisionLimits, max_positions: int
) -> Float[Tensor, "B S K"]:
    """Keep the largest positions of each sector; weight that no longer fits goes to the others."""
    budgets = slots.sum(dim=2)
    kept = limit_positions(slots, budgets, max_positions)
    flat = kept.flatten(0, 1)[:, None, :]
    caps = limits.stock_caps.flatten(0, 1)[:, None, :]
    inside = project_weights(flat, caps, budgets.flatten()[:, None], budgets.flatten())
    return project_weights(
        inside.view_as(slots), limits.stock_caps, limits.sector_caps, budgets.sum(dim=1)
    )
