"""Measures of detection, each against an example worked out by hand."""

import numpy as np
import pytest

from hrl_sarp.price_action.expansions.measures import (
    TRIVIAL_RULES,
    Found,
    Truth,
    best_interval,
    calibration_error,
    center_distance,
    hit_rate,
    interval_iou,
    likeliest_bars,
    likeliest_run,
    measures,
    separation,
    span_scores,
    trivial_measures,
)

BARS = 10


def pointers(start: int, end: int) -> list[float]:
    """Center and length of the bars start..end of windows of BARS."""
    return [(start + end) / 2 / (BARS - 1), (end - start + 1) / BARS]


def inside(*spans: tuple[int, int]) -> np.ndarray:
    marks = np.zeros((len(spans), BARS), dtype=bool)
    for row, (start, end) in enumerate(spans):
        marks[row, start : end + 1] = True
    return marks


def truth(*spans: tuple[int, int], label: list[int]) -> Truth:
    return Truth(np.array(label), np.array([pointers(*span) for span in spans]), inside(*spans))


def test_span_scores_are_averages_over_windows() -> None:
    probability = np.zeros((2, BARS))
    probability[0, 2:6] = 0.5  # called: the threshold counts
    probability[1, 0] = 0.49
    # window 0: bars 2..5 called, 4..7 right: 2 hits of 4 and of 4; window 1: nothing called
    scores = span_scores(probability, inside((4, 7), (0, 1)))
    assert scores == {"span_f1": 0.25, "span_precision": 0.25, "span_recall": 0.25}


def test_all_bars_inside_score_the_share_and_full_recall() -> None:
    scores = span_scores(np.ones((2, BARS)), inside((0, 0), (0, 3)))
    # precision 0.1 and 0.4; F1 = 2 p / (1 + p): 0.2 / 1.1 and 0.8 / 1.4
    assert scores["span_precision"] == pytest.approx(0.25)
    assert scores["span_recall"] == 1.0
    assert scores["span_f1"] == pytest.approx((0.2 / 1.1 + 0.8 / 1.4) / 2)


def test_hits_count_bars_between_centers() -> None:
    found = np.array([pointers(2, 4), pointers(5, 5), pointers(0, 9)])
    right = np.array([pointers(2, 6), pointers(5, 5), pointers(9, 9)])
    away = center_distance(found, right, BARS)
    np.testing.assert_allclose(away, [1.0, 0.0, 4.5], atol=1e-12)
    rates = [hit_rate(away, k) for k in (0, 1, 4, 5)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1.0])


def test_overlap_counts_whole_bars() -> None:
    found = np.array([pointers(2, 5), pointers(0, 1), pointers(3, 4)])
    right = np.array([pointers(4, 7), pointers(5, 6), pointers(3, 4)])
    # bars 4, 5 of 2..7; none; all
    overlap = interval_iou(found, right, BARS)
    np.testing.assert_allclose(overlap, [2 / 6, 0.0, 1.0], atol=1e-12)


def test_separation_is_a_difference_of_means() -> None:
    probability = np.full((1, BARS), 0.2)
    probability[0, 3:5] = 0.7
    assert separation(probability, inside((3, 4))) == pytest.approx(0.5)
    # of bars 3..6 two have 0.7 and two 0.2
    assert separation(probability, inside((3, 6))) == pytest.approx(0.45 - 0.2)


def test_calibration_error_by_hand() -> None:
    # bins of 1/15: eight bars at 0.1, none inside: gap 0.1; two at 0.9, one inside: gap 0.4
    probability = np.full((1, BARS), 0.1)
    probability[0, 8:] = 0.9
    error = calibration_error(probability, inside((9, 9)))
    assert error == pytest.approx(0.8 * 0.1 + 0.2 * 0.4)


def test_calibration_error_does_not_cancel_between_bins() -> None:
    probability = np.full((1, BARS), 0.0)
    probability[0, 5:] = 1.0
    assert calibration_error(probability, inside((0, 4))) == 1.0


def test_perfect_answers_reach_the_best_value_of_every_measure() -> None:
    right = truth((2, 4), (6, 6), label=[0, 1])
    best = measures(Found(right.label, right.pointers, right.inside.astype(float)), right, 3)
    assert best.pop("ece") == 0.0
    # a run of three bars is the first expansion, and has one bar of its three in the second
    assert best.pop("run_f1") == pytest.approx((1.0 + 2 / 4) / 2)
    assert set(best.values()) == {1.0}
    assert set(best) | {"ece", "run_f1"} == set(TRIVIAL_RULES)


def test_likeliest_run_has_the_greatest_sum_and_its_length_is_chosen_on_labels() -> None:
    probability = np.zeros((2, BARS))
    probability[0, 3:6] = 0.25
    probability[1, [0, 8, 9]] = [0.9, 0.5, 0.45]
    assert likeliest_run(probability, 2).nonzero()[1].tolist() == [3, 4, 8, 9]
    assert likeliest_run(probability, 1).nonzero()[1].tolist() == [3, 0]
    four = np.zeros((1, 40))
    four[0, 20:24] = 0.25
    assert likeliest_bars(four, four > 0) == 4


def test_measures_of_untaught_tasks_are_left_out() -> None:
    right = truth((2, 4), label=[0])
    assert measures(Found(right.label, None, None), right, 1) == {"type_accuracy": 1.0}


def test_trivial_measures_by_hand() -> None:
    training = truth((4, 4), (4, 4), (8, 8), label=[1, 1, 0])
    right = truth((4, 4), (7, 7), label=[1, 0])
    found = trivial_measures(training, right)
    assert found["type_accuracy"] == 0.5  # always class 1
    # windows at 4, 4, 8: within 1 bar, places 3 to 5 hit two; the first of them, 3, hits 4, not 7
    assert found["hit_at_1"] == 0.5
    # within 3 bars, place 5 is the first that hits all three; it is 1 and 2 bars off
    assert found["hit_at_3"] == 1.0
    assert found["iou"] == found["run_f1"] == 0.5  # one bar at 4
    assert found["span_recall"] == 1.0
    assert found["span_precision"] == pytest.approx(0.1)
    assert found["span_f1"] == pytest.approx(0.2 / 1.1)
    assert found["separation"] == pytest.approx(0.0)
    assert found["ece"] == pytest.approx(0.0)  # 10 % in training and here


def test_trivial_calibration_error_is_the_change_of_the_share() -> None:
    training, right = truth((0, 2), label=[0]), truth((5, 5), label=[0])
    assert trivial_measures(training, right)["ece"] == pytest.approx(0.3 - 0.1)


def test_best_interval_covers_most() -> None:
    # 3..6 overlaps 2..5 by 3 of 5 bars and itself wholly: 0.8, twice as long ones less
    training = np.array([pointers(2, 5), pointers(3, 6), pointers(3, 6)])
    ((place, length),) = best_interval(training, BARS)
    assert length == pytest.approx(0.4)
    # the center of 3..6 is bar 4.5; of the whole bars beside it 4 is nearer to 2..5
    assert place * (BARS - 1) == pytest.approx(4.0)
