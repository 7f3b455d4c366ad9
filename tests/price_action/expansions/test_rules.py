"""Rules without a network: by hand, against loops, and for what they must not know."""

from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp.features.relativity import average_true_range
from hrl_sarp.price_action.expansions.measures import RUN_BARS, Truth, measures, span_scores
from hrl_sarp.price_action.expansions.rules import (
    RULES,
    answers,
    as_found,
    choose_bars,
    choose_interval,
    largest_move,
    span_f1,
)
from hrl_sarp.price_action.expansions.task import make_targets
from hrl_sarp.price_action.expansions.windows import LabelledWindows
from tests.price_action.expansions.labelled_factories import LENGTH, labelled, walks

ATR_BARS = 20


@pytest.fixture(scope="module")
def some_windows() -> LabelledWindows:
    return labelled(40)


def truth_of(windows: LabelledWindows) -> Truth:
    targets = make_targets(windows, 20)
    return Truth(windows.label, targets.pointers.double().numpy(), targets.inside.numpy() > 0)


@pytest.mark.parametrize("n_bars", [1, 5, 9, 20])
def test_largest_move_equals_a_loop(n_bars: int) -> None:
    ohlc = walks(6, seed=3)
    for window, first in zip(ohlc, largest_move(ohlc, n_bars, ATR_BARS), strict=True):
        one = np.zeros(LENGTH, np.int32)
        atr = average_true_range(*(window[:, k].copy() for k in (1, 2, 3)), one, ATR_BARS)
        moves = {
            base + 1: abs(window[base + n_bars, 3] - window[base, 3]) / atr[base]
            for base in range(ATR_BARS, LENGTH - n_bars)
        }
        assert first == max(moves, key=lambda bar: moves[bar])


@pytest.mark.parametrize("factor", [1e-4, 3.7, 1e4])
def test_unit_and_direction_of_prices_do_not_matter(factor: float) -> None:
    ohlc = walks(20, seed=5)
    mirrored = (ohlc.max() + ohlc.min()) - ohlc[..., [0, 2, 1, 3]]
    found = largest_move(ohlc, 9, ATR_BARS)
    np.testing.assert_array_equal(largest_move(factor * ohlc, 9, ATR_BARS), found)
    np.testing.assert_array_equal(largest_move(mirrored, 9, ATR_BARS), found)


def test_prices_that_do_not_move_have_a_first_run() -> None:
    found = largest_move(np.full((2, LENGTH, 4), 5.0), 9, ATR_BARS)
    assert found.tolist() == [ATR_BARS + 1] * 2


@pytest.mark.parametrize("n_bars", [2, 7, 30])
def test_f1_is_that_of_the_measures(some_windows: LabelledWindows, n_bars: int) -> None:
    first = np.random.default_rng(1).integers(0, LENGTH - n_bars, len(some_windows))
    inside = as_found(first, n_bars, LENGTH).inside
    assert inside is not None
    expected = span_scores(inside, truth_of(some_windows).inside)["span_f1"]
    assert span_f1(first, n_bars, some_windows).mean() == pytest.approx(expected)


def test_run_that_is_the_expansion_scores_one_in_all_measures(
    some_windows: LabelledWindows,
) -> None:
    five = replace(some_windows, end=some_windows.start + 4)
    found = measures(as_found(five.start, 5, LENGTH), truth_of(five), run_bars=5)
    assert found["span_f1"] == found["hit_at_1"] == 1.0
    assert found["iou"] == pytest.approx(1.0, abs=1e-5)
    assert "type_accuracy" not in found


def test_choices_are_the_best_on_the_labels(some_windows: LabelledWindows) -> None:
    n_bars = choose_bars(some_windows, ATR_BARS)
    scores = [
        span_f1(largest_move(some_windows.ohlc, n, ATR_BARS), n, some_windows).mean()
        for n in RUN_BARS
    ]
    assert scores[RUN_BARS.index(n_bars)] == max(scores)
    # all expansions at bars 50 to 57: the interval is that
    there = np.full(len(some_windows), 50)
    assert choose_interval(replace(some_windows, start=there, end=there + 7)) == (50, 8)


def test_rules_do_not_read_the_labels_of_the_windows_that_they_are_asked_about(
    some_windows: LabelledWindows,
) -> None:
    asked = labelled(10, seed=7)
    moved = replace(asked, start=asked.start * 0, end=asked.end * 0 + 3, label=1 - asked.label)
    one, two = (answers(some_windows, windows, ATR_BARS) for windows in (asked, moved))
    for rule in RULES:
        assert one[rule][1] == two[rule][1]
        np.testing.assert_array_equal(one[rule][0].inside, two[rule][0].inside)


def test_largest_move_finds_planted_expansions_and_the_interval_does_not(
    some_windows: LabelledWindows,
) -> None:
    truth, said = truth_of(some_windows), answers(some_windows, some_windows, ATR_BARS)
    found = {rule: measures(said[rule][0], truth, said[rule][1]) for rule in RULES}
    scores = {rule: values["span_f1"] for rule, values in found.items()}
    assert scores == {rule: values["run_f1"] for rule, values in found.items()}
    assert scores["largest move"] > scores["fixed interval"] + 0.2
