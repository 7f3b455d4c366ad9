"""Middles, improvements, signs and verdicts worked out by hand and by other libraries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import Interval

RNG = np.random.default_rng(4)


def test_interquartile_mean_ignores_the_outer_quarters() -> None:
    assert statistics.interquartile_mean(np.array([-100.0, 1.0, 3.0, 100.0])) == 2.0
    # five values: the middle half is 2.5 values wide: (0.75 x 2 + 3 + 0.75 x 4) / 2.5 = 3
    assert statistics.interquartile_mean(np.arange(1.0, 6.0)) == pytest.approx(3.0)


@pytest.mark.parametrize("n", [4, 8, 40])
def test_interquartile_mean_is_the_trimmed_mean_where_quarters_are_whole(n: int) -> None:
    values = RNG.standard_normal(n)
    expected = stats.trim_mean(values, 0.25)  # what rliable takes
    assert statistics.interquartile_mean(values) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_interquartile_mean_of_repeated_values_is_that_of_the_values(values: list[int]) -> None:
    # four copies of each make the quarters whole
    copied = np.repeat(np.array(values, dtype=float), 4)
    found = statistics.interquartile_mean(np.array(values, dtype=float))
    assert found == pytest.approx(stats.trim_mean(copied, 0.25), abs=1e-12)


def test_every_sample_has_the_interquartile_mean_of_its_folds_and_seeds() -> None:
    scores = RNG.standard_normal((5, 3, 2))
    found = statistics.bootstrap_interquartile_mean(scores)
    expected = [statistics.interquartile_mean(one.ravel()) for one in scores]
    assert found == pytest.approx(expected)


def test_probability_of_improvement_by_hand() -> None:
    # fold 1: 2 > 1, 2 = 2, 3 > 1, 3 > 2: 3.5 of 4; fold 2: none of 4
    first, second = np.array([[2.0, 3.0], [0.0, 0.0]]), np.array([[1.0, 2.0], [5.0, 6.0]])
    assert statistics.probability_of_improvement(first, second) == pytest.approx(3.5 / 8)
    assert statistics.probability_of_improvement(second, first) == pytest.approx(4.5 / 8)
    assert statistics.probability_of_improvement(first, first) == pytest.approx(0.5)


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    first, second = RNG.integers(0, 5, (6, 4, 3)) * 1.0, RNG.integers(0, 5, (6, 4, 2)) * 1.0
    found = statistics.probability_of_improvement(first, second)
    assert found.shape == (6,)
    for sample, own, other in zip(found, first, second, strict=True):
        by_fold = [stats.mannwhitneyu(a, b).statistic / 6 for a, b in zip(own, other, strict=True)]
        assert sample == pytest.approx(np.mean(by_fold), rel=1e-12)


def test_folds_are_resampled_by_themselves_and_row_0_is_the_history() -> None:
    counts = statistics.fold_counts([30, 7], 10.0, 50, np.random.default_rng(0))
    assert [one.shape for one in counts] == [(51, 30), (51, 7)]
    assert all((one[0] == 1).all() and (one.sum(axis=1) == one.shape[1]).all() for one in counts)
    assert (counts[0][1:] != 1).any(axis=1).mean() > 0.8  # a block may wrap all around
    series = [RNG.standard_normal((30, 2)), RNG.standard_normal((7, 2))]
    scores = statistics.fold_scores(series, counts, 252)
    assert scores.shape == (51, 2, 2)
    assert scores[0] == pytest.approx(252 * np.array([one.mean(axis=0) for one in series]))
    drawn = np.repeat(series[1], counts[1][9].astype(int), axis=0)
    assert scores[9, 1] == pytest.approx(252 * drawn.mean(axis=0))


def test_scores_of_other_folds_than_the_draws_are_refused() -> None:
    counts = statistics.fold_counts([30, 7], 10.0, 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="zip"):
        statistics.fold_scores([np.zeros((30, 1))], counts, 252)


def test_a_block_longer_than_a_fold_is_cut_to_it() -> None:
    long, whole = (
        statistics.fold_counts([7], block, 20, np.random.default_rng(0))[0] for block in (99.0, 7.0)
    )
    np.testing.assert_array_equal(long, whole)


@pytest.mark.parametrize(
    ("won", "lost", "expected"),
    [(9, 1, 22 / 1024), (5, 5, 1.0), (0, 6, 2 / 64), (1, 0, 1.0), (0, 0, 1.0)],
)
def test_sign_test_by_hand(won: int, lost: int, expected: float) -> None:
    # 9 of 10: 2 x (1 + 10) / 2^10
    differences = np.array([0.3] * won + [-7.0] * lost + [0.0] * 2)
    assert statistics.sign_test(differences) == pytest.approx(expected)


def test_sign_test_of_a_missing_fold_is_refused() -> None:
    with pytest.raises(MetricError, match=r"^sign test: .*leave folds out$"):
        statistics.sign_test(np.array([1.0, np.nan]))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 2.0, "better"),
        (0.0, 2.0, "not worse"),
        (-0.4, 2.0, "not worse"),
        (-0.5, 2.0, "no difference shown"),
        (-3.0, 0.0, "no difference shown"),
        (-3.0, -0.1, "worse"),
        (-0.3, -0.1, "worse"),  # too small to matter, and yet a loss
    ],
)
def test_the_interval_alone_gives_the_verdict(low: float, high: float, expected: str) -> None:
    for value in (-9.0, 9.0):
        assert statistics.verdict(Interval(value, low, high), 0.5) == expected


@pytest.mark.parametrize(
    ("low", "margin"), [(float("nan"), 0.5), (-float("inf"), 0.5), (0.0, -0.1)]
)
def test_a_verdict_on_no_interval_is_refused(low: float, margin: float) -> None:
    with pytest.raises(MetricError) as refused:
        statistics.verdict(Interval(0.0, low, 1.0), margin)
    assert str(refused.value) == (
        f"verdict on [{low}, 1.0] with margin {margin}: expected finite ends and a margin of at "
        "least 0"
    )
    assert statistics.verdict(Interval(0.0, -0.1, 1.0), 0) == "no difference shown"
