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


CLOCK, TABLE = (YEAR,), np.full((3, 2), 0.5)
ONE = np.array([0.01, -0.02, 0.03])
NAMED = [
    *((name, [ONE], CLOCK, 0, "simple_returns") for name in ("annual_return", "annual_log_growth")),
    *(
        (name, [ONE], (), 0, "simple_returns")
        for name in ("total_return", "drawdowns", "max_drawdown", "win_rate", "profit_factor")
    ),
    *(
        (name, [ONE], CLOCK, 0, "returns")
        for name in ("annual_volatility", "sharpe_ratio", "tracking_error", "information_ratio")
    ),
    *((name, [ONE], (), 0, "returns") for name in ("skewness", "kurtosis")),
    *(
        (name, [ONE], (0.95,), 0, "simple_returns")
        for name in ("value_at_risk", "conditional_value_at_risk")
    ),
    ("downside_deviation", [ONE], CLOCK, 0, "excess_returns"),
    ("sortino_ratio", [ONE], CLOCK, 0, "excess_returns"),
    ("annual_turnover", [ONE], CLOCK, 0, "turnover"),
    ("beta", [ONE, ONE], (), 0, "excess_returns"),
    ("beta", [ONE, ONE], (), 1, "benchmark_excess_returns"),
    ("herfindahl", [TABLE], (), 0, "weights"),
    ("goal_alignment", [TABLE, TABLE], (), 0, "weights"),
    ("goal_alignment", [TABLE, TABLE], (), 1, "desired"),
    ("log_loss", [TABLE], (np.zeros(3, dtype=int),), 0, "probabilities"),
]
"""Name of a measure, its arrays, other arguments, place of the wrong array, what it is called."""


@pytest.mark.parametrize(("name", "arrays", "others", "place", "shown"), NAMED)
def test_what_is_not_finite_is_named(
    name: str, arrays: list[np.ndarray], others: tuple, place: int, shown: str
) -> None:
    wrong = arrays[place].copy()
    wrong.ravel()[1:] = np.nan, *np.full(wrong.size - 2, np.inf)
    given = [*arrays[:place], wrong, *arrays[place + 1 :], *others]
    with pytest.raises(MetricError) as refused:
        getattr(metrics, name)(*given)
    assert str(refused.value) == (
        f"{shown}: expected finite numbers, found {wrong.size - 1} of {wrong.size} are NaN or "
        "infinite, the first at 1; fill or cut them first"
    )


def test_an_empty_series_is_named() -> None:
    with pytest.raises(MetricError) as refused:
        metrics.win_rate(np.array([]))
    assert str(refused.value) == (
        "simple_returns is empty: expected at least one number; check the span of dates"
    )


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


def test_what_is_at_most_rounding_counts_as_nothing() -> None:
    edge = metrics.ROUNDING
    values = np.array([edge, -edge, 1.5 * edge, -1.5 * edge])
    assert metrics.without_rounding(values).tolist() == [0.0, 0.0, 1.5 * edge, -1.5 * edge]
    assert metrics.without_rounding(values, 252).tolist() == [0.0] * 4
    assert metrics.annual_volatility(np.array([0.0, 2.1 * edge]), 1) > 0.0
    assert metrics.annual_volatility(np.array([-edge, 0.0, edge]), 1) == 0.0  # its deviation
    assert metrics.annual_volatility(1000 + np.array([0.0, 100 * edge]), 1) == 0.0
    assert metrics.herfindahl(np.array([[edge, 0.0]])).tolist() == [0.0]
    with pytest.raises(MetricError, match=r"^annual_log_growth: a period lost everything"):
        metrics.annual_log_growth(np.array([0.1, -1.0 + edge]), YEAR)


def test_a_year_holds_several_periods() -> None:
    # two of four quarters: 1.1 x 0.8 = 0.88, squared; deviations 0.15 sqrt(2) x sqrt(4)
    half = np.array([0.1, -0.2])
    assert metrics.annual_return(half, 4) == pytest.approx(0.88**2 - 1)
    assert metrics.annual_return(np.array([0.1, 0.2]), 4) == pytest.approx(1.32**2 - 1)
    assert metrics.annual_volatility(half, 4) == pytest.approx(0.15 * 2**0.5 * 2)
    assert metrics.sharpe_ratio(half, 4) == pytest.approx(-0.05 / (0.15 * 2**0.5) * 2)
    # downside: sqrt(0.2^2 / 2 x 4); mean -0.05 x 4
    assert metrics.downside_deviation(half, 4) == pytest.approx(0.08**0.5)
    assert metrics.sortino_ratio(half, 4) == pytest.approx(-0.2 / 0.08**0.5)
    assert metrics.calmar_ratio(half, 4) == pytest.approx((0.88**2 - 1) / 0.2)


@pytest.mark.parametrize("lost", [[0.1, -1.0], [0.1, -1.5], [-1.0]])
def test_ruin_is_a_loss_of_everything_at_any_clock(lost: list[float]) -> None:
    for year in (1, 2, 252):
        assert metrics.annual_return(np.array(lost), year) == -1.0
    assert metrics.total_return(np.array([-0.5, 0.5])) == pytest.approx(-0.25)


def test_a_still_benchmark_has_no_slope(index: np.ndarray) -> None:
    rounding = 0.0004 + 1e-17 * np.arange(500)
    assert metrics.beta(index, rounding) == 0.0
    assert metrics.beta(index, np.linspace(0, 1e-15, 500)) == 0.0


def test_a_single_period_does_not_move() -> None:
    one = np.array([0.1])
    assert metrics.annual_volatility(one, YEAR) == 0.0
    assert (metrics.skewness(one), metrics.kurtosis(one)) == (0.0, 3.0)


def test_shares_are_taken_along_the_last_axis() -> None:
    weights = np.array([[[0.3, 0.1, 0.0], [0.2, 0.2, 0.4]]])
    assert metrics.herfindahl(weights) == pytest.approx(np.array([[0.625, 0.375]]))
    desired = np.array([[[0.75, 0.0, 0.25], [0.25, 0.25, 0.5]]])
    assert metrics.goal_alignment(weights, desired) == pytest.approx(np.array([[0.75, 1.0]]))


def test_a_tail_of_whole_periods_is_not_cut_by_rounding() -> None:
    # (1 - 0.9) x 50 is 4.999999999999999 in floating point, and is 5
    losses = np.arange(50.0) / 100
    assert metrics.value_at_risk(-losses, 0.9) == pytest.approx(0.44)
    assert metrics.conditional_value_at_risk(-losses, 0.9) == pytest.approx(0.47)


def test_a_confidence_of_ten_digits_is_the_share_that_it_rounds() -> None:
    # 2/3 written out: (1 - 0.6666666667) x 3000 is 999.9999999, and is 1000
    losses = np.arange(3000.0) / 10_000
    assert metrics.value_at_risk(-losses, 0.6666666667) == pytest.approx(0.1999)
    assert metrics.value_at_risk(-losses, 0.666667) == pytest.approx(0.2000)  # 999.999: six digits


@pytest.mark.parametrize("confidence", [-0.01, 1.01, 2.0])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(MetricError, match=rf"in \[0, 1\], found {confidence}; 0.95 is usual"):
        metrics.value_at_risk(np.array([0.1, -0.1]), confidence)
