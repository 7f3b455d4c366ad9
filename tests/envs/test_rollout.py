from dataclasses import replace

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import DayRange, Market, Trajectory
from hrl_sarp.envs.rollout import HOLD, Decision, DecisionView, Variant, rollout
from hrl_sarp.errors import SimulatorError
from hrl_sarp.market.tensors import MarketTensors
from tests import factories
from tests.evaluation.small_runs import ScriptedPolicy, buy_once, even_goal_policy, steady_market

FREE = factories.cost_config(buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0)
WIDE = factories.risk_config(stock_cap=1.0, sector_cap=1.0)


def _run(market: Market, *policies: ScriptedPolicy, **options: object) -> Trajectory:
    tensors = MarketTensors(market, torch.float64, "cpu")
    variant = Variant(**{"costs": FREE, "risk": WIDE, **options})
    (found,) = rollout(policies, tensors, [DayRange(0, market.n_days)], [variant])
    return found


def test_first_row_is_earned_on_the_session_after_the_start() -> None:
    market = steady_market([0.01, 0.03], 5, [0, 1])
    found = _run(market, ScriptedPolicy("first", buy_once(0.98, 0.0)))
    np.testing.assert_array_equal(found.dates, market.dates[1:])
    # bought at the open of session 1: 0.98 earns 1 % from then on
    assert found.net_return[0, 1] == pytest.approx(0.0098)


def test_policies_are_asked_every_day_but_the_last() -> None:
    market = steady_market([0.01], 6, [0])
    policy = ScriptedPolicy("idle", lambda view: HOLD)
    _run(market, policy)
    assert policy.days == [0, 1, 2, 3, 4]


def test_week_end_and_first_day_are_told() -> None:
    market = steady_market([0.01], 8, [0])  # Monday 2001-01-01 on
    told: dict[int, tuple[bool, bool]] = {}

    def script(view: DecisionView) -> Decision:
        told[int(view.days)] = (view.is_first, bool(view.is_week_end))
        return HOLD

    _run(market, ScriptedPolicy("idle", script))
    assert told[0] == (True, False)
    assert told[4] == (False, True)
    assert told[5] == (False, False)


def test_view_shows_the_policy_its_own_portfolio() -> None:
    market = steady_market([0.01, 0.0], 4, [0, 1])
    seen: list[float] = []

    def script(view: DecisionView) -> Decision:
        seen.append(float(view.state.weights[0, 1]))
        return buy_once(0.0, 0.5)(view)

    _run(market, ScriptedPolicy("other", buy_once(0.9, 0.0)), ScriptedPolicy("own", script))
    assert seen == pytest.approx([0.0, 0.5, 0.5])


def test_holding_policy_drifts_without_costs() -> None:
    market = steady_market([0.01, 0.0], 4, [0, 1])
    found = _run(market, ScriptedPolicy("own", buy_once(0.5, 0.3)), costs=factories.cost_config())
    assert found.cost[0, 1] > 0
    np.testing.assert_array_equal(found.cost[1:, 1], 0.0)
    # shares after two sessions of 1 % on the first stock, costs of entry apart
    wealth = 0.5 * 1.01 + 0.5
    assert found.weights_before[1, 1, 0] == pytest.approx(0.505 / wealth)


def test_index_is_in_front_and_pays_nothing() -> None:
    market = factories.random_market(np.random.default_rng(0))
    found = _run(market, ScriptedPolicy("own", lambda view: HOLD))
    assert found.names == ("index", "own")
    np.testing.assert_array_equal(found.net_return[:, 0], market.benchmark_return[1:])
    np.testing.assert_allclose(found.wealth[:, 0], np.cumprod(1 + market.benchmark_return[1:]))
    assert found.cost[:, 0].max() == 0


def test_idle_policy_earns_cash() -> None:
    market = factories.random_market(np.random.default_rng(0))
    found = _run(market, ScriptedPolicy("own", lambda view: HOLD))
    np.testing.assert_allclose(found.net_return[:, 1], market.risk_free[1:], rtol=1e-12)


