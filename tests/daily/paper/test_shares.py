"""Whole shares over a night and at an open, worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrl_sarp.contracts import Market
from hrl_sarp.daily.paper.known import Bar
from hrl_sarp.daily.paper.shares import Opening, after_night, plan_fills
from hrl_sarp.daily.portfolio import Standing
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.market.tensors import MarketTensors
from tests import factories

BUY, SELL = 13e-4, 9e-4  # factories.cost_config(): 8 + 5 and 4 + 5 bps
NOTHING: frozenset[str] = frozenset()


def night(held: float, value: float, price: float, bar: Bar, *, is_whole: bool = True):
    after, events = after_night(
        {"A": float(held)}, {"A": value}, {"A": price}, {"A": bar}, is_whole=is_whole
    )
    return after["A"], [(event["kind"], event["text"]) for event in events]


def test_a_declared_dividend_becomes_cash() -> None:
    # 10 shares at 20, a dividend of 0.5: the data make 10 x 20.5 of them
    shares, ((kind, text),) = night(10, 205.0, 20.0, Bar(21.0, 1.0, 0.5))
    assert (shares, kind) == (10, "dividend")
    assert text == "5.00 of dividends for 10 shares (declared 5.00), as cash"


def test_the_dividend_of_fractions_stays_in_the_stock() -> None:
    _, ((kind, text),) = night(2.5, 51.25, 20.0, Bar(21.0, 1.0, 0.5), is_whole=False)
    assert (kind, "stay in the stock" in text) == ("dividend", True)


def test_a_split_multiplies_shares() -> None:
    shares, ((kind, text),) = night(10, 200.0, 10.0, Bar(10.5, 2.0, 0.0))
    assert (shares, kind) == (20, "split")
    assert "10 became 20" in text


def test_a_split_with_a_dividend_for_the_old_shares() -> None:
    # 10 old shares get 1 each, then 3 for 1: 30 shares at 10, and 10 of cash
    shares, events = night(10, 310.0, 10.0, Bar(10.5, 3.0, 1.0))
    assert shares == 30
    assert [kind for kind, _ in events] == ["split", "dividend"]
    assert events[1][1].startswith("10.00 of dividends for 10 shares")


@pytest.mark.parametrize("price", [10.0, 200.0, 400.0])
def test_a_price_that_no_dividend_explains_changes_shares_and_is_named(price: float) -> None:
    # worth 200 by the returns: an undeclared 2 for 1, a unit of a tenth, a reverse split
    shares, ((kind, text),) = night(10, 200.0, price, Bar(price, 1.0, 0.0))
    assert (shares * price, kind) == (pytest.approx(200.0), "price_jump")
    assert "look at the prices" in text


def test_rounded_adjustments_are_summed_and_named() -> None:
    shares, ((kind, text),) = night(10, 200.02, 20.0, Bar(20.0, 1.0, 0.0))
    assert (shares, kind, text[:12]) == (10, "rounding", "0.02 of cash")


def test_nothing_happens_to_a_stock_without_a_bar() -> None:
    assert after_night({"A": 5.0}, {"A": 50.0}, {}, {}, is_whole=True) == ({"A": 5.0}, [])


def flat_market(n_assets: int = 3) -> Market:
    flat = np.zeros((4, n_assets))
    return factories.market_with(flat, flat, np.arange(n_assets))


def clocks_of(market: Market, weights: dict[str, float], wealth: float) -> TwoClocks:
    tensors = MarketTensors(market, torch.float64, "cpu")
    costs = factories.cost_config(capital=wealth)
    risk = factories.risk_config(sector_cap=1.0)
    day = market.dates[1].item()
    return Standing(day, wealth, weights).clocks(TwoClocks(tensors, costs, risk, n_envs=1))


def order(symbol: str, side: str, shares: float, *, is_all: bool = False) -> dict[str, object]:
    return {"symbol": symbol, "side": side, "shares": shares, "is_all": is_all}


def test_fills_are_the_orders_and_pay_their_costs() -> None:
    market = flat_market()
    first, second, _ = market.symbols
    clocks = clocks_of(market, {first: 0.4}, 1000.0)
    prices = dict.fromkeys(market.symbols, 10.0)
    opening = Opening(
        1000.0, 1.0, {first: 400.0}, {first: 40.0}, prices, frozenset(prices), NOTHING
    )
    orders = [order(first, "sell", 15.0), order(second, "buy", 30.0)]
    target, shares, events = plan_fills(clocks, opening, orders, 1)
    assert (shares, events) == ({first: 25.0, second: 30.0}, [])
    result = clocks.book_day(target)
    cost = (150 * SELL + 300 * BUY) / 1000
    assert float(result.cost) == pytest.approx(cost, rel=1e-12)
    left = 1000 * (1 - cost)
    held = result.weights_after[0].numpy() * left
    assert held == pytest.approx([250.0, 300.0, 0.0], abs=1e-9)


def test_buys_that_the_open_cannot_pay_are_reduced_by_lots_and_named() -> None:
    market = flat_market()
    first, second, _ = market.symbols
    clocks = clocks_of(market, {}, 1000.0)
    prices = {first: 11.0, second: 40.0}
    opening = Opening(1000.0, 1.0, {}, {}, prices, frozenset(prices), NOTHING)
    orders = [order(first, "buy", 40.0), order(second, "buy", 20.0)]
    # 440 + 800 and 1.61 of costs: 241.61 too much, 7 shares of the larger order
    target, shares, ((event),) = plan_fills(clocks, opening, orders, 1)
    assert shares == {first: 40.0, second: 13.0}
    assert (event["kind"], event["symbol"]) == ("reduced", second)
    clocks.book_day(target)
    assert float(clocks.simulator.state.cash) == pytest.approx(
        (1000 - 960 * (1 + BUY)) / 1000 / (1 - 0.96 * BUY)
    )


def test_what_cannot_be_traded_keeps_its_shares() -> None:
    market = flat_market()
    first, second, third = market.symbols
    clocks = clocks_of(market, {first: 0.4, second: 0.2}, 1000.0)
    prices = {second: 10.0, third: 10.0}
    opening = Opening(
        1000.0, 1.0, {first: 400.0, second: 200.0}, {first: 40.0, second: 20.0},
        prices, frozenset({second}), NOTHING,
    )  # fmt: skip
    orders = [order(first, "sell", 40.0, is_all=True), order(third, "buy", 5.0),
              order(second, "sell", 3.0, is_all=True)]  # fmt: skip
    target, shares, _ = plan_fills(clocks, opening, orders, 1)
    assert shares == {first: 40.0}  # all of the second, though more than the order said
    assert target[0, 0] * (1 - 0.2 * SELL) == pytest.approx(0.4, abs=1e-12)


def test_the_value_of_a_stock_that_ended_pays_for_others() -> None:
    market = flat_market()
    first, second, _ = market.symbols
    clocks = clocks_of(market, {first: 1.0}, 1000.0)
    opening = Opening(
        1000.0, 1.0, {first: 1000.0}, {}, {second: 10.0}, frozenset({second}), frozenset({first})
    )
    _, shares, events = plan_fills(clocks, opening, [order(second, "buy", 99.0)], 1)
    assert (shares, events) == ({second: 99.0}, [])


@given(seed=st.integers(0, 2**32 - 1), lot=st.sampled_from([1, 5, 100]))
def test_any_orders_leave_cash_and_are_booked_as_planned(seed: int, lot: int) -> None:
    rng, market = np.random.default_rng(seed), flat_market(4)
    symbols, wealth = market.symbols, float(np.exp(rng.uniform(5, 14)))
    prices = {s: float(np.exp(rng.uniform(0, 6))) for s in symbols}
    weights = rng.dirichlet(np.ones(5))[:4] * (rng.random(4) < 0.6)
    held = {s: w * wealth / prices[s] for s, w in zip(symbols, weights, strict=True) if w > 0}
    values = {s: n * prices[s] * rng.choice([1.0, 1.01]) for s, n in held.items()}
    wealth = max(wealth, math.fsum(values.values()))
    shares_of = {s: value / wealth for s, value in values.items()}
    clocks = clocks_of(market, shares_of, wealth)
    opening = Opening(wealth, 1.0, values, held, prices, frozenset(symbols), NOTHING)
    orders = [
        order(s, "buy", lot * float(rng.integers(1, 2 + int(wealth / prices[s] / lot))))
        if rng.random() < 0.6
        else order(s, "sell", held.get(s, 0.0) * rng.random())
        for s in symbols
    ]
    target, after, events = plan_fills(clocks, opening, orders, lot)
    result = clocks.book_day(target)
    assert float(clocks.simulator.state.cash) >= -1e-11
    left = wealth * (1 - float(result.cost))
    for place, symbol in enumerate(symbols):
        worth = after.get(symbol, 0.0) * prices[symbol]
        assert float(result.weights_after[0, place]) * left == pytest.approx(
            worth, abs=1e-8 * wealth
        )
    bought = {o["symbol"]: o["shares"] for o in orders if o["side"] == "buy"}
    for symbol in bought:
        lots = (after.get(symbol, 0.0) - held.get(symbol, 0.0)) / lot
        assert lots == pytest.approx(round(lots), abs=1e-6)
        is_reduced = any(e["symbol"] == symbol for e in events)
        assert is_reduced == (lots * lot < bought[symbol] - 1e-6)
