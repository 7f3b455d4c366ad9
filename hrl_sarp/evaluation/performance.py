"""Every figure of a table, computed from the trajectory alone, with its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp import metrics
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, Trajectory
from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.rollout import INDEX
from hrl_sarp.evaluation.statistics import BootstrapPlan, Interval
from hrl_sarp.metrics import SESSIONS_PER_YEAR as YEAR

Series = Float[np.ndarray, " D"]


@dataclass(frozen=True)
class Performance:
    """One policy over one span; annual and net of costs unless said otherwise."""

    name: str
    total_return: float
    """Over the whole span."""
    annual_return: float
    gross_annual_return: float
    """Of the same decisions, had every trade been free that day."""
    volatility: float
    sharpe: Interval
    """On the return in excess of cash."""
    sortino: float
    calmar: float
    growth_excess: Interval
    """Log growth less that of 1/N, both net; dates are paired."""
    probability_of_beating: float
    """Share of the resampled histories in which the growth excess is positive."""
    deflated_sharpe: float
    """Probability that the active Sharpe ratio against 1/N is not the luck of the search."""
    max_drawdown: float
    average_drawdown: float
    max_drawdown_days: int
    var_95: float
    """One session, like the next three; positive is a loss."""
    cvar_95: float
    var_99: float
    cvar_99: float
    skewness: float
    kurtosis: float
    win_rate: float
    """Share of sessions that gained."""
    profit_factor: float
    turnover: float
    """One-sided, in multiples of wealth."""
    cost_drag: float
    """Log growth lost to costs."""
    alpha: float
    """Jensen's, against the index."""
    beta: float
    """Against the index."""
    alpha_over_equal_weight: float
    """Jensen's against 1/N: the gain over 1/N diluted with cash to the same beta."""
    information_ratio: float
    """Against 1/N."""
    tracking_error: float
    """Against 1/N."""
    cash: float | None
    """Mean share of wealth in cash after the trade; None for the index."""
    effective_positions: float | None
    """1 / Herfindahl index of the invested part, mean over the sessions that hold anything."""
    goal_alignment: float | None
    """Mean over the sessions with a goal; None for a policy without goals."""
    delistings: int | None
    """Holdings that were closed because the stock no longer exists."""


def market_rows(market: Market, trajectory: Trajectory) -> Int[np.ndarray, " D"]:
    """Find the market's rows of the trajectory's dates."""
    rows = np.searchsorted(market.dates, trajectory.dates)
    if len(rows) == 0 or not np.array_equal(
        market.dates[np.minimum(rows, market.n_days - 1)], trajectory.dates
    ):
        raise MetricError(
            f"trajectory of {len(trajectory.dates)} sessions does not lie on the market "
            f"'{market.name}' ({market.dates[0]} to {market.dates[-1]}); pass the market it ran on"
        )
    return rows


def column(trajectory: Trajectory, name: str) -> int:
    """Find a policy's column.

    Raises:
        MetricError: with the names there are.
    """
    if name not in trajectory.names:
        raise MetricError(
            f"no policy '{name}' in the trajectory, found {', '.join(trajectory.names)}; "
            "name one of these"
        )
    return trajectory.names.index(name)


def bootstrap_plan(config: RunConfig) -> BootstrapPlan:
    """Take the plan from the configuration."""
    section = config.evaluation
    return BootstrapPlan(
        block_days=section.bootstrap_block_days,
        samples=section.bootstrap_samples,
        confidence=section.confidence,
        seed=config.seed,
    )


def measure_policies(
    trajectory: Trajectory, market: Market, config: RunConfig, n_trials: int
) -> dict[str, Performance]:
    """Measure every policy of a trajectory that holds 1/N and the index.

    Args:
        trajectory: one rollout with the index in front.
        market: the one it ran on.
        config: confidence, block length and number of samples.
        n_trials: policies and checkpoints looked at; the deflated Sharpe ratio needs it.

    Returns:
        Name -> figures, in the trajectory's order.
    """
    rows = market_rows(market, trajectory)
    counts = bootstrap_plan(config).counts(len(rows))
    excess = trajectory.net_return - market.risk_free[rows][:, None]
    base = column(trajectory, EQUAL_WEIGHT)
    growth = np.log1p(np.maximum(trajectory.net_return, -1.0 + 1e-12))
    growth_excess = growth - growth[:, [base]]
    samples = _Samples(
        sharpe=statistics.bootstrap_sharpe(excess, counts, YEAR),
        growth=statistics.bootstrap_annual_mean(growth_excess, counts, YEAR),
        growth_excess=growth_excess.mean(axis=0) * YEAR,
        trial_variance=_trial_variance(trajectory.net_return, base),
        n_trials=n_trials,
    )
    return {
        name: _measure(trajectory, market, config, i, samples)
        for i, name in enumerate(trajectory.names)
    }


@dataclass(frozen=True)
class _Samples:
    sharpe: Float[np.ndarray, "samples P"]
    growth: Float[np.ndarray, "samples P"]
    growth_excess: Float[np.ndarray, " P"]
    trial_variance: float
    n_trials: int


