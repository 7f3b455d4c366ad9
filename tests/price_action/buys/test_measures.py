"""Measures of a classifier, against values by hand."""

import numpy as np
import pytest

from hrl_sarp.errors import MetricError
from hrl_sarp.price_action.buys.measures import (
    choose_threshold,
    evaluate_calls,
    evaluate_trivial,
    lift_interval,
    linear_scores,
    pr_auc,
    pr_curve,
)

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
LABELS = np.array([1, 0, 1, 1, 0, 0])


def test_calls_by_hand() -> None:
    # from 0.7 on: calls 3, hits 2 of 3 positives; right: 2 hits and 2 rightly left alone of 6
    found = evaluate_calls(SCORES, LABELS, 0.7)
    assert (found["calls"], found["precision"], found["recall"]) == (3, 2 / 3, 2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(4 / 6)


def test_calling_nothing_has_no_precision_and_no_f1() -> None:
    found = evaluate_calls(SCORES, LABELS, 1.0)
    assert (found["calls"], found["precision"], found["recall"], found["f1"]) == (0, 0.0, 0.0, 0.0)


def test_trivial_baselines_by_hand() -> None:
    found = evaluate_trivial(np.array([1, 0, 0, 0]))
    # calling all: precision 1/4, recall 1, F1 = 2 x 0.25 / 1.25
    assert (found["base_rate"], found["all_positive_f1"], found["majority_accuracy"]) == (
        0.25,
        0.4,
        0.75,
    )


def test_all_positive_f1_is_that_of_calling_all() -> None:
    assert evaluate_trivial(LABELS)["all_positive_f1"] == evaluate_calls(SCORES, LABELS, 0.0)["f1"]


def test_pr_auc_by_hand() -> None:
    # hits at ranks 1, 3, 4: (1/1 + 2/3 + 3/4) / 3
    assert pr_auc(SCORES, LABELS) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_pr_auc_with_equal_scores_by_hand() -> None:
    # 0.9: two calls, one hit: recall 1/2, precision 1/2; 0.5: the other half at precision 2/3
    scores, labels = np.array([0.9, 0.9, 0.5]), np.array([1, 0, 1])
    assert pr_auc(scores, labels) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)


def test_constant_score_has_the_base_rate() -> None:
    assert pr_auc(np.full(6, 0.3), LABELS) == 0.5


def test_pr_auc_without_positive_is_refused() -> None:
    with pytest.raises(MetricError, match="found none"):
        pr_auc(SCORES, np.zeros(6, dtype=np.int64))


@pytest.mark.parametrize(
    ("min_calls", "threshold"),
    # precision by calls: 1, 1/2, 2/3, 3/4, 3/5, 3/6
    [(1, 0.9), (2, 0.6), (5, 0.5), (6, 0.4)],
)
def test_threshold_of_highest_precision_with_enough_calls(min_calls: int, threshold: float) -> None:
    assert choose_threshold(SCORES, LABELS, min_calls) == threshold


def test_equal_scores_are_called_together() -> None:
    # alone, the first of the two 0.9 would be a call of precision 1
    scores, labels = np.array([0.9, 0.9, 0.5]), np.array([1, 0, 1])
    assert choose_threshold(scores, labels, 1) == 0.5  # precision 2/3 beats 1/2


def test_of_equal_precisions_most_calls_are_taken() -> None:
    scores, labels = np.array([0.9, 0.8, 0.7]), np.array([1, 1, 0])
    assert choose_threshold(scores, labels, 1) == 0.8


def test_too_few_scores_for_a_threshold_are_refused() -> None:
    with pytest.raises(MetricError, match="7 calls needs as many scores, found 6"):
        choose_threshold(SCORES, LABELS, 7)


def test_curve_by_hand() -> None:
    recall, precision = pr_curve(SCORES, LABELS)
    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3, 1, 1, 1])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5, 3 / 6])


def test_curve_has_one_point_for_equal_scores() -> None:
    recall, precision = pr_curve(np.array([0.9, 0.9, 0.5]), np.array([1, 0, 1]))
    np.testing.assert_allclose(recall, [1 / 2, 1])
    np.testing.assert_allclose(precision, [1 / 2, 2 / 3])


def test_interval_covers_zero_for_noise_and_not_for_a_signal() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(2000) < 0.1).astype(np.int64)
    noise = rng.random(2000)
    low, high = lift_interval(noise, labels, 20, rng)
    assert low < 0.02
    assert high < 0.05
    low, _ = lift_interval(noise + labels, labels, 20, rng)
    assert low > 0.5


def test_interval_widens_when_neighbours_agree() -> None:
    # 50 stretches of 40 equal windows are 50 observations, not 2,000
    rng = np.random.default_rng(4)
    labels = np.repeat((rng.random(50) < 0.3).astype(np.int64), 40)
    scores = np.repeat(rng.random(50), 40)
    narrow = np.diff(lift_interval(scores, labels, 1, rng))[0]
    wide = np.diff(lift_interval(scores, labels, 40, rng))[0]
    assert wide > 3 * narrow


def test_linear_scores_find_a_linear_signal_and_no_other() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, 3))
    linear = (x[:, 0] - x[:, 1] > 1.5).astype(np.int64)
    same_sign = (x[:, 0] * x[:, 1] > 0).astype(np.int64)  # base rate 1/2, and no line tells it
    for labels, low, high in ((linear, 0.95, 1.0), (same_sign, 0.4, 0.6)):
        scores = linear_scores(x[:2000], labels[:2000], x[2000:])
        assert low < pr_auc(scores, labels[2000:]) <= high
