"""Books one session of a paper account and decides at its close.

The trade and all returns come from one step of the clocks that backtests use. Accounts of fractions
hold the simulator's weights exactly; whole shares are put into weights that buy exactly them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hrl_sarp.contracts import StepResult
from hrl_sarp.daily.decision.decide import account_clocks, decide
from hrl_sarp.daily.decision.orders import make_orders
from hrl_sarp.daily.paper.account import PaperDay, Terms
from hrl_sarp.daily.paper.known import KnownDay, bars_of
from hrl_sarp.daily.paper.shares import Event, Opening, after_night, event, plan_fills
from hrl_sarp.daily.portfolio import Standing, by_stock, by_symbol
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.errors import SimulatorError
from hrl_sarp.run.session import one_thread

SMALLEST_FILL = 1e-12
"""Share of wealth below which a trade is rounding."""
SAME_CLOSE = 1e-9
"""Relative difference of two closes that are the same."""
EXACT = 1e-9
"""Share of wealth by which planned and booked trades may differ."""


def first_day(known: KnownDay, terms: Terms, warnings: Sequence[str] = ()) -> PaperDay:
    """Begin an account in cash at a close, with its first decision.

    Args:
        known: the session.
        terms: of the account.
        warnings: of the checks of the session.
    """
    standing = Standing(known.day, terms.capital, {})
    day = PaperDay(
        day=known.day,
        net_return=0.0,
        gross_return=0.0,
        cost=0.0,
        turnover=0.0,
        wealth=terms.capital,
        cash=terms.capital,
        benchmark_return=0.0,
        standing=standing,
        holdings={},
        fills=(),
        events=(),
        decision={},
    )
    return decide_after(known, day, terms, warnings)


@torch.inference_mode()
@one_thread()
def next_day(
    known: KnownDay, before: PaperDay, terms: Terms, warnings: Sequence[str] = ()
) -> PaperDay:
    """Fill the pending decision at the open of a session, book the session, and decide.

    Args:
        known: the session after that of `before`.
        before: the last day that is booked.
        terms: of the account.
        warnings: of the checks of the session.

    Raises:
        DataError: if a stock that is held is not in the data.
        SimulatorError: if the booked trades are not those that were planned.
    """
    clocks = account_clocks(known.view.tensors, _config(known), before.standing)
    opening, events = _opening(known, before, is_whole=terms.lot_size is not None)
    orders = _split_orders(known, before.decision["orders"])
    if terms.lot_size is None:
        target, shares = by_stock(clocks.tensors, before.decision["targets"]), None
    else:
        target, shares, reduced = plan_fills(clocks, opening, orders, terms.lot_size)
        events += reduced
    result = clocks.book_day(target)
    if shares is not None and not torch.allclose(result.weights_after, target, 0.0, EXACT):
        worst = float((result.weights_after - target).abs().max())
        raise SimulatorError(
            f"paper account on {known.day}: fills of whole shares were booked {worst:.3g} of "
            "wealth away from the plan; nothing of the day is stored"
        )
    wealth = before.wealth * (1.0 + float(result.net_return))
    standing = Standing.of(clocks, wealth, before.standing.memory.goal_day)
    day = PaperDay(
        day=known.day,
        net_return=float(result.net_return),
        gross_return=float(result.gross_return),
        cost=float(result.cost),
        turnover=float(result.turnover),
        wealth=wealth,
        cash=wealth * float(clocks.simulator.state.cash),
        benchmark_return=float(known.view.market.benchmark_return[known.row]),
        standing=standing,
        holdings=_holdings(known, before, standing, shares),
        fills=tuple(_fills(result, opening, clocks, shares)),
        events=(*_changed_data(known, before), *events, *_not_filled(opening, orders)),
        decision={},
    )
    return decide_after(known, day, terms, warnings)


def decide_after(
    known: KnownDay, day: PaperDay, terms: Terms, warnings: Sequence[str] = ()
) -> PaperDay:
    """Decide at the close of a session.

    Args:
        known: the session.
        day: what was booked of it.
        terms: of the account.
        warnings: of the checks of the session.

    Returns:
        The day with its decision: `policy`, `targets` (symbol -> share of wealth after costs),
        `orders` (shares before splits of the coming night; `is_all` for a sale of everything),
        `exposure`, `moved_by_limits`, `is_new_goal`, `estimated_cost`, `rounding` and `warnings`.
    """
    clocks = account_clocks(known.view.tensors, _config(known), day.standing)
    decided = decide(known.view.policy, clocks, day.standing)
    config = _config(known)
    orders = make_orders(
        day.standing,
        {symbol: holding["shares"] for symbol, holding in day.holdings.items()},
        decided.targets,
        known.closes,
        known.volumes,
        config.market_profile.costs,
        terms.lot_size,
        config.risk.stock_cap,
    )
    decision = {
        "policy": decided.policy,
        "targets": decided.targets,
        "orders": [
            {**vars(order), "value": order.value, "is_all": order.symbol not in decided.targets}
            for order in orders.orders
        ],
        "exposure": decided.exposure,
        "moved_by_limits": decided.moved,
        "is_new_goal": decided.is_new_goal,
        "estimated_cost": orders.cost,
        "rounding": orders.rounding,
        "warnings": list(warnings),
    }
    return replace(day, standing=replace(day.standing, memory=decided.memory), decision=decision)


def _opening(known: KnownDay, before: PaperDay, *, is_whole: bool) -> tuple[Opening, list[Event]]:
    """Let the simulator step without orders, and take the hours after the open out again.

    Returns the account just before its trade, and what happened to its holdings over night.
    """
    tensors, symbols = known.view.tensors, known.view.market.symbols
    clocks = account_clocks(tensors, _config(known), before.standing)
    simulator, hold = clocks.simulator, torch.ones(1, dtype=torch.bool)
    night = clocks.book_day(torch.zeros_like(simulator.state.weights), hold=hold)
    hours = tensors.intraday[night.day]
    earned = (night.weights_after * hours).sum(dim=1)
    growth = float((1.0 + night.gross_return) / (1.0 + earned))
    wealth = before.wealth * growth
    worth = by_symbol(tensors, night.weights_before)
    values = {s: wealth * worth.get(s, 0.0) for s in before.standing.weights}
    gone = frozenset(s for s in values if _is_gone(known, symbols.index(s)))
    marks = zip(symbols, simulator.fillable(night.day)[0].tolist(), strict=True)
    fillable = frozenset(symbol for symbol, can_fill in marks if can_fill)
    moves = dict(zip(symbols, hours[0].tolist(), strict=True))
    prices = {s: close / (1.0 + moves[s]) for s, close in known.closes.items()}
    held = {s: h["shares"] for s, h in before.holdings.items() if s not in gone}
    traded = {s: price for s, price in prices.items() if s in fillable}
    shares, events = after_night(held, values, traded, known.bars, is_whole=is_whole)
    kept = 1.0 + float(simulator.costs.delisting_return)
    events += [
        event(
            "delisted", s, f"no bar for {known.view.todays[0].halted_at_end + 1} sessions: the "
            f"holding became cash at its last close x {kept:g}, which is {values[s]:.2f} before "
            "the sell cost"
        )
        for s in sorted(gone)
    ]  # fmt: skip
    events += [
        event("halted", s, "no bar: the holding stays until there is one")
        for s in sorted(held)
        if s not in prices and known.view.market.tradable[known.row - 1, symbols.index(s)]
    ]
    return Opening(wealth, growth, values, shares, prices, fillable, gone), events


def _is_gone(known: KnownDay, column: int) -> bool:
    listed = known.view.tensors.listed
    return bool(listed[known.row - 1, column] & ~listed[known.row, column])


def _split_orders(known: KnownDay, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Multiply the shares of pending orders by the splits of the day."""
    factor = {s: bar.split for s, bar in known.bars.items() if bar.split not in (0.0, 1.0)}
    return [
        {**order, "shares": order["shares"] * factor.get(order["symbol"], 1.0)} for order in orders
    ]


