"""The test of Diebold and Mariano finds what is there, not more, and says what its sign means."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from hrl_sarp.errors import MetricError
from hrl_sarp.forecasters.evaluation import scores
from hrl_sarp.forecasters.evaluation.comparison import (
    diebold_mariano,
    multiple,
    origin_means,
    overlap_lags,
    rank_ic,
    summary_text,
)


def test_a_model_30_times_worse_than_the_last_price_is_called_so() -> None:
    # a report called these figures excellent: MAE 1.272, of the last price 0.0426, of mean 1.0956
    rng = np.random.default_rng(0)
    moves = rng.choice([-1.0, 1.0], 400) * rng.uniform(0.0, 1.0, 400)
    last = np.full(400, 1.272 / 1.161)
    came = last + moves * 0.0426 / np.abs(moves).mean()
    point = came + rng.permuted(np.linspace(1.172, 1.372, 400))
    naive, error = np.abs(came - last), np.abs(came - point)
    test = diebold_mariano(error - naive, lags=0)
    told = summary_text(
        scores.percent_mae(came, point), scores.naive_ratio(came, point, last), test
    )
    assert told == "pct_mae 116 %, 29.9 x naive, significantly worse"
    assert test.statistic > 0
    assert test.favours == "the reference"
    assert "above 0 is against the model" in test.text


def test_the_figures_of_that_report_read_as_they_should() -> None:
    # alternating differences of mean d = 1.272 - 0.0426 and a statistic of about 11
    d = 1.272 - 0.0426
    test = diebold_mariano(d + np.tile([-0.869, 0.869], 30), lags=0)
    assert test.statistic == pytest.approx(10.9, abs=0.1)
    told = summary_text(116.1, 1.272 / 0.0426, test)
    assert told == "pct_mae 116 %, 29.9 x naive, significantly worse"


@pytest.mark.parametrize(("horizon", "every", "lags"), [(5, 5, 0), (5, 1, 4), (5, 2, 2), (1, 5, 0)])
def test_lags_are_the_origins_that_overlap(horizon: int, every: int, lags: int) -> None:
    assert overlap_lags(horizon, every) == lags


def test_statistic_by_hand() -> None:
    # mean 1, deviations +-2 in turn: variance 4, first autocovariance -4 x 19/20 = -3.8
    differences = np.tile([3.0, -1.0], 10)
    none = diebold_mariano(differences, lags=0)
    factor = math.sqrt((20 + 1 - 2) / 20)
    assert none.statistic == pytest.approx(factor / math.sqrt(4 / 20))
    assert none.p_value == pytest.approx(2 * student.sf(none.statistic, 19))
    # one lag weighs 1/2, twice: 4 - 3.8 = 0.2; the correction is (20 + 1 - 4 + 2/20) / 20
    one = diebold_mariano(differences, lags=1)
    assert one.statistic == pytest.approx(math.sqrt(17.1 / 20) / math.sqrt(0.2 / 20))


def test_swapping_both_sides_changes_the_sign_alone() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, 50)
    ahead, behind = diebold_mariano(differences, 2), diebold_mariano(-differences, 2)
    assert ahead.statistic == pytest.approx(-behind.statistic)
    assert (ahead.p_value, ahead.favours) == (behind.p_value, "the reference")
    assert (behind.favours, "below 0 is for it" in behind.text) == ("the model", True)


@pytest.mark.parametrize("lags", [0, 4])
def test_level_is_kept_on_differences_that_overlap(lags: int) -> None:
    rng = np.random.default_rng(lags)
    kernel = np.ones(lags + 1)
    found = [
        diebold_mariano(np.convolve(rng.normal(size=204), kernel, "valid")[:200], lags)
        for _ in range(400)
    ]
    share = np.mean([test.is_significant for test in found])
    # 4 binomial errors of 5 % of 400 are 4.4 %; without lags such series give 35 %
    assert share < 0.115 if lags else 0.006 < share < 0.094


def test_what_cannot_be_tested_is_named() -> None:
    few = diebold_mariano(np.array([1.0, -1.0, 2.0]), lags=0)
    assert few.verdict == "not tested: too few origins: 3"
    assert math.isnan(few.statistic)
    assert not few.is_significant
    none = diebold_mariano(np.array([]), lags=0)
    assert (none.verdict, none.favours) == ("not tested: too few origins: 0", "neither")
    overlapping = diebold_mariano(np.random.default_rng(0).normal(size=12), lags=11)
    assert overlapping.reason == "too few origins: 12"
    still = diebold_mariano(np.full(50, 0.25), lags=0)
    assert (still.reason, still.favours) == ("the same difference everywhere", "the reference")
    same = diebold_mariano(np.zeros(50), lags=0)
    assert (same.reason, same.favours) == ("the same losses", "neither")
    assert same.text == "no Diebold-Mariano test (the same losses)"


def test_nonsense_is_refused() -> None:
    with pytest.raises(MetricError, match="finite differences"):
        diebold_mariano(np.array([1.0, np.nan] * 10), lags=0)
    with pytest.raises(MetricError, match="at least 0 lags"):
        diebold_mariano(np.ones(20), lags=-1)


def test_differences_are_averaged_over_series_and_steps_of_an_origin() -> None:
    days = np.array(["2024-01-02", "2024-01-01", "2024-01-02", "2024-01-03"], "datetime64[D]")
    found = origin_means(days, np.array([1.0, 7.0, 3.0, np.nan]))
    np.testing.assert_allclose(found, [7.0, 2.0])  # in the order of time; a NaN alone has no mean


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.98765, "0.988"), (1.0, "1.000"), (29.859, "29.9"), (math.nan, "no")]
)
def test_multiples_have_the_digits_that_matter(ratio: float, text: str) -> None:
    assert multiple(ratio) == text


def test_rank_ic_by_hand() -> None:
    came = np.tile(np.arange(5.0), (12, 1))
    forecast = came.copy()
    forecast[::2, :2] = [1.0, 0.0]  # one pair swapped: 1 - 6 x 2 / (5 x 24) = 0.9
    found = rank_ic(forecast, came, lags=0)
    assert found.mean == pytest.approx(0.95)
    assert found.icir == pytest.approx(0.95 / np.std([0.9, 1.0] * 6, ddof=1))
    assert found.t == pytest.approx(0.95 / (0.05 / math.sqrt(12)))
    assert found.n_dates == 12


def test_rank_ic_needs_series_dates_and_differences() -> None:
    rng = np.random.default_rng(0)
    assert rank_ic(rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), 0).n_dates == 0
    flat = rank_ic(np.ones((9, 6)), rng.normal(size=(9, 6)), 0)
    assert (math.isnan(flat.mean), flat.n_dates) == (True, 0)
    few = rank_ic(rng.normal(size=(9, 6)), rng.normal(size=(9, 6)), 0)
    assert (math.isnan(few.t), few.n_dates) == (True, 9)
    assert few.mean / few.icir > 0
