"""Known numbers by hand, and agreement with skfolio where it has the measure."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio import measures

from hrl_sarp import metrics
from hrl_sarp.errors import MetricError

YEAR = metrics.SESSIONS_PER_YEAR


@pytest.fixture
def daily() -> np.ndarray:
    return np.random.default_rng(3).standard_t(4, 500) * 0.01 + 0.0003


@pytest.fixture
def index() -> np.ndarray:
    return np.random.default_rng(4).normal(0.0004, 0.01, 500)


def test_max_drawdown_of_a_hand_made_path() -> None:
    # 1.00 -> 1.10 -> 0.55 -> 0.66: worst fall is from 1.10 to 0.55
    assert metrics.max_drawdown(np.array([0.10, -0.50, 0.20])) == pytest.approx(0.50)


def test_a_loss_in_the_first_period_is_a_drawdown() -> None:
    assert metrics.max_drawdown(np.array([-0.20, 0.10])) == pytest.approx(0.20)


def test_drawdown_duration_counts_the_unfinished_stay() -> None:
    # below the peak in periods 2-3, at a new peak in 4, below it in 5-7
    path = np.array([0.1, -0.1, 0.05, 0.2, -0.1, 0.01, 0.01])
    assert metrics.max_drawdown_duration(path) == 3


def test_rising_wealth_has_no_drawdown_and_no_calmar() -> None:
    rising = np.full(5, 0.01)
    assert metrics.max_drawdown(rising) == 0.0
    assert metrics.max_drawdown_duration(rising) == 0
    assert metrics.calmar_ratio(rising, YEAR) == 0.0


def test_annual_return_is_the_compound_rate() -> None:
    # two half years: 1.1 x 1.2 = 1.32 in one year
    assert metrics.annual_return(np.array([0.1, 0.2]), 2) == pytest.approx(0.32)
    assert metrics.annual_log_growth(np.array([0.1, 0.2]), 2) == pytest.approx(np.log(1.32))


def test_lost_wealth_returns_minus_one_and_has_no_log_growth() -> None:
    lost = np.array([0.1, -1.0])
    assert metrics.annual_return(lost, 2) == -1.0
    with pytest.raises(MetricError, match="lost everything"):
        metrics.annual_log_growth(lost, 2)


def test_sharpe_ratio_by_hand() -> None:
    # mean 0.01, sample deviation sqrt((0.01^2 + 0.01^2) / 1) = 0.0141421
    assert metrics.sharpe_ratio(np.array([0.0, 0.02]), 1) == pytest.approx(0.5**0.5)


def test_sharpe_of_a_constant_series_is_zero_not_huge() -> None:
    assert metrics.sharpe_ratio(np.full(100, 0.1), YEAR) == 0.0


def test_sortino_ratio_divides_by_all_periods() -> None:
    # downside deviation sqrt((0.01^2) / 2), mean 0.01
    assert metrics.sortino_ratio(np.array([-0.01, 0.03]), 1) == pytest.approx(0.01 / 0.01 * 2**0.5)


@pytest.mark.parametrize("confidence", [0.95, 0.99, 0.933, 0.0, 1.0])
def test_tail_risk_agrees_with_skfolio(daily: np.ndarray, confidence: float) -> None:
    assert metrics.value_at_risk(daily, confidence) == pytest.approx(
        measures.value_at_risk(daily, beta=confidence), rel=1e-12
    )
    assert metrics.conditional_value_at_risk(daily, confidence) == pytest.approx(
        measures.cvar(daily, beta=confidence), rel=1e-12
    )


def test_value_at_risk_of_100_periods_is_the_sixth_largest_loss() -> None:
    losses = -np.arange(100.0) / 1000
    assert metrics.value_at_risk(losses, 0.95) == pytest.approx(0.094)
    assert metrics.conditional_value_at_risk(losses, 0.95) == pytest.approx(0.097)


def test_moments_and_drawdowns_agree_with_skfolio(daily: np.ndarray) -> None:
    compounded = measures.get_drawdowns(daily, compounded=True)
    assert metrics.skewness(daily) == pytest.approx(measures.skew(daily))
    assert metrics.kurtosis(daily) == pytest.approx(measures.kurtosis(daily))
    assert metrics.max_drawdown(daily) == pytest.approx(measures.max_drawdown(compounded))
    assert metrics.average_drawdown(daily) == pytest.approx(measures.average_drawdown(compounded))
    assert metrics.annual_volatility(daily, YEAR) == pytest.approx(
        measures.standard_deviation(daily) * YEAR**0.5
    )
    assert metrics.downside_deviation(daily, 1) == pytest.approx(
        measures.semi_deviation(daily, min_acceptable_return=0.0, biased=True)
    )


def test_alpha_and_beta_recover_a_planted_line(index: np.ndarray) -> None:
    planted = 0.0001 + 0.7 * index
    assert metrics.beta(planted, index) == pytest.approx(0.7)
    assert metrics.alpha(planted, index, YEAR) == pytest.approx(0.0001 * YEAR)


def test_benchmark_against_itself_has_beta_one_and_no_information_ratio(index: np.ndarray) -> None:
    assert metrics.beta(index, index) == pytest.approx(1.0)
    assert metrics.information_ratio(index - index, YEAR) == 0.0
    assert metrics.tracking_error(index - index, YEAR) == 0.0


def test_benchmark_of_other_length_is_refused(index: np.ndarray) -> None:
    with pytest.raises(MetricError, match="500 and 499"):
        metrics.beta(index, index[1:])


def test_win_rate_and_profit_factor_by_hand() -> None:
    path = np.array([0.02, -0.01, 0.0, 0.01])
    assert metrics.win_rate(path) == 0.5
    assert metrics.profit_factor(path) == pytest.approx(3.0)
    assert metrics.profit_factor(np.array([0.01])) == 0.0


def test_turnover_and_cost_drag_by_hand() -> None:
    assert metrics.annual_turnover(np.array([0.1, 0.0]), 252) == pytest.approx(12.6)
    # ln(1.02) - ln(1.01) in each of 2 periods
    drag = metrics.cost_drag(np.full(2, 0.02), np.full(2, 0.01), 2)
    assert drag == pytest.approx(2 * np.log(1.02 / 1.01))


def test_herfindahl_leaves_cash_out() -> None:
    # 0.3 and 0.1 of wealth are 3/4 and 1/4 of the invested part
    rows = np.array([[0.3, 0.1], [0.0, 0.0]])
    assert metrics.herfindahl(rows) == pytest.approx([0.625, 0.0])


def test_goal_alignment_is_one_when_reached_and_zero_when_opposite() -> None:
    weights = np.array([[0.3, 0.3], [0.5, 0.0]])
    goal = np.array([[0.5, 0.5], [0.0, 1.0]])
    assert metrics.goal_alignment(weights, goal) == pytest.approx([1.0, 0.0])


def test_log_loss_of_the_uniform_forecast_is_log_three() -> None:
    uniform = np.full((4, 3), 1 / 3)
    assert metrics.log_loss(uniform, np.array([0, 1, 2, 1])) == pytest.approx(np.log(3))


@pytest.mark.parametrize("wrong", [np.array([]), np.array([0.1, np.nan]), np.array([np.inf])])
def test_empty_and_not_finite_series_are_refused(wrong: np.ndarray) -> None:
    for measure in (metrics.max_drawdown, metrics.total_return, metrics.skewness, metrics.win_rate):
        with pytest.raises(MetricError):
            measure(wrong)


def longest_stay_below_a_peak(wealth: list[int]) -> int:
    """Count on whole numbers, which know no rounding."""
    longest, current, peak = 0, 0, wealth[0]
    for value in wealth[1:]:
        peak = max(peak, value)
        current = current + 1 if value < peak else 0
        longest = max(longest, current)
    return longest


@given(st.lists(st.integers(1, 12), min_size=2, max_size=60))
@settings(max_examples=200)
def test_a_peak_reached_again_ends_a_drawdown_in_any_ratio(wealth: list[int]) -> None:
    returns = np.array([later / earlier - 1.0 for earlier, later in pairwise(wealth)])
    assert metrics.max_drawdown_duration(returns) == longest_stay_below_a_peak(wealth)
    peaks = np.maximum.accumulate(wealth)[1:]
    at_peak = np.array(wealth[1:]) == peaks
    assert ((metrics.drawdowns(returns) == 0.0) == at_peak).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-4, 0.01, 0.1, -0.02]))
@settings(max_examples=30)
def test_rounding_is_no_move(seed: int, level: float) -> None:
    """A constant return, taken from wealth of any size, differs from itself by rounding only."""
    rng = np.random.default_rng(seed)
    wealth = rng.uniform(0.1, 1e6, 300)
    noisy = (wealth * (1.0 + level) - wealth) / wealth
    moving = rng.normal(0.0, 0.01, 300)
    assert metrics.sharpe_ratio(noisy, YEAR) == 0.0
    assert metrics.information_ratio(noisy - level, YEAR) == 0.0
    assert metrics.annual_volatility(noisy, YEAR) == 0.0
    assert metrics.skewness(noisy) == 0.0
    assert metrics.beta(moving, noisy) == 0.0
    assert metrics.alpha(moving, noisy, YEAR) == pytest.approx(moving.mean() * YEAR)
    if level >= 0.0:
        assert metrics.sortino_ratio(noisy, YEAR) == 0.0
        assert metrics.calmar_ratio(noisy, YEAR) == 0.0
        assert metrics.profit_factor(noisy) == 0.0
        assert metrics.win_rate(noisy) == float(level > 0.0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_rounding_moves_no_measure_of_a_moving_series(seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.choice([-0.01, 0.0, 0.01, 0.02], 200)
    returns[:2] = 0.01, -0.01
    noisy = returns + rng.uniform(-1e-15, 1e-15, 200)
    measures_of = (
        metrics.sharpe_ratio,
        metrics.sortino_ratio,
        metrics.calmar_ratio,
        metrics.annual_volatility,
    )
    for measure in measures_of:
        assert measure(noisy, YEAR) == pytest.approx(measure(returns, YEAR), rel=1e-9)
    assert metrics.win_rate(noisy) == metrics.win_rate(returns)
    assert metrics.profit_factor(noisy) == pytest.approx(metrics.profit_factor(returns), rel=1e-9)
    assert metrics.max_drawdown_duration(noisy) == metrics.max_drawdown_duration(returns)


def test_a_portfolio_of_rounding_is_empty() -> None:
    assert metrics.herfindahl(np.array([[1e-17, 0.0], [0.5, 0.0]])).tolist() == [0.0, 1.0]


def test_all_but_rounding_is_lost_entirely() -> None:
    with pytest.raises(MetricError, match="lost everything"):
        metrics.annual_log_growth(np.array([0.1, -1.0 + 1e-16]), YEAR)
