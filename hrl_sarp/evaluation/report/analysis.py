"""Computes all figures of a report from the trajectories, the market and the configuration.

The HTML page, `metrics.json` and the terminal's table only show them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hrl_sarp import metrics
from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, Regime, Trajectory
from hrl_sarp.envs.rollout import INDEX
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.attribution import (
    Attribution,
    Holdings,
    LevelGains,
    LevelSwaps,
    Likeness,
    attribute,
    holdings,
    level_gains,
    nearest_rule,
)
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import (
    NOTHING_LOST,
    Performance,
    column,
    market_rows,
    measure_policies,
    sector_weights,
)
from hrl_sarp.features.labels import INVALID_CLASS
from hrl_sarp.market.training_data import head_label
from hrl_sarp.metrics import SESSIONS_PER_YEAR as YEAR
from hrl_sarp.simulator.trades import BPS
from hrl_sarp.training.acceptance import Acceptance

AT_CAP = 1e-6
"""Distance from a cap within which a weight is at it: agents decide in float32."""


@dataclass(frozen=True)
class LuckRange:
    """One figure over the portfolios of random stocks."""

    mean: float
    deviation: float
    low: float
    """5th percentile."""
    high: float
    """95th percentile."""


class CostBreakdown(NamedTuple):
    """Costs of a policy by kind, in basis points of wealth a year."""

    total: float
    purchases: float
    """Commission and taxes."""
    sales: float
    """Commission and taxes."""
    slippage: float
    impact: float


@dataclass(frozen=True)
class BoundLimits:
    """How often a policy stood at a cap."""

    sessions: int
    """Those with orders."""
    stock_cap: int
    """Those with a target at the cap of a stock."""
    sector_cap: int
    """Those with a sector at its cap."""


@dataclass(frozen=True)
class RegimeScore:
    """The regime probabilities of a policy's goals against the label, in nats per session."""

    log_loss: float
    prior_log_loss: float
    """Loss of the class frequencies of the training span."""
    sessions: int
    """Sessions with a goal and a complete label."""


@dataclass(frozen=True)
class MonthlyReturns:
    """Compounded returns by calendar month."""

    months: tuple[str, ...]
    """As 2021-03."""
    returns: dict[str, list[float]]


@dataclass(frozen=True)
class Analysis:
    """All figures of a backtest's report."""

    performances: dict[str, Performance]
    luck: dict[str, LuckRange]
    """Measure -> range over random portfolios; empty if there are none."""
    variants: dict[str, dict[str, dict[str, float]]]
    """Frictions -> policy -> net return a year, Sharpe ratio, log growth over 1/N under the same
    frictions, by the names of the measures."""
    attributions: dict[str, Attribution]
    cost_bps: dict[str, CostBreakdown]
    level_gains: LevelGains | None
    limits: dict[str, BoundLimits]
    """Of each given policy."""
    holdings: dict[str, Holdings]
    """Of each given policy and of 1/N."""
    likeness: dict[str, Likeness]
    """Each given policy -> the rule that it is nearest to."""
    grants: dict[str, Acceptance]
    """Phase or share of an agent -> what was asked for and granted; empty without a training."""
    regime_scores: dict[str, RegimeScore]
    monthly: MonthlyReturns
    years: float
    smallest_information_ratio: float
    """Smallest information ratio that this span could tell from luck."""
    headline_name: str
    """The policy that the page is about."""
    own_names: tuple[str, ...]
    """The given policies; the one that the page is about is first."""


def analyse(
    result: BacktestResult,
    swaps: LevelSwaps | None = None,
    grants: Mapping[str, Acceptance] | None = None,
) -> Analysis:
    """Compute every figure of the report.

    Args:
        result: the rollouts.
        swaps: the four policies of the level swap, if they were run.
        grants: what the phases that trained the policies asked for and were granted. The page is
            about the first policy.

    Returns:
        The figures that page, files and terminal show.
    """
    main, market, config = result.main, result.market, result.config
    own = result.policy_names
    headline = (*own, EQUAL_WEIGHT)[0]
    measured = measure_policies(main, market, config, result.trials, own)
    # the given policies, then 1/N and the index, then the rest
    performances = {name: measured[name] for name in (*own, EQUAL_WEIGHT, INDEX, *main.names)}
    years = len(main.dates) / market.sessions.year
    stocks = [name for name in performances if name != INDEX]
    return Analysis(
        performances=performances,
        luck=_luck(result.random, market, main),
        variants={name: _variant(found, market) for name, found in result.variants.items()},
        attributions={
            name: attribute(main, market, name) for name in stocks if name != EQUAL_WEIGHT
        },
        cost_bps={
            name: cost_breakdown(main, config.market_profile.costs, name, market.sessions.year)
            for name in stocks
        },
        level_gains=None if swaps is None else level_gains(performances, swaps),
        limits={name: bound_limits(main, market, config, name) for name in (*own, EQUAL_WEIGHT)},
        holdings={name: holdings(main, market, name) for name in (*own, EQUAL_WEIGHT)},
        likeness={name: nearest_rule(main, name, result.policy_names) for name in own},
        grants=dict(grants or {}),
        regime_scores=_regime_scores(main, market, config),
        monthly=monthly_returns(main),
        years=years,
        smallest_information_ratio=statistics.smallest_detectable_information_ratio(years),
        headline_name=headline,
        own_names=own,
    )


