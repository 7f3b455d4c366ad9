"""The validation rollout is what it says: net of costs, over the span, against the 1/N rule."""

import math

import numpy as np
import pytest

from hrl_sarp.contracts import DayRange
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, ProportionalGoal
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, rollout
from hrl_sarp.training.selection.validation import Validation
from tests import factories, tiny_runs


def test_the_rollout_covers_the_span_and_pays_its_costs() -> None:
    # one stock a sector, rising 0.1 % a day intraday, free to trade, fully invested from day 1
    n_days = 60
    intraday = np.full((n_days, 2), 0.001)
    market = factories.market_with(np.zeros((n_days, 2)), intraday, [0, 1])
    config = tiny_runs.tiny_config(
        risk={"stock_cap": 1.0, "sector_cap": 1.0, "min_cash": 0.0},
        market_profile={"costs": {"buy_bps": 100.0, "sell_bps": 0.0, "slippage_bps": 0.0}},
    )
    tensors = tiny_runs.tensors_of(market)
    span = DayRange(10, 31)  # 20 sessions are earned: rows 11 to 30
    found = Validation(tensors, config, span).score(
        ProportionalGoal(tensors), FollowGoal(tensors, config.risk)
    )
    years = 20 / 252
    growth = 20 * math.log(1.001) - math.log(1.01)  # bought once at 1 %: 1 / 1.01 is left
    assert found.growth_pct == pytest.approx(100 * growth / years, rel=1e-9)
    assert found.excess_growth_pct == 0.0  # it is the 1/N rule
    assert found.daily.tolist() == 20 * [0.0]
    assert found.alignment == pytest.approx(1.0, abs=1e-6)
    # half of 1 / 1.01 of wealth is traded once
    assert found.turnover_annual == pytest.approx(0.5 / 1.01 / years, rel=1e-6)


def test_the_series_sums_to_the_growth_over_the_rule_that_pays_the_same_costs() -> None:
    config = tiny_runs.tiny_config(objective={"kind": "growth"})
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    rule = ProportionalGoal(tensors), FollowGoal(tensors, config.risk)
    pair = tiny_runs.macro_agent(tensors, config), tiny_runs.micro_agent(tensors, config)
    span = DayRange(66, 96)
    validation = Validation(tensors, config, span)
    found, alone = (validation.score(*policies) for policies in (pair, rule))
    assert (alone.excess_growth_pct, alone.daily.any()) == (0.0, False)
    assert found.excess_growth_pct == pytest.approx(found.growth_pct - alone.growth_pct, rel=1e-9)
    assert 252 * found.daily.mean() == pytest.approx(found.objective_pct, rel=1e-9)
    assert found.objective_pct == pytest.approx(found.excess_growth_pct, rel=1e-9)
    assert len(found.daily) == 29
    assert "daily" not in found.figures()


def test_under_risk_the_series_sums_to_the_objective_over_the_classical_rule() -> None:
    config = tiny_runs.tiny_config(objective={"kind": "risk"})
    tensors = tiny_runs.tensors_of(factories.with_risk(tiny_runs.tiny_market(), seed=4))
    follow, span = FollowGoal(tensors, config.risk), DayRange(66, 96)
    validation = Validation(tensors, config, span)
    classical = validation.score(ClassicalGoal(tensors), follow)
    assert classical.daily.tolist() == 29 * [0.0]
    policies = [
        HierarchicalPolicy("whole", ProportionalGoal(tensors), follow),
        HierarchicalPolicy("classical", ClassicalGoal(tensors), follow),
    ]
    variant = Variant(config.market_profile.costs, config.risk)
    (ledger,) = rollout(policies, tensors, [span], [variant])
    decided = np.arange(span.start, span.stop - 1)
    # goals are set at the first close and at week ends
    due = np.where(tensors.week_end.numpy()[decided] | (decided == span.start), decided, 0)
    asked = tensors.prior_exposure.float().double().numpy()[np.maximum.accumulate(due)]
    exposure = np.minimum(np.stack([np.ones(29), asked], axis=1), 1 - config.risk.min_cash)
    variance = tensors.normal_variance.numpy()[decided]
    premium = 5 * 0.98 * variance[:, None] * exposure / 252
    net, cost = ledger.net_return[:, 1:], ledger.cost[:, 1:]
    objective = 100 * (premium - cost - 2.5 * net**2)
    found = validation.score(ProportionalGoal(tensors), follow)
    np.testing.assert_allclose(found.daily, objective[:, 0] - objective[:, 1], atol=1e-7)


def test_pairs_side_by_side_score_what_each_scores_alone() -> None:
    config = tiny_runs.tiny_config(objective={"kind": "risk"})
    tensors = tiny_runs.tensors_of(factories.with_risk(tiny_runs.tiny_market(), seed=4))
    goal, follow = ClassicalGoal(tensors), FollowGoal(tensors, config.risk)
    pairs = [
        (tiny_runs.macro_agent(tensors, config), follow),
        (goal, tiny_runs.micro_agent(tensors, config)),
        (ProportionalGoal(tensors), follow),
    ]
    validation = Validation(tensors, config, DayRange(66, 96))
    together = validation.scores(pairs)
    for pair, found in zip(pairs, together, strict=True):
        alone = Validation(tensors, config, DayRange(66, 96)).score(*pair)
        np.testing.assert_allclose(found.daily, alone.daily, rtol=0, atol=1e-12)
        assert found.figures() == pytest.approx(alone.figures(), rel=1e-9, abs=1e-9)
    assert len({found.objective_pct for found in together}) == 3