def test_net_is_gross_less_the_cost_of_the_open() -> None:
    market = factories.random_market(np.random.default_rng(1))
    found = _run(market, even_goal_policy("own", 3), costs=factories.cost_config())
    expected = (1 + found.gross_return) * (1 - found.cost) - 1
    np.testing.assert_allclose(found.net_return, expected, atol=1e-14)


def test_lag_moves_the_entry_by_its_sessions() -> None:
    market = steady_market([0.01], 6, [0])
    found = _run(market, ScriptedPolicy("own", buy_once(0.98)), lag_days=2)
    assert (found.weights_after[:, 1, 0] > 0).tolist() == [False, False, True, True, True]


def test_late_order_still_means_the_same_stock_when_slots_change() -> None:
    market = steady_market([0.0, 0.0], 5, [0, 0])
    slots = market.slots.copy()
    slots[1:] = slots[1:, ::-1]
    swapped = replace(market, slots=slots)
    found = _run(swapped, ScriptedPolicy("own", buy_once(0.6, 0.0)), lag_days=1)
    assert found.weights_after[-1, 1] == pytest.approx([0.6, 0.0])


def test_probable_bear_lowers_the_exposure() -> None:
    market = steady_market([0.0], 4, [0])
    fearful = ScriptedPolicy("own", lambda view: Decision(torch.ones(1), p_bear=0.8))
    # 1 - 0.5 x 0.8
    assert _run(market, fearful).weights_after[0, 1, 0] == pytest.approx(0.6)


def test_closed_gate_halves_a_policy_that_only_holds() -> None:
    market = steady_market([-0.05], 6, [0])
    gated = factories.risk_config(stock_cap=1.0, sector_cap=1.0, drawdown_gate=True)
    found = _run(market, ScriptedPolicy("own", buy_once(0.98)), risk=gated)
    # two sessions of -5 % pass the 7 % drawdown: the third opens at half of 0.98
    assert found.weights_after[1, 1, 0] > 0.9
    assert found.weights_after[2, 1, 0] == pytest.approx(0.49)


def test_goal_is_recorded_and_missing_goals_are_nan() -> None:
    market = factories.random_market(np.random.default_rng(2))
    found = _run(market, even_goal_policy("own", 3), ScriptedPolicy("idle", lambda view: HOLD))
    np.testing.assert_allclose(found.goal[7, 1], [1 / 3, 1 / 3, 1 / 3, 0.2, 0.5, 0.3], rtol=1e-6)
    assert np.isnan(found.goal[:, [0, 2]]).all()


def test_weights_can_be_left_out() -> None:
    market = factories.random_market(np.random.default_rng(2))
    kept = _run(market, even_goal_policy("own", 3))
    light = _run(market, even_goal_policy("own", 3), keeps_weights=False)
    assert light.weights_after.shape == (market.n_days - 1, 2, 0)
    np.testing.assert_array_equal(light.net_return, kept.net_return)


def test_rows_do_not_depend_on_who_runs_beside_them() -> None:
    market = factories.random_market(np.random.default_rng(3))
    alone = _run(market, even_goal_policy("own", 3))
    beside = _run(market, ScriptedPolicy("x", lambda view: HOLD), even_goal_policy("own", 3))
    np.testing.assert_allclose(beside.net_return[:, 2], alone.net_return[:, 1], atol=1e-14)


def test_names_that_appear_twice_are_refused() -> None:
    market = steady_market([0.0], 4, [0])
    twins = [ScriptedPolicy("own", lambda view: HOLD) for _ in range(2)]
    with pytest.raises(SimulatorError, match="duplicates: own"):
        _run(market, *twins)


def test_name_of_the_index_is_refused() -> None:
    market = steady_market([0.0], 4, [0])
    with pytest.raises(SimulatorError, match="index"):
        _run(market, ScriptedPolicy("index", lambda view: HOLD))


def test_span_of_one_session_is_refused() -> None:
    market = steady_market([0.0], 4, [0])
    tensors = MarketTensors(market, torch.float64, "cpu")
    policy = ScriptedPolicy("own", lambda view: HOLD)
    with pytest.raises(SimulatorError, match="at least 2 sessions"):
        rollout([policy], tensors, [DayRange(3, 4)], [Variant(FREE, WIDE)])
