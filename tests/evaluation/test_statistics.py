"""Worked examples of the papers, and properties of the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skfolio import measures

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import Appraisal, Trials
from hrl_sarp.resampling import draw_counts, stationary_bootstrap


def _counts(n_periods: int, n_samples: int = 400, block: float = 10.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return draw_counts(stationary_bootstrap(n_periods, block, n_samples, rng))


def _market_and_noise(
    seed: int, growth: float, policies: int, tails: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw three years of a market of 12 % volatility, and a deviation of 1 a year by policy."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((756, policies + 1))
    if tails is not None:
        drawn = rng.standard_t(tails, (756, policies + 1)) * np.sqrt((tails - 2) / tails)
    return growth / 252 + 0.12 * drawn[:, 0] / 252**0.5, drawn[:, 1:] / 252**0.5


def _share_certified(
    beta: float, growth: float, alpha: float = 0.0, count: int = 1, tails: float | None = None
) -> float:
    """Certify 1,000 policies of 2 % active risk in 250 histories; `alpha` is per active risk."""
    certified = []
    for seed in range(250):
        benchmark, noise = _market_and_noise(seed, growth, 4, tails)
        excess = beta * benchmark[:, None] + 0.02 * (noise + alpha / 252)
        certified += [
            statistics.deflated_sharpe_ratio(found, Trials(count, ())) > statistics.CERTIFIED
            for found in statistics.appraise(excess, benchmark)
        ]
    return float(np.mean(certified))


@pytest.mark.parametrize("growth", [-0.2, 0.2])
@pytest.mark.parametrize("beta", [0.5, 1.2])
def test_beta_without_alpha_is_not_certified(beta: float, growth: float) -> None:
    # the Sharpe ratio of the return over 1/N certified 73 to 90 % with beta 1.2 in rising markets
    assert 0.02 < _share_certified(beta, growth) <= 0.08


def test_fat_tails_are_not_certified_either() -> None:
    assert _share_certified(1.2, 0.2, tails=4.0) <= 0.08


@pytest.mark.parametrize("beta", [0.5, 1.2])
def test_true_alpha_is_certified_among_many_trials(beta: float) -> None:
    assert _share_certified(beta, 0.2, alpha=3.0) > 0.99
    # 60 trials ask for (2.32 + 1.64) / sqrt(3) = 2.3
    assert _share_certified(beta, 0.2, alpha=3.0, count=60) > 0.75


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_best_of_many_trials_without_alpha_is_not_certified(alike: float) -> None:
    certified = []
    for seed in range(200):
        benchmark, noise = _market_and_noise(seed, 0.2, 31)
        mixed = np.sqrt(alike) * noise[:, :1] + np.sqrt(1 - alike) * noise[:, 1:]
        found = statistics.appraise(benchmark[:, None] + 0.02 * mixed, benchmark)
        best = max(found, key=lambda one: one.ratio)
        trials = Trials(30, tuple(one.ratio for one in found))
        certified.append(statistics.deflated_sharpe_ratio(best, trials) > statistics.CERTIFIED)
    assert np.mean(certified) <= 0.08


def test_alike_trials_deflate_less() -> None:
    # 95 % bound of the variance of 5 ratios with deviation 0.002: 4 / 0.7107 x 0.002^2
    ratios = tuple(0.01 + 0.002 * np.array([-1.0, -1.0, 0.0, 1.0, 1.0]))
    alike = statistics.luck_of_trials(0.04, Trials(40, ratios))
    expected = statistics.expected_max_sharpe_ratio(4 / 0.710723 * 0.002**2, 40)
    assert alike == pytest.approx(expected, rel=1e-5)
    unlike = statistics.luck_of_trials(0.04, Trials(40, (-1.0, 1.0)))
    assert unlike == statistics.luck_of_trials(0.04, Trials(40, (0.1,)))
    assert unlike == statistics.expected_max_sharpe_ratio(0.04**2, 40)


def test_luck_of_the_worked_example() -> None:
    # Bailey and Lopez de Prado (2014), section 4: 100 trials of annual variance 0.5: SR0 = 0.1132
    threshold = statistics.expected_max_sharpe_ratio(0.5 / 250, 100)
    assert threshold == pytest.approx(0.1132, abs=5e-5)


def test_without_a_benchmark_it_is_the_probabilistic_sharpe_ratio_of_skfolio() -> None:
    series = np.random.default_rng(1).standard_t(5, 700) * 0.01 + 0.0005
    (found,) = statistics.appraise(series[:, None], np.zeros(700), lags=0)
    ours = statistics.deflated_sharpe_ratio(found, Trials(1, ()))
    theirs = measures.probabilistic_sharpe_ratio(series, benchmark_sharpe_ratio=0.0)
    assert ours == pytest.approx(float(theirs), abs=2e-3)


def test_appraisal_is_alpha_over_the_deviation_of_the_residual() -> None:
    rng = np.random.default_rng(3)
    benchmark = rng.normal(0.001, 0.01, 500)
    excess = 0.8 * benchmark + rng.normal(0.0005, 0.004, 500)
    (found,) = statistics.appraise(excess[:, None], benchmark)
    fitted, residuals, *_ = np.linalg.lstsq(
        np.column_stack([np.ones(500), benchmark]), excess, rcond=None
    )
    assert found.ratio == pytest.approx(fitted[0] / np.sqrt(residuals[0] / 498))


def test_error_of_a_benchmark_with_a_strong_mean_is_that_of_least_squares() -> None:
    # variance of alpha / s^2: 1 / T + mean^2 / sum of squared deviations = (1 + 2^2) / T
    rng = np.random.default_rng(4)
    benchmark = 2.0 + rng.standard_normal(20_000)
    (found,) = statistics.appraise(rng.standard_normal((20_000, 1)), benchmark, lags=0)
    assert found.error == pytest.approx((5 / 20_000) ** 0.5, rel=0.05)


def test_sessions_that_depend_on_each_other_widen_the_error() -> None:
    # a moving sum of two draws: variance 2, long-run variance 4; Bartlett with 12 lags gives
    # 2 + 2 x 12/13 = 3.85
    drawn = np.random.default_rng(5).standard_normal(20_001)
    series = (drawn[1:] + drawn[:-1])[:, None]
    (independent,) = statistics.appraise(series, np.zeros(20_000), lags=0)
    (dependent,) = statistics.appraise(series, np.zeros(20_000), lags=12)
    assert dependent.error / independent.error == pytest.approx((3.85 / 2) ** 0.5, rel=0.03)


def test_one_trial_needs_no_deflation() -> None:
    assert statistics.expected_max_sharpe_ratio(0.1, 1) == 0.0


@given(st.floats(-1, 1), st.floats(0.01, 1), st.integers(1, 500))
def test_more_trials_deflate_more(ratio: float, error: float, count: int) -> None:
    appraisal = Appraisal(ratio, error)
    few, many = Trials(count, ()), Trials(count + 10, ())
    assert statistics.deflated_sharpe_ratio(appraisal, many) <= (
        statistics.deflated_sharpe_ratio(appraisal, few)
    )
    assert statistics.needed_appraisal_ratio(appraisal, many) > (
        statistics.needed_appraisal_ratio(appraisal, few)
    )


@pytest.mark.parametrize("share", [0.0, 1.0, 0.3])
def test_diluted_benchmark_is_neither_certified_nor_refuted(share: float) -> None:
    benchmark = np.random.default_rng(1).normal(0.001, 0.01, 700)
    (found,) = statistics.appraise(share * benchmark[:, None], benchmark)
    assert found.ratio == 0
    assert found.error == pytest.approx(700**-0.5)
    assert statistics.deflated_sharpe_ratio(found, Trials(1, ())) == 0.5


def test_appraisal_of_two_sessions_is_refused() -> None:
    with pytest.raises(MetricError, match="2 periods"):
        statistics.appraise(np.zeros((2, 1)), np.zeros(2))


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
