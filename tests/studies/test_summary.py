"""Means, intervals and paired differences over seeds, by hand."""

import math

import pytest

from hrl_sarp.studies import Threshold, moments, paired_difference
from hrl_sarp.studies.summary import missed


def test_moments_of_two_values() -> None:
    found = moments([0.01, 0.03])
    # deviation 0.01414, over sqrt 2
    assert found.mean == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(0.01)
    assert found.shown(3) == "0.020 ± 0.010"
    assert found.shown(1, 100.0) == "2.0 ± 1.0"


def test_interval_of_five_seeds_by_the_table_of_t() -> None:
    # deviation sqrt 2.5, t(0.975, 4) = 2.7764
    assert moments([1.0, 2.0, 3.0, 4.0, 5.0]).half_width == pytest.approx(
        2.7764 * math.sqrt(2.5 / 5), rel=1e-4
    )


def test_one_seed_has_no_error() -> None:
    found = moments([0.5])
    assert found.standard_error is None
    assert found.half_width == math.inf
    assert found.shown(2) == "0.50"


def test_differences_are_paired_by_seed() -> None:
    seeds, difference = paired_difference({0: 0.02, 1: 0.05, 2: 0.5}, {0: 0.01, 1: 0.03})
    assert seeds == (0, 1)
    assert difference is not None
    assert difference.values == pytest.approx((0.01, 0.02))
    assert difference.mean == pytest.approx(0.015)


def test_no_common_seed_gives_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) == ((), None)


def test_a_bound_itself_meets_its_threshold() -> None:
    lines = (Threshold("share", ">=", 0.6), Threshold("turnover", "<=", 2.5))
    assert missed(lines, {"share": 0.6, "turnover": 2.5}) == []
    assert missed(lines, {"share": 0.59, "turnover": 2.6}) == [
        "share = 0.59, expected >= 0.6",
        "turnover = 2.6, expected <= 2.5",
    ]
