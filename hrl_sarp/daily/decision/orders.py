"""Turns target weights into orders of shares, with their estimated costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.daily.portfolio import Standing
from hrl_sarp.simulator.trades import TradeCosts

SMALLEST_SHARES = 1e-9
"""Fractions of a share below this are rounding, not orders."""


@dataclass(frozen=True)
class Order:
    """One order for the next open.

    Examples:
        >>> Order("A", "buy", 10.0, 20.0, 0.12).value
        200.0
    """

    symbol: str
    side: str
    """buy or sell."""
    shares: float
    """Above 0."""
    close: float
    """Price as traded at the close of the decision, at which the order is estimated."""
    cost: float
    """Estimated: commission, slippage and, where it is on, market impact, in currency."""

    @property
    def value(self) -> float:
        """Shares at the close, in currency."""
        return self.shares * self.close


@dataclass(frozen=True)
class OrderList:
    """The orders of a day, and the account that they should leave.

    Examples:
        >>> OrderList((), {}, 100.0, 0.0, 1.0).orders
        ()
    """

    orders: tuple[Order, ...]
    """The largest first."""
    shares: dict[str, float]
    """Held after all fills."""
    cash: float
    """In currency, after all fills at the closes of the decision, and after their costs."""
    rounding: float
    """Share of wealth that whole lots put elsewhere than the target weights."""
    wealth: float
    """At the close of the decision, in currency."""

    @property
    def cost(self) -> float:
        """Sum of the estimated costs, in currency."""
        return math.fsum(order.cost for order in self.orders)


def make_orders(
    standing: Standing,
    held: Mapping[str, float],
    targets: Mapping[str, float],
    closes: Mapping[str, float],
    volumes: Mapping[str, float],
    costs: CostConfig,
    lot_size: int | None,
    stock_cap: float,
) -> OrderList:
    """Turn targets into orders of whole lots, or of fractions of a share.

    Buys are whole lots, and a sale leaves whole lots. Both round down first. What is left of the
    invested target buys one more lot each of the stocks that miss most of theirs, as long as no
    stock exceeds its cap. A stock without a bar gets no order.

    Args:
        standing: of the account at the close.
        held: symbol -> shares.
        targets: symbol -> share of wealth after costs.
        closes: symbol -> price as traded, of the stocks with a bar today.
        volumes: symbol -> shares x price that were traded today; 0 or absent where unknown.
        costs: of the market.
        lot_size: shares of a buy are a multiple of it; None trades fractions.
        stock_cap: largest share of wealth in one stock.

    Returns:
        Orders with their costs.
    """
    wealth = standing.wealth
    wanted = {s: targets.get(s, 0.0) for s in {*targets, *held} if s in closes}
    trade = {s: w - held.get(s, 0.0) * closes[s] / wealth for s, w in wanted.items()}
    left = wealth - math.fsum(_costs(trade, wealth, volumes, costs).values())
    exact = {s: w * left / closes[s] for s, w in wanted.items()}
    if lot_size is None:
        after = exact
    else:
        caps = {s: stock_cap * left / closes[s] for s in wanted}
        after = _whole_lots(exact, held, closes, caps, lot_size)
    moves = {s: n - held.get(s, 0.0) for s, n in after.items()}
    moves = {s: n for s, n in moves.items() if abs(n) > SMALLEST_SHARES}
    paid = _costs({s: n * closes[s] / wealth for s, n in moves.items()}, wealth, volumes, costs)
    orders = [
        Order(s, "buy" if n > 0 else "sell", abs(n), closes[s], paid[s]) for s, n in moves.items()
    ]
    orders.sort(key=lambda order: (-order.value, order.symbol))
    spent = math.fsum(n * closes[s] for s, n in moves.items())
    off = math.fsum(abs(after[s] - exact[s]) * closes[s] for s in exact) / wealth
    shares = {s: n for s, n in {**held, **after}.items() if n > SMALLEST_SHARES}
    cash = standing.cash - spent - math.fsum(paid.values())
    return OrderList(tuple(orders), dict(sorted(shares.items())), cash, 0.5 * off, wealth)


def _whole_lots(
    exact: Mapping[str, float],
    held: Mapping[str, float],
    closes: Mapping[str, float],
    caps: Mapping[str, float],
    lot: int,
) -> dict[str, float]:
    """Buy whole lots; a sale leaves whole lots, so that it also sells odd shares."""
    after: dict[str, float] = {}
    for symbol, wanted in exact.items():
        now = held.get(symbol, 0.0)
        bought = math.floor((wanted - now) / lot + SMALLEST_SHARES) * lot
        after[symbol] = now + bought if bought >= 0 else float(math.floor(wanted / lot) * lot)
    room = math.fsum((exact[s] - after[s]) * closes[s] for s in exact)
    missing = {s: (exact[s] - after[s]) / lot for s in exact if exact[s] > 0}
    for symbol in sorted(missing, key=lambda s: (-missing[s], s)):
        now = held.get(symbol, 0.0)
        # a sale is undone as far as what was held: beyond it, it would buy a part of a lot
        more = after[symbol] + lot if after[symbol] >= now else min(after[symbol] + lot, now)
        price = (more - after[symbol]) * closes[symbol]
        if price <= room and (more <= caps[symbol] or more <= now):
            after[symbol] = more
            room -= price
    return after


def _costs(
    trade: Mapping[str, float], wealth: float, volumes: Mapping[str, float], costs: CostConfig
) -> dict[str, float]:
    """Return what each trade costs in currency; trades are signed shares of wealth."""
    if not trade:
        return {}
    rates = TradeCosts(costs.model_copy(update={"capital": wealth}), torch.float64)
    moved = torch.tensor([[value] for value in trade.values()], dtype=torch.float64)
    volume = torch.tensor([[volumes.get(s, 0.0)] for s in trade], dtype=torch.float64)
    paid = rates.cost(moved, torch.ones(len(trade), dtype=torch.float64), volume)
    return dict(zip(trade, (wealth * paid).tolist(), strict=True))
