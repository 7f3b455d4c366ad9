"""From goal and scores to target weights, by hand: budgets, halted holdings, full sectors."""

from typing import Any

import pytest
import torch

from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import MicroView, achieved_sectors, slot_request
from hrl_sarp.envs.policies import decode_free, decode_within_sector
from tests import factories, tiny_runs

ALL = [True, True, True, True]


def view(
    goal: list[float],
    *,
    weights: Any = (0.0, 0.0, 0.0, 0.0),
    tradable: Any = ALL,
    p_bear: float = 0.0,
    gate: float = 0.0,
) -> MicroView:
    """Return one decision over two sectors of two slots."""
    regime = torch.tensor([[p_bear, 1 - p_bear, 0.0]])
    return MicroView(
        weights=torch.tensor([weights]),
        tradable=torch.tensor([tradable]),
        scalars=torch.tensor([[0.0, 0.0, gate, 0.0]]),
        goal=Goal(torch.tensor([goal]), regime),
    )


def followed(seen: MicroView, **risk: Any) -> list[float]:
    limits = factories.risk_config(**{"stock_cap": 0.5, "sector_cap": 0.9, **risk})
    request = slot_request(seen, limits)
    found: list[float] = decode_within_sector(torch.zeros(1, 4), request, 2.0)[0].tolist()
    return found


def test_a_budget_is_spread_evenly_over_the_tradable_slots() -> None:
    # 98 % of wealth is invested, the rest is cash
    assert followed(view([0.6, 0.4])) == pytest.approx([0.294, 0.294, 0.196, 0.196])
    tradable = [True, False, True, True]
    assert followed(view([0.4, 0.6], tradable=tradable)) == pytest.approx(
        [0.392, 0.0, 0.294, 0.294]
    )


def test_a_halted_holding_counts_for_its_sector() -> None:
    seen = view([0.5, 0.5], weights=(0.1, 0.3, 0.2, 0.2), tradable=[True, False, True, True])
    # 0.49 for each sector; 0.3 of the first is there already and stays
    assert followed(seen) == pytest.approx([0.19, 0.0, 0.245, 0.245])


def test_a_halted_holding_above_the_budget_takes_room_from_the_others() -> None:
    seen = view([0.2, 0.8], weights=(0.0, 0.5, 0.0, 0.0), tradable=[True, False, True, True])
    # asked 0.196 and 0.784; 0.5 is stuck in the first, so 0.48 is left in all
    assert followed(seen) == pytest.approx([0.0, 0.0, 0.24, 0.24])


def test_what_a_full_sector_cannot_hold_goes_to_the_other_and_then_to_cash() -> None:
    # two stocks of at most 0.2 hold 0.4 of the 0.784 asked; 0.196 + 0.384 meets 0.4 again
    assert followed(view([0.8, 0.2]), stock_cap=0.2) == pytest.approx([0.2] * 4)
    # at 0.3 the first holds 0.6 and the other takes the rest, 0.38
    assert followed(view([0.8, 0.2]), stock_cap=0.3) == pytest.approx([0.3, 0.3, 0.19, 0.19])


def test_fear_and_the_gate_leave_cash() -> None:
    # 1 - 0.5 x 0.6 = 0.7; behind the gate half of it
    assert sum(followed(view([0.5, 0.5], p_bear=0.6))) == pytest.approx(0.7)
    behind = followed(view([0.5, 0.5], p_bear=0.6, gate=1.0), drawdown_gate=True)
    assert sum(behind) == pytest.approx(0.35)


def test_scores_tilt_inside_a_sector_by_their_exponential() -> None:
    limits = factories.risk_config(stock_cap=0.9, sector_cap=0.9)
    request = slot_request(view([0.5, 0.5]), limits)
    scores = torch.tensor([[1.0, 0.0, -0.5, 0.5]])
    found = decode_within_sector(scores, request, 2.0)[0]
    assert float(found[0] / found[1]) == pytest.approx(7.389056, rel=1e-5)  # e^2
    assert float(found[3] / found[2]) == pytest.approx(7.389056, rel=1e-5)
    assert found.view(2, 2).sum(dim=1).tolist() == pytest.approx([0.49, 0.49])


def test_the_free_decode_sees_the_goal_only() -> None:
    limits = factories.risk_config(stock_cap=0.9, sector_cap=0.9)
    scores = torch.tensor([[0.4, -0.2, 0.1, 0.0]])
    first, second = (
        decode_free(scores, slot_request(view(goal), limits), 3.0)
        for goal in ([0.9, 0.1], [0.1, 0.9])
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(first, 0.98 * (3.0 * scores).softmax(dim=1))


def test_achieved_shares_leave_cash_out() -> None:
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    weights = torch.zeros(2, tensors.n_assets, dtype=torch.float64)
    weights[0, tensors.sector_of == 1] = 0.1  # five stocks
    weights[0, 0] = 0.1
    shares = achieved_sectors(tensors, weights)
    assert shares[0].tolist() == pytest.approx([1 / 6, 5 / 6, 0.0])
    assert shares[1].tolist() == [0.0, 0.0, 0.0]  # all cash achieves no goal
