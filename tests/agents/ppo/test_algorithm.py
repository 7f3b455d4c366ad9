"""Advantages among rows of one day: by hand, and unbiased for the gradient."""

import numpy as np
import pytest

from hrl_sarp.agents.ppo.algorithm import compare_on_same_day


def test_rows_of_one_day_are_compared_with_the_mean_of_the_others() -> None:
    # day 7 holds rows 0, 1, 3 with 3, 1, 5: others' means 3, 4, 2; row 2 is alone
    found = compare_on_same_day(np.array([[3.0, 1.0, 9.0, 5.0]]), np.array([[7, 7, 8, 7]]))
    assert found == pytest.approx(np.array([[0.0, -3.0, 9.0, 3.0]]))


def test_rows_on_different_days_keep_their_advantages() -> None:
    advantages = np.random.default_rng(0).normal(size=(3, 4))
    days = np.arange(12).reshape(3, 4)
    assert np.array_equal(compare_on_same_day(advantages, days), advantages)


def test_what_a_day_gives_to_everyone_cancels() -> None:
    rng = np.random.default_rng(0)
    own, days = rng.normal(size=(5, 6)), np.tile([1, 1, 1, 2, 2, 2], (5, 1))
    common = np.repeat(rng.normal(scale=100.0, size=(5, 2)), 3, axis=1)
    assert compare_on_same_day(own + common, days) == pytest.approx(compare_on_same_day(own, days))


def test_the_gradient_of_a_bandit_stays_unbiased_and_gets_less_noisy() -> None:
    # action a ~ N(0, 1), reward a + z with z common to the day: d E[reward] / d mean = E[a r] = 1;
    # variance of a (a + z) is 2 + var z, of the leave-one-out form with 8 rows about 2 + 1/7
    rng = np.random.default_rng(0)
    action, common = rng.normal(size=(20_000, 8)), rng.normal(scale=5.0, size=(20_000, 1))
    plain, days = action + common, np.zeros((20_000, 8), dtype=np.int64)
    compared = compare_on_same_day(plain, days)
    noise = {name: (action * a).std() for name, a in (("plain", plain), ("compared", compared))}
    assert (action * compared).mean() == pytest.approx(1.0, abs=0.02)
    assert noise["plain"] == pytest.approx(np.sqrt(2 + 25), rel=0.05)
    assert noise["compared"] == pytest.approx(np.sqrt(2 + 1 / 7), rel=0.05)
