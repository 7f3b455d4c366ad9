"""The forecast covariance: known numbers, gaps, and nothing from later rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.objective_schema import RiskModelConfig
from hrl_sarp.contracts import Market
from hrl_sarp.risk.covariance import (
    LEAST_VOLATILITY_SHARE,
    CovarianceForecast,
    forecast_covariances,
)
from tests import factories


def model(**changes: Any) -> RiskModelConfig:
    values = load_config(market="sample").risk_model.model_dump() | {"min_history_days": 5}
    return RiskModelConfig(**(values | changes))


def at_end(market: Market, config: RiskModelConfig) -> CovarianceForecast:
    return at(market, market.n_days - 1, config)


def at(market: Market, day: int, config: RiskModelConfig) -> CovarianceForecast:
    (found,) = forecast_covariances(market, np.array([day]), config)
    return found


def random_returns(n_days: int = 80, n_assets: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 0.01, (n_days, 1))
    return common + rng.normal(0, 0.01, (n_days, n_assets)) * np.arange(1, n_assets + 1)


def test_volatilities_and_correlations_are_those_of_weighted_sums() -> None:
    returns = random_returns()
    market = factories.market_with(returns * 0, returns, [0, 0, 1, 1])
    config = model(correlation_shrinkage=0.4)
    found = at_end(market, config)
    moves = returns[1:]  # the first bar has no close before it
    age = np.arange(len(moves))[::-1, None]
    fast, slow = 0.5 ** (age / 40), 0.5 ** (age / 126)
    variance = (fast * moves**2).sum(axis=0) / fast.sum(axis=0)
    products = (slow * moves).T @ moves
    raw = products / np.sqrt(np.outer(np.diag(products), np.diag(products)))
    mean = raw[~np.eye(4, dtype=bool)].mean()
    expected = 0.6 * raw + 0.4 * mean
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(found.volatility, np.sqrt(variance), rtol=1e-12)
    np.testing.assert_allclose(found.correlation, expected, rtol=1e-12)
    assert found.mean_correlation == pytest.approx(mean)


def test_a_session_without_a_bar_changes_nothing_of_the_stock_and_its_pairs() -> None:
    returns = random_returns()
    tradable = np.ones(returns.shape, dtype=bool)
    tradable[50:, 0] = False
    market = factories.market_with(
        returns * 0, np.where(tradable, returns, 0.0), [0, 0, 1, 1], tradable=tradable
    )
    config = model(correlation_shrinkage=0.0)
    before, after = at(market, 49, config), at_end(market, config)
    assert after.volatility[0] == before.volatility[0]
    np.testing.assert_array_equal(after.correlation[0], before.correlation[0])
    assert (after.correlation[1, 2:] != before.correlation[1, 2:]).all()


def test_a_short_common_history_counts_by_its_own_sessions_only() -> None:
    # two stocks move alike on all days that both have; the older one was wild before
    late = np.tile([[0.01], [-0.01]], (20, 2))
    early = np.stack([np.tile([0.05, -0.05], 20), np.zeros(40)], axis=1)
    returns = np.concatenate([early, late])
    listed = np.ones(returns.shape, dtype=bool)
    listed[:39, 1] = False
    market = factories.market_with(returns * 0, returns, [0, 1], listed=listed)
    found = at_end(market, model(correlation_shrinkage=0.0))
    assert found.mean_correlation == pytest.approx(1.0)


def test_stocks_without_a_history_take_the_mean_of_their_sector_else_of_all() -> None:
    returns = random_returns(n_assets=5)
    listed = np.ones(returns.shape, dtype=bool)
    listed[:-3, [2, 4]] = False  # fewer than 5 bars: one beside a peer, one alone in its sector
    market = factories.market_with(
        returns * 0, np.where(listed, returns, 0.0), [0, 0, 0, 1, 2], listed=listed
    )
    found = at_end(market, model())
    old = found.volatility[[0, 1, 3]]
    position = {int(market.slots[-1, slot]): i for i, slot in enumerate(found.slots)}
    by_asset = found.volatility[[position[asset] for asset in range(5)]]
    assert by_asset[2] == pytest.approx(by_asset[:2].mean())
    assert by_asset[4] == pytest.approx(old.mean())
    assert found.correlation[position[2], position[0]] == found.mean_correlation


def test_without_any_history_all_stocks_are_equally_risky_and_independent() -> None:
    returns = random_returns()
    market = factories.market_with(returns * 0, returns, [0, 0, 1, 1])
    found = at(market, 3, model())
    assert np.ptp(found.volatility) == 0
    np.testing.assert_array_equal(found.correlation, np.eye(4))


def test_a_price_that_stands_still_has_a_floor() -> None:
    returns = random_returns()
    returns[:, 0] = 0.0
    market = factories.market_with(returns * 0, returns, [0, 0, 1, 1])
    found = at_end(market, model())
    mean = found.volatility[1:].mean()
    assert found.volatility[0] == pytest.approx(LEAST_VOLATILITY_SHARE * mean)


@pytest.mark.parametrize("seed", range(5))
def test_every_forecast_is_definite_and_symmetric(seed: int) -> None:
    market = factories.random_market(np.random.default_rng(seed), slots_per_sector=8)
    days = np.arange(market.n_days)
    for found in forecast_covariances(market, days, model(correlation_shrinkage=0.0)):
        covariance = found.covariance()
        np.testing.assert_array_equal(covariance, covariance.T)
        if len(covariance):
            scale = np.diag(covariance).mean()
            assert np.linalg.eigvalsh(covariance / scale)[0] > 0


@pytest.mark.parametrize("day", [20, 40])
def test_rows_after_the_day_do_not_move_one_bit(day: int) -> None:
    market = factories.random_market(np.random.default_rng(1))
    order = np.concatenate(
        [np.arange(day + 1), np.random.default_rng(2).permutation(np.arange(day + 1, 60))]
    )
    names = ("overnight_return", "intraday_return", "tradable", "listed", "eligible", "slots")
    changed = replace(market, **{name: getattr(market, name)[order] for name in names})
    first, second = at(market, day, model()), at(changed, day, model())
    np.testing.assert_array_equal(first.covariance(), second.covariance())
    later = at_end(market, model()), at_end(changed, model())
    assert later[0].covariance().tobytes() != later[1].covariance().tobytes()


def test_one_pass_over_many_days_equals_a_pass_for_each() -> None:
    market = factories.random_market(np.random.default_rng(3))
    days = np.array([10, 11, 30, 59])
    for found in forecast_covariances(market, days, model()):
        alone = at(market, found.day, model())
        np.testing.assert_array_equal(found.covariance(), alone.covariance())
