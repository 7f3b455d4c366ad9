"""The measures of a policy: name, formula and format of each, in one list.

Files, tables and pages show every entry of `MEASURES`, so a new measure is one entry.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from hrl_sarp import metrics
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, Trajectory
from hrl_sarp.envs.rollout import INDEX
from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.statistics import Appraisal, BootstrapPlan, Interval, Trials
from hrl_sarp.metrics import SESSIONS_PER_YEAR as YEAR
from hrl_sarp.reporting.table import NONE, Form

Series = Float[np.ndarray, " D"]
Figure = float | int | Interval | None
Performance = dict[str, Any]
"""One policy: name of a measure -> its figure, a number, an `Interval`, or None."""

NOTHING_LOST = -1.0 + 1e-12
"""The lowest simple return that still has a logarithm."""


@dataclass(frozen=True)
class PolicyRecord:
    """Input of the measures: one policy's sessions, with those of its benchmarks."""

    net: Series
    """Simple returns after costs."""
    gross: Series
    """Simple returns of the same decisions, without the costs of that day's trades."""
    excess: Series
    """Net returns less interest, as are the next two."""
    index_excess: Series
    equal_weight_excess: Series
    """Excess returns of 1/N."""
    active: Series
    """Net returns less those of 1/N."""
    turnover: Series
    goal: Float[np.ndarray, "D G"]
    """Goals in force; NaN where there is none."""
    weights_before: Float[np.ndarray, "D A"] | None
    """None for the index and where the rollout kept no weights, as the next."""
    weights: Float[np.ndarray, "D A"] | None
    """After the trade."""
    market: Market
    moved_by_limits: Series
    """Share of wealth that limits put elsewhere than the policy asked; NaN without orders."""
    rows: Int[np.ndarray, " D"]
    """Of the market, one for each session."""
    growth_excess: float
    """Annual log growth less that of 1/N."""
    growth_samples: Float[np.ndarray, " samples"]
    """Samples of the growth excess, on resampled dates."""
    sharpe_samples: Float[np.ndarray, " samples"]
    """On the same dates, as the next."""
    relative_volatility_samples: Float[np.ndarray, " samples"]
    """Volatility over that of 1/N; 0 where 1/N does not move."""
    equal_weight_exposure: float | None
    """Mean share of wealth that 1/N holds in stocks."""
    appraisal: Appraisal
    """Per session, against 1/N."""
    trials: Trials
    """Evaluated on the span: those of the given policies, or a baseline alone."""
    confidence: float

    @property
    def year(self) -> int:
        """Sessions of a year of the market."""
        return self.market.sessions.year


@dataclass(frozen=True)
class Measure:
    """One figure of a policy; annual and net of costs unless it says otherwise."""

    name: str
    """Its key in `metrics.json`."""
    heading: str
    """Heading of its column; `{level}` stands for the confidence of the intervals."""
    form: Form
    compute: Callable[[PolicyRecord], Figure]
    meaning: str = ""
    """Explains the heading."""
    not_for: str = ""
    """The policy for which it is not defined, for example 1/N for a difference to 1/N."""
    rank: int | None = None
    """Order in which a narrow terminal shows columns of the main table. None: a detail."""

    def cell(self, policy: str, performance: Performance) -> str:
        """Write the figure of a policy, or a dash where it is not defined."""
        return NONE if policy == self.not_for else self.text(performance[self.name])

    def text(self, figure: Figure) -> str:
        """Write a figure, an interval in brackets after its estimate."""
        return spread(figure, self.form) if isinstance(figure, Interval) else self.form(figure)