def bound_limits(
    trajectory: Trajectory, market: Market, config: RunConfig, name: str
) -> BoundLimits:
    """Count the sessions with orders in which a policy's targets stood at a cap."""
    i = column(trajectory, name)
    targets = trajectory.target_weights[np.isfinite(trajectory.moved_by_limits[:, i]), i]
    stocks, sectors = config.risk.stock_cap, config.risk.sector_cap
    at_stock = np.abs(targets - stocks) < AT_CAP
    at_sector = np.abs(sector_weights(targets, market) - sectors) < AT_CAP
    return BoundLimits(
        sessions=len(targets),
        stock_cap=int(at_stock.any(axis=1).sum()),
        sector_cap=int(at_sector.any(axis=1).sum()),
    )


def monthly_returns(trajectory: Trajectory) -> MonthlyReturns:
    """Compound every policy's net returns within each calendar month.

    The first and the last month may be incomplete.
    """
    months = trajectory.dates.astype("datetime64[M]")
    starts = np.flatnonzero(np.concatenate([[True], months[1:] != months[:-1]]))
    growth = np.multiply.reduceat(1.0 + trajectory.net_return, starts, axis=0) - 1.0
    return MonthlyReturns(
        months=tuple(str(month) for month in months[starts]),
        returns={name: growth[:, i].tolist() for i, name in enumerate(trajectory.names)},
    )


def cost_breakdown(
    trajectory: Trajectory, costs: CostConfig, name: str, sessions_per_year: int = YEAR
) -> CostBreakdown:
    """Split a policy's costs by what they were paid for, in basis points of wealth a year.

    `costs` are the rates that the trajectory paid. The impact is the rest of the costs.
    """
    i = column(trajectory, name)
    kept = 1.0 - trajectory.cost[:, i, None]
    traded = trajectory.weights_after[:, i] * kept - trajectory.weights_before[:, i]
    bought, sold = traded.clip(min=0.0).sum(), -traded.clip(max=0.0).sum()
    scale = sessions_per_year / len(traded)
    purchases, sales = costs.buy_bps * bought, costs.sell_bps * sold
    slippage = costs.slippage_bps * (bought + sold)
    total = trajectory.cost[:, i].sum() / BPS
    rest = total - purchases - sales - slippage
    impact = float(rest) if costs.impact_coefficient > 0 else 0.0
    return CostBreakdown(
        *(float(scale * part) for part in (total, purchases, sales, slippage, impact))
    )


def _sharpe(trajectory: Trajectory, market: Market, i: int) -> float:
    risk_free = market.risk_free[market_rows(market, trajectory)]
    return metrics.sharpe_ratio(trajectory.net_return[:, i] - risk_free, market.sessions.year)


def _variant(trajectory: Trajectory, market: Market) -> dict[str, dict[str, float]]:
    growth = (
        np.log1p(np.maximum(trajectory.net_return, NOTHING_LOST)).mean(axis=0)
        * market.sessions.year
    )
    excess = growth - growth[column(trajectory, EQUAL_WEIGHT)]
    return {
        name: {
            "annual_return": metrics.annual_return(
                trajectory.net_return[:, i], market.sessions.year
            ),
            "sharpe": _sharpe(trajectory, market, i),
            "growth_excess": float(excess[i]),
        }
        for i, name in enumerate(trajectory.names)
    }


def _luck(random: Trajectory | None, market: Market, main: Trajectory) -> dict[str, LuckRange]:
    """Summarise the random portfolios. Their excess is over the 1/N of the main rollout."""
    if random is None:
        return {}
    rows = [i for i, name in enumerate(random.names) if name != INDEX]
    base = np.log1p(main.net_return[:, column(main, EQUAL_WEIGHT)]).mean()
    growth = np.log1p(random.net_return[:, rows]).mean(axis=0)
    figures = {
        "annual_return": [
            metrics.annual_return(random.net_return[:, i], market.sessions.year) for i in rows
        ],
        "sharpe": [_sharpe(random, market, i) for i in rows],
        "growth_excess": (growth - base) * market.sessions.year,
        "volatility": [
            metrics.annual_volatility(random.net_return[:, i], market.sessions.year) for i in rows
        ],
        "max_drawdown": [metrics.max_drawdown(random.net_return[:, i]) for i in rows],
    }
    luck = {}
    for name, values in figures.items():
        low, high = np.quantile(values, [0.05, 0.95])
        deviation = float(np.std(values, ddof=1)) if len(rows) > 1 else 0.0
        luck[name] = LuckRange(float(np.mean(values)), deviation, float(low), float(high))
    return luck


def _regime_scores(
    trajectory: Trajectory, market: Market, config: RunConfig
) -> dict[str, RegimeScore]:
    """Score the probabilities that each goal held, at the close before each row was earned."""
    labels = head_label(market, config)
    train = labels[market.split.train.start : market.split.train.stop]
    counts = np.bincount(train[train != INVALID_CLASS], minlength=len(Regime)) + 1.0
    prior = counts / counts.sum()
    decided = labels[market_rows(market, trajectory) - 1]
    scores: dict[str, RegimeScore] = {}
    for i, name in enumerate(trajectory.names):
        said = trajectory.goal[:, i, -len(Regime) :]
        known = np.isfinite(said).all(axis=1) & (decided != INVALID_CLASS)
        if known.any():
            truth = decided[known]
            scores[name] = RegimeScore(
                log_loss=metrics.log_loss(said[known], truth),
                prior_log_loss=metrics.log_loss(np.tile(prior, (len(truth), 1)), truth),
                sessions=len(truth),
            )
    return scores
