"""Long-only classical portfolios of a covariance, by cyclic coordinate descent.

skfolio has the same portfolios, but a fit takes 0.1 to 0.5 s and a market needs thousands. Here one
takes well under a millisecond for a hundred stocks. The tests compare both.

Source:
    Choueifaty and Coignard (2008), "Toward Maximum Diversification".
    Spinu (2013), "An Algorithm for Computing Risk Parity Weights".
    Griveau-Billion, Richard and Roncalli (2013), "A Fast Algorithm for Computing High-dimensional
    Risk Parity Portfolios".
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from hrl_sarp.config.objective_schema import PriorName
from hrl_sarp.errors import MarketError

TOLERANCE = 1e-12
"""Largest violation of a condition of the optimum, as a share of the mean variance."""
PULL = 0.01
"""Weight, in mean variances, of the distance of the sum of weights from 1. The portfolio does not
depend on it; a larger one is slower, a smaller one slow where there is no variance."""
MAX_SWEEPS = 100_000
"""Sweeps over all stocks; even singular covariances need a hundredth of them."""


def classical_portfolio(
    name: PriorName, covariance: Float[np.ndarray, "n n"], sector_of: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Compute the weights of a portfolio that needs no forecast of returns.

    Args:
        name: which one.
        covariance: positive semidefinite, with a positive diagonal.
        sector_of: of each stock.

    Returns:
        At least 0, sum 1; nothing for no stock.

    Raises:
        MarketError: if the matrix is not a covariance, or the optimum is not found.

    Examples:
        >>> two = np.diag([1.0, 4.0])
        >>> classical_portfolio("minimum_variance_ridge", two, np.arange(2)).round(2).tolist()
        [0.65, 0.35]
    """
    n_stocks = len(covariance)
    if n_stocks == 0:
        return np.zeros(0)
    if name == "equal_weight":
        return np.full(n_stocks, 1.0 / n_stocks)
    if name == "equal_risk_contribution":
        return equal_risk_contribution(covariance)
    if name == "minimum_variance_ridge":
        return minimum_variance(covariance + np.diag(covariance).mean() * np.eye(n_stocks))
    if name == "maximum_diversification":
        return maximum_diversification(covariance)
    return sector_minimum_variance(covariance, sector_of)