def spread(interval: Interval, form: Form) -> str:
    """Write an estimate with its interval but without a unit, as 0.86 [0.24, 1.56]."""
    value, low, high = (form.bare(x) for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def share_positive(samples: Float[np.ndarray, " samples"]) -> float:
    """Compute the share of samples above zero; those at zero count half."""
    return float((samples > 0).mean() + 0.5 * (samples == 0).mean())


def _sharpe(record: PolicyRecord) -> Interval:
    value = metrics.sharpe_ratio(record.excess, record.year)
    return statistics.interval(value, record.sharpe_samples, record.confidence)


def certainty_equivalent(
    simple_returns: Series, risk_aversion: int | float, sessions_per_year: int = YEAR
) -> float:
    """Compute mean return less risk aversion / 2 x variance, a year.

    It is the sure return that an investor of this risk aversion (gamma) would take instead.
    """
    variance = metrics.annual_volatility(simple_returns, sessions_per_year) ** 2
    return float(simple_returns.mean() * sessions_per_year - risk_aversion / 2 * variance)


def mean_exposure(weights: Float[np.ndarray, "D A"] | None) -> float | None:
    """Compute the mean share of wealth in stocks after the trade; None without weights."""
    return None if weights is None else float(weights.sum(axis=1).mean())


def _relative_volatility(record: PolicyRecord) -> Interval | None:
    """Divide the volatility by that of 1/N, scaled to the same mean exposure."""
    own, base = mean_exposure(record.weights), record.equal_weight_exposure
    moves = record.equal_weight_excess.std() > metrics.ROUNDING
    if not own or not base or not moves:
        return None
    volatility, of_equal_weight = (
        metrics.annual_volatility(series, record.year)
        for series in (record.net, record.net - record.active)
    )
    samples = base / own * record.relative_volatility_samples
    value = base / own * volatility / of_equal_weight
    return statistics.interval(value, samples, record.confidence)


def _cost_drag(record: PolicyRecord) -> float:
    survives = record.net.min() > -1
    return metrics.cost_drag(record.gross, record.net, record.year) if survives else 0.0


def _effective_positions(record: PolicyRecord) -> float | None:
    if record.weights is None:
        return None
    concentration = metrics.herfindahl(record.weights)
    holds = concentration > 0
    return float((1.0 / concentration[holds]).mean()) if holds.any() else 0.0


def _goal_alignment(record: PolicyRecord) -> float | None:
    has_goal = np.isfinite(record.goal).all(axis=1)
    if record.weights is None or not has_goal.any():
        return None
    achieved = sector_weights(record.weights[has_goal], record.market)
    desired = record.goal[has_goal, : record.market.n_sectors]
    return float(metrics.goal_alignment(achieved, desired).mean())


def _moved_by_limits(record: PolicyRecord) -> float:
    asked = record.moved_by_limits[np.isfinite(record.moved_by_limits)]
    return float(asked.mean()) if len(asked) else 0.0


def _delistings(record: PolicyRecord) -> int | None:
    if record.weights_before is None:
        return None
    listed, rows = record.market.listed, record.rows
    is_gone = listed[rows - 1] & ~listed[rows]  # the first session after the stock's last bar
    return int((is_gone & (record.weights_before > metrics.ROUNDING)).sum())


PERCENT, PERCENT_2, SHARE = Form(1, 100, " %"), Form(2, 100, " %"), Form(0, 100, " %")
POINTS = Form(1, 100)
"""Percent without the sign, which is in the heading."""
RATIO, TENTHS, COUNT = Form(2), Form(1), Form(0)

MEASURES = (
    Measure(
        "volatility", "volatility", PERCENT, lambda r: metrics.annual_volatility(r.net, r.year),
        rank=0,
    ),
    Measure(
        "relative_volatility", "volatility over 1/N's at equal exposure [{level}]", RATIO,
        _relative_volatility,
        "1/N is mixed with cash to the policy's mean exposure. Below 1: risk is lower by more than "
        "cash alone takes away.", EQUAL_WEIGHT, rank=5,
    ),
    Measure(
        "max_drawdown", "max drawdown", PERCENT, lambda r: metrics.max_drawdown(r.net), rank=1
    ),
    Measure(
        "cvar_95", "CVaR 95", PERCENT_2,
        lambda r: metrics.conditional_value_at_risk(r.net, 0.95),
        "Mean loss of the worst 5 % of the sessions.", rank=7,
    ),
    Measure(
        "certainty_equivalent_5", "CE, gamma=5", PERCENT,
        lambda r: certainty_equivalent(r.net, 5.0, r.year),
        "Certainty equivalent: mean return less gamma / 2 x variance, a year.", rank=2,
    ),
    Measure(
        "certainty_equivalent_10", "CE, gamma=10", PERCENT,
        lambda r: certainty_equivalent(r.net, 10.0, r.year), rank=8,
    ),
    Measure(
        "exposure", "exposure", PERCENT, lambda r: mean_exposure(r.weights),
        "Mean share of wealth in stocks after the trade; the rest is cash.", INDEX, rank=6,
    ),
    Measure(
        "annual_return", "return, net", PERCENT, lambda r: metrics.annual_return(r.net, r.year),
        "Compound growth of wealth a year.", rank=3,
    ),
    Measure(
        "growth_excess", "log growth over 1/N, % a year [{level}]", POINTS,
        lambda r: statistics.interval(r.growth_excess, r.growth_samples, r.confidence),
        "Log growth less that of 1/N, both net of costs; dates are paired.", EQUAL_WEIGHT, rank=9,
    ),
    Measure(
        "sharpe", "Sharpe [{level}]", RATIO, _sharpe, "On the return in excess of cash.", rank=4
    ),
    Measure(
        "probability_of_beating", "P(beats 1/N)", SHARE, lambda r: share_positive(r.growth_samples),
        "Share of the resampled histories that grow more than 1/N.", EQUAL_WEIGHT, rank=13,
    ),
    Measure(
        "gross_annual_return", "gross", PERCENT, lambda r: metrics.annual_return(r.gross, r.year),
        "Return with the trading costs of each session added back.", rank=12,
    ),
    Measure(
        "total_return", "total return", PERCENT, lambda r: metrics.total_return(r.net),
        "Over the whole span, not a year.",
    ),
    Measure("sortino", "Sortino", RATIO, lambda r: metrics.sortino_ratio(r.excess, r.year)),
    Measure("calmar", "Calmar", RATIO, lambda r: metrics.calmar_ratio(r.net, r.year)),
    Measure(
        "average_drawdown", "average drawdown", PERCENT, lambda r: metrics.average_drawdown(r.net)
    ),
    Measure(
        "max_drawdown_days", "longest drawdown, sessions", COUNT,
        lambda r: metrics.max_drawdown_duration(r.net),
    ),
    Measure(
        "var_95", "VaR 95, a session", PERCENT_2, lambda r: metrics.value_at_risk(r.net, 0.95),
        "Loss of a session that is exceeded with probability 5 %.",
    ),
    Measure("var_99", "VaR 99", PERCENT_2, lambda r: metrics.value_at_risk(r.net, 0.99)),
    Measure(
        "cvar_99", "CVaR 99", PERCENT_2, lambda r: metrics.conditional_value_at_risk(r.net, 0.99)
    ),
    Measure("skewness", "skewness", RATIO, lambda r: metrics.skewness(r.net)),
    Measure("kurtosis", "kurtosis", TENTHS, lambda r: metrics.kurtosis(r.net), "3 if normal."),
    Measure("win_rate", "winning sessions", PERCENT, lambda r: metrics.win_rate(r.net)),
    Measure(
        "profit_factor", "profit factor", RATIO, lambda r: metrics.profit_factor(r.net),
        "Sum of all gains over the sum of all losses.",
    ),
    Measure(
        "turnover", "turnover", TENTHS,
        lambda r: metrics.annual_turnover(r.turnover, r.year),
        "One-sided, in multiples of wealth.", INDEX, rank=10,
    ),
    Measure(
        "cost_drag", "cost drag", PERCENT_2, _cost_drag, "Log growth lost to costs.", INDEX, rank=11
    ),
    Measure(
        "information_ratio", "information ratio", RATIO,
        lambda r: metrics.information_ratio(r.active, r.year), "Against 1/N.", EQUAL_WEIGHT,
    ),
    Measure(
        "tracking_error", "tracking error", PERCENT,
        lambda r: metrics.tracking_error(r.active, r.year), "Against 1/N.", EQUAL_WEIGHT,
    ),
    Measure(
        "alpha", "alpha", PERCENT, lambda r: metrics.alpha(r.excess, r.index_excess, r.year),
        "Jensen's, against the index.", INDEX,
    ),
    Measure(
        "beta", "beta", RATIO, lambda r: metrics.beta(r.excess, r.index_excess),
        "Against the index.", INDEX,
    ),
    Measure(
        "alpha_over_equal_weight", "alpha over diluted 1/N", PERCENT,
        lambda r: metrics.alpha(r.excess, r.equal_weight_excess, r.year),
        "Gain over 1/N that is mixed with cash to the same beta.", EQUAL_WEIGHT,
    ),
    Measure(
        "appraisal_ratio", "appraisal ratio", RATIO,
        lambda r: r.appraisal.ratio * math.sqrt(r.year),
        "Alpha over diluted 1/N per deviation of what diluted 1/N does not explain.", EQUAL_WEIGHT,
    ),
    Measure(
        "needed_appraisal_ratio", "appraisal ratio needed", RATIO,
        lambda r: statistics.needed_appraisal_ratio(r.appraisal, r.trials) * math.sqrt(r.year),
        "The ratio from which luck does not explain it.", EQUAL_WEIGHT,
    ),
    Measure(
        "deflated_sharpe", "deflated Sharpe", RATIO,
        lambda r: statistics.deflated_sharpe_ratio(r.appraisal, r.trials),
        "Probability that the appraisal ratio is more than the luck of all trials on the span.",
        EQUAL_WEIGHT,
    ),
    Measure(
        "configurations", "configurations allowed for", COUNT, lambda r: r.trials.count,
        "Evaluated on the span, which the deflated Sharpe ratio corrects for. A baseline was fixed "
        "before, so it is one.", EQUAL_WEIGHT,
    ),
    Measure(
        "moved_by_limits", "moved by limits", PERCENT, _moved_by_limits,
        "Mean share of wealth that caps put elsewhere than the policy asked, cash included, over "
        "the sessions with orders.", INDEX,
    ),
    Measure(
        "effective_positions", "effective positions", TENTHS, _effective_positions,
        "1 / Herfindahl index of the invested part, mean over the sessions that hold anything.",
    ),
    Measure(
        "goal_alignment", "goal alignment", RATIO, _goal_alignment,
        "Mean over the sessions with a goal; 1 if sector weights are those of the goal.",
    ),
    Measure(
        "delistings", "delistings", COUNT, _delistings,
        "Holdings that were closed because the stock no longer exists.",
    ),
)  # fmt: skip
"""In the order of the columns."""
BY_NAME = {measure.name: measure for measure in MEASURES}


def measure_policies(
    trajectory: Trajectory,
    market: Market,
    config: RunConfig,
    trials: Trials,
    policy_names: Collection[str],
) -> dict[str, Performance]:
    """Compute every measure of every policy of a trajectory that holds 1/N and the index.

    The trials are those of the named policies. Any other row is a baseline, which was fixed before
    the span was seen: it is a trial of its own, whichever rows are shown.
    """
    rows, year = market_rows(market, trajectory), market.sessions.year
    counts = bootstrap_plan(config).counts(len(rows))
    net, base = trajectory.net_return, column(trajectory, EQUAL_WEIGHT)
    risk_free = market.risk_free[rows].astype(np.float64)
    excess = metrics.without_rounding(net - risk_free[:, None])
    active = metrics.without_rounding(net - net[:, [base]])
    growth = np.log1p(np.maximum(net, NOTHING_LOST))
    active_growth = metrics.without_rounding(growth - growth[:, [base]])
    growth_excess = active_growth.mean(axis=0) * year
    growth_samples = statistics.bootstrap_annual_mean(active_growth, counts, year)
    sharpe_samples = statistics.bootstrap_sharpe(excess, counts, year)
    volatility = statistics.bootstrap_volatility(net, counts, year)
    relative = np.divide(
        volatility,
        volatility[:, [base]],
        out=np.zeros_like(volatility),
        where=volatility[:, [base]] > metrics.ROUNDING,
    )
    appraisals = statistics.appraise(excess, excess[:, base])
    keeps_weights = trajectory.weights_after.shape[2] > 0
    even = mean_exposure(trajectory.weights_after[:, base]) if keeps_weights else None
    performances = {}
    for i, name in enumerate(trajectory.names):
        has_weights = keeps_weights and name != INDEX
        record = PolicyRecord(
            net=net[:, i],
            gross=trajectory.gross_return[:, i],
            excess=excess[:, i],
            index_excess=market.benchmark_return[rows] - risk_free,
            equal_weight_excess=excess[:, base],
            active=active[:, i],
            turnover=trajectory.turnover[:, i],
            goal=trajectory.goal[:, i],
            weights_before=trajectory.weights_before[:, i] if has_weights else None,
            weights=trajectory.weights_after[:, i] if has_weights else None,
            market=market,
            moved_by_limits=trajectory.moved_by_limits[:, i],
            rows=rows,
            growth_excess=float(growth_excess[i]),
            growth_samples=growth_samples[:, i],
            sharpe_samples=sharpe_samples[:, i],
            relative_volatility_samples=relative[:, i],
            equal_weight_exposure=even,
            appraisal=appraisals[i],
            trials=trials if name in policy_names else Trials(1, ()),
            confidence=config.evaluation.confidence,
        )
        performances[name] = {measure.name: measure.compute(record) for measure in MEASURES}
    return performances


def bootstrap_plan(config: RunConfig) -> BootstrapPlan:
    """Take the plan of the resampling from the configuration."""
    section = config.evaluation
    return BootstrapPlan(
        block_days=section.bootstrap_block_days,
        samples=section.bootstrap_samples,
        confidence=section.confidence,
        seed=config.seed,
    )


def market_rows(market: Market, trajectory: Trajectory) -> Int[np.ndarray, " D"]:
    """Find the market's row of each session of a trajectory that ran on this market."""
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
    """Find a policy's column."""
    if name not in trajectory.names:
        raise MetricError(
            f"no policy '{name}' in the trajectory, found {', '.join(trajectory.names)}; "
            "name one of these"
        )
    return trajectory.names.index(name)


def sector_weights(weights: Float[np.ndarray, "D A"], market: Market) -> Float[np.ndarray, "D S"]:
    """Sum the weights, or any quantity that adds up, over the stocks of each sector."""
    return weights @ market.sector_member()
