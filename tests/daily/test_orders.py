import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.daily.decision.orders import make_orders
from hrl_sarp.daily.portfolio import Standing
from tests import factories

COSTS: CostConfig = factories.cost_config().model_copy(update={"impact_coefficient": 0.0})
CAP = 0.3
SYMBOLS = tuple("ABCDEFG")
accounts = st.fixed_dictionaries(
    {
        "shares": st.dictionaries(st.sampled_from(SYMBOLS), st.integers(1, 500), max_size=6),
        "closes": st.fixed_dictionaries(
            {symbol: st.floats(0.5, 900.0, allow_nan=False) for symbol in SYMBOLS}
        ),
        "cash": st.floats(0.0, 1e5),
        "wanted": st.dictionaries(st.sampled_from(SYMBOLS), st.floats(0.0, CAP), max_size=6),
        "lot": st.sampled_from([None, 1, 7, 100]),
    }
)


@given(accounts)
def test_orders_lead_to_their_targets_within_cash_and_caps(account: dict) -> None:
    closes, held = account["closes"], {s: float(n) for s, n in account["shares"].items()}
    values = {s: n * closes[s] for s, n in held.items()}
    wealth = account["cash"] + math.fsum(values.values())
    if wealth <= 1.0:
        return
    total = max(sum(account["wanted"].values()) / 0.98, 1.0)
    targets = {s: w / total for s, w in account["wanted"].items() if w > 0}
    standing = Standing(date(2024, 1, 2), wealth, {s: v / wealth for s, v in values.items()})
    found = make_orders(standing, held, targets, closes, {}, COSTS, account["lot"], CAP)
    # what is held, bought and sold adds up, in shares and in money
    moved = {o.symbol: o.shares if o.side == "buy" else -o.shares for o in found.orders}
    for symbol in SYMBOLS:
        after = found.shares.get(symbol, 0.0)
        assert after == pytest.approx(held.get(symbol, 0.0) + moved.get(symbol, 0.0), abs=1e-6)
        assert after >= 0
    left = found.cash + math.fsum(n * closes[s] for s, n in found.shares.items()) + found.cost
    assert left == pytest.approx(wealth, rel=1e-9)
    rate = {"buy": COSTS.buy_bps + COSTS.slippage_bps, "sell": COSTS.sell_bps + COSTS.slippage_bps}
    for order in found.orders:
        assert order.cost == pytest.approx(order.value * rate[order.side] / 1e4, rel=1e-9)
    assert found.cash >= -1e-6 * wealth
    lot = account["lot"]
    for symbol, weight in targets.items():
        value = found.shares.get(symbol, 0.0) * closes[symbol] / wealth
        off = 1e-2 if lot is None else lot * closes[symbol] / wealth + 1e-2
        assert abs(value - weight) <= off
        if lot is not None and symbol in moved and moved[symbol] > 0:
            assert moved[symbol] % lot == pytest.approx(0.0, abs=1e-9)
            assert value <= max(CAP, held.get(symbol, 0.0) * closes[symbol] / wealth) + 1e-9


def test_a_stock_without_a_bar_gets_no_order() -> None:
    standing = Standing(date(2024, 1, 2), 1000.0, {"A": 0.5})
    found = make_orders(standing, {"A": 5.0}, {"A": 0.5, "B": 0.2}, {"B": 10.0}, {}, COSTS, 1, CAP)
    assert [order.symbol for order in found.orders] == ["B"]
    assert found.shares["A"] == 5.0


def test_a_sale_sells_odd_shares_too() -> None:
    standing = Standing(date(2024, 1, 2), 1000.0, {"A": 0.73})
    for target, sold in ((0.0, 7.3), (0.06, 7.3), (0.55, 2.3)):
        found = make_orders(standing, {"A": 7.3}, {"A": target}, {"A": 100.0}, {}, COSTS, 5, 0.6)
        assert [o.side for o in found.orders] == ["sell"]
        assert found.orders[0].shares == pytest.approx(sold)


def test_lots_that_an_account_cannot_pay_are_left_out() -> None:
    standing = Standing(date(2024, 1, 2), 1000.0, {})
    found = make_orders(
        standing, {}, {"A": 0.25, "B": 0.25}, {"A": 400.0, "B": 30.0}, {}, COSTS, 1, 0.3
    )
    assert found.shares == {"B": 9.0}
    assert found.rounding > 0.1
