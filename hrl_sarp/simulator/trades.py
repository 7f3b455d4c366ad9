"""The trade at the open: its cost, and the weights that it reaches.

Target weights are shares of the wealth after costs, and the costs depend on the trade. With
m = 1 - c the share of wealth left, the cost c solves c = cost(values after(m) - values before).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.errors import SimulatorError
from hrl_sarp.simulator.kernels import COST_ROUNDING, MAX_COST, MAX_NEWTON_ROUNDS

BPS = 1e-4


class TradeCosts:
    """Costs of trades, which are given as signed shares of wealth: buys above 0, sells below.

    A buy and a sell cost their rates plus slippage. Market impact adds
    coefficient x trade x sqrt(trade / dollar volume), or 0 where the day's volume is unknown (0).

    Args:
        config: one for all rows, or one for each row.
        dtype: of the trades; only rates that differ by row need it.
        device: of the trades; only rates that differ by row need it.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> costs = TradeCosts(load_config(market="sample").market_profile.costs)
        >>> trade = torch.tensor([[0.5, -0.5]])  # half of wealth from one stock to the other
        >>> round(float(costs.cost(trade, torch.ones(1), None)), 6)
        0.0006
    """

    def __init__(
        self,
        config: CostConfig | Sequence[CostConfig],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        rows = [config] if isinstance(config, CostConfig) else list(config)
        are_alike = all(row == rows[0] for row in rows)

        def rate(of: Callable[[CostConfig], float]) -> float | Tensor:
            values = [of(row) for row in rows]
            return values[0] if are_alike else torch.tensor(values, dtype=dtype, device=device)

        self.has_impact = any(row.impact_coefficient > 0 for row in rows)
        """Whether costs depend on wealth and dollar volume."""
        # buy x max(v, 0) + sell x max(-v, 0) = even |v| + odd v, with slippage in both rates
        self._even = rate(lambda row: 0.5 * (_side(row, row.buy_bps) + _side(row, row.sell_bps)))
        self._odd = rate(lambda row: 0.5 * (_side(row, row.buy_bps) - _side(row, row.sell_bps)))
        self._is_odd = any(row.buy_bps != row.sell_bps for row in rows)
        self._impact = rate(lambda row: row.impact_coefficient)
        self._capital = rate(lambda row: row.capital)
        self.delisting_return = rate(lambda row: row.delisting_return)
        """Simple return of a holding on the night in which its stock ceases to exist."""

    def of_rows(self, rows: Int[Tensor, " n"]) -> "TradeCosts":
        """Return the costs of some rows, in their order.

        Args:
            rows: indices.

        Returns:
            The same object's rates, row by row.
        """
        chosen = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(chosen, name, value[rows])
        return chosen

    def table(self, dtype: torch.dtype) -> Float[np.ndarray, "R 5"]:
        """Return the rates as numbers for the compiled kernels.

        Args:
            dtype: of the numbers.

        Returns:
            One row if all portfolios have the same costs, else one for each: the mean of both
            sides, half their difference, impact, capital and the return of a delisting.
        """
        rates = (self._even, self._odd, self._impact, self._capital, self.delisting_return)
        columns = [torch.as_tensor(rate, dtype=dtype, device="cpu").view(-1) for rate in rates]
        return torch.stack(columns, dim=1).numpy()

    def cost(
        self,
        trade_values: Float[Tensor, "B A"],
        wealth: Float[Tensor, " B"],
        dollar_volume: Float[Tensor, "B A"] | None,
    ) -> Float[Tensor, " B"]:
        """Return the cost of all trades of a row, as a share of wealth. It is convex in the trades.

        Args:
            trade_values: signed trades as shares of wealth.
            wealth: in units of the wealth at reset (which is `capital`).
            dollar_volume: of the day, in currency; only the impact needs it.

        Returns:
            Share of wealth of each row.
        """
        total = self._even * trade_values.abs().sum(dim=1)
        if self._is_odd:
            total = total + self._odd * trade_values.sum(dim=1)
        if self.has_impact:
            root = self._impact_scale(wealth, dollar_volume)
            # pow(1.5) and not size x sqrt(size): its gradient at 0 is 0, not NaN
            total = total + (root * trade_values.abs().pow(1.5)).sum(dim=1)
        return total

    def slopes(
        self,
        trade_values: Float[Tensor, "B A"],
        wealth: Float[Tensor, " B"],
        dollar_volume: Float[Tensor, "B A"] | None,
    ) -> Float[Tensor, "B A"]:
        """Return the derivative of `cost` in each trade; at 0 the mean of both sides.

        Args:
            trade_values: signed trades as shares of wealth.
            wealth: in units of the wealth at reset.
            dollar_volume: of the day, in currency; only the impact needs it.

        Returns:
            One slope a stock.
        """
        side = trade_values.sign()
        marginal = side * _column(self._even)
        if self._is_odd:
            marginal += _column(self._odd)
        if self.has_impact:
            root = self._impact_scale(wealth, dollar_volume)
            marginal += 1.5 * root * trade_values.abs().sqrt() * side
        return marginal

    def _impact_scale(
        self, wealth: Float[Tensor, " B"], dollar_volume: Float[Tensor, "B A"] | None
    ) -> Float[Tensor, "B A"]:
        """Return r with impact = r |v|^1.5, where v is a share of wealth."""
        if dollar_volume is None:
            raise ValueError("square-root impact needs the dollar volume of the day; found None")
        known = dollar_volume > 0
        safe = torch.where(known, dollar_volume, 1.0)
        root = (wealth.clamp_min(0.0)[:, None] * _column(self._capital) / safe).sqrt()
        return torch.where(known, _column(self._impact) * root, 0.0)


def _side(config: CostConfig, rate_bps: float) -> float:
    return (rate_bps + config.slippage_bps) * BPS


def _column(rate: float | Tensor) -> float | Tensor:
    return rate[:, None] if isinstance(rate, Tensor) else rate


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
    """1 where a stock belongs to a sector. A product with it turns sector rows into stock rows."""


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
    """Trade to the targets and pay the costs, exactly and differentiably.

    Newton's method starts at c = 0 and runs without gradient until c stays the same. It needs few
    rounds, because the cost is convex. One more step with the slope detached carries the exact
    gradient, by the implicit function theorem.
    """
    tolerance = COST_ROUNDING * torch.finfo(orders.holdings.dtype).eps
    with torch.no_grad():
        cost = torch.zeros_like(orders.wealth)
        for _ in range(MAX_NEWTON_ROUNDS):
            previous, cost = cost, _newton_step(cost, orders, costs)
            if bool(((cost - previous).abs() <= tolerance).all()):
                break
    if torch.is_grad_enabled():
        cost = _newton_step(cost, orders, costs)
    if costs.has_impact and not (highest := float(cost.detach().max())) <= MAX_COST:
        raise SimulatorError(
            f"simulator step: a trade costs {highest:.3g} of wealth, expected at most {MAX_COST}; "
            "the account is too large for the market: lower costs.capital or impact_coefficient"
        )
    left = (1.0 - cost)[:, None]
    weights = _weights_after(left, orders)
    trade = (left * weights).sub_(orders.holdings)
    turnover = 0.5 * trade.abs().sum(dim=1)
    return Fill(cost, weights, turnover)


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

    Frozen holdings use up limits first. The other orders of a sector shrink to what its limit
    leaves. Then all orders shrink to what the limit of the whole portfolio leaves.
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
