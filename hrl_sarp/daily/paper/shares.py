"""Whole shares of a paper account: what a night makes of them, and how orders fill at the open.

The simulator knows values alone. A value that exceeds shares x open is a dividend, which becomes
cash at the open. Two things are approximate. The simulator sells the dividend, so that it pays the
sell cost of its amount. And it has earned the day's move from open to close backwards: total
returns are known from close to close, so that the amount is the declared one x open / close.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hrl_sarp.daily.decision.orders import SMALLEST_SHARES
from hrl_sarp.daily.paper.known import Bar
from hrl_sarp.daily.portfolio import by_stock
from hrl_sarp.envs.two_clocks import TwoClocks

Event = dict[str, Any]

LARGEST_PAYOUT = 0.25
"""Share of a holding up to which a night without a declared dividend is taken for one."""
PAYOUT_SLACK = 1.25
"""Multiples of a declared dividend up to which a payout is taken for it."""
LOWEST_PAYOUT = -0.02
"""Share of a holding by which its value may fall short of shares x open, by rounded adjustments."""
ROUNDED = 5e-4
"""Share of a holding up to which a payout without a declared dividend is rounding."""
NAMED_ROUNDING = 1e-6
"""Share of wealth from which the sum of such roundings is an event."""
NEGLIGIBLE = 1e-12
"""Share of wealth by which the cash may miss what is bought."""


@dataclass(frozen=True)
class Opening:
    """An account just before its trade at the open. Amounts are in currency.

    Examples:
        >>> none = frozenset()
        >>> Opening(100.0, 1.0, {"A": 60.0}, {"A": 6.0}, {"A": 10.0}, none, none).cash
        40.0
    """

    wealth: float
    growth: float
    """Over the wealth at the close before."""
    values: Mapping[str, float]
    """Of what is held, over night with dividends."""
    shares: Mapping[str, float]
    """After splits."""
    prices: Mapping[str, float]
    """Opens of the stocks with a bar."""
    fillable: frozenset[str]
    """Stocks whose orders can be filled."""
    gone: frozenset[str]
    """Stocks that ended; the simulator sells them."""

    @property
    def cash(self) -> float:
        """Wealth that is not in stocks."""
        return self.wealth - math.fsum(self.values.values())


def after_night(
    shares: Mapping[str, float],
    values: Mapping[str, float],
    prices: Mapping[str, float],
    bars: Mapping[str, Bar],
    *,
    is_whole: bool,
) -> tuple[dict[str, float], list[Event]]:
    """Multiply shares by splits, and say what a night earned beside the price.

    Args:
        shares: held at the close before.
        values: of each holding at the open, with dividends, in currency.
        prices: opens of the stocks that can be traded.
        bars: of the day.
        is_whole: the account holds whole shares, whose dividends become cash.

    Returns:
        Shares after splits, and what happened. A value that no dividend explains is a split or a
        false price: shares are made to fit it, and the event says so.
    """
    after, events, rounding = dict(shares), list[Event](), 0.0
    for symbol, held in shares.items():
        bar = bars.get(symbol)
        if bar is None:
            continue
        if bar.split not in (0.0, 1.0):
            after[symbol] = held * bar.split
            text = f"{bar.split:g} new shares for an old one: {held:g} became {after[symbol]:g}"
            events.append(event("split", symbol, text))
        if symbol not in prices:
            continue
        worth = after[symbol] * prices[symbol]
        payout, declared = values[symbol] - worth, held * bar.dividend
        most = max(LARGEST_PAYOUT * worth, PAYOUT_SLACK * declared)
        if not LOWEST_PAYOUT * worth <= payout <= most:
            fitting = values[symbol] / prices[symbol]
            text = (
                f"{after[symbol]:g} shares at {prices[symbol]:g} are {worth:.2f}, but the data "
                f"make them {values[symbol]:.2f} over night: taken for {fitting:g} shares; look "
                "at the prices of the day (an undeclared split, another currency)"
            )
            events.append(event("price_jump", symbol, text))
            after[symbol] = fitting
        elif declared > 0 or abs(payout) > ROUNDED * worth:
            where = "as cash" if is_whole else "which stay in the stock"
            how = f"declared {declared:.2f}" if declared > 0 else "by the adjusted prices alone"
            text = f"{payout:.2f} of dividends for {held:g} shares ({how}), {where}"
            events.append(event("dividend", symbol, text))
        else:
            rounding += payout
    if is_whole and abs(rounding) > NAMED_ROUNDING * math.fsum(values.values()):
        text = f"{rounding:.2f} of cash: the adjusted prices of all holdings are rounded"
        events.append(event("rounding", "", text))
    return after, events


def plan_fills(
    clocks: TwoClocks, opening: Opening, orders: Sequence[Mapping[str, Any]], lot_size: int
) -> tuple[Float[Tensor, "1 A"], dict[str, float], list[Event]]:
    """Fill orders of whole lots as far as the cash at the open pays them.

    Args:
        clocks: of the account, before the session.
        opening: just before the trade.
        orders: `symbol`, `side`, `shares` after splits, and `is_all` for a sale of everything.
        lot_size: buys are reduced by multiples of it.

    Returns:
        Target weights that make the simulator do exactly these trades and pay for them; shares
        after the fills; what was reduced.
    """
    buys, sells, events = dict[str, float](), dict[str, float](), list[Event]()
    for order in orders:
        symbol, held = order["symbol"], opening.shares.get(order["symbol"], 0.0)
        if symbol in opening.fillable and order["side"] == "sell":
            sells[symbol] = held if order["is_all"] else min(order["shares"], held)
        elif symbol in opening.fillable:
            buys[symbol] = order["shares"]
    while True:
        after = {
            s: opening.shares.get(s, 0.0) + buys.get(s, 0.0) - sells.get(s, 0.0)
            for s in {*opening.shares, *buys} - opening.gone
        }
        after = {s: n for s, n in sorted(after.items()) if n > SMALLEST_SHARES}
        trades, paid = _trades(clocks, opening, after)
        left = opening.cash - opening.wealth * (math.fsum(trades.values()) + paid)
        if left >= -NEGLIGIBLE * opening.wealth or not buys:
            break
        symbol = max(buys, key=lambda s: (buys[s] * opening.prices[s], s))
        lots = math.ceil(-left / (lot_size * opening.prices[symbol]))
        fewer = max(buys[symbol] - lots * lot_size, 0.0)
        text = f"{fewer:g} of {buys[symbol]:g} shares bought: the cash at the open pays no more"
        events.append(event("reduced", symbol, text))
        buys[symbol] = fewer
        if not fewer:
            del buys[symbol]
    weights = {
        symbol: max((opening.values.get(symbol, 0.0) / opening.wealth + trade) / (1.0 - paid), 0.0)
        for symbol, trade in trades.items()
    }
    return by_stock(clocks.tensors, weights), after, events


def event(kind: str, symbol: str, text: str) -> Event:
    """Say what happened to a holding or an order."""
    return {"kind": kind, "symbol": symbol, "text": text}


def _trades(
    clocks: TwoClocks, opening: Opening, after: Mapping[str, float]
) -> tuple[dict[str, float], float]:
    """Return signed trades as shares of wealth at the open, and what they cost together.

    A stock without an order trades what its value exceeds its shares by: its dividend.
    """
    trades = {}
    for symbol in {*opening.values, *after}:
        value = opening.values.get(symbol, 0.0)
        if symbol in opening.gone:
            trades[symbol] = -value / opening.wealth
        elif symbol in opening.fillable:
            worth = after.get(symbol, 0.0) * opening.prices[symbol]
            trades[symbol] = (worth - value) / opening.wealth
        else:
            trades[symbol] = 0.0
    simulator, tensors = clocks.simulator, clocks.tensors
    signed = by_stock(tensors, trades)
    wealth = simulator.state.wealth * opening.growth
    volume = tensors.dollar_volume[clocks.day + 1]
    return trades, float(simulator.costs.cost(signed, wealth, volume))