def minimum_variance(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Minimise the variance.

    It is the direction that minimises w'Cw + PULL (1 - sum(w))^2 over w >= 0, scaled to the sum 1:
    the conditions of the optimum are the same, and the problem is bounded without variance, too.

    Args:
        covariance: positive semidefinite, with a positive diagonal. Where it is singular there can
            be several optima; this is one of them.

    Returns:
        At least 0, sum 1.

    Raises:
        MarketError: if the matrix is not a covariance, or the optimum is not found.

    Examples:
        >>> minimum_variance(np.diag([1.0, 3.0])).round(2).tolist()
        [0.75, 0.25]
    """
    scale = _variances(covariance).mean()
    scaled = np.ascontiguousarray(covariance / scale, dtype=np.float64)
    weights, gap = _minimum_variance(scaled, PULL, TOLERANCE, MAX_SWEEPS)
    return _accepted(weights, gap, "minimum variance")


def maximum_diversification(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Maximise the weighted mean volatility over the volatility of the portfolio.

    It is the minimum variance of the stocks scaled to equal volatility.

    Args:
        covariance: positive semidefinite, with a positive diagonal.

    Returns:
        At least 0, sum 1.

    Raises:
        MarketError: if the matrix is not a covariance, or the optimum is not found.

    Examples:
        >>> maximum_diversification(np.diag([1.0, 4.0])).round(2).tolist()
        [0.67, 0.33]
    """
    volatility = np.sqrt(_variances(covariance))
    weights = minimum_variance(covariance / np.outer(volatility, volatility)) / volatility
    return weights / weights.sum()


def equal_risk_contribution(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Let every stock contribute the same variance.

    Args:
        covariance: positive semidefinite, with a positive diagonal and without a portfolio of
            positive weights that has no variance.

    Returns:
        Above 0, sum 1.

    Raises:
        MarketError: if the matrix is not a covariance, or the optimum is not found.

    Examples:
        >>> equal_risk_contribution(np.diag([1.0, 4.0])).round(2).tolist()
        [0.67, 0.33]
    """
    volatility = np.sqrt(_variances(covariance))
    correlation = np.ascontiguousarray(covariance / np.outer(volatility, volatility))
    weights, gap = _equal_risk(correlation, TOLERANCE, MAX_SWEEPS)
    weights = _accepted(weights, gap, "equal risk contribution") / volatility
    return weights / weights.sum()


def sector_minimum_variance(
    covariance: Float[np.ndarray, "n n"], sector_of: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Minimise the variance over sectors whose stocks are held equally.

    Args:
        covariance: positive semidefinite, with a positive diagonal.
        sector_of: of each stock.

    Returns:
        At least 0, sum 1, equal inside each sector.

    Raises:
        MarketError: if the matrix is not a covariance, or the optimum is not found.

    Examples:
        >>> three = np.diag([1.0, 1.0, 1.5])
        >>> sector_minimum_variance(three, np.array([0, 0, 1])).round(3).tolist()
        [0.375, 0.375, 0.25]
    """
    sectors = np.unique(sector_of)
    member = (sector_of[:, None] == sectors) / (sector_of[:, None] == sectors).sum(axis=0)
    return member @ minimum_variance(member.T @ covariance @ member)


def _variances(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    variances = np.diag(covariance)
    if not np.isfinite(covariance).all() or (variances <= 0).any():
        raise MarketError(
            f"portfolio of {len(covariance)} stocks: expected a finite covariance with positive "
            f"variances, found a smallest variance of {variances.min()}; check the returns"
        )
    return variances


def _accepted(weights: Float[np.ndarray, " n"], gap: float, what: str) -> Float[np.ndarray, " n"]:
    if gap > TOLERANCE:
        raise MarketError(
            f"{what}: no optimum after {MAX_SWEEPS} sweeps, a condition is off by {gap:.1e} of the "
            f"mean variance, expected at most {TOLERANCE:.0e}; the matrix of {len(weights)} stocks "
            "is close to no covariance: raise risk_model.correlation_shrinkage"
        )
    return weights


# No shape annotations: the run-time checks of the tests would wrap the kernels.


@njit(cache=True, nogil=True)
@no_type_check
def _minimum_variance(covariance, pull, tolerance, max_sweeps):
    """Return weights and the largest violation; the mean variance is 1."""
    n_stocks = len(covariance)
    weights = np.zeros(n_stocks)
    slope = np.zeros(n_stocks)  # covariance @ weights
    total, gap = 0.0, np.inf
    for sweep in range(max_sweeps):
        for i in range(n_stocks):
            step = (pull * (1.0 - total) - slope[i]) / (pull + covariance[i, i])
            new = max(0.0, weights[i] + step)
            change = new - weights[i]
            if change == 0.0:
                continue
            weights[i] = new
            total += change
            for j in range(n_stocks):
                slope[j] += change * covariance[i, j]
        if sweep % 16 == 15:  # takes away the rounding of the updates
            slope, total = covariance @ weights, weights.sum()
        gap = 0.0
        for i in range(n_stocks):
            miss = pull * (1.0 - total) - slope[i]
            gap = max(gap, abs(miss) if weights[i] > 0.0 else miss)
        gap /= total
        if gap <= tolerance:
            break
    return weights / weights.sum(), gap


@njit(cache=True, nogil=True)
@no_type_check
def _equal_risk(correlation, tolerance, max_sweeps):
    """Return positions in units of risk and the largest violation, over stocks of volatility 1."""
    n_stocks = len(correlation)
    budget = 1.0 / n_stocks
    weights = np.full(n_stocks, np.sqrt(budget / max(1.0, correlation.sum() / n_stocks)))
    slope = correlation @ weights
    gap = np.inf
    for sweep in range(max_sweeps):
        for i in range(n_stocks):
            own = correlation[i, i]
            others = slope[i] - own * weights[i]
            new = (np.sqrt(others * others + 4.0 * own * budget) - others) / (2.0 * own)
            change = new - weights[i]
            weights[i] = new
            for j in range(n_stocks):
                slope[j] += change * correlation[i, j]
        if sweep % 16 == 15:
            slope = correlation @ weights
        gap = 0.0
        for i in range(n_stocks):
            gap = max(gap, abs(weights[i] * slope[i] - budget))
        if gap <= tolerance:
            break
    return weights / weights.sum(), gap
