"""Classical portfolios: conditions of the optimum on random covariances, and skfolio's weights."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.errors import MarketError
from hrl_sarp.risk.portfolios import (
    classical_portfolio,
    equal_risk_contribution,
    maximum_diversification,
    minimum_variance,
    sector_minimum_variance,
)

NAMES = (
    "equal_weight",
    "equal_risk_contribution",
    "minimum_variance_ridge",
    "maximum_diversification",
    "sector_minimum_variance",
)


def returns_of(seed: int, n_days: int, n_stocks: int, *, market: float = 1.0) -> np.ndarray:
    """Draw returns with a common factor and unequal volatilities."""
    rng = np.random.default_rng(seed)
    common = market * rng.normal(0.0, 0.01, (n_days, 1))
    own = rng.normal(0.0, 0.01, (n_days, n_stocks)) * rng.uniform(0.3, 3.0, n_stocks)
    return common + own


def covariance_of(seed: int, n_days: int, n_stocks: int, **given: Any) -> np.ndarray:
    return np.cov(returns_of(seed, n_days, n_stocks, **given).T, bias=True).reshape(
        n_stocks, n_stocks
    )


cases = given(seed=st.integers(0, 10_000), n_stocks=st.integers(1, 12))


@settings(max_examples=50, deadline=None)
@cases
def test_no_shift_between_two_stocks_lowers_the_minimum_variance(seed: int, n_stocks: int) -> None:
    covariance = covariance_of(seed, 60, n_stocks)
    weights = minimum_variance(covariance)
    slope = covariance @ weights  # half of the gradient of the variance
    held = weights > 0
    scale = np.diag(covariance).mean()
    np.testing.assert_allclose(slope[held], slope[held].mean(), atol=1e-10 * scale)
    assert slope.min() > slope[held].mean() - 1e-10 * scale


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_stocks=st.integers(5, 12), riskless=st.booleans())
def test_singular_covariances_have_portfolios_too(
    seed: int, n_stocks: int, *, riskless: bool
) -> None:
    returns = returns_of(seed, n_stocks // 2, n_stocks)
    if not riskless:  # on one day all stocks rise, so that every portfolio has variance
        returns[0] = np.abs(returns[0])
    covariance = returns.T @ returns / len(returns)
    assert np.linalg.matrix_rank(covariance) < n_stocks
    for name in NAMES:
        if riskless and name == "equal_risk_contribution":
            continue  # no contributions where nothing is at risk
        weights = classical_portfolio(name, covariance, np.arange(n_stocks) // 3)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@cases
def test_every_stock_contributes_the_same_risk(seed: int, n_stocks: int) -> None:
    covariance = covariance_of(seed, 60, n_stocks)
    weights = equal_risk_contribution(covariance)
    contribution = weights * (covariance @ weights)
    np.testing.assert_allclose(contribution / contribution.sum(), 1 / n_stocks, atol=1e-9)


@settings(max_examples=50, deadline=None)
@cases
def test_diversification_is_highest_where_held_stocks_correlate_alike(
    seed: int, n_stocks: int
) -> None:
    covariance = covariance_of(seed, 60, n_stocks)
    weights = maximum_diversification(covariance)
    volatility = np.sqrt(np.diag(covariance))
    # stocks in the portfolio have the same correlation with it, the others a higher one
    correlation = covariance @ weights / volatility / np.sqrt(weights @ covariance @ weights)
    held = weights > 0
    np.testing.assert_allclose(correlation[held], correlation[held].mean(), atol=1e-9)
    assert correlation.min() > correlation[held].mean() - 1e-9


@settings(max_examples=30, deadline=None)
@cases
def test_weights_are_long_only_and_whole_whatever_the_unit(seed: int, n_stocks: int) -> None:
    covariance, sector_of = covariance_of(seed, 60, n_stocks), np.arange(n_stocks) // 3
    for name in NAMES:
        weights = classical_portfolio(name, covariance, sector_of)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1.0)
        percent = classical_portfolio(name, 1e4 * covariance, sector_of)
        np.testing.assert_allclose(percent, weights, atol=1e-9)


def test_sectors_are_held_equally_inside_and_weighted_by_their_own_covariance() -> None:
    covariance, sector_of = covariance_of(3, 60, 6), np.array([0, 0, 1, 1, 1, 2])
    weights = sector_minimum_variance(covariance, sector_of)
    whole = np.bincount(sector_of, weights)
    np.testing.assert_allclose(weights, whole[sector_of] / np.array([2, 2, 3, 3, 3, 1]))
    mean = (sector_of[:, None] == np.arange(3)) / np.array([2, 3, 1])
    np.testing.assert_allclose(whole, minimum_variance(mean.T @ covariance @ mean))


def test_no_stock_has_no_weights() -> None:
    for name in NAMES:
        assert classical_portfolio(name, np.zeros((0, 0)), np.zeros(0, dtype=int)).shape == (0,)


@pytest.mark.parametrize("make", [minimum_variance, maximum_diversification])
@pytest.mark.parametrize("wrong", [[[1.0, np.nan], [np.nan, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
def test_a_matrix_that_is_no_covariance_is_refused(make: Any, wrong: list[list[float]]) -> None:
    with pytest.raises(MarketError, match="expected a finite covariance with positive variances"):
        make(np.array(wrong))


def test_stocks_without_a_common_optimum_are_refused() -> None:
    # two stocks that cancel out: no positive weights let them contribute variance
    with pytest.raises(MarketError, match="no optimum"):
        equal_risk_contribution(np.array([[1.0, -1.0], [-1.0, 1.0]]))


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # asked for more than it can
@pytest.mark.parametrize("seed", range(3))
def test_skfolio_finds_the_same_portfolios(seed: int) -> None:
    from skfolio import RiskMeasure
    from skfolio.moments import EmpiricalCovariance
    from skfolio.optimization import MaximumDiversification, MeanRisk, RiskBudgeting
    from skfolio.prior import EmpiricalPrior

    returns = 100.0 * returns_of(seed, 200, 20)  # solvers stop at an absolute gap
    prior = EmpiricalPrior(covariance_estimator=EmpiricalCovariance(nearest=False))
    covariance = prior.fit(returns).return_distribution_.covariance
    exact = {
        "solver": "CLARABEL",
        "solver_params": {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-11},
        "prior_estimator": prior,
    }
    common = {"risk_measure": RiskMeasure.VARIANCE}
    pairs = [
        (minimum_variance(covariance), MeanRisk(**exact, **common)),
        (maximum_diversification(covariance), MaximumDiversification(**exact)),
        (equal_risk_contribution(covariance), RiskBudgeting(**exact, **common)),
    ]
    for weights, estimator in pairs:
        expected = estimator.fit(returns).weights_
        np.testing.assert_allclose(weights, expected, atol=1e-6)
