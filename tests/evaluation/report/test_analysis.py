"""What a backtest says beyond the figures of each policy: months, costs, luck, regimes."""

import numpy as np
import polars as pl
import pytest

from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.report.analysis import Analysis, cost_breakdown, monthly_returns
from hrl_sarp.evaluation.report.files import stock_ledger


def test_months_compound_to_the_whole(result: BacktestResult) -> None:
    monthly = monthly_returns(result.main)
    growth = np.prod(1 + np.array(monthly.returns["own"]))
    assert growth == pytest.approx(result.main.wealth[-1, result.main.names.index("own")])
    assert len(monthly.months) == len(set(monthly.months))


def test_costs_split_into_rates_without_a_rest(result: BacktestResult) -> None:
    costs = result.config.market_profile.costs
    found = cost_breakdown(result.main, costs, "own")
    assert found.impact == 0
    assert found.purchases + found.sales + found.slippage == pytest.approx(found.total)
    ledger = stock_ledger(result.main, result.market, costs).filter(pl.col("policy") == "own")
    bought = ledger["traded"].clip(lower_bound=0.0).sum()
    assert found.purchases == pytest.approx(8 * bought * 252 / len(result.main.dates))


def test_regime_score_of_the_prior_itself_gains_nothing(
    result: BacktestResult, analysis: Analysis
) -> None:
    score = analysis.regime_scores["own"]
    assert set(analysis.regime_scores) == {"own"}
    # the policy says 0.2, 0.5, 0.3 every day; a constant cannot do better than its own entropy
    assert score.log_loss >= -np.log(0.5)
    assert score.sessions <= len(result.main.dates)


def test_luck_of_random_portfolios_orders_its_bounds(analysis: Analysis) -> None:
    for luck in analysis.luck.values():
        assert luck.low <= luck.mean <= luck.high
        assert luck.deviation > 0
