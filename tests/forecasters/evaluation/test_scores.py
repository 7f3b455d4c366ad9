"""Measures of forecasts, by hand and against their definitions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from hrl_sarp.errors import MetricError
from hrl_sarp.forecasters.contract import LEVELS
from hrl_sarp.forecasters.evaluation import scores

CAME = np.array([10.0, 12.0, 8.0, 10.0])
POINT = np.array([11.0, 12.0, 10.0, 9.0])
LAST = np.array([10.0, 10.0, 10.0, 10.0])
# errors -1, 0, -2, 1; errors of the last value 0, 2, -2, 0


def test_errors_by_hand() -> None:
    assert scores.mean_absolute_error(CAME, POINT) == pytest.approx(1.0)
    assert scores.root_mean_squared_error(CAME, POINT) == pytest.approx(math.sqrt(6 / 4))
    assert scores.percent_mae(CAME, POINT) == pytest.approx(10.0)  # 1 of 10
    assert scores.naive_ratio(CAME, POINT, LAST) == pytest.approx(1.0)  # 1 of (2 + 2) / 4
    # scales 1, 2, 4 and one of 0, which is left out: (1/1 + 0/2 + 2/4) / 3
    scale = np.array([1.0, 2.0, 4.0, 0.0])
    assert scores.scaled_error(CAME, POINT, scale) == pytest.approx(0.5)


def test_percent_error_does_not_depend_on_the_unit_or_the_sign() -> None:
    for factor in (0.01, -3.0, 1e6):
        assert scores.percent_mae(factor * CAME, factor * POINT) == pytest.approx(10.0)


def test_what_would_divide_by_zero_has_no_value() -> None:
    zero = np.zeros(4)
    assert math.isnan(scores.percent_mae(zero, POINT))
    assert math.isnan(scores.naive_ratio(LAST, POINT, LAST))
    assert math.isnan(scores.scaled_error(CAME, POINT, zero))
    assert math.isnan(scores.base_rate(LAST, LAST))
    assert math.isnan(scores.direction_accuracy(LAST, POINT, LAST))
    assert math.isnan(scores.weighted_quantile_loss(zero, CAME[:, None], (0.5,)))


def test_pinball_by_hand() -> None:
    # 3 above the quantile of 0.1 costs 0.3, 3 below it 2.7; at 0.9 the other way round
    quantiles = np.array([[7.0, 7.0], [13.0, 13.0]])
    found = scores.pinball(np.array([10.0, 10.0]), quantiles, (0.1, 0.9))
    np.testing.assert_allclose(found, [[0.3, 2.7], [2.7, 0.3]])


def test_score_of_a_point_is_its_absolute_error() -> None:
    points = np.repeat(POINT[:, None], 9, axis=1)
    found = scores.quantile_crps(CAME, points, LEVELS)
    np.testing.assert_allclose(found, np.abs(CAME - POINT))
    assert scores.weighted_quantile_loss(CAME, points, LEVELS) == pytest.approx(0.1)


def test_fair_score_by_hand_and_in_expectation() -> None:
    # |1-2|, |5-2|: mean 2; the one pair differs by 4, half of it is 2: 2 - 2 = 0
    draws = np.array([[1.0], [5.0]])
    assert scores.path_crps(np.array([2.0]), draws) == pytest.approx(0.0)
    # E[CRPS] of the right normal density is 1 / sqrt(pi), however few the draws are
    rng = np.random.default_rng(0)
    for n_draws in (2, 5, 50):
        found = scores.path_crps(rng.normal(size=20000), rng.normal(size=(n_draws, 20000)))
        assert found.mean() == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)


def test_nine_levels_score_nine_percent_above_the_exact_score() -> None:
    rng = np.random.default_rng(0)
    came = rng.normal(size=20000)
    quantiles = np.tile(norm.ppf(LEVELS), (20000, 1))
    found = scores.quantile_crps(came, quantiles, LEVELS).mean()
    assert found * math.sqrt(math.pi) == pytest.approx(1.094, abs=0.02)


def test_coverage_counts_the_ends() -> None:
    assert scores.coverage(CAME, np.full(4, 8.0), np.full(4, 10.0)) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("came", "level"),
    [
        (0.0, 0.1),  # below all: half of 0.2
        (1.0, 0.2),
        (1.5, 0.35),
        (2.0, 0.5),
        (3.0, 0.65),
        (4.0, 0.8),
        (9.0, 0.9),  # above all: between 0.8 and 1
    ],
)
def test_level_of_a_value_lies_between_the_quantiles_beside_it(came: float, level: float) -> None:
    found = scores.quantile_pit(np.array([came]), np.array([[1.0, 2.0, 4.0]]), (0.2, 0.5, 0.8))
    assert found == pytest.approx(level)


def test_level_of_a_value_at_equal_quantiles_is_their_middle() -> None:
    came, quantiles = np.array([1.0, 2.0, 1.0]), np.array([[1.0, 1.0, 2.0, 2.0]] * 2 + [[1.0] * 4])
    found = scores.quantile_pit(came, quantiles, (0.1, 0.3, 0.6, 0.9))
    np.testing.assert_allclose(found, [0.2, 0.75, np.nan])  # a point has no levels


@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_levels_are_uniform_for_the_true_density_alone(spread: float) -> None:
    rng = np.random.default_rng(1)
    came = rng.normal(size=10000)
    quantiles = np.tile(spread * norm.ppf(LEVELS), (10000, 1))
    for levels in (
        scores.quantile_pit(came, quantiles, LEVELS),
        scores.path_pit(came, spread * rng.normal(size=(400, 10000))),
    ):
        shares = np.histogram(levels, bins=10, range=(0.0, 1.0))[0] / len(came)
        # 4 binomial errors of 0.1: 4 x sqrt(0.1 x 0.9 / 10000) = 0.012
        assert (np.abs(shares - 0.1).max() < 0.012) == (spread == 1.0)


def test_equal_draws_count_half() -> None:
    draws = np.array([[1.0], [2.0], [2.0], [3.0]])
    assert scores.path_pit(np.array([2.0]), draws) == pytest.approx(0.5)


def test_direction_and_its_base_rate_by_hand() -> None:
    # rows that moved: up (forecast up: right), down (forecast equal to the last: half), down (up)
    came = np.array([11.0, 9.0, 9.0, 10.0])
    point = np.array([10.5, 10.0, 12.0, 99.0])
    assert scores.direction_accuracy(came, point, LAST) == pytest.approx(0.5)
    assert scores.base_rate(came, LAST) == pytest.approx(2 / 3)
    assert math.isnan(scores.direction_accuracy(came, LAST, LAST))  # it says no direction


def test_qlike_by_hand_and_lowest_at_the_true_variance() -> None:
    # ln(e / 1) = 1: ln 0.5 + 1 / 0.5
    found = scores.qlike(np.array([math.e]), np.ones(1), np.array([0.5]))
    assert found == pytest.approx(math.log(0.5) + 2.0)
    came = np.exp(np.random.default_rng(0).normal(0.0, 0.1, 5000))
    ones = np.ones(5000)
    found = {v: scores.qlike(came, ones, np.full(5000, v)) for v in (0.005, 0.01, 0.02)}
    assert min(found, key=found.__getitem__) == 0.01


def test_rank_correlations_are_those_of_scipy_on_the_series_that_are_there() -> None:
    rng = np.random.default_rng(0)
    forecast, came = rng.normal(size=(2, 6, 8)).round(1)
    forecast[1, :2] = np.nan
    came[2, 3:7] = np.nan  # 4 are left: too few
    forecast[3] = 1.0
    found = scores.rank_correlations(forecast, came)
    assert np.isnan(found[[2, 3]]).all()
    for date in (0, 1, 4, 5):
        known = np.isfinite(forecast[date])
        expected = spearmanr(forecast[date][known], came[date][known]).statistic
        assert found[date] == pytest.approx(expected)


NAN = np.array([1.0, np.nan, 1.0, 1.0])
ROWS = np.repeat(POINT[:, None], 2, axis=1)
NONSENSE: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "nan in what came": (scores.mean_absolute_error, (NAN, POINT), "1 of 4 NaN"),
    "nan in a forecast": (scores.naive_ratio, (CAME, NAN, LAST), "1 of 4 NaN"),
    "nothing": (scores.percent_mae, (CAME[:0], POINT[:0]), "empty"),
    "other lengths": (scores.mean_absolute_error, (CAME, POINT[:3]), "found 3, 4"),
    "levels that fall": (scores.pinball, (CAME, ROWS, (0.9, 0.1)), "ascending levels"),
    "a level too many": (scores.pinball, (CAME, ROWS, (0.1, 0.5, 0.9)), "each of 2 quantiles"),
    "a level of 1": (scores.pinball, (CAME, ROWS, (0.5, 1.0)), "between 0 and 1"),
    "crossed quantiles": (scores.pinball, (CAME, ROWS - [0.0, 1.0], (0.1, 0.9)), "ascend"),
    "one draw": (scores.path_crps, (CAME, POINT[None]), "at least 2 draws"),
    "a variance of 0": (scores.qlike, (CAME, LAST, np.zeros(4)), "above 0"),
    "a negative price": (scores.qlike, (-CAME, LAST, LAST), "above 0"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused(case: str) -> None:
    measure, arguments, message = NONSENSE[case]
    with pytest.raises(MetricError, match=message):
        measure(*arguments)
