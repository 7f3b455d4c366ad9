"""Pure measures of a series of returns or weights; rewards, selection and reports share them.

Names and definitions follow skfolio and empyrical. Losses are positive, returns and weights
are fractions. NaN is refused, never skipped.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from hrl_sarp.errors import MetricError

Series = Float[np.ndarray, " T"]
Benchmark = Float[np.ndarray, " _"]  # its length is checked here, with a readable error
Periods = int | float

SESSIONS_PER_YEAR = 252
"""The convention by which daily figures are annualised."""
ROUNDING = 1e-12
"""What a return or weight can owe to rounding; what is not larger counts as 0."""


def without_rounding(
    values: Float[np.ndarray, "..."], unit: int | float = 1.0
) -> Float[np.ndarray, "..."]:
    """Set to 0 what may be rounding alone: its sign means nothing, and nothing divides by it.

    Args:
        values: differences or sums of numbers of about the size `unit`; NaN stays NaN.
        unit: 1 for returns and weights, 252 for returns of a year.

    Returns:
        The values, 0.0 where they are not above `ROUNDING` units.
    """
    return np.where(np.abs(values) <= ROUNDING * unit, 0.0, values)


def total_return(simple_returns: Series) -> float:
    """Compound the series.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        The gain over all periods as a fraction of the first wealth.
    """
    _require_finite(simple_returns, "simple_returns")
    return float(np.prod(1.0 + simple_returns) - 1.0)


def annual_return(simple_returns: Series, periods_per_year: Periods) -> float:
    """Compute the compound annual growth rate.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The rate as a fraction; -1.0 if wealth was lost entirely.
    """
    wealth = 1.0 + total_return(simple_returns)
    if wealth <= 0.0:
        return -1.0
    return float(wealth ** (periods_per_year / len(simple_returns)) - 1.0)


def annual_log_growth(simple_returns: Series, periods_per_year: Periods) -> float:
    """Compute the mean log return of a year.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The mean log return times the periods of a year.

    Raises:
        MetricError: also if a period loses everything, which has no log return.
    """
    _require_finite(simple_returns, "simple_returns")
    if simple_returns.min() <= -1.0 + ROUNDING:
        raise MetricError("annual_log_growth: a period lost everything; use annual_return instead")
    return float(np.log1p(simple_returns).mean() * periods_per_year)


def annual_volatility(simple_returns: Series, periods_per_year: Periods) -> float:
    """Compute the sample standard deviation of a year.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The deviation as a fraction; 0.0 for a single period or a constant series.
    """
    return _deviation(simple_returns) * float(np.sqrt(periods_per_year))


def sharpe_ratio(excess_returns: Series, periods_per_year: Periods) -> float:
    """Compute mean over sample standard deviation, annualised.

    Args:
        excess_returns: returns less the risk-free rate of the same period.
        periods_per_year: 252 for sessions.

    Returns:
        The ratio; 0.0 if the series does not move.
    """
    deviation = _deviation(excess_returns)
    return _ratio(excess_returns.mean(), deviation) * float(np.sqrt(periods_per_year))


def downside_deviation(excess_returns: Series, periods_per_year: Periods) -> float:
    """Compute the root mean square of the losses over all periods, annualised.

    Args:
        excess_returns: returns less the risk-free rate of the same period; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The deviation as a fraction; 0.0 if no period lost.
    """
    _require_finite(excess_returns, "excess_returns")
    losses = np.minimum(without_rounding(excess_returns), 0.0)
    return float(np.sqrt((losses**2).mean() * periods_per_year))


def sortino_ratio(excess_returns: Series, periods_per_year: Periods) -> float:
    """Compute the annual mean over the downside deviation.

    Args:
        excess_returns: returns less the risk-free rate of the same period; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The ratio; 0.0 without a loss to divide by.
    """
    deviation = downside_deviation(excess_returns, periods_per_year)
    return _ratio(excess_returns.mean() * periods_per_year, deviation)


def drawdowns(simple_returns: Series) -> Series:
    """Compute the loss from the running peak of wealth after each period, as fractions >= 0.

    The wealth before the first period is the first peak.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        One loss per period, a fraction of the peak; 0.0 at a peak, rounding apart.
    """
    _require_finite(simple_returns, "simple_returns")
    wealth = np.cumprod(1.0 + simple_returns)
    peak = np.maximum(np.maximum.accumulate(wealth), 1.0)
    return without_rounding(1.0 - wealth / peak)


def max_drawdown(simple_returns: Series) -> float:
    """Compute the largest peak-to-trough loss of compounded wealth.

    Args:
        simple_returns: one per period, as a fraction (0.01 is 1 %). NaN is refused, not skipped.

    Returns:
        The loss as a positive fraction of the peak; 0.0 if wealth never falls.

    Raises:
        MetricError: if the series is empty or holds a NaN.

    Source:
        Magdon-Ismail and Atiya (2004), "Maximum drawdown", Risk 17(10).
    """
    return float(drawdowns(simple_returns).max())


def average_drawdown(simple_returns: Series) -> float:
    """Compute the mean over all periods of the loss from the running peak.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        The mean loss as a positive fraction of the peak.
    """
    return float(drawdowns(simple_returns).mean())


def max_drawdown_duration(simple_returns: Series) -> int:
    """Count the periods of the longest stay below a peak, unfinished ones included.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        The number of periods; 0 if wealth never falls.
    """
    below = np.concatenate([[False], drawdowns(simple_returns) > 0.0, [False]])
    edges = np.flatnonzero(below[1:] != below[:-1])
    return int((edges[1::2] - edges[::2]).max(initial=0))


def calmar_ratio(simple_returns: Series, periods_per_year: Periods) -> float:
    """Compute the compound annual growth rate over the maximum drawdown.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The ratio; 0.0 if wealth never falls.
    """
    return _ratio(annual_return(simple_returns, periods_per_year), max_drawdown(simple_returns))


def value_at_risk(simple_returns: Series, confidence: int | float) -> float:
    """Compute the loss that a period exceeds with probability at most 1 - confidence.

    With k = (1 - confidence) T an integer it is the (k+1)-th largest loss.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.
        confidence: 0.95 is usual; between 0 and 1.

    Returns:
        The loss as a positive fraction; negative if even that period gained.

    Source:
        Rockafellar and Uryasev (2002), "Conditional value-at-risk for general loss distributions".
    """
    losses = _sorted_losses(simple_returns)
    return float(losses[min(int(_tail(len(losses), confidence)), len(losses) - 1)])


def conditional_value_at_risk(simple_returns: Series, confidence: int | float) -> float:
    """Compute the mean of the worst (1 - confidence) share of the periods.

    The period on the border counts with the part of it that belongs to that share.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.
        confidence: 0.95 is usual; between 0 and 1.

    Returns:
        The mean loss as a positive fraction; negative if it is a gain.
    """
    losses = _sorted_losses(simple_returns)
    tail = _tail(len(losses), confidence)
    whole = int(tail)
    if whole >= len(losses):
        return float(losses.mean())
    if tail == 0.0:
        return float(losses[0])
    return float((losses[:whole].sum() + (tail - whole) * losses[whole]) / tail)


def skewness(simple_returns: Series) -> float:
    """Compute the third standardised moment (population).

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        The moment; 0.0 if the series does not move.
    """
    return _standardised_moment(simple_returns, 3, still=0.0)


def kurtosis(simple_returns: Series) -> float:
    """Compute the fourth standardised moment, 3 for a normal series and for one that is still.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        The moment, not its excess over 3.
    """
    return _standardised_moment(simple_returns, 4, still=3.0)


def win_rate(simple_returns: Series) -> float:
    """Compute the share of periods that gained.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        A share between 0 and 1; a period without a change did not gain.
    """
    _require_finite(simple_returns, "simple_returns")
    return float((without_rounding(simple_returns) > 0.0).mean())


def profit_factor(simple_returns: Series) -> float:
    """Compute the sum of gains over the sum of losses.

    Args:
        simple_returns: one per period, as fractions; NaN is refused.

    Returns:
        The ratio; 0.0 without a loss to divide by.
    """
    _require_finite(simple_returns, "simple_returns")
    moves = without_rounding(simple_returns)
    return _ratio(moves.clip(min=0.0).sum(), -moves.clip(max=0.0).sum())


def annual_turnover(turnover: Series, periods_per_year: Periods) -> float:
    """Compute the one-sided traded value of a year in multiples of wealth.

    Args:
        turnover: one-sided, one per period, as fractions of wealth; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        Multiples of wealth a year.
    """
    _require_finite(turnover, "turnover")
    return float(turnover.mean() * periods_per_year)


def cost_drag(gross_returns: Series, net_returns: Series, periods_per_year: Periods) -> float:
    """Compute the annual log growth that costs took away.

    Args:
        gross_returns: of the same decisions, had every trade been free; NaN is refused.
        net_returns: after costs, of the same periods.
        periods_per_year: 252 for sessions.

    Returns:
        The difference of the annual log growths, positive for a loss.
    """
    gross = annual_log_growth(gross_returns, periods_per_year)
    return gross - annual_log_growth(net_returns, periods_per_year)


def beta(excess_returns: Series, benchmark_excess_returns: Benchmark) -> float:
    """Compute the slope on the benchmark.

    Args:
        excess_returns: returns less the risk-free rate of the same period; NaN is refused.
        benchmark_excess_returns: of the benchmark, for the same periods.

    Returns:
        The slope; 0.0 if the benchmark does not move.
    """
    _require_pair(excess_returns, benchmark_excess_returns)
    moves = _deviation(benchmark_excess_returns) > 0.0
    centred = benchmark_excess_returns - benchmark_excess_returns.mean()
    return _ratio((centred * excess_returns).sum(), (centred**2).sum()) if moves else 0.0


def alpha(
    excess_returns: Series, benchmark_excess_returns: Benchmark, periods_per_year: Periods
) -> float:
    """Compute Jensen's alpha, the arithmetic annual return that the benchmark does not explain.

    It is also the gain over the benchmark diluted with cash to the same beta.

    Args:
        excess_returns: returns less the risk-free rate of the same period; NaN is refused.
        benchmark_excess_returns: of the benchmark, for the same periods.
        periods_per_year: 252 for sessions.

    Returns:
        The return of a year as a fraction.
    """
    slope = beta(excess_returns, benchmark_excess_returns)
    return float((excess_returns - slope * benchmark_excess_returns).mean() * periods_per_year)


def tracking_error(active_returns: Series, periods_per_year: Periods) -> float:
    """Compute the annual deviation of the return in excess of a benchmark.

    Args:
        active_returns: returns less those of the benchmark; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The deviation as a fraction.
    """
    return annual_volatility(active_returns, periods_per_year)


def information_ratio(active_returns: Series, periods_per_year: Periods) -> float:
    """Compute the annual mean active return over the tracking error.

    Args:
        active_returns: returns less those of the benchmark; NaN is refused.
        periods_per_year: 252 for sessions.

    Returns:
        The ratio; 0.0 if the series does not move.
    """
    return sharpe_ratio(active_returns, periods_per_year)


def herfindahl(weights: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows"]:
    """Compute the sum of squared shares of each row, without cash; 0 for an empty portfolio.

    Args:
        weights: of stocks, rows in any leading axes; NaN is refused.

    Returns:
        One number a row: 1 for a single stock, 1 / n for n equal ones.
    """
    _require_finite(weights, "weights")
    shares = _shares(weights)
    return (shares**2).sum(axis=-1)


def goal_alignment(
    weights: Float[np.ndarray, "*rows S"], desired: Float[np.ndarray, "*rows S"]
) -> Float[np.ndarray, "*rows"]:
    """Compute 1 - half the L1 distance of achieved and desired sector shares, in [0, 1].

    Args:
        weights: sector weights just after the trade; cash is left out by rescaling to sum 1.
        desired: the goal's sector weights, on the simplex.

    Returns:
        One number a row, in [0, 1]; 1 if the shares are the goal's.
    """
    _require_finite(weights, "weights")
    _require_finite(desired, "desired")
    return 1.0 - 0.5 * np.abs(_shares(weights) - desired).sum(axis=-1)


def log_loss(probabilities: Float[np.ndarray, "T R"], labels: Int[np.ndarray, " T"]) -> float:
    """Compute the mean negative log probability of what happened, in nats.

    Probabilities below 1e-12 count as that, so that one sure error stays finite.

    Args:
        probabilities: of each class, summing to 1; NaN is refused.
        labels: the class that happened, counted from 0.

    Returns:
        Nats per period; 0.0 if every period was foreseen with certainty.
    """
    _require_finite(probabilities, "probabilities")
    chosen = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def _require_finite(values: Num[np.ndarray, "..."], name: str) -> None:
    if values.size == 0:
        raise MetricError(f"{name} is empty: expected at least one number; check the span of dates")
    wrong = np.flatnonzero(~np.isfinite(values).ravel())
    if len(wrong):
        found = f"{len(wrong)} of {values.size} are NaN or infinite, the first at {wrong[0]}"
        raise MetricError(f"{name}: expected finite numbers, found {found}; fill or cut them first")


def _require_pair(first: Series, second: Benchmark) -> None:
    _require_finite(first, "excess_returns")
    _require_finite(second, "benchmark_excess_returns")
    if len(first) != len(second):
        raise MetricError(
            f"returns and benchmark must cover the same periods, found {len(first)} and "
            f"{len(second)}; align them by date"
        )


def _deviation(values: Series) -> float:
    """Compute the sample deviation; what may be rounding of a constant series counts as 0."""
    _require_finite(values, "returns")
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return deviation if deviation > ROUNDING * max(1.0, float(np.abs(values).max())) else 0.0


def _ratio(numerator: Any, denominator: Any) -> float:
    return float(numerator / denominator) if denominator > 0.0 else 0.0


def _sorted_losses(simple_returns: Series) -> Series:
    _require_finite(simple_returns, "simple_returns")
    return -np.sort(simple_returns)


def _tail(n_periods: int, confidence: int | float) -> float:
    """Count the periods of the tail; 5 % of 100 is 5, not 5.000000000000004."""
    if not 0.0 <= confidence <= 1.0:
        raise MetricError(f"confidence must lie in [0, 1], found {confidence}; 0.95 is usual")
    tail = (1.0 - confidence) * n_periods
    return float(round(tail)) if abs(tail - round(tail)) < 1e-9 * n_periods else tail


def _standardised_moment(values: Series, order: int, still: float) -> float:
    if _deviation(values) == 0.0:
        return still
    centred = values - values.mean()
    return float((centred**order).mean() / (centred**2).mean() ** (order / 2))


def _shares(weights: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows n"]:
    total = weights.sum(axis=-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > ROUNDING)