def _measure(
    trajectory: Trajectory, market: Market, config: RunConfig, i: int, samples: _Samples
) -> Performance:
    rows = market_rows(market, trajectory)
    net, gross = trajectory.net_return[:, i], trajectory.gross_return[:, i]
    equal_weight = trajectory.net_return[:, column(trajectory, EQUAL_WEIGHT)]
    risk_free = market.risk_free[rows].astype(np.float64)
    excess, index_excess = net - risk_free, market.benchmark_return[rows] - risk_free
    confidence = config.evaluation.confidence
    sharpe = metrics.sharpe_ratio(excess, YEAR)
    draws = samples.growth[:, i]
    return Performance(
        name=trajectory.names[i],
        total_return=metrics.total_return(net),
        annual_return=metrics.annual_return(net, YEAR),
        gross_annual_return=metrics.annual_return(gross, YEAR),
        volatility=metrics.annual_volatility(net, YEAR),
        sharpe=statistics.interval(sharpe, samples.sharpe[:, i], confidence),
        sortino=metrics.sortino_ratio(excess, YEAR),
        calmar=metrics.calmar_ratio(net, YEAR),
        growth_excess=statistics.interval(float(samples.growth_excess[i]), draws, confidence),
        probability_of_beating=float((draws > 0).mean() + 0.5 * (draws == 0).mean()),
        deflated_sharpe=statistics.deflated_sharpe_ratio(
            net - equal_weight, samples.trial_variance, samples.n_trials
        ),
        **_tail_figures(net),
        turnover=metrics.annual_turnover(trajectory.turnover[:, i], YEAR),
        cost_drag=metrics.cost_drag(gross, net, YEAR) if net.min() > -1 else 0.0,
        alpha=metrics.alpha(excess, index_excess, YEAR),
        beta=metrics.beta(excess, index_excess),
        alpha_over_equal_weight=metrics.alpha(excess, equal_weight - risk_free, YEAR),
        information_ratio=metrics.information_ratio(net - equal_weight, YEAR),
        tracking_error=metrics.tracking_error(net - equal_weight, YEAR),
        **_holding_figures(trajectory, market, i),
    )


def _tail_figures(net: Series) -> dict[str, Any]:
    return {
        "max_drawdown": metrics.max_drawdown(net),
        "average_drawdown": metrics.average_drawdown(net),
        "max_drawdown_days": metrics.max_drawdown_duration(net),
        "var_95": metrics.value_at_risk(net, 0.95),
        "cvar_95": metrics.conditional_value_at_risk(net, 0.95),
        "var_99": metrics.value_at_risk(net, 0.99),
        "cvar_99": metrics.conditional_value_at_risk(net, 0.99),
        "skewness": metrics.skewness(net),
        "kurtosis": metrics.kurtosis(net),
        "win_rate": metrics.win_rate(net),
        "profit_factor": metrics.profit_factor(net),
    }


def _holding_figures(trajectory: Trajectory, market: Market, i: int) -> dict[str, Any]:
    """Measure what needs weights; None where the trajectory keeps none."""
    names: Sequence[str] = ("cash", "effective_positions", "goal_alignment", "delistings")
    if trajectory.names[i] == INDEX or trajectory.weights_after.shape[2] == 0:
        return dict.fromkeys(names)
    weights = trajectory.weights_after[:, i]
    concentration = metrics.herfindahl(weights)
    holds = concentration > 0
    rows = market_rows(market, trajectory)
    events = delisting_events(market, rows) & (trajectory.weights_before[:, i] > 0)
    return {
        "cash": float(1.0 - weights.sum(axis=1).mean()),
        "effective_positions": float((1.0 / concentration[holds]).mean()) if holds.any() else 0.0,
        "goal_alignment": _alignment(weights, trajectory.goal[:, i], market),
        "delistings": int(events.sum()),
    }


def delisting_events(market: Market, rows: Int[np.ndarray, " D"]) -> Bool[np.ndarray, "D A"]:
    """Mark the first session after each stock's last bar."""
    return market.listed[rows - 1] & ~market.listed[rows]


def sector_weights(weights: Float[np.ndarray, "D A"], market: Market) -> Float[np.ndarray, "D S"]:
    """Sum the weights of each sector."""
    return weights @ market.sector_member()


def _alignment(
    weights: Float[np.ndarray, "D A"], goal: Float[np.ndarray, "D G"], market: Market
) -> float | None:
    has_goal = np.isfinite(goal).all(axis=1)
    if not has_goal.any():
        return None
    achieved = sector_weights(weights[has_goal], market)
    return float(metrics.goal_alignment(achieved, goal[has_goal, : market.n_sectors]).mean())


def _trial_variance(net_return: Float[np.ndarray, "D P"], base: int) -> float:
    """Compute the spread of the per-session active Sharpe ratios over the policies shown."""
    active = np.delete(net_return - net_return[:, [base]], base, axis=1)
    ratios = [metrics.sharpe_ratio(series, 1) for series in active.T]
    return float(np.var(ratios, ddof=1)) if len(ratios) > 1 else 0.0
