"""Properties of the bootstraps, and errors of means against other libraries."""

import numpy as np
import pytest

from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import BootstrapPlan
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.resampling import draw_counts, stationary_bootstrap


def _counts(n_periods: int, n_samples: int = 400, block: float = 10.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return draw_counts(stationary_bootstrap(n_periods, block, n_samples, rng))


def test_counts_reproduce_the_sharpe_of_each_resampled_series() -> None:
    series = np.random.default_rng(2).normal(0.01, 0.02, (40, 3))
    drawn = stationary_bootstrap(40, 4.0, 6, np.random.default_rng(0))
    found = statistics.bootstrap_sharpe(series, draw_counts(drawn), 252)
    resampled = series[drawn]  # (samples, T, P)
    expected = resampled.mean(axis=1) / resampled.std(axis=1, ddof=1) * 252**0.5
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_interval_of_independent_returns_has_the_textbook_width() -> None:
    series = np.random.default_rng(5).normal(0.0, 0.01, (1000, 1))
    samples = statistics.bootstrap_annual_mean(series, _counts(1000, 2000, 1.0), 252)[:, 0]
    found = statistics.interval(0.0, samples, 0.9)
    # +- 1.645 x 0.01 x 252 / sqrt(1000)
    assert (found.high - found.low) / 2 == pytest.approx(1.645 * 2.52 / 1000**0.5, rel=0.07)


def test_blocks_widen_the_interval_of_persistent_returns() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(0.0, 0.01, 1200)
    persistent = np.convolve(noise, np.ones(10) / 10, mode="valid")[:, None]
    widths = [
        np.std(statistics.bootstrap_annual_mean(persistent, _counts(1191, 500, block), 252))
        for block in (1.0, 20.0)
    ]
    assert widths[1] > 1.8 * widths[0]


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(8)
    market = rng.normal(0.0, 0.01, 300)
    alike, different = market + np.zeros((5, 1)), market + np.linspace(-0.01, 0.01, 5)[:, None]
    spreads = [
        statistics.bootstrap_dates_and_seeds(x, _counts(300), 252, np.random.default_rng(0)).std()
        for x in (alike, different)
    ]
    # five seeds spread by sd 0.00707 add 252 x 0.00707 / sqrt(5) = 0.80 a year
    assert spreads[1] ** 2 - spreads[0] ** 2 == pytest.approx(0.797**2, rel=0.15)


def test_seeds_are_the_last_axis() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    drawn = statistics.redraw_seeds(np.tile(values, (50, 1, 1)), np.random.default_rng(0))
    for row in range(3):
        assert set(drawn[0::2, row].ravel()) == set(values[0, row])


def test_counts_reproduce_mean_and_volatility_of_each_resampled_series() -> None:
    # the mean is 50 deviations: a variance that forgets it would be far off
    series = np.random.default_rng(3).normal(1.0, 0.02, (30, 2))
    drawn = stationary_bootstrap(30, 3.0, 5, np.random.default_rng(0))
    counts, resampled = draw_counts(drawn), series[drawn]
    np.testing.assert_allclose(
        statistics.bootstrap_annual_mean(series, counts, 12), 12 * resampled.mean(axis=1)
    )
    np.testing.assert_allclose(
        statistics.bootstrap_volatility(series, counts, 252),
        resampled.std(axis=1, ddof=1) * 252**0.5,
        rtol=1e-9,
    )


def test_what_does_not_move_has_no_resampled_ratio() -> None:
    both = np.stack([np.full(30, 0.01), np.random.default_rng(0).normal(0.01, 0.01, 30)], axis=1)
    ratios = statistics.bootstrap_sharpe(both, _counts(30, 500), 252)
    assert (ratios[:, 0] == 0.0).all()
    assert (ratios[:, 1] > 0.0).mean() > 0.9
    assert (statistics.bootstrap_sharpe(np.zeros((2, 1)), np.ones((4, 2)), 252) == 0.0).all()
    assert statistics.bootstrap_volatility(np.ones((1, 1)), np.ones((1, 1)), 252) == 0.0


def test_a_deviation_that_is_at_most_rounding_divides_nothing() -> None:
    # mean and sample deviation of 0, r, 2 r are r
    edge = ROUNDING * np.array([[0.0], [1.0], [2.0]])
    assert statistics.bootstrap_sharpe(edge, np.ones((1, 3)), 4)[0, 0] == 0.0
    assert statistics.bootstrap_sharpe(1.5 * edge, np.ones((1, 3)), 4)[0, 0] == pytest.approx(2.0)


def test_an_interval_leaves_equal_tails() -> None:
    samples = np.arange(101.0)
    found = statistics.interval(7.0, samples, 0.9)
    assert [found.value, found.low, found.high] == pytest.approx([7.0, 5.0, 95.0])


def test_a_plan_draws_the_same_dates_for_every_policy_of_a_length() -> None:
    plan = BootstrapPlan(block_days=5, samples=4, confidence=0.9, seed=3)
    np.testing.assert_array_equal(plan.counts(30), plan.counts(30))
    assert plan.counts(30).shape == (4, 30)
    assert (plan.counts(30)[:, :20] != BootstrapPlan(5, 4, 0.9, 4).counts(30)[:, :20]).any()


def test_redrawn_seeds_stay_in_their_row() -> None:
    values = np.arange(12.0).reshape(4, 3)
    drawn = statistics.redraw_seeds(values, np.random.default_rng(0))
    assert drawn.shape == values.shape
    assert all(set(found) <= set(own) for found, own in zip(drawn, values, strict=True))
    assert {
        len(set(row))
        for row in statistics.redraw_seeds(np.tile(values, (99, 1)), np.random.default_rng(1))
    } == {1, 2, 3}  # with replacement


@pytest.mark.parametrize(("n_periods", "lags"), [(99, 3), (100, 4), (756, 6), (3779, 8)])
def test_lags_follow_newey_and_west(n_periods: int, lags: int) -> None:
    # 4 (T / 100)^(2/9): 3.99, 4.00, 6.27, 8.97
    assert statistics.default_lags(n_periods) == lags


def test_a_mean_that_only_rounding_moves_has_no_t() -> None:
    assert statistics.newey_west_t(np.full(100, 0.1)) == 0.0
    # mean 2 r and error sqrt((2 r)^2 / 4) = r
    edge = ROUNDING * np.array([0.0, 4.0, 0.0, 4.0])
    assert statistics.newey_west_t(edge, lags=0) == 0.0
    assert statistics.newey_west_t(1.5 * edge, lags=0) == pytest.approx(2.0)


def test_columns_of_any_size_keep_their_digits() -> None:
    # a common centre would leave 1e6 in the squares, and no digit of a variance of 4e-4
    series = np.random.default_rng(3).normal(0.0, 0.02, (30, 2)) + np.array([0.0, 1e6])
    drawn = stationary_bootstrap(30, 3.0, 5, np.random.default_rng(0))
    found = statistics.bootstrap_volatility(series, draw_counts(drawn), 1)
    np.testing.assert_allclose(found, series[drawn].std(axis=1, ddof=1), rtol=1e-6)


def test_two_periods_have_a_deviation() -> None:
    found = statistics.bootstrap_volatility(np.array([[0.0], [0.02]]), np.ones((1, 2)), 1)
    assert found[0, 0] == pytest.approx(0.02 / 2**0.5)
