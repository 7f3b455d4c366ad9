"""The trade at the open: from drifted holdings to target weights, paid out of wealth itself.

Target weights are weights of the wealth after costs, which depend on the trade: with m = 1 - c
the share of wealth left, the cost c solves c = cost(values after(m) - values before).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.errors import SimulatorError
from hrl_sarp.simulator.costs import TradeCosts

MAX_NEWTON_ROUNDS = 20
MAX_COST = 0.5
"""Share of wealth beyond which the square-root law of the impact has lost its meaning."""


@dataclass(frozen=True)
class Frozen:
    """Holdings that cannot trade, and the limits that the other fills must then respect."""

    values: Float[Tensor, "B A"]
    """As shares of wealth just before the trade; 0 where a stock can trade."""
    invested_limit: Float[Tensor, " B"]
    """Sum of all target weights, cancelled orders included."""
    sector_limits: Float[Tensor, "B S"]
    """The larger of the sector cap and the target's sector sum."""
    sector_targets: Float[Tensor, "B S"]
    """Sector sums of the targets that can be filled."""
    sector_values: Float[Tensor, "B S"]
    """Sector sums of `values`."""
    spread: Float[Tensor, "S A"]
    """1 where a stock belongs to a sector; turns sector rows into stock rows."""


@dataclass(frozen=True)
class Orders:
    """What B portfolios hold and ask for at the open, in shares of the wealth of that moment."""

    holdings: Float[Tensor, "B A"]
    """Just before the trade."""
    targets: Float[Tensor, "B A"]
    """Of wealth after costs; 0 where no order can be filled."""
    frozen: Frozen | None
    """None where every holding can trade."""
    wealth: Float[Tensor, " B"]
    """Just before the trade, in units of the wealth at reset."""
    dollar_volume: Float[Tensor, "B A"] | None
    """Of the session; only the impact needs it."""


@dataclass(frozen=True)
class Fill:
    """The executed trade."""

    cost: Float[Tensor, " B"]
    """As a share of the wealth just before the trade."""
    weights: Float[Tensor, "B A"]
    """Of the wealth just after the trade and its costs."""
    turnover: Float[Tensor, " B"]
    """Half of the traded value over the wealth just before the trade."""


def fill_orders(orders: Orders, costs: TradeCosts) -> Fill:
    """Trade to the targets and pay for it, exactly and differentiably.

    Newton from c = 0 runs without gradient until nothing changes (the cost is convex, piecewise
    linear without impact, so it ends after a few rounds); one more step with the slope detached
    carries the exact gradient by the implicit function theorem, for any cost model.

    Raises:
        SimulatorError: if the impact takes more than half of the wealth.
    """
    tolerance = 4 * torch.finfo(orders.holdings.dtype).eps
    with torch.no_grad():
        cost = torch.zeros_like(orders.wealth)
        for _ in range(MAX_NEWTON_ROUNDS):
            previous, cost = cost, _newton_step(cost, orders, costs)
            if bool(((cost - previous).abs() <= tolerance).all()):
                break
    if torch.is_grad_enabled():
        cost = _newton_step(cost, orders, costs)
    if costs.has_impact:
        _check_affordable(cost)
    left = (1.0 - cost)[:, None]
    weights = _weights_after(left, orders)
    trade = (left * weights).sub_(orders.holdings)
    turnover = 0.5 * trade.abs().sum(dim=1)
    return Fill(cost, weights, turnover)


def _check_affordable(cost: Float[Tensor, " B"]) -> None:
    highest = float(cost.detach().max())
    if not highest <= MAX_COST:
        raise SimulatorError(
            f"simulator step: a trade costs {highest:.3g} of wealth, expected at most {MAX_COST}; "
            "the account is too large for the market: lower costs.capital or impact_coefficient"
        )


def _newton_step(
    cost: Float[Tensor, " B"], orders: Orders, costs: TradeCosts
) -> Float[Tensor, " B"]:
    """Return c + (cost of the trade - c) / (1 + d cost / d m); differentiable in the orders."""
    left = (1.0 - cost)[:, None]
    market = (orders.wealth, orders.dollar_volume)
    trade = (left * _weights_after(left, orders)).sub_(orders.holdings)
    paid = costs.cost(trade, *market)
    with torch.no_grad():
        marginal = costs.slopes(trade, *market).mul_(_value_slopes(left, orders))
        slope = 1.0 + marginal.sum(dim=1)
    return cost + (paid - cost) / slope


def _weights_after(left: Float[Tensor, "B 1"], orders: Orders) -> Float[Tensor, "B A"]:
    """Return the weights after a trade that leaves the share `left` of wealth."""
    if orders.frozen is None:
        return orders.targets
    by_sector, overall, _, _ = _scales(left, orders.frozen)
    scale = (overall * by_sector) @ orders.frozen.spread
    return scale * orders.targets + orders.frozen.values / left


def _value_slopes(left: Float[Tensor, "B 1"], orders: Orders) -> Float[Tensor, "B A"]:
    """Return how fast each value after the trade grows with the share of wealth left."""
    if orders.frozen is None:
        return orders.targets
    by_sector, overall, sector_slope, overall_slope = _scales(left, orders.frozen)
    slope = overall_slope * by_sector + overall * sector_slope
    return ((overall * by_sector + left * slope) @ orders.frozen.spread) * orders.targets


def _scales(
    left: Float[Tensor, "B 1"], frozen: Frozen
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B 1"], Float[Tensor, "B S"], Float[Tensor, "B 1"]]:
    """Return what part of the targets is filled, by sector and overall, and both slopes in `left`.

    Frozen holdings come first; the other fills of a sector shrink to what its limit leaves, then
    all fills shrink to what the limit of the whole leaves.
    """
    wanted, held = frozen.sector_targets, frozen.sector_values
    by_sector, sector_slope = _scale(frozen.sector_limits, held, wanted, left)
    filled = (by_sector * wanted).sum(dim=1, keepdim=True)
    total_held = held.sum(dim=1, keepdim=True)
    overall, slope = _scale(frozen.invested_limit[:, None], total_held, filled, left)
    is_bound = (overall > 0) & (overall < 1)
    drift = (sector_slope * wanted).sum(dim=1, keepdim=True) / _nonzero(filled)
    return by_sector, overall, sector_slope, torch.where(is_bound, slope - overall * drift, 0.0)


def _scale(
    limit: Tensor, held: Tensor, wanted: Tensor, left: Float[Tensor, "B 1"]
) -> tuple[Tensor, Tensor]:
    """Return clamp((limit - held / left) / wanted, 0, 1) and its slope in `left`."""
    safe = _nonzero(wanted)
    raw = torch.where(wanted > 0, (limit - held / left) / safe, 1.0)
    is_bound = (raw > 0) & (raw < 1)
    return raw.clamp(0.0, 1.0), torch.where(is_bound, held / (left * left * safe), 0.0)


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, 1.0)
