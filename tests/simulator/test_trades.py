import pytest
import torch

from hrl_sarp.simulator.trades import TradeCosts
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
