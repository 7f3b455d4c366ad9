from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import DayRange, Market, Trajectory
from hrl_sarp.envs.policies import FollowGoal, ProportionalGoal
from hrl_sarp.envs.rollout import (
    HOLD,
    Decision,
    DecisionView,
    HierarchicalPolicy,
    Variant,
    rollout,
)
from hrl_sarp.errors import SimulatorError
from hrl_sarp.evaluation.baselines import make_baselines
from hrl_sarp.market.tensors import MarketTensors
from tests import factories, tiny_runs
from tests.evaluation.small_runs import (
    ScriptedPolicy,
    buy_once,
    even_goal_policy,
    small_config,
    steady_market,
)

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


def test_cash_that_a_policy_asks_for_lowers_the_exposure() -> None:
    market = steady_market([0.0], 4, [0])
    careful = ScriptedPolicy("own", lambda view: Decision(torch.ones(1), cash=0.4))
    assert _run(market, careful).weights_after[0, 1, 0] == pytest.approx(0.6)


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
    np.testing.assert_allclose(
        found.goal[7, 1], [1 / 3, 1 / 3, 1 / 3, 0.1, 0.2, 0.5, 0.3], rtol=1e-6
    )
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


# --- side by side -------------------------------------------------------------------------------


def frictions() -> dict[str, Variant]:
    """Return variants that differ in all that may differ."""
    costs, risk = factories.cost_config(), factories.risk_config(gate_drawdown=0.02)
    gated = risk.model_copy(update={"drawdown_gate": True})
    return {
        "plain": Variant(costs, risk),
        "free": Variant(FREE, risk),
        "delisted": Variant(factories.cost_config(delisting_return=-0.3), risk),
        "late": Variant(costs, risk, lag_days=1, keeps_weights=False),
        "later": Variant(costs, risk, lag_days=3),
        "gated": Variant(costs, gated),
    }


def rule(name: str, tensors: MarketTensors) -> HierarchicalPolicy:
    follow = FollowGoal(tensors, factories.risk_config())
    return HierarchicalPolicy(name, ProportionalGoal(tensors), follow)


def assert_equal(found: Trajectory, alone: Trajectory) -> None:
    assert found.names == alone.names
    for item in fields(Trajectory):
        first, second = getattr(found, item.name), getattr(alone, item.name)
        if isinstance(first, np.ndarray) and first.dtype.kind == "f":
            np.testing.assert_allclose(first, second, rtol=0, atol=1e-12, err_msg=item.name)


def test_variants_and_spans_side_by_side_equal_each_one_alone() -> None:
    market = factories.random_market(np.random.default_rng(4), n_days=120)
    tensors = MarketTensors(market, torch.float64, "cpu")
    spans = [DayRange(0, 60), DayRange(57, 117)]

    def daily(view: DecisionView) -> Decision:
        return Decision(view.tradable / view.tradable.sum(dim=1, keepdim=True), cash=0.1)

    def policies() -> list[Any]:
        even = make_baselines(market, small_config())[0]
        return [even, rule("pair", tensors), ScriptedPolicy("own", daily)]

    together = rollout(policies(), tensors, spans, list(frictions().values()))
    places = [(variant, span) for variant in frictions().values() for span in spans]
    for found, (variant, span) in zip(together, places, strict=True):
        (alone,) = rollout(policies(), tensors, [span], [variant])
        assert_equal(found, alone)
    assert len({ledger.net_return[:, 2].sum() for ledger in together}) == len(together)


def test_pairs_that_share_networks_decide_as_each_one_alone() -> None:
    market = tiny_runs.with_nodes(tiny_runs.tiny_market(1))
    tensors, config = MarketTensors(market, torch.float64, "cpu"), tiny_runs.tiny_config()
    macro = tiny_runs.macro_agent(tensors, config, 2)
    micro = tiny_runs.micro_agent(tensors, config, 2)
    follow, even = FollowGoal(tensors, config.risk), ProportionalGoal(tensors)
    pairs = [
        HierarchicalPolicy("both", macro, micro),
        HierarchicalPolicy("macro", macro, follow),
        HierarchicalPolicy("micro", even, micro),
        HierarchicalPolicy("neither", even, follow),
    ]
    span, plain = DayRange(20, 70), frictions()["plain"]
    (together,) = rollout(pairs, tensors, [span], [plain])
    for column, pair in enumerate(pairs, start=1):
        (alone,) = rollout([pair], tensors, [span], [plain])
        # networks compute in float32, where a batch sums in another order than a row
        near = 1e-12 if pair.name == "neither" else 1e-6
        for name in ("net_return", "turnover", "weights_after"):
            first, second = getattr(together, name)[:, column], getattr(alone, name)[:, 1]
            np.testing.assert_allclose(first, second, rtol=0, atol=near, err_msg=name)
    assert np.isnan(together.goal[:, 3:]).all()
    assert np.isfinite(together.goal[:, 1:3]).all()


def test_a_policy_may_hold_some_portfolios_and_answer_with_numpy() -> None:
    class Weekly:
        name = "weekly"

        def decide(self, view: DecisionView) -> Decision:
            weights = np.full((len(view.days), view.tensors.n_slots), 0.1)
            return Decision(weights, hold=~view.is_week_end)

    market = steady_market([0.01, 0.0], 30, [0, 1])
    tensors, spans = MarketTensors(market, torch.float64, "cpu"), [DayRange(0, 20), DayRange(2, 22)]
    first, second = rollout([Weekly()], tensors, spans, [Variant(FREE, WIDE)])
    # Fridays are rows 4, 9, ...: decisions 4 and 2 of the spans, filled one session later
    assert np.flatnonzero(first.turnover[:, 1])[0] == 4
    assert np.flatnonzero(second.turnover[:, 1])[0] == 2


def test_a_policy_may_look_at_features_and_at_what_it_holds() -> None:
    seen: list[torch.Tensor] = []

    def script(view: DecisionView) -> Decision:
        seen.append(view.weights)
        return Decision(0.5 * (view.feature("feature_2") > 0) / view.tensors.n_slots)

    market = factories.random_market(np.random.default_rng(0), halts=False, delistings=False)
    found = _run(market, ScriptedPolicy("own", script), risk=WIDE)
    chosen = market.stock_features[0, market.slots[0], 2] > 0
    bought = found.target_weights[0, 1, market.slots[0]]
    np.testing.assert_allclose(bought, 0.5 * chosen / market.n_slots, rtol=1e-6)  # float32
    assert seen[0].sum() == 0
    assert seen[1].sum() > 0


def test_spans_of_unlike_length_and_unlike_limits_are_refused() -> None:
    market = steady_market([0.0], 10, [0])
    tensors, policy = MarketTensors(market, torch.float64, "cpu"), even_goal_policy("own", 1)
    with pytest.raises(SimulatorError, match=r"spans of one length, found \[4, 5\]"):
        rollout([policy], tensors, [DayRange(0, 4), DayRange(0, 5)], [Variant(FREE, WIDE)])
    narrow = factories.risk_config(stock_cap=0.1)
    with pytest.raises(SimulatorError, match="share their limits"):
        rollout([policy], tensors, [DayRange(0, 4)], [Variant(FREE, WIDE), Variant(FREE, narrow)])
