"""Worked examples of the papers, and properties of the bootstrap."""

import numpy as np
import pytest
from skfolio import measures

from hrl_sarp.evaluation import statistics
from hrl_sarp.resampling import draw_counts, stationary_bootstrap


def _counts(n_periods: int, n_samples: int = 400, block: float = 10.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return draw_counts(stationary_bootstrap(n_periods, block, n_samples, rng))


def test_deflated_sharpe_of_the_worked_example() -> None:
    # Bailey and Lopez de Prado (2014), section 4: annual Sharpe 2.5 over 1250 sessions, 100 trials
    # of annual variance 0.5, skewness -3, kurtosis 10 -> SR0 = 0.1132, DSR = 0.9004
    threshold = statistics.expected_max_sharpe_ratio(0.5 / 250, 100)
    assert threshold == pytest.approx(0.1132, abs=5e-5)
    found = statistics.probabilistic_sharpe_ratio(2.5 / 250**0.5, threshold, 1250, -3.0, 10.0)
    assert found == pytest.approx(0.9004, abs=5e-5)


def test_probabilistic_sharpe_agrees_with_skfolio() -> None:
    series = np.random.default_rng(1).standard_t(5, 700) * 0.01 + 0.0005
    ours = statistics.deflated_sharpe_ratio(series, trial_variance=0.0, n_trials=1)
    theirs = measures.probabilistic_sharpe_ratio(series, benchmark_sharpe_ratio=0.0)
    assert ours == pytest.approx(float(theirs), abs=2e-3)  # they use T where the paper has T - 1


def test_one_trial_needs_no_deflation() -> None:
    assert statistics.expected_max_sharpe_ratio(0.1, 1) == 0.0


def test_more_trials_deflate_more() -> None:
    series = np.random.default_rng(1).normal(0.001, 0.01, 700)
    few, many = (statistics.deflated_sharpe_ratio(series, 0.002, n) for n in (2, 200))
    assert many < few


def test_still_series_is_neither_certified_nor_refuted() -> None:
    assert statistics.deflated_sharpe_ratio(np.zeros(50), 0.001, 10) == 0.5


def test_three_years_detect_an_information_ratio_of_one_point_six() -> None:
    # (1.960 + 0.842) / sqrt(3) = 1.617
    found = statistics.smallest_detectable_information_ratio(3.0)
    assert found == pytest.approx(1.6175, abs=1e-3)


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


def test_interquartile_mean_ignores_the_outer_quarters() -> None:
    assert statistics.interquartile_mean(np.array([-100.0, 1.0, 3.0, 100.0])) == 2.0
    # five values: the middle half is 2.5 values wide: (0.75 x 2 + 3 + 0.75 x 4) / 2.5 = 3
    assert statistics.interquartile_mean(np.arange(1.0, 6.0)) == pytest.approx(3.0)
