from dataclasses import fields

import numpy as np
import pytest

from hrl_sarp.contracts import DayRange, Trajectory
from hrl_sarp.evaluation.backtest import BacktestResult, backtest, cut_sentences, run_backtest
from hrl_sarp.evaluation.baselines import make_baselines
from hrl_sarp.evaluation.report.analysis import Analysis
from tests import factories
from tests.evaluation.small_runs import even_goal_policy, small_config, steady_market


def test_variants_order_as_their_costs_do(result: BacktestResult) -> None:
    free, double = result.variants["zero costs"], result.variants["double costs"]
    own = result.main.names.index("own")
    wealth = [rows.wealth[-1, own] for rows in (double, result.main, free)]
    assert wealth == sorted(wealth)
    assert free.cost.max() == 0
    np.testing.assert_allclose(free.net_return, free.gross_return, atol=1e-15)


def test_delisting_stress_hurts_who_held_a_vanished_stock(analysis: Analysis) -> None:
    stressed = analysis.variants["delisted at -30%"]["1/N"]
    assert stressed["annual_return"] < analysis.performances["1/N"]["annual_return"]


def test_late_orders_change_a_policy_that_trades_daily(result: BacktestResult) -> None:
    own = result.main.names.index("own")
    late = result.variants["one session late"]
    assert late.net_return[0, own] == pytest.approx(result.market.risk_free[_first(result)])
    assert late.wealth[-1, own] != result.main.wealth[-1, own]


def test_drawdown_gate_cuts_exposure_after_a_fall() -> None:
    """All stocks fall 3 % a day: the gate halves the 90 % invested, for 1.35 % a day less loss."""
    config = small_config(baselines=["momentum"], random_portfolios=0)
    market = steady_market([-0.03] * 6, 120, [0, 0, 1, 1, 2, 2])
    result = run_backtest(market, [even_goal_policy("own", 3)], "test", config)
    assert not config.risk.drawdown_gate
    gated = result.variants["drawdown gate"]
    own = gated.names.index("own")
    assert gated.wealth[-1, own] > 1.1 * result.main.wealth[-1, own]
    # the same until the drawdown reaches the gate's
    before = np.flatnonzero(result.main.wealth[:, own] > 1 - config.risk.gate_drawdown)
    np.testing.assert_array_equal(gated.wealth[before, own], result.main.wealth[before, own])


def _first(result: BacktestResult) -> int:
    return result.market.split.test.start + 1


def test_same_inputs_give_the_same_bits() -> None:
    market = factories.random_market(np.random.default_rng(7), n_days=200)
    config = small_config()

    def once() -> Trajectory:
        policies = [*make_baselines(market, config), even_goal_policy("own", 3)]
        return backtest(market, policies, market.split.test, config)

    first, second = once(), once()
    for field in fields(Trajectory):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


def test_backtest_runs_any_span_of_rows() -> None:
    market = factories.random_market(np.random.default_rng(7))
    found = backtest(market, [even_goal_policy("own", 3)], DayRange(10, 20), small_config())
    np.testing.assert_array_equal(found.dates, market.dates[11:20])
    assert found.names == ("index", "own")


def test_every_policy_keeps_the_caps_at_the_trade() -> None:
    rng = np.random.default_rng(6)
    market = factories.random_market(rng, n_days=200, halts=False, delistings=False)
    result = run_backtest(market, [], "test", small_config(random_portfolios=0))
    main, risk = result.main, result.config.risk
    traded = main.turnover[:, 1:] > 0
    after = main.weights_after[:, 1:][traded]
    sectors = after @ np.eye(market.n_sectors)[market.sector_of]
    assert traded.any(axis=0).all()
    assert after.max() <= risk.stock_cap + 1e-9
    assert sectors.max() <= risk.sector_cap + 1e-9
    assert after.sum(axis=1).max() <= 1 - risk.min_cash + 1e-9


def test_further_trials_are_added_to_the_policies_shown() -> None:
    market = factories.random_market(np.random.default_rng(7), n_days=200)
    config = small_config(baselines=["momentum"], random_portfolios=0)
    own = even_goal_policy("own", market.n_sectors)
    found = run_backtest(market, [own], "test", config, n_trials=7)
    assert found.trials.count == 8  # the baselines were fixed before: they are no trials
    assert found.random is None
    assert found.history is None


def test_policies_that_are_one_portfolio_are_named_as_one() -> None:
    config = small_config(baselines=[], random_portfolios=0)
    market = factories.random_market(np.random.default_rng(7), n_days=200)
    twins = [even_goal_policy(name, 3) for name in ("one", "other")]
    result = run_backtest(market, twins, "test", config)
    assert "one and other are one portfolio here: they earned the same in every session." in (
        cut_sentences(result)
    )
    assert not [line for line in cut_sentences(result) if "1/N and" in line]
