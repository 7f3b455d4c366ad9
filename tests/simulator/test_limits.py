import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.contracts import Market
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.limits import (
    DecisionLimits,
    decision_limits,
    exposure_limit,
    feasible_goal,
    moved_by_limits,
    next_gate_state,
    target_weights,
)
from tests import factories

DAY = torch.tensor([1])
FULL = torch.tensor([0.98], dtype=torch.float64)


def rows(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def tensors_of(market: Market) -> MarketTensors:
    return MarketTensors(market, torch.float64, "cpu")


def two_sectors(**masks: np.ndarray) -> MarketTensors:
    """Sector 0 holds stocks 0 to 2, sector 1 stocks 3 to 5; three quiet days."""
    flat = np.zeros((3, 6))
    return tensors_of(factories.market_with(flat, flat, [0, 0, 0, 1, 1, 1], **masks))


def all_but(*assets: int) -> np.ndarray:
    mask = np.ones((3, 6), dtype=bool)
    mask[1, list(assets)] = False
    return mask


def test_exposure_is_what_the_goal_does_not_keep_in_cash_and_halves_behind_the_gate() -> None:
    cash, gate = torch.tensor([0.0, 0.25, 1.0, 1.5, 0.0]), torch.tensor([0, 0, 0, 0, 3])
    risk = factories.risk_config(drawdown_gate=True)
    # min(0.98, 1 - cash), at least 0; the last is halved
    torch.testing.assert_close(
        exposure_limit(cash, risk, gate), torch.tensor([0.98, 0.75, 0.0, 0.0, 0.49])
    )
    no_gate = exposure_limit(cash, factories.risk_config(), gate)
    assert no_gate[4].item() == pytest.approx(0.98)


def limits_on(
    tensors: MarketTensors, held: torch.Tensor, exposure: torch.Tensor, day: torch.Tensor = DAY
) -> tuple[DecisionLimits, torch.Tensor]:
    """Return the limits of a day, and the holdings that cannot trade."""
    halted = held * tensors.halted[day]
    tradable = tensors.by_sector(tensors.slot_open[day])
    by_sector = halted @ tensors.sector_member
    return decision_limits(tradable, by_sector, exposure, factories.risk_config()), halted


def test_halted_holdings_are_taken_off_exposure_and_sector_cap() -> None:
    limits, _ = limits_on(two_sectors(tradable=all_but(0)), rows(0.15, 0.1, 0, 0, 0.2, 0), FULL)
    torch.testing.assert_close(limits.exposure, rows(0.83)[0])
    torch.testing.assert_close(limits.sector_caps, rows(0.25, 0.4))
    torch.testing.assert_close(limits.stock_caps[0, 0], rows(0.0, 0.2, 0.2)[0])


def test_halted_holdings_above_their_limits_leave_no_room_instead_of_a_negative_one() -> None:
    tensors = two_sectors(tradable=all_but(0, 1, 2))
    limits, _ = limits_on(tensors, rows(0.5, 0, 0.5, 0, 0, 0), FULL)
    assert limits.exposure.item() == 0.0
    assert limits.sector_caps[0, 0].item() == 0.0


def test_goal_is_capped_by_the_sector_and_by_what_its_tradable_stocks_hold() -> None:
    # caps: sector 0 has one tradable stock: 0.2; sector 1: min(0.6, 3 x 0.2)
    tensors = two_sectors(tradable=all_but(0, 1))
    risk = factories.risk_config(sector_cap=0.6)
    goal = feasible_goal(tensors, DAY, rows(0.9, 0.1), risk)
    torch.testing.assert_close(goal, rows(0.2, 0.6))
    # With room for everything a goal is unchanged, and one above a cap spills to the other.
    wide = factories.risk_config(sector_cap=0.6)
    torch.testing.assert_close(
        feasible_goal(two_sectors(), DAY, rows(0.45, 0.55), wide), rows(0.45, 0.55)
    )
    torch.testing.assert_close(
        feasible_goal(two_sectors(), DAY, rows(0.9, 0.1), wide), rows(0.6, 0.4)
    )


def test_feasible_action_is_the_target() -> None:
    action = rows(0.2, 0.1, 0.05, 0.0, 0.12, 0.2)
    target = target_weights(
        two_sectors(), DAY, torch.zeros_like(action), action, FULL, factories.risk_config()
    )
    torch.testing.assert_close(target, action, rtol=0, atol=1e-15)


def test_action_above_the_exposure_is_scaled_to_it() -> None:
    action = torch.full((1, 6), 0.2, dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64)
    target = target_weights(
        two_sectors(), DAY, torch.zeros_like(action), action, half, factories.risk_config()
    )
    torch.testing.assert_close(target, torch.full_like(target, 0.5 / 6))


def test_untradable_and_negative_actions_count_nothing_and_halted_holdings_stay() -> None:
    tensors = two_sectors(tradable=all_but(0))
    action = rows(0.2, 0.1, -0.3, 0.1, 0.0, 0.0)
    target = target_weights(
        tensors, DAY, rows(0.07, 0, 0.2, 0, 0, 0), action, FULL, factories.risk_config()
    )
    torch.testing.assert_close(target, rows(0.07, 0.1, 0, 0.1, 0, 0))


def test_leaver_of_the_universe_is_sold_unless_it_is_halted() -> None:
    held = rows(0.1, 0.1, 0, 0, 0, 0)
    action = rows(0.0, 0.1, 0.1, 0.1, 0.0, 0.0)
    tensors = two_sectors(eligible=all_but(0))
    # slots of day 1 hold stocks 1, 2, -, 3, 4, 5
    target = target_weights(
        tensors, DAY, held, action[:, [1, 2, 0, 3, 4, 5]], FULL, factories.risk_config()
    )
    torch.testing.assert_close(target, action)
    halted = two_sectors(eligible=all_but(0), tradable=all_but(0))
    kept = target_weights(
        halted, DAY, held, action[:, [1, 2, 0, 3, 4, 5]], FULL, factories.risk_config()
    )
    assert kept[0, 0].item() == pytest.approx(0.1)


@pytest.mark.parametrize("slot", range(6))
def test_any_stock_can_be_driven_to_its_cap(slot: int) -> None:
    action = torch.zeros(1, 6, dtype=torch.float64)
    action[0, slot] = 0.2
    target = target_weights(
        two_sectors(), DAY, torch.zeros_like(action), action, FULL, factories.risk_config()
    )
    torch.testing.assert_close(target, action, rtol=0, atol=1e-15)


def test_turnover_cap_limits_the_way_from_the_current_weights() -> None:
    risk = factories.risk_config(turnover_cap=0.05)
    held, action = rows(0.2, 0, 0, 0, 0, 0), rows(0, 0, 0, 0, 0, 0.2)
    target = target_weights(two_sectors(), DAY, held, action, FULL, risk)
    # half L1 is 0.2, so a quarter of the way
    torch.testing.assert_close(target, rows(0.15, 0, 0, 0, 0, 0.05))


def test_position_limit_keeps_the_best_of_each_sector_and_the_sectors_mass() -> None:
    risk = factories.risk_config(max_positions=3, stock_cap=0.4)
    action = rows(0.1, 0.15, 0.05, 0.1, 0.0, 0.02)
    target = target_weights(two_sectors(), DAY, torch.zeros_like(action), action, FULL, risk)
    # masses 0.30 and 0.12: quotients 0.30, 0.15, 0.12 -> two positions and one
    torch.testing.assert_close(target, rows(0.12, 0.18, 0, 0.12, 0, 0))


@given(seed=st.integers(0, 2**32 - 1), positions=st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_targets_of_random_actions_keep_every_limit(seed: int, positions: int) -> None:
    rng = np.random.default_rng(seed)
    tensors = tensors_of(factories.random_market(rng, n_days=12))
    risk = factories.risk_config(max_positions=positions)
    day = torch.as_tensor(rng.integers(0, 12, 16))
    held = torch.as_tensor(rng.dirichlet(np.ones(tensors.n_assets + 1), 16)[:, :-1])
    action = torch.as_tensor(rng.exponential(0.1, (16, tensors.n_slots)))
    exposure = torch.as_tensor(rng.uniform(0, 0.98, 16))
    target = target_weights(tensors, day, held, action, exposure, risk)
    limits, halted = limits_on(tensors, held, exposure, day)
    free = target - halted
    member = torch.eye(3, dtype=torch.float64)[tensors.sector_of]
    assert float(free.min()) >= 0
    assert float(free.max()) <= risk.stock_cap + 1e-12
    assert float((free @ member - limits.sector_caps).max()) <= 1e-12
    assert float((free.sum(1) - limits.exposure).max()) <= 1e-12
    assert bool((free[~(tensors.tradable[day] & tensors.eligible[day])] == 0).all())
    if positions:
        assert int((free > 0).sum(1).max()) <= positions


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "limits",
    [{}, {"max_positions": 4}, {"turnover_cap": 0.3}],
    ids=["caps", "positions", "turnover"],
)
@pytest.mark.parametrize("with_gradients", [False, True])
def test_targets_and_goals_of_a_row_do_not_depend_on_its_batch(
    seed: int, limits: dict[str, float], *, with_gradients: bool
) -> None:
    rng = np.random.default_rng(seed)
    tensors = tensors_of(factories.random_market(rng, n_days=12))
    risk = factories.risk_config(**limits)
    day = torch.as_tensor(rng.integers(1, 12, 8))
    held = torch.as_tensor(rng.dirichlet(np.ones(tensors.n_assets + 1), 8)[:, :-1])
    action = torch.as_tensor(rng.exponential(0.1, (8, tensors.n_slots)))
    exposure = torch.as_tensor(rng.uniform(0.2, 0.98, 8))
    goal = torch.as_tensor(rng.dirichlet(np.ones(3), 8))
    with torch.set_grad_enabled(with_gradients):
        together = target_weights(tensors, day, held, action, exposure, risk)
        goals = feasible_goal(tensors, day, goal, risk)
        for i in range(8):
            own = slice(i, i + 1)
            alone = target_weights(tensors, day[own], held[own], action[own], exposure[own], risk)
            torch.testing.assert_close(together[own], alone, rtol=0, atol=1e-13)
            alone = feasible_goal(tensors, day[own], goal[own], risk)
            torch.testing.assert_close(goals[own], alone, rtol=0, atol=1e-13)


def test_gate_closes_at_the_drawdown_counts_down_and_starts_a_new_peak() -> None:
    risk = factories.risk_config(drawdown_gate=True, gate_drawdown=0.1, gate_days=2)
    peak, gate = torch.ones(1).double(), torch.zeros(1, dtype=torch.int64)
    seen = []
    for wealth in (1.2, 1.1, 1.08, 1.0, 0.9, 0.85, 0.8):
        peak, gate = next_gate_state(torch.tensor([wealth], dtype=torch.float64), peak, gate, risk)
        seen.append((round(peak.item(), 10), int(gate)))
    # 1.08 is 10 % below 1.2: closed for two sessions. After 1.0 and 0.9 it opens, peak 0.9;
    # 0.85 is 5.6 % below; 0.8 is 11 % below: closed again.
    assert seen == [(1.2, 0), (1.2, 0), (1.2, 2), (1.2, 1), (0.9, 0), (0.9, 0), (0.9, 2)]


def test_gate_of_some_rows_leaves_the_others_open() -> None:
    risk = factories.risk_config(drawdown_gate=True, gate_drawdown=0.1, gate_days=2)
    wealth, gated = torch.tensor([0.8, 0.8]), torch.tensor([True, False])
    _, gate = next_gate_state(wealth, torch.ones(2), torch.zeros(2).long(), risk, gated)
    assert gate.tolist() == [2, 0]


def test_gate_that_is_off_only_tracks_the_peak() -> None:
    peak, gate = next_gate_state(
        torch.tensor([0.5, 1.5]), torch.ones(2), torch.zeros(2).long(), factories.risk_config()
    )
    assert peak.tolist() == [1.0, 1.5]
    assert gate.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_within_every_limit_are_taken_as_they_are_to_the_last_bit(
    dtype: torch.dtype,
) -> None:
    flat = np.zeros((3, 6))
    market = factories.market_with(flat, flat, [0, 0, 0, 1, 1, 1])
    tensors = MarketTensors(market, dtype, "cpu")
    action = torch.tensor([[0.2, 0.13, 0.07, 0.2, 0.2, 0.0]], dtype=dtype)  # 0.4 a sector: full
    exposure = torch.ones(1, dtype=dtype)
    with torch.no_grad():
        target = target_weights(
            tensors, DAY, torch.zeros_like(action), action, exposure, factories.risk_config()
        )
    assert torch.equal(target, action)


def test_what_is_taken_as_it_is_and_what_is_projected_are_one_function() -> None:
    """With gradients every action is projected; the value must not depend on who asks."""
    tensors, risk = two_sectors(), factories.risk_config()
    action = rows(0.2, 0.13, 0.07, 0.1, 0.1, 0.0).requires_grad_()
    projected = target_weights(tensors, DAY, rows(0, 0, 0, 0, 0, 0), action, FULL, risk)
    with torch.no_grad():
        taken = target_weights(tensors, DAY, rows(0, 0, 0, 0, 0, 0), action, FULL, risk)
    torch.testing.assert_close(projected.detach(), taken, rtol=0, atol=1e-15)
    (gradient,) = torch.autograd.grad(projected[0, 3], action)
    assert float(gradient.abs().sum()) > 0


def moved(action: torch.Tensor, **limits: float) -> float:
    """Share of wealth that limits move, from cash, with six stocks in two sectors."""
    tensors, risk = two_sectors(), factories.risk_config(**limits)
    held = torch.zeros_like(action)
    target = target_weights(tensors, DAY, held, action, FULL, risk)
    return moved_by_limits(tensors, DAY, held, action, FULL, target).item()


def test_what_limits_move_is_half_of_the_distance_between_asked_and_held() -> None:
    wide = {"stock_cap": 1.0, "sector_cap": 1.0}
    assert moved(rows(0.3, 0.3, 0, 0.2, 0, 0), **wide) == pytest.approx(0.0, abs=1e-12)
    # scaled down to 98 %, with its proportions: not moved
    assert moved(rows(1.0, 1.0, 0, 0, 0, 0), **wide) == pytest.approx(0.0, abs=1e-12)
    # 0.5 and 0.3 asked, 0.2 each held: 0.3 and 0.1 go to cash
    caps = {"stock_cap": 0.2, "sector_cap": 1.0}
    assert moved(rows(0.5, 0.3, 0, 0, 0, 0), **caps) == pytest.approx(0.4)
    # 0.3 too much of the first: 0.1 fits into the second, 0.2 into cash
    assert moved(rows(0.5, 0.1, 0, 0, 0, 0), **caps) == pytest.approx(0.3)
    # a sector of 0.6 at most: 0.3 of it goes to the other one
    assert moved(rows(0.3, 0.3, 0.3, 0.05, 0, 0), stock_cap=0.5, sector_cap=0.6) == pytest.approx(
        0.3
    )


def test_what_cannot_trade_is_neither_asked_nor_moved() -> None:
    tensors = two_sectors(tradable=all_but(0, 1))
    held, action = rows(0.2, 0, 0, 0, 0, 0), rows(0, 0.4, 0.1, 0.1, 0, 0)
    risk = factories.risk_config(stock_cap=0.5, sector_cap=1.0)
    target = target_weights(tensors, DAY, held, action, FULL, risk)
    # the halted holding stays, the order for a stock without a bar is cancelled
    assert moved_by_limits(tensors, DAY, held, action, FULL, target).item() == pytest.approx(0.0)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_what_limits_move_of_many_rows_is_what_they_move_of_each(seed: int) -> None:
    """Half the L1 distance of orders and trades with cash, written out row by row."""
    rng = np.random.default_rng(seed)
    tensors = tensors_of(factories.random_market(rng, n_days=12))
    day = torch.as_tensor(rng.integers(1, 12, 8))
    held = torch.as_tensor(rng.dirichlet(np.ones(tensors.n_assets + 1), 8)[:, :-1])
    action = torch.as_tensor(rng.exponential(0.1, (8, tensors.n_slots)))
    exposure = torch.as_tensor(rng.uniform(0.1, 0.98, 8))
    target = target_weights(tensors, day, held, action, exposure, factories.risk_config())
    found = moved_by_limits(tensors, day, held, action, exposure, target)
    for i in range(8):
        halted = held[i] * tensors.halted[day[i]]
        asked = tensors.to_assets(action[i : i + 1] * tensors.slot_open[day[i]], day[i : i + 1])[0]
        room = max(float(exposure[i] - halted.sum()), 0.0)
        asked = asked * min(1.0, room / float(asked.sum()))
        kept = target[i] - halted
        cash = float(asked.sum() - kept.sum())
        expected = 0.5 * (float((kept - asked).abs().sum()) + abs(cash))
        assert found[i].item() == pytest.approx(expected, abs=1e-12)
