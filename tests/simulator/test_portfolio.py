from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.contracts import Market, PortfolioState, StepResult
from hrl_sarp.errors import SimulatorError
from hrl_sarp.simulator.limits import target_weights
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from tests import factories
from tests.simulator.reference_ledger import ReferenceLedger

SEEDS = st.integers(0, 2**32 - 1)
BUY, SELL = 13e-4, 9e-4  # factories.cost_config(): 8 + 5 and 4 + 5 bps


def simulator(
    market: Market, n_envs: int = 1, dtype: torch.dtype = torch.float64, **costs: Any
) -> PortfolioSimulator:
    return PortfolioSimulator(
        market, factories.cost_config(**costs), factories.risk_config(), n_envs, dtype
    )


def rows(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def days(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def quiet_market(n_days: int = 4, n_assets: int = 2, **masks: Any) -> Market:
    """Prices that never move; every stock is its own sector."""
    flat = np.zeros((n_days, n_assets))
    return factories.market_with(flat, flat, np.arange(n_assets), **masks)


def missing(n_days: int, *cells: tuple[int, int]) -> np.ndarray:
    mask = np.ones((n_days, 2), dtype=bool)
    for cell in cells:
        mask[cell] = False
    return mask


def draw_targets(rng: np.random.Generator, sim: PortfolioSimulator) -> torch.Tensor:
    """Random actions through the limits: concentrated or flat, feasible or not."""
    tensors, state = sim.tensors, sim.state
    shape = (sim.n_envs, tensors.n_slots)
    action = rng.exponential(1.0, shape) ** rng.choice([0.5, 3.0])
    action *= rng.uniform(0, 1.5, (sim.n_envs, 1)) / action.sum(axis=1, keepdims=True)
    exposure = torch.as_tensor(rng.uniform(0.0, 0.98, sim.n_envs), dtype=tensors.dtype)
    slot_action = torch.as_tensor(action, dtype=tensors.dtype)
    return target_weights(tensors, state.day, state.weights, slot_action, exposure, sim.risk)


def draw_costs(rng: np.random.Generator) -> dict[str, float]:
    return {
        "buy_bps": rng.uniform(0, 50),
        "sell_bps": rng.uniform(0, 50),
        "impact_coefficient": float(rng.choice([0.0, 0.3])),
        "delisting_return": float(rng.choice([0.0, -0.3])),
    }


# --- hand-made numbers -------------------------------------------------------------------------


def test_entry_and_exit_pay_their_costs() -> None:
    sim = simulator(quiet_market())
    sim.reset(days(0))
    entry = sim.step(rows(0.5, 0.0))
    # c = BUY x 0.5 (1 - c)
    paid = 0.5 * BUY / (1 + 0.5 * BUY)
    assert entry.cost.item() == pytest.approx(paid, rel=1e-12)
    assert entry.net_return.item() == pytest.approx(-paid, rel=1e-12)
    assert entry.turnover.item() == pytest.approx(0.25 * (1 - paid), rel=1e-12)
    exit_ = sim.step(rows(0.0, 0.0))
    assert exit_.cost.item() == pytest.approx(0.5 * SELL, rel=1e-12)
    assert sim.state.wealth.item() == pytest.approx((1 - paid) * (1 - 0.5 * SELL), rel=1e-12)
    assert sim.state.cash.item() == 1.0


def test_target_weights_are_weights_after_costs_and_an_equal_target_still_trades_the_drift() -> (
    None
):
    night = np.array([[0, 0], [0, 0], [0.10, 0.0], [0, 0]])
    sim = simulator(factories.market_with(night, 0 * night, [0, 1]))
    sim.reset(days(0))
    sim.step(rows(0.5, 0.3))
    second = sim.step(rows(0.5, 0.3))
    # 0.55 / 1.05 and 0.3 / 1.05 before the trade: stock 0 is sold, stock 1 bought
    torch.testing.assert_close(second.weights_before, rows(0.55, 0.3) / 1.05)
    assert torch.equal(second.weights_after, rows(0.5, 0.3))
    left = 1 - second.cost.item()
    paid = SELL * (0.55 / 1.05 - 0.5 * left) + BUY * (0.3 * left - 0.3 / 1.05)
    assert second.cost.item() == pytest.approx(paid, rel=1e-10)


def test_night_belongs_to_old_and_day_to_new_holdings() -> None:
    night, day = np.full((3, 2), 0.0), np.full((3, 2), 0.0)
    night[2], day[2] = (0.10, 0.0), (0.0, 0.20)
    sim = simulator(
        factories.market_with(night, day, [0, 1]), buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0
    )
    sim.reset(days(0))
    sim.step(rows(0.5, 0.0))
    result = sim.step(rows(0.0, 0.5))
    assert result.net_return.item() == pytest.approx(1.05 * 1.10 - 1, rel=1e-12)
    torch.testing.assert_close(result.weights_start, rows(0.5, 0.0))
    torch.testing.assert_close(result.weights_end, rows(0.0, 0.6 / 1.1))


def test_cash_earns_the_risk_free_rate() -> None:
    sim = simulator(quiet_market(risk_free=np.array([0.0, 0.01, 0.02, 0.0])))
    sim.reset(days(0))
    for expected in (0.01, 0.02):
        assert sim.step(rows(0.0, 0.0)).net_return.item() == pytest.approx(expected, rel=1e-12)


def test_delisted_holding_becomes_cash_at_its_last_close_and_pays_the_sale() -> None:
    listed = missing(4, (2, 0), (3, 0))
    sim = simulator(quiet_market(listed=listed), delisting_return=-0.3)
    sim.reset(days(0))
    sim.step(rows(0.4, 0.0))
    result = sim.step(rows(0.4, 0.0))  # the order for a stock that is gone is cancelled
    # 0.4 loses 30 %: wealth 0.88, of which 0.28 is sold at SELL
    assert result.delisted_value.item() == pytest.approx(0.28 / 0.88, rel=1e-12)
    assert result.cost.item() == pytest.approx(SELL * 0.28 / 0.88, rel=1e-12)
    assert result.net_return.item() == pytest.approx(0.88 - SELL * 0.28 - 1, rel=1e-12)
    assert torch.equal(sim.state.weights, rows(0.0, 0.0))


def test_delisted_holding_is_sold_even_without_orders() -> None:
    sim = simulator(quiet_market(listed=missing(4, (2, 0), (3, 0))))
    sim.reset(days(0))
    sim.step(rows(0.4, 0.3))
    before = sim.state.weights[0, 1].item()
    result = sim.step(rows(0.0, 0.0), hold=torch.tensor([True]))
    assert result.cost.item() == pytest.approx(0.4 * SELL, rel=1e-12)
    paid = 0.4 * SELL
    torch.testing.assert_close(result.weights_after, rows(0.0, before / (1 - paid)))


def test_halted_stock_keeps_its_holding_and_its_orders_are_cancelled() -> None:
    market = quiet_market(n_days=5, tradable=missing(5, (2, 0)))
    sim = simulator(market)
    sim.reset(days(0))
    sim.step(rows(0.4, 0.0))
    result = sim.step(rows(0.0, 0.4))
    # 0.4 is stuck, so of the 0.4 asked for in all nothing is left for stock 1 (up to costs).
    torch.testing.assert_close(result.weights_after, rows(0.4, 0.0), rtol=0, atol=1e-3)
    # decided while the stock was halted: no order for it. The next decision can sell it.
    reopened = sim.step(rows(0.0, 0.4))
    torch.testing.assert_close(reopened.weights_after, rows(0.4, 0.0), rtol=0, atol=1e-3)
    assert sim.step(rows(0.0, 0.4)).weights_after.tolist() == [[0.0, 0.4]]


def test_fills_beside_a_frozen_holding_shrink_to_what_is_left_of_the_whole() -> None:
    sim = simulator(quiet_market(tradable=missing(4, (2, 0))))
    sim.reset(days(0))
    sim.step(rows(0.4, 0.0))
    result = sim.step(rows(0.1, 0.4))
    # 0.5 asked for, 0.4 stuck: 0.1 bought, so the total after the trade is the 0.5
    assert result.weights_after.sum().item() == pytest.approx(0.5, rel=1e-12)
    assert result.weights_after[0, 0].item() * (1 - result.cost.item()) == pytest.approx(0.4)


def test_fills_beside_a_frozen_holding_shrink_to_what_is_left_of_the_sector_cap() -> None:
    flat = np.zeros((4, 3))
    tradable = np.ones((4, 3), dtype=bool)
    tradable[2, 0] = False
    sim = simulator(factories.market_with(flat, flat, [0, 0, 1], tradable=tradable))
    sim.reset(days(0))
    sim.step(rows(0.3, 0.0, 0.0))
    result = sim.step(rows(0.0, 0.4, 0.4))
    # sector cap 0.4 less the stuck 0.3 leaves 0.1 for stock 1; stock 2 is not touched
    assert (result.weights_after[0, 0] + result.weights_after[0, 1]).item() == pytest.approx(0.4)
    assert result.weights_after[0, 2].item() == pytest.approx(0.4)


def test_hold_lets_holdings_drift_without_cost() -> None:
    night = np.array([[0, 0], [0, 0], [0.10, 0.0]])
    sim = simulator(factories.market_with(night, 0 * night, [0, 1]))
    sim.reset(days(0))
    sim.step(rows(0.5, 0.3))
    result = sim.step(rows(0.9, 0.0), hold=torch.tensor([True]))
    assert result.cost.item() == 0.0
    assert result.turnover.item() == 0.0
    torch.testing.assert_close(result.weights_after, rows(0.55, 0.3) / 1.05)


def test_rows_that_hold_and_rows_with_their_own_costs_equal_single_portfolios() -> None:
    rng = np.random.default_rng(4)
    market = factories.random_market(rng, n_days=40)
    own = [{"delisting_return": -0.3}, {"buy_bps": 30.0}, {"impact_coefficient": 0.1}]
    configs = [factories.cost_config(**changes) for changes in own]
    risk = factories.risk_config()
    batch = PortfolioSimulator(market, configs, risk, 3, torch.float64)
    singles = [PortfolioSimulator(market, config, risk, 1, torch.float64) for config in configs]
    batch.reset(days(0, 0, 0))
    for single in singles:
        single.reset(days(0))
    delisted = 0.0
    for _ in range(39):
        target = draw_targets(rng, batch)
        hold = torch.as_tensor(rng.random(3) < 0.6)
        found = batch.step(target, hold=hold)
        for i, single in enumerate(singles):
            alone = single.step(target[i : i + 1], hold=hold[i : i + 1])
            for item in fields(StepResult):
                a, b = getattr(found, item.name)[i : i + 1], getattr(alone, item.name)
                torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
        delisted += float((found.delisted_value * hold).sum())
    assert delisted > 0  # a stock that a holding row held has ended


def test_inactive_rows_do_not_move() -> None:
    sim = simulator(quiet_market(), n_envs=2)
    sim.reset(days(0, 3))  # row 1 stands on the last day
    result = sim.step(torch.full((2, 2), 0.3).double(), active=torch.tensor([True, False]))
    assert sim.state.day.tolist() == [1, 3]
    assert sim.state.wealth[1].item() == 1.0
    assert sim.state.cash[1].item() == 1.0
    assert result.cost[1].item() == 0.0
    assert result.cost[0].item() > 0.0
    assert torch.equal(result.weights_after[1], torch.zeros(2).double())


def test_reset_of_some_rows_leaves_the_others() -> None:
    sim = simulator(quiet_market(), n_envs=2)
    sim.reset(days(0, 0))
    sim.step(torch.full((2, 2), 0.3).double())
    other = sim.state.wealth[1].item()
    state = sim.reset(days(2, 99), rows=torch.tensor([True, False]))
    assert state.day.tolist() == [2, 1]
    assert state.wealth.tolist() == [1.0, other]
    assert torch.equal(state.weights[0], torch.zeros(2).double())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_days_of_any_integer_type_are_rows(dtype: torch.dtype) -> None:
    sim = simulator(quiet_market(), n_envs=2)
    assert sim.reset(torch.tensor([0, 2], dtype=dtype)).day.dtype == torch.int64
    state = sim.reset(torch.tensor([1, 3], dtype=dtype), rows=torch.tensor([True, False]))
    assert state.day.tolist() == [1, 2]


def test_gate_state_moves_with_the_sessions() -> None:
    fall = np.zeros((5, 2))
    fall[2] = -0.2
    risk = factories.risk_config(drawdown_gate=True, gate_drawdown=0.05, gate_days=2)
    sim = PortfolioSimulator(
        factories.market_with(fall, 0 * fall, [0, 1]), factories.cost_config(), risk, 1
    )
    sim.reset(days(0))
    gates = []
    for _ in range(4):
        sim.step(torch.full((1, 2), 0.4))
        gates.append(int(sim.state.gate_days))
    assert gates == [0, 2, 1, 0]
    assert sim.state.peak.item() == sim.state.wealth.item()


# --- refusals ----------------------------------------------------------------------------------


def refusal(of: Callable[[], object]) -> str:
    with pytest.raises(SimulatorError) as refused:
        of()
    return str(refused.value)


def test_step_past_the_last_day_is_refused() -> None:
    sim = simulator(quiet_market(), n_envs=3)
    sim.reset(days(3, 1, 3))
    assert refusal(lambda: sim.step(torch.zeros(3, 2).double())) == (
        "simulator step: 2 rows are at the last day of the market (2001-01-04), expected an "
        "earlier day; reset them first"
    )


@pytest.mark.parametrize("day", [-1, 4])
def test_reset_outside_the_market_is_refused(day: int) -> None:
    sim = simulator(quiet_market(), n_envs=2)
    assert refusal(lambda: sim.reset(days(0, day))) == (
        f"simulator reset: day {day} is outside the market, expected 0 to 3; choose a day of the "
        "market"
    )
    sim.reset(days(0, 3))
    assert sim.reset(days(3, day), rows=torch.tensor([True, False])).day.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("bad", "lowest", "most"),
    [
        ((-0.1, 0.2), "-0.1", "0.1"),
        ((0.9, 0.2), "0.2", "1.1"),
        ((float("nan"), 0.1), "nan", "nan"),
        ((float("inf"), 0.0), "0", "inf"),
    ],
)
def test_targets_that_are_no_weights_are_refused(
    bad: tuple[float, float], lowest: str, most: str
) -> None:
    sim = simulator(quiet_market())
    sim.reset(days(0))
    assert refusal(lambda: sim.step(rows(*bad))) == (
        f"simulator step: target weights with minimum {lowest} and largest sum {most}, expected "
        "finite weights >= 0 with sums <= 1; use limits.target_weights"
    )


def test_one_row_of_bad_targets_among_good_ones_is_refused() -> None:
    sim = simulator(quiet_market(), n_envs=3)
    sim.reset(days(0, 0, 0))
    good = torch.full((3, 2), 0.45).double()
    sim.step(good)  # sums that exceed 1 together are no fault
    good[1, 1] = 0.56
    assert "largest sum 1.01" in refusal(lambda: sim.step(good))


def test_targets_may_miss_their_bounds_by_rounding() -> None:
    # 1e-5 is allowed, on both sides
    for fair in ((-0.9e-5, 0.5), (0.5, 0.5 + 0.9e-5)):
        sim = simulator(quiet_market())
        sim.reset(days(0))
        sim.step(rows(*fair))
    sim.reset(days(0))
    for bad in ((-1.1e-5, 0.5), (0.5, 0.5 + 1.1e-5)):
        assert "expected finite weights" in refusal(lambda bad=bad: sim.step(rows(*bad)))


def test_use_before_reset_and_wrong_numbers_of_rows_are_refused() -> None:
    sim = simulator(quiet_market())
    assert refusal(lambda: sim.state) == (
        "simulator: no state yet; call reset(days) before step or state"
    )
    assert refusal(lambda: sim.reset(days(0, 1))) == (
        "simulator reset: expected 1 days, found 2; pass one per env"
    )


def test_market_tensors_of_another_dtype_are_refused() -> None:
    tensors = simulator(quiet_market()).tensors
    costs, risk = factories.cost_config(), factories.risk_config()
    assert refusal(lambda: PortfolioSimulator(tensors, costs, risk, 1, torch.float32)) == (
        "simulator: market tensors are torch.float64 on cpu, expected torch.float32 on cpu; build "
        "MarketTensors with the simulator's dtype and device"
    )
    assert "on cpu, expected torch.float64 on meta" in refusal(
        lambda: PortfolioSimulator(tensors, costs, risk, 1, torch.float64, "meta")
    )


def test_trades_that_cost_more_than_half_of_wealth_are_refused() -> None:
    # Entry into a stock that trades 1 % of the account a day, at 100 % for its whole volume:
    # c = 0.9 (1 - c) (0.0013 + sqrt(0.9 (1 - c) / 0.01)) has the root 0.795
    volume = np.full((4, 2), 1e4)
    sim = simulator(quiet_market(dollar_volume=volume), impact_coefficient=1.0, capital=1e6)
    sim.reset(days(0))
    assert refusal(lambda: sim.step(rows(0.9, 0.0))) == (
        "simulator step: a trade costs 0.795 of wealth, expected at most 0.5; the account is too "
        "large for the market: lower costs.capital or impact_coefficient"
    )


# --- any market, mask, cost and action ---------------------------------------------------------


@given(seed=SEEDS, closes_only=st.booleans())
@settings(max_examples=8, deadline=None)
def test_ledger_equals_the_slow_reference_over_whole_rollouts(
    seed: int, *, closes_only: bool
) -> None:
    rng = np.random.default_rng(seed)
    market = factories.random_market(rng, n_days=24, closes_only=closes_only)
    costs = factories.cost_config(**draw_costs(rng))
    sim = PortfolioSimulator(market, costs, factories.risk_config(), 1, torch.float64)
    sim.reset(days(0))
    slow = ReferenceLedger(market, costs, sim.risk.sector_cap, day=0)
    for _ in range(market.n_days - 1):
        target, hold = draw_targets(rng, sim), rng.random() < 0.15
        fast = sim.step(target, hold=torch.tensor([hold]))
        expected = slow.step(target[0].tolist(), hold=hold)
        assert fast.net_return.item() == pytest.approx(expected["net_return"], abs=1e-12)
        assert fast.turnover.item() == pytest.approx(expected["turnover"], abs=1e-12)
        for asset, value in slow.values.items():
            weight = sim.state.weights[0, asset].item()
            assert weight == pytest.approx(value / slow.wealth, abs=1e-12)
    assert sim.state.wealth.item() == pytest.approx(slow.wealth, rel=1e-11)
    assert sim.state.cash.item() == pytest.approx(slow.cash / slow.wealth, abs=1e-12)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_wealth_end_is_wealth_start_plus_gains_minus_costs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    market = factories.random_market(rng, n_days=20)
    costs = factories.cost_config(**draw_costs(rng))
    sim = PortfolioSimulator(market, costs, factories.risk_config(), 8, torch.float64)
    sim.reset(torch.as_tensor(rng.integers(0, 8, 8)))
    for _ in range(10):
        before, hold = sim.state, torch.as_tensor(rng.random(8) < 0.2)
        result = sim.step(draw_targets(rng, sim), hold=hold)
        expected = wealth_by_hand(market, before, result, costs.delisting_return)
        np.testing.assert_allclose(sim.state.wealth.numpy(), expected, rtol=1e-12)
        total = sim.state.cash + sim.state.weights.sum(1)
        np.testing.assert_allclose(total.numpy(), 1.0, rtol=0, atol=1e-12)
        paid = sim.costs.cost(
            result.weights_after * (1 - result.cost)[:, None] - result.weights_before,
            before.wealth * (1 + night_gain(market, before, result, costs.delisting_return)),
            torch.as_tensor(market.dollar_volume)[result.day],
        )
        np.testing.assert_allclose(result.cost.numpy(), paid.numpy(), rtol=0, atol=1e-13)


def night_gain(
    market: Market, before: PortfolioState, result: StepResult, delisting_return: float
) -> torch.Tensor:
    u, weights = result.day.numpy(), before.weights.numpy()
    move = np.where(market.listed[u], market.overnight_return[u], 0.0)
    gone = market.listed[u - 1] & ~market.listed[u]
    move = np.where(gone, delisting_return, move)
    cash = 1.0 - weights.sum(axis=1)
    return torch.as_tensor((weights * move).sum(axis=1) + cash * market.risk_free[u])


def wealth_by_hand(
    market: Market, before: PortfolioState, result: StepResult, delisting_return: float
) -> np.ndarray:
    """Start + gains over night - costs + gains of the day, in money."""
    start = before.wealth.numpy()
    at_open = start * (1 + night_gain(market, before, result, delisting_return).numpy())
    left = at_open - at_open * result.cost.numpy()
    moved = (result.weights_after.numpy() * market.intraday_return[result.day.numpy()]).sum(axis=1)
    return left + left * moved


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_limits_hold_after_the_trade_whatever_can_be_filled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    market = factories.random_market(rng, n_days=20)
    sim = simulator(market, n_envs=8, **draw_costs(rng))
    sim.reset(torch.as_tensor(rng.integers(0, 8, 8)))
    member = np.eye(market.n_sectors)[market.sector_of]
    for _ in range(10):
        target = draw_targets(rng, sim)
        decided = sim.state.day.numpy()
        result = sim.step(target)
        after, u = result.weights_after.numpy(), result.day.numpy()
        halted = market.listed & ~market.tradable
        frozen = np.where(market.listed[u] & (halted[u] | halted[u - 1]), after, 0.0)
        kept = np.where(market.listed[decided] & ~market.tradable[decided], target.numpy(), 0.0)
        assert after.min() >= 0
        assert (after[~market.listed[u]] == 0).all()
        assert (after - frozen <= np.maximum(sim.risk.stock_cap, kept) + 1e-12).all()
        limit = np.maximum(sim.risk.sector_cap, target.numpy() @ member)
        assert (after @ member <= np.maximum(limit, frozen @ member) + 1e-12).all()
        invested = np.maximum(target.numpy().sum(1), frozen.sum(1))
        assert (after.sum(1) <= invested + 1e-12).all()
        within_cash_floor = kept.sum(1) + frozen.sum(1) == 0
        assert (after.sum(1)[within_cash_floor] <= 1 - sim.risk.min_cash + 1e-12).all()


@given(
    seed=SEEDS,
    gap=st.floats(-0.95, 3.0),
    held=st.floats(0.02, 0.2),
    wanted=st.floats(0.0, 0.2),
    n_halted=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_reopening_after_a_halt_trades_no_share_of_the_stock(
    seed: int, gap: float, held: float, wanted: float, n_halted: int
) -> None:
    """Stock 0 is halted for some days, then opens with a gap; nobody could order meanwhile."""
    rng = np.random.default_rng(seed)
    n_days, reopens = n_halted + 4, n_halted + 2
    night = rng.normal(0, 0.02, (n_days, 6))
    tradable = np.ones((n_days, 6), dtype=bool)
    tradable[2:reopens, 0] = False
    night[2:reopens, 0], night[reopens, 0] = 0.0, gap
    market = factories.market_with(night, 0 * night, [0, 0, 0, 1, 1, 1], tradable=tradable)
    sim = simulator(market)
    sim.reset(days(0))
    shares, price = None, 1.0
    for day in range(1, n_days - 1):
        action = torch.as_tensor(rng.dirichlet(np.ones(6))[None] * 0.9)
        action[0, 0] = held if day == 1 else wanted
        full = torch.tensor([0.98], dtype=torch.float64)
        target = target_weights(
            sim.tensors, sim.state.day, sim.state.weights, action, full, sim.risk
        )
        sim.step(target)
        price *= 1 + night[day, 0]
        now = (sim.state.weights[0, 0] * sim.state.wealth[0]).item() / price
        if 2 <= day <= reopens:
            assert now == pytest.approx(shares, rel=1e-12)
        shares = now


@given(seed=SEEDS, halt_share=st.floats(0.02, 0.5), wild=st.booleans())
@settings(max_examples=12, deadline=None)
def test_shares_that_could_not_be_ordered_never_change(
    seed: int, halt_share: float, *, wild: bool
) -> None:
    """A ledger of shares and dollars over random halts and gaps, whatever the targets say."""
    rng = np.random.default_rng(seed)
    drawn = factories.random_market(rng, n_days=24, halts=False)
    kept_rows = rng.random(drawn.listed.shape) > halt_share
    first_and_last = drawn.listed & ~(np.roll(drawn.listed, 1, 0) & np.roll(drawn.listed, -1, 0))
    tradable = drawn.listed & (kept_rows | first_and_last)
    gaps = np.exp(rng.normal(0.0, 0.5, drawn.listed.shape)) - 1  # nights that halve and that double
    night = np.where(tradable, gaps, 0.0)
    day_move = np.where(tradable, drawn.intraday_return, 0.0)
    market = replace(drawn, tradable=tradable, overnight_return=night, intraday_return=day_move)
    sim = simulator(market, n_envs=3, **draw_costs(rng))
    sim.reset(days(0, 2, 4))
    price = np.cumprod((1 + night) * (1 + day_move), axis=0)
    halted = market.listed & ~tradable
    for _ in range(18):
        before = sim.state
        target = draw_targets(rng, sim)
        if wild:  # the simulator itself refuses the order, whoever made the target
            target = torch.as_tensor(rng.dirichlet(np.ones(market.n_assets + 1), 3)[:, :-1])
        sim.step(target)
        decided, filled = before.day.numpy(), sim.state.day.numpy()
        fixed = market.listed[filled] & (halted[decided] | halted[filled])
        shares_before = _shares(before, price)
        shares_after = _shares(sim.state, price)
        np.testing.assert_allclose(
            shares_after[fixed], shares_before[fixed], rtol=1e-11, atol=1e-15
        )


def _shares(state: PortfolioState, price: np.ndarray) -> np.ndarray:
    dollars = (state.weights * state.wealth[:, None]).numpy()
    held: np.ndarray = dollars / price[state.day.numpy()]
    return held


@pytest.mark.parametrize("impact", [0.0, 0.3])
def test_gradients_match_finite_differences(impact: float) -> None:
    rng = np.random.default_rng(5)
    market = factories.random_market(rng, n_days=12, n_sectors=2, slots_per_sector=2)
    sim = simulator(market, n_envs=4, impact_coefficient=impact, delisting_return=-0.3)
    start = torch.as_tensor([0, 3, 5, 8])
    sim.reset(start)
    targets = torch.stack([draw_targets(rng, sim) + 1e-3 for _ in range(3)])
    frozen = sim.tensors.halted[torch.stack([start + 1, start + 2, start + 3])]
    assert bool((frozen[1:] * targets[:-1] > 0).any())  # some holding is stuck on the way

    def rollout(targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sim.reset(start)
        results = [sim.step(target) for target in targets]
        last = results[-1]
        total = torch.stack([r.turnover for r in results])
        return sim.state.wealth, sim.state.cash, last.weights_end, last.gross_return, total

    targets.requires_grad_()
    assert torch.autograd.gradcheck(rollout, (targets,), eps=1e-7, atol=1e-5)


def test_detached_state_stops_gradients_of_later_sessions() -> None:
    sim = simulator(quiet_market())
    sim.reset(days(0))
    target = rows(0.3, 0.3).requires_grad_()
    sim.step(target)
    assert sim.state.wealth.requires_grad
    sim.detach_state()
    assert not any(getattr(sim.state, f.name).requires_grad for f in fields(PortfolioState))


def test_single_portfolios_equal_the_rows_of_a_batch() -> None:
    rng = np.random.default_rng(2)
    market = factories.random_market(rng, n_days=20)
    batch = simulator(market, n_envs=64, impact_coefficient=0.2)
    start = torch.as_tensor(rng.integers(0, 10, 64))
    batch.reset(start)
    targets = []
    for _ in range(8):
        targets.append(draw_targets(rng, batch))
        batch.step(targets[-1])
    for row in range(0, 64, 7):
        alone = simulator(market, impact_coefficient=0.2)
        alone.reset(start[row : row + 1])
        for target in targets:
            alone.step(target[row : row + 1])
        assert_states_close(alone.state, batch.state, row, 1e-12)


def assert_states_close(
    alone: PortfolioState, batch: PortfolioState, row: int, tolerance: float
) -> None:
    for name in ("weights", "cash", "wealth", "peak"):
        one, many = getattr(alone, name)[0], getattr(batch, name)[row]
        torch.testing.assert_close(one.double(), many.double(), rtol=0, atol=tolerance)


def test_float32_agrees_with_float64() -> None:
    rng = np.random.default_rng(3)
    market = factories.random_market(rng, n_days=40)
    exact, single = (simulator(market, 16, dtype) for dtype in (torch.float64, torch.float32))
    start = torch.as_tensor(rng.integers(0, 10, 16))
    exact.reset(start)
    single.reset(start)
    for _ in range(25):
        target = draw_targets(rng, exact)
        wanted, found = exact.step(target), single.step(target)
        torch.testing.assert_close(found.net_return.double(), wanted.net_return, rtol=0, atol=1e-6)
    for row in range(16):
        torch.testing.assert_close(
            single.state.wealth[row].double(), exact.state.wealth[row], rtol=1e-5, atol=0
        )


def test_twenty_thousand_random_steps_stay_finite_even_when_wealth_is_lost() -> None:
    rng = np.random.default_rng(4)
    market = factories.random_market(rng, n_days=60)
    sim = simulator(market, 400, torch.float32, impact_coefficient=0.1, delisting_return=-1.0)
    sim.reset(torch.zeros(400, dtype=torch.int64))
    for step in range(market.n_days - 1):
        target = draw_targets(rng, sim)
        if step % 3 == 0:  # all in one stock, without any limit of risk
            target = torch.nn.functional.one_hot(
                torch.as_tensor(rng.integers(0, market.n_assets, 400)), market.n_assets
            ).float()
        result = sim.step(target)
        for item in fields(StepResult):
            assert bool(torch.isfinite(getattr(result, item.name)).all()), item.name
        assert float(sim.state.wealth.min()) >= 0
        assert float(sim.state.weights.min()) >= 0


def test_orders_need_a_bar_at_the_open_and_one_at_the_close_before() -> None:
    tradable = missing(4, (2, 0))  # halted on day 2: no order fills there, nor on day 3
    sim = simulator(quiet_market(tradable=tradable), n_envs=3)
    assert sim.fillable(days(1, 2, 3)).tolist() == [[True, True], [False, True], [False, True]]
