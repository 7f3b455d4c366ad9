"""The weekly regime filter."""

from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp.contracts import Regime
from hrl_sarp.errors import MarketError
from hrl_sarp.features.regime import (
    RegimeModel,
    filter_regimes,
    fit_regime_model,
    weekly_observations,
)

TWO_SURE_STATES = RegimeModel(
    centre=np.zeros(1),
    scale=np.ones(1),
    start=np.array([0.5, 0.5, 0.0]),
    transition=np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]),
    means=np.array([[-1.0], [1.0], [0.0]]),
    covariances=np.ones((3, 1, 1)),
)


def test_weeks_end_on_week_end_rows_and_the_last_part_week_waits() -> None:
    returns = np.array([0.01, -0.02, 0.03, 0.0, 0.05])
    ends = np.array([False, True, False, True, False])
    observations, rows = weekly_observations(returns, ends)
    log = np.log1p(returns)
    np.testing.assert_array_equal(rows, [1, 3])
    np.testing.assert_allclose(observations[0], [log[0] + log[1], np.sqrt((log[:2] ** 2).mean())])
    np.testing.assert_allclose(observations[1], [log[2], np.sqrt(log[2] ** 2 / 2)])


def test_filter_follows_bayes_by_hand_and_holds_through_the_week() -> None:
    found = filter_regimes(TWO_SURE_STATES, np.array([[1.0], [-1.0]]), np.array([1, 3]), 5)
    ratio = np.exp(-2.0)  # density of x = 1 under mean -1 over that under mean +1
    first = np.array([ratio, 1.0, 0.0]) / (1 + ratio)
    predicted = first @ TWO_SURE_STATES.transition
    second = predicted * np.array([1.0, ratio, 1.0])
    np.testing.assert_allclose(found[0], TWO_SURE_STATES.start)
    np.testing.assert_allclose(found[1:3], [first, first])
    np.testing.assert_allclose(found[3:], [second / second.sum()] * 2)


def test_extreme_weeks_do_not_underflow() -> None:
    found = filter_regimes(TWO_SURE_STATES, np.array([[1e4]]), np.array([0]), 1)
    np.testing.assert_allclose(found[0], [0.0, 1.0, 0.0])


def test_fit_names_states_by_mean_return_and_finds_planted_regimes() -> None:
    rng = np.random.default_rng(0)
    states = np.repeat(rng.integers(0, 3, 60), 15)
    mean = np.array([-0.03, 0.02, 0.0])[states]
    volatility = np.array([0.020, 0.010, 0.005])[states]
    weeks = np.stack(
        [rng.normal(mean, 0.008), volatility * rng.lognormal(0, 0.15, len(states))], axis=1
    )
    model = fit_regime_model(weeks, 100)
    order = model.means[:, 0]
    assert order[Regime.BEAR] < order[Regime.SIDEWAYS] < order[Regime.BULL]
    assert model.start.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(model.start @ model.transition, model.start, atol=1e-8)
    found = filter_regimes(model, weeks, np.arange(len(weeks)), len(weeks))
    assert (found.argmax(axis=1) == states).mean() > 0.9


def test_fit_is_the_same_twice() -> None:
    weeks = np.random.default_rng(1).normal(size=(120, 2))
    first, second = fit_regime_model(weeks, 20), fit_regime_model(weeks, 20)
    np.testing.assert_array_equal(first.means, second.means)


def test_state_without_spread_is_refused_in_one_line() -> None:
    broken = replace(TWO_SURE_STATES, covariances=-np.ones((3, 1, 1)))
    with pytest.raises(MarketError, match="expected a benchmark that moves") as refused:
        filter_regimes(broken, np.ones((2, 1)), np.array([1, 3]), 5)
    assert "\n" not in str(refused.value)


def test_too_few_weeks_are_refused() -> None:
    with pytest.raises(MarketError, match="at least 30 training weeks, found 12"):
        fit_regime_model(np.zeros((12, 2)), 10)
