"""Worked examples of the papers, and what deflation certifies and what it does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from skfolio import measures

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import Appraisal, Trials
from hrl_sarp.metrics import ROUNDING


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
            statistics.deflated_sharpe_ratio(found, Trials(count, ())) > statistics.BEYOND_LUCK
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
        certified.append(statistics.deflated_sharpe_ratio(best, trials) > statistics.BEYOND_LUCK)
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


def test_two_ratios_tell_the_luck_and_one_does_not() -> None:
    # 95 % bound of a variance with one degree of freedom: s^2 / 0.0039321
    alike = statistics.luck_of_trials(0.04, Trials(40, (0.01, 0.0102)))
    expected = statistics.expected_max_sharpe_ratio(0.5 * 0.0002**2 / 0.0039321, 40)
    assert alike == pytest.approx(expected, rel=1e-4)
    assert alike < 0.1 * statistics.luck_of_trials(0.04, Trials(40, (0.01,)))


def test_luck_of_the_worked_example() -> None:
    # Bailey and Lopez de Prado (2014), section 4: 100 trials of annual variance 0.5: SR0 = 0.1132
    threshold = statistics.expected_max_sharpe_ratio(0.5 / 250, 100)
    assert threshold == pytest.approx(0.1132, abs=5e-5)


def test_without_a_benchmark_it_is_nearly_the_probabilistic_sharpe_ratio_of_skfolio() -> None:
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


def test_a_column_is_appraised_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(7)
    benchmark = rng.normal(0.001, 0.01, 300)
    sizes = np.array([1.0, 1e-3, 1e-11, 1e6])
    excess = 0.5 * benchmark[:, None] + rng.normal(0.0005, 0.004, (300, 4))
    excess[:, 2] = rng.normal(0.1, 1.0, 300)
    excess *= sizes
    with_still = np.column_stack([excess, 0.3 * benchmark])
    for column, found in enumerate(statistics.appraise(with_still, benchmark)[:4]):
        (alone,) = statistics.appraise(excess[:, column : column + 1], benchmark)
        (grown,) = statistics.appraise(excess[:, column : column + 1] / sizes[column], benchmark)
        assert [found.ratio, found.error] == pytest.approx([alone.ratio, alone.error], rel=1e-12)
        assert [found.ratio, found.error] == pytest.approx([grown.ratio, grown.error], rel=1e-9)
        assert found.ratio != 0.0


def test_a_gain_without_noise_has_no_ratio() -> None:
    # a sure gain over the diluted benchmark: nothing to divide by, as in a Sharpe ratio
    benchmark = np.random.default_rng(1).normal(0.001, 0.01, 700)
    (found,) = statistics.appraise((0.3 * benchmark + 0.001)[:, None], benchmark)
    assert found.ratio == 0.0
    assert found.error == pytest.approx(700**-0.5)


def test_a_benchmark_that_moves_by_rounding_explains_nothing() -> None:
    edge = ROUNDING * np.array([-1.0, 1.0, -1.0, 1.0])  # its deviation is the rounding
    series = np.array([[0.01], [0.02], [-0.01], [0.03]])
    still = statistics.appraise(series, np.zeros(4), lags=0)
    assert statistics.appraise(series, edge, lags=0) == still
    assert statistics.appraise(series, 1.5 * edge, lags=0) != still


def test_appraisal_of_two_sessions_is_refused() -> None:
    with pytest.raises(MetricError, match=r"2 periods: .* use a longer span$"):
        statistics.appraise(np.zeros((2, 1)), np.zeros(2))
    assert statistics.appraise(np.zeros((3, 1)), np.zeros(3))[0].ratio == 0.0


def test_the_error_of_alpha_is_the_sandwich_of_least_squares() -> None:
    # noise that grows with the benchmark, whose mean is strong: the sign of its leverage matters
    rng = np.random.default_rng(6)
    benchmark = 1.0 + rng.standard_normal(400)
    excess = rng.standard_normal(400) * np.exp(0.5 * benchmark)
    table = np.column_stack([np.ones(400), benchmark])
    alpha, _ = np.linalg.lstsq(table, excess, rcond=None)[0]
    excess -= alpha  # no ratio: its error is that of alpha alone
    residual = excess - table @ np.linalg.lstsq(table, excess, rcond=None)[0]
    inverse = np.linalg.inv(table.T @ table)
    white = inverse @ (table.T * residual**2) @ table @ inverse  # White (1980)
    (found,) = statistics.appraise(excess[:, None], benchmark, lags=0)
    spread = np.sqrt((residual**2).sum() / 398)
    assert found.error * spread == pytest.approx(white[0, 0] ** 0.5, rel=1e-9)


def test_three_years_detect_an_information_ratio_of_one_point_six() -> None:
    # (1.960 + 0.842) / sqrt(3) = 1.617
    found = statistics.smallest_detectable_information_ratio(3.0)
    assert found == pytest.approx(1.6175, abs=1e-3)


def test_the_worked_example_of_the_paper() -> None:
    # Bailey and Lopez de Prado (2014), section 4: annual ratio 2.5 over 5 years of 250 days,
    # skewness -3, kurtosis 10; SR0 0.1132 a day: DSR 0.9004
    ratio = 2.5 / 250**0.5
    found = Appraisal(ratio, statistics.sharpe_error(ratio, 1250, skewness=-3.0, kurtosis=10.0))
    threshold = statistics.expected_max_sharpe_ratio(0.5 / 250, 100)
    assert threshold == pytest.approx(0.1132, abs=5e-5)
    assert found.probability_above(threshold) == pytest.approx(0.9004, abs=5e-5)
    # the same paper: 46 independent trials would have left it above 0.95
    threshold = statistics.expected_max_sharpe_ratio(0.5 / 250, 46)
    assert found.probability_above(threshold) == pytest.approx(0.9505, abs=5e-4)


SKEWED = {
    "right": np.random.default_rng(1).gamma(2.0, 0.01, 700) - 0.012,
    "left": 0.03 - np.random.default_rng(2).gamma(2.0, 0.01, 700),
    "tails": np.random.default_rng(3).standard_t(4, 700) * 0.01 + 0.004,
}


@pytest.mark.parametrize("series", SKEWED.values(), ids=SKEWED)
@pytest.mark.parametrize("threshold", [-0.05, 0.0, 0.2])
def test_active_ratio_and_error_agree_with_skfolio(series: np.ndarray, threshold: float) -> None:
    ours = statistics.active_appraisal(series)
    theirs = measures.probabilistic_sharpe_ratio(series, benchmark_sharpe_ratio=threshold)
    assert ours.probability_above(threshold) == pytest.approx(float(theirs), rel=1e-9, abs=1e-12)
    assert ours.ratio == pytest.approx(series.mean() / series.std(ddof=1))


def test_luck_agrees_with_skfolio() -> None:
    for count in (2, 46, 1000):
        theirs = measures.expected_max_sharpe_ratio(count, trial_sharpe_ratio_std=0.03)
        ours = statistics.expected_max_sharpe_ratio(0.03**2, count)
        assert ours == pytest.approx(float(theirs), rel=1e-12)


@pytest.mark.parametrize("series", SKEWED.values(), ids=SKEWED)
def test_the_error_of_an_appraisal_holds_skewness_and_kurtosis(series: np.ndarray) -> None:
    # no benchmark, no lags: mean((z - r (z^2 - m2) / 2)^2) / T = (m2 - r m3 + r^2 (m4 - m2^2) / 4)
    # / T with the moments of z = (x - mean) / deviation, whose sum of squares is T - 2
    n, m2 = 700, 698 / 700
    ratio = series.mean() / np.sqrt(((series - series.mean()) ** 2).sum() / 698)
    m3, m4 = stats.skew(series) * m2**1.5, stats.kurtosis(series, fisher=False) * m2**2
    expected = ((m2 - ratio * m3 + ratio**2 * (m4 - m2**2) / 4) / n) ** 0.5
    (found,) = statistics.appraise(series[:, None], np.zeros(n), lags=0)
    assert found.ratio == pytest.approx(ratio, rel=1e-12)
    assert found.error == pytest.approx(expected, rel=1e-12)


def test_error_of_a_normal_series_by_hand() -> None:
    # Lo (2002): (1 + r^2 / 2) / (T - 1), r = 0.4
    assert statistics.sharpe_error(0.4, 101, 0.0, 3.0) == pytest.approx((1.08 / 100) ** 0.5)
    # losses in the tail widen it for a gain: 1 + 2 x 0.4 + 5 x 0.16 / 4
    assert statistics.sharpe_error(0.4, 101, -2.0, 6.0) == pytest.approx((2.0 / 100) ** 0.5)
    assert statistics.sharpe_error(0.4, 2, 0.0, 3.0) == pytest.approx(1.08**0.5)


@pytest.mark.parametrize(
    ("ratio", "n_periods", "skewness", "kurtosis"),
    [
        (0.5, 1, 0.0, 3.0),
        (0.5, 100, 0.0, 0.2),
        (0.5, 100, 3.0, 1.0),
        (2.0, 100, 1.0, 2.0),  # 1 - 2 + 4 / 4: two points whose ratio is known exactly
    ],
)
def test_moments_that_no_series_has_are_refused(
    ratio: float, n_periods: int, skewness: float, kurtosis: float
) -> None:
    with pytest.raises(MetricError) as refused:
        statistics.sharpe_error(ratio, n_periods, skewness, kurtosis)
    assert str(refused.value) == (
        f"error of a Sharpe ratio of {n_periods} periods with skewness {skewness} and kurtosis "
        f"{kurtosis}: expected at least 2 periods and a kurtosis (not its excess over 3) of at "
        "least 1 + skewness^2; check the series"
    )


def test_a_coin_has_the_smallest_kurtosis() -> None:
    assert statistics.sharpe_error(0.5, 101, 0.0, 1.0) == pytest.approx(0.1)


def test_a_benchmark_that_never_moves_leaves_the_ratio_alone() -> None:
    series = SKEWED["tails"]
    (found,) = statistics.appraise(series[:, None], np.full(700, 0.001), lags=0)
    (expected,) = statistics.appraise(series[:, None], np.zeros(700), lags=0)
    assert found == expected


def test_certification_asks_for_the_needed_ratio() -> None:
    trials = Trials(30, (0.01, 0.02, 0.05))
    needed = statistics.needed_appraisal_ratio(Appraisal(9.0, 0.03), trials)
    at = statistics.deflated_sharpe_ratio(Appraisal(needed, 0.03), trials)
    assert at == pytest.approx(statistics.BEYOND_LUCK)


def test_smallest_detectable_effect_is_2_80_errors() -> None:
    # 1.95996 + 0.84162
    assert statistics.smallest_detectable_effect(0.5) == pytest.approx(0.5 * 2.80158, rel=1e-5)
    assert statistics.smallest_detectable_effect(0) == 0.0
    for wrong in (-1.0, float("nan")):
        with pytest.raises(MetricError, match="at least 0"):
            statistics.smallest_detectable_effect(wrong)
    assert statistics.smallest_detectable_information_ratio(0.25) == pytest.approx(5.6032, rel=1e-5)
    for years in (0.0, -3.0):
        with pytest.raises(MetricError, match="positive number of years"):
            statistics.smallest_detectable_information_ratio(years)
