"""The validation rollout is what it says, and selection keeps the best full window."""

import math

import numpy as np
import pytest

from hrl_sarp.contracts import DayRange
from hrl_sarp.envs.policies import FollowGoal, ProportionalGoal
from hrl_sarp.training.selection.selector import Selector
from hrl_sarp.training.selection.validation import ValidationScore, validate_pair
from tests import factories, tiny_runs


def score(growth: float) -> ValidationScore:
    return ValidationScore(growth, growth, 0.0, 1.0, 0.0)


def test_the_first_evaluation_is_the_reference_and_only_full_windows_compete() -> None:
    selector = Selector(window=2)
    # means of two after the first: (9 + 0) / 2 = 4.5, (0 + 11) / 2 = 5.5, (11 + 2) / 2 = 6.5
    kept = [selector.add(score(growth)) for growth in (5.0, 9.0, 0.0, 11.0, 2.0)]
    assert kept == [True, False, False, True, True]
    assert selector.best_mean == 6.5
    assert selector.summary()["best_evaluation"] == 4
    assert selector.summary()["n_evaluations"] == 5


def test_an_equal_score_does_not_replace_an_earlier_one() -> None:
    selector = Selector(window=1)
    assert [selector.add(score(growth)) for growth in (1.0, 1.0)] == [True, False]


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    selector = Selector(window=1)
    assert [selector.add(score(growth)) for growth in (math.nan, 1.0, math.nan)] == [
        False,
        True,
        False,
    ]


def test_the_rollout_covers_the_span_and_measures_growth_over_1_over_n() -> None:
    # one stock a sector, rising 0.1 % a day intraday, free to trade, fully invested from day 1
    n_days = 60
    intraday = np.full((n_days, 2), 0.001)
    market = factories.market_with(np.zeros((n_days, 2)), intraday, [0, 1])
    config = tiny_runs.tiny_config(
        risk={"stock_cap": 1.0, "sector_cap": 1.0, "min_cash": 0.0, "bear_exposure_cut": 0.0},
        market_profile={"costs": {"buy_bps": 100.0, "sell_bps": 0.0, "slippage_bps": 0.0}},
    )
    tensors = tiny_runs.tensors_of(market)
    span = DayRange(10, 31)  # 20 sessions are earned: rows 11 to 30
    found = validate_pair(
        tensors, config, ProportionalGoal(tensors), FollowGoal(tensors, config.risk), span
    )
    years = 20 / 252
    growth = 20 * math.log(1.001) - math.log(1.01)  # bought once at 1 %: 1 / 1.01 is left
    assert found.growth_pct == pytest.approx(100 * growth / years, rel=1e-9)
    assert found.excess_growth_pct == pytest.approx(-100 * math.log(1.01) / years, rel=1e-9)
    assert found.alignment == pytest.approx(1.0, abs=1e-6)
    # half of 1 / 1.01 of wealth is traded once
    assert found.turnover_annual == pytest.approx(0.5 / 1.01 / years, rel=1e-6)
