"""Properties of the stationary bootstrap."""

import numpy as np
import pytest

from hrl_sarp.errors import MetricError
from hrl_sarp.resampling import stationary_bootstrap


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
    with pytest.raises(MetricError, match="0 periods"):
        stationary_bootstrap(0, 10.0, 5, np.random.default_rng(0))
