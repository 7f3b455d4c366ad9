import numpy as np
import pytest
import torch

from hrl_sarp.simulator import trades
from hrl_sarp.simulator.trades import Frozen, Orders, TradeCosts, fill_orders
from tests import factories


def as_rows(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_each_side_pays_its_own_rate_and_slippage() -> None:
    costs = TradeCosts(factories.cost_config())
    # 0.3 bought at 8 + 5 bps, 0.2 sold at 4 + 5 bps
    paid = costs.cost(as_rows(0.3, -0.2, 0.0), torch.ones(1).double(), None)
    assert paid.item() == pytest.approx(0.3 * 13e-4 + 0.2 * 9e-4, rel=1e-12)


def test_impact_grows_with_the_root_of_participation() -> None:
    costs = TradeCosts(
        factories.cost_config(
            buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0, impact_coefficient=0.5, capital=1e6
        )
    )
    # wealth 2 x capital 1e6 x trade 0.1 = 200,000 of a volume of 20 million is 1 %; its root 0.1
    paid = costs.cost(as_rows(0.1, -0.1), torch.full((1,), 2.0).double(), as_rows(2e7, 0.0))
    assert paid.item() == pytest.approx(0.5 * 0.1 * 0.1, rel=1e-12)  # unknown volume is free


@pytest.mark.parametrize("impact", [0.0, 0.3])
def test_slopes_are_the_derivative_of_the_cost(impact: float) -> None:
    costs = TradeCosts(factories.cost_config(impact_coefficient=impact))
    trades = as_rows(0.3, -0.2, 0.05, 0.0).requires_grad_()
    market = (torch.full((1,), 1.5).double(), as_rows(1e6, 2e6, 0.0, 3e6))
    costs.cost(trades, *market).sum().backward()
    slopes = costs.slopes(trades.detach(), *market)
    assert trades.grad is not None
    # at a trade of 0 the derivative of |v| is taken as 0 on both sides
    torch.testing.assert_close(slopes, trades.grad, rtol=1e-12, atol=0)


def test_impact_without_volume_is_refused() -> None:
    costs = TradeCosts(factories.cost_config(impact_coefficient=0.1))
    with pytest.raises(ValueError, match="dollar volume"):
        costs.cost(as_rows(0.1), torch.ones(1).double(), None)


def test_rows_of_unlike_costs_pay_what_they_pay_alone() -> None:
    configs = [
        factories.cost_config(),
        factories.cost_config(buy_bps=0.0, impact_coefficient=0.3),
        factories.cost_config(sell_bps=50.0, capital=1e7),
    ]
    trades, volume = as_rows(0.3, -0.2, 0.05).repeat(3, 1), as_rows(1e6, 2e6, 0.0).repeat(3, 1)
    wealth = torch.tensor([1.0, 1.5, 0.7], dtype=torch.float64)
    together = TradeCosts(configs, torch.float64)
    alone = [TradeCosts(config) for config in configs]
    for name in ("cost", "slopes"):
        expected = [
            getattr(costs, name)(trades[i : i + 1], wealth[i : i + 1], volume[i : i + 1])
            for i, costs in enumerate(alone)
        ]
        found = getattr(together, name)(trades, wealth, volume)
        torch.testing.assert_close(found, torch.cat(expected), rtol=1e-15, atol=0)
        picked = together.of_rows(torch.tensor([2, 0]))
        some = getattr(picked, name)(trades[:2], wealth[[2, 0]], volume[:2])
        torch.testing.assert_close(some, torch.cat([expected[2], expected[0]]), rtol=1e-15, atol=0)


SECTOR_OF = np.array([0, 0, 0, 1, 1, 2])


def draw_orders(seed: int, rows: int = 64) -> Orders:
    """Draw orders beside frozen holdings; limits of sectors, of the whole, both or none bind."""
    rng = np.random.default_rng(seed)
    holdings = rng.dirichlet(np.ones(7), rows)[:, :-1]
    is_frozen = rng.random(holdings.shape) < rng.choice([0.0, 0.2, 0.6, 1.0], (rows, 1))
    targets = rng.dirichlet(np.ones(7), rows)[:, :-1] * rng.uniform(0.2, 1.0, (rows, 1))
    targets *= rng.random(targets.shape) < 0.8
    member = np.eye(3)[SECTOR_OF]
    values, fillable = holdings * is_frozen, targets * ~is_frozen
    arrays = {
        "values": values,
        "invested_limit": targets.sum(axis=1),
        "sector_limits": np.maximum(targets @ member, rng.uniform(0.0, 0.5)),
        "sector_targets": fillable @ member,
        "sector_values": values @ member,
        "spread": member.T,
    }
    return Orders(
        holdings=torch.as_tensor(holdings),
        targets=torch.as_tensor(fillable),
        frozen=Frozen(**{name: torch.as_tensor(array) for name, array in arrays.items()}),
        wealth=torch.as_tensor(rng.uniform(0.5, 2.0, rows)),
        dollar_volume=torch.as_tensor(rng.lognormal(14.0, 1.0, holdings.shape)),
    )


@pytest.mark.parametrize("seed", range(4))
def test_slopes_of_the_values_are_their_derivative_in_what_is_left(seed: int) -> None:
    orders = draw_orders(seed)
    left = torch.full((64, 1), 0.98, dtype=torch.float64, requires_grad=True)
    values = left * trades._weights_after(left, orders)
    slopes = trades._value_slopes(left.detach(), orders)
    for stock in range(6):
        (expected,) = torch.autograd.grad(values[:, stock].sum(), left, retain_graph=True)
        torch.testing.assert_close(slopes[:, stock], expected[:, 0], rtol=1e-10, atol=1e-12)
    assert orders.frozen is not None
    by_sector, overall, *_ = trades._scales(left.detach(), orders.frozen)
    for part in (by_sector, overall):  # nothing left, some and all
        assert bool((part == 0).any() & ((part > 0) & (part < 1)).any() & (part == 1).any())


@pytest.mark.parametrize("impact", [0.0, 0.05])
def test_newton_takes_few_rounds_and_the_cost_is_that_of_the_trade(
    impact: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # digits double every round from an error of 1 %: 2, 4, 8, 16
    costs = TradeCosts(factories.cost_config(buy_bps=80.0, impact_coefficient=impact))
    orders = draw_orders(5)
    whole = fill_orders(orders, costs)
    monkeypatch.setattr(trades, "MAX_NEWTON_ROUNDS", 4)
    short = fill_orders(orders, costs)
    torch.testing.assert_close(short.cost, whole.cost, rtol=0, atol=1e-15)
    traded = (1 - whole.cost)[:, None] * whole.weights - orders.holdings
    paid = costs.cost(traded, orders.wealth, orders.dollar_volume)
    torch.testing.assert_close(whole.cost, paid, rtol=0, atol=1e-15)
    torch.testing.assert_close(whole.turnover, 0.5 * traded.abs().sum(dim=1), rtol=0, atol=1e-15)


def test_the_gradient_of_the_cost_is_that_of_the_implicit_function() -> None:
    # c = cost(m x target - holdings), m = 1 - c: dc/dtarget = m slope / (1 + slopes . targets)
    costs = TradeCosts(factories.cost_config(buy_bps=300.0, sell_bps=100.0))
    holdings = as_rows(0.1, 0.4, 0.2)
    targets = as_rows(0.3, 0.1, 0.2).requires_grad_()
    orders = Orders(holdings, targets, None, torch.ones(1).double(), None)
    fill = fill_orders(orders, costs)
    (found,) = torch.autograd.grad(fill.cost.sum(), targets)
    left = 1 - fill.cost.item()
    slopes = np.array([305e-4, -105e-4, -105e-4])  # the last is sold, because wealth shrinks
    expected = left * slopes / (1 + slopes @ targets.detach().numpy()[0])
    np.testing.assert_allclose(found.numpy()[0], expected, rtol=1e-9)