def _not_filled(opening: Opening, orders: list[dict[str, Any]]) -> list[Event]:
    return [
        event("cancelled", order["symbol"], f"{order['side']} of {order['shares']:g} shares: "
              "the stock cannot be traded at the open")
        for order in orders
        if order["symbol"] not in opening.fillable and order["symbol"] not in opening.gone
    ]  # fmt: skip


def _changed_data(known: KnownDay, before: PaperDay) -> list[Event]:
    """Name holdings whose close, at which they were booked, is another one in the data now."""
    now = bars_of(known.view.todays[0].raw, before.day)
    events = []
    for symbol, holding in before.holdings.items():
        bar = now.get(symbol)
        if bar is not None and not math.isclose(bar.close, holding["close"], rel_tol=SAME_CLOSE):
            text = f"close of {before.day} was {holding['close']:g} when booked, is {bar.close:g}"
            events.append(event("data_changed", symbol, text))
    return events


def _fills(
    result: StepResult, opening: Opening, clocks: TwoClocks, shares: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """List the trades at the open, the largest first; of whole shares without dividends."""
    if shares is None:
        traded = result.weights_after * (1.0 - result.cost)[:, None] - result.weights_before
        moves = {
            symbol: weight * opening.wealth / opening.prices[symbol]
            for symbol, weight in by_symbol(clocks.tensors, traded).items()
            if symbol in opening.fillable and abs(weight) > SMALLEST_FILL
        }
    else:
        held = {s: n for s, n in opening.shares.items() if s not in opening.gone}
        moves = {s: shares.get(s, 0.0) - held.get(s, 0.0) for s in {*held, *shares}}
    found = [
        {
            "symbol": symbol,
            "side": "buy" if n > 0 else "sell",
            "shares": abs(n),
            "price": opening.prices[symbol],
            "value": abs(n) * opening.prices[symbol],
        }
        for symbol, n in moves.items()
        if n != 0
    ]
    return sorted(found, key=lambda fill: (-fill["value"], fill["symbol"]))


def _holdings(
    known: KnownDay, before: PaperDay, standing: Standing, shares: Mapping[str, float] | None
) -> dict[str, dict[str, float]]:
    """Say what is held at the close; a stock without a bar keeps its last close."""
    found = {}
    for symbol, weight in sorted(standing.weights.items()):
        last = before.holdings.get(symbol, {}).get("close", math.nan)
        close, value = known.closes.get(symbol, last), weight * standing.wealth
        n = value / close if shares is None else shares[symbol]
        found[symbol] = {"shares": n, "close": close, "value": value}
    return found


def _config(known: KnownDay) -> Any:
    return known.view.todays[0].run.config
