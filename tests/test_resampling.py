"""Properties of the stationary bootstrap."""

import numpy as np
import pytest

from hrl_sarp.errors import MetricError
from hrl_sarp.resampling import draw_counts, stationary_bootstrap


def test_bootstrap_blocks_have_the_asked_mean_length_and_wrap() -> None:
    rng = np.random.default_rng(0)
    drawn = stationary_bootstrap(100, 10.0, 500, rng)
    follows = (drawn[:, 1:] - drawn[:, :-1]) % 100 == 1
    # a step continues the block with 0.9, or starts one right behind it by chance: 0.1 / 100
    assert follows.mean() == pytest.approx(0.901, abs=0.005)
    assert ((drawn[:, :-1] == 99) & (drawn[:, 1:] == 0)).any()
    assert drawn.min() == 0
    assert drawn.max() == 99


def test_bootstrap_of_block_one_is_independent_draws() -> None:
    drawn = stationary_bootstrap(50, 1.0, 300, np.random.default_rng(0))
    assert ((drawn[:, 1:] - drawn[:, :-1]) % 50 == 1).mean() == pytest.approx(1 / 50, abs=0.005)


def test_same_generator_state_gives_the_same_draws() -> None:
    first, second = (stationary_bootstrap(30, 5.0, 10, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_empty_span_is_refused() -> None:
    with pytest.raises(MetricError, match=r"0 periods .* of each; check the span of dates$"):
        stationary_bootstrap(0, 10.0, 5, np.random.default_rng(0))


def test_variance_of_a_resampled_mean_is_that_of_the_paper() -> None:
    # Politis and Romano (1994), lemma 1: c(0) / n + 2 / n sum of ((1 - i/n) q^i + i/n q^(n - i))
    # c(i), with the biased autocovariances c and q = 1 - 1 / mean length of a block
    n, block = 60, 6.0
    series = np.random.default_rng(1).standard_normal(n + 4)
    series = np.convolve(series, np.ones(5) / 5, mode="valid")  # neighbours are alike
    centred = series - series.mean()
    expected = (centred**2).mean() / n
    for i in range(1, n):
        weight = (1 - i / n) * (1 - 1 / block) ** i + i / n * (1 - 1 / block) ** (n - i)
        expected += 2 / n * weight * (centred[i:] @ centred[:-i]) / n
    counts = draw_counts(stationary_bootstrap(n, block, 20_000, np.random.default_rng(2)))
    means = counts @ series / n
    assert means.mean() == pytest.approx(series.mean(), abs=4 * (expected / 20_000) ** 0.5)
    assert means.var() == pytest.approx(expected, rel=0.04)  # 1 % is its standard error


def test_every_block_begins_where_it_was_drawn() -> None:
    drawn = stationary_bootstrap(50, 4.0, 20, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    starts, is_start = rng.integers(50, size=(20, 50)), rng.random((20, 50)) < 1 / 4
    is_start[:, 0] = True
    np.testing.assert_array_equal(drawn[is_start], starts[is_start])
    follows = (drawn[:, 1:] - drawn[:, :-1]) % 50 == 1
    assert follows[~is_start[:, 1:]].all()


def test_counts_say_how_often_each_row_was_drawn() -> None:
    drawn = np.array([[0, 0, 2], [1, 2, 1]])
    assert draw_counts(drawn).tolist() == [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]]


def test_a_block_shorter_than_a_row_is_refused() -> None:
    with pytest.raises(MetricError, match=r"blocks of 0\.5"):
        stationary_bootstrap(10, 0.5, 5, np.random.default_rng(0))
    assert stationary_bootstrap(1, 1, 5, np.random.default_rng(0)).tolist() == [[0]] * 5
