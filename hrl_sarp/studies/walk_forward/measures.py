"""Measures of chained series on resampled dates; all series of a comparison share the dates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int, Shaped

from hrl_sarp.metrics import ROUNDING, without_rounding
from hrl_sarp.resampling import draw_counts, stationary_bootstrap
from hrl_sarp.studies.walk_forward.chain import Series

TAIL = 0.05
"""Share of the sessions in the conditional value at risk."""
LARGEST_UNIT = 100 * 366
"""What a return of 1 a day is in the units of `MEASURES`, at most: percent a year."""
CHUNK = 200
"""Histories whose drawdowns are computed at a time, which bounds the memory."""


@dataclass(frozen=True)
class Draws:
    """Resampled histories of one calendar. Row 0 is the calendar itself, for the estimates.

    Markets with other holidays take their sessions from the same draws, so that what is pooled
    over markets keeps their correlation.
    """

    dates: Shaped[np.ndarray, " U"]
    """Sessions of any market, ascending."""
    indices: Int[np.ndarray, "samples U"]
    counts: Float[np.ndarray, "samples U"]
    """How often each session was drawn."""

    @classmethod
    def of(
        cls, dates: Shaped[np.ndarray, " U"], block_days: int, samples: int, seed: int
    ) -> "Draws":
        """Resample a calendar in blocks."""
        rng = np.random.default_rng([seed, len(dates)])
        drawn = stationary_bootstrap(len(dates), block_days, samples, rng)
        indices = np.concatenate([np.arange(len(dates))[None], drawn])
        return cls(dates, indices, draw_counts(indices))

    def rows(self, series: Series) -> Int[np.ndarray, " D"]:
        """Return the places of a market's sessions in the calendar."""
        return np.searchsorted(self.dates, series.dates)


Measure = Callable[[Series, Draws], Float[np.ndarray, "samples K"]]
"""One value for each history and column."""


def annual_growth(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute log growth, % a year."""
    return 100 * series.sessions_per_year * _mean(np.log1p(series.net), series, draws)


def gross_growth(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the log growth had the same trades been free, % a year."""
    return annual_growth(series, draws) + annual_cost(series, draws)


def annual_cost(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute what trades take from the log growth, % a year."""
    return 100 * series.sessions_per_year * _mean(-np.log1p(-series.cost), series, draws)


def log_volatility(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute 100 x the logarithm of the volatility: differences are roughly percent of it.

    A series that does not move counts with the deviation of rounding, which has a logarithm.
    """
    return 100 * np.log(np.maximum(_deviation(series.net, series, draws), ROUNDING))


def volatility(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the volatility, % a year."""
    return 100 * np.sqrt(series.sessions_per_year) * _deviation(series.net, series, draws)


def sharpe(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the annual Sharpe ratio over cash; 0 where the series does not move."""
    excess = without_rounding(series.net - series.risk_free[:, None])
    mean, deviation = _mean(excess, series, draws), _deviation(excess, series, draws)
    ratio = np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)
    return np.sqrt(series.sessions_per_year) * ratio


def sortino(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the annual mean over cash by the deviation below cash; 0 where nothing is below."""
    excess = without_rounding(series.net - series.risk_free[:, None])
    mean = _mean(excess, series, draws)
    below = np.sqrt(_mean(np.minimum(excess, 0.0) ** 2, series, draws))
    return np.sqrt(series.sessions_per_year) * np.divide(
        mean, below, out=np.zeros_like(mean), where=below > 0
    )


def certainty_equivalent(
    series: Series, draws: Draws, aversion: float
) -> Float[np.ndarray, "samples K"]:
    """Compute the sure log growth of the same power utility, % a year.

    Utility has the relative risk aversion `aversion`; 1 would be log growth itself.
    """
    power = 1.0 - aversion
    return (
        100
        * series.sessions_per_year
        * np.log(_mean((1.0 + series.net) ** power, series, draws))
        / power
    )


def tail_loss(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the mean of the worst twentieth of the sessions, % a day."""
    counts = draws.counts[:, draws.rows(series)]
    tail = TAIL * counts.sum(axis=1)
    columns = []
    for net in series.net.T:
        order = np.argsort(net)
        drawn = counts[:, order]
        before = np.cumsum(drawn, axis=1) - drawn
        columns.append(-(np.clip(tail[:, None] - before, 0.0, drawn) @ net[order]) / tail)
    return 100 * np.stack(columns, axis=1)


def max_drawdown(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the largest loss from a peak, %; the first session starts at one."""
    rows, columns = draws.rows(series), []
    for net in series.net.T:
        growth = np.zeros(len(draws.dates))
        growth[rows] = np.log1p(net)
        parts = []
        for first in range(0, len(draws.indices), CHUNK):
            path = np.cumsum(growth[draws.indices[first : first + CHUNK]], axis=1)
            peak = np.maximum(np.maximum.accumulate(path, axis=1), 0.0)
            parts.append(1.0 - np.exp((path - peak).min(axis=1)))
        columns.append(np.concatenate(parts))
    return 100 * np.stack(columns, axis=1)


def turnover(series: Series, draws: Draws) -> Float[np.ndarray, "samples K"]:
    """Compute the one-sided traded value, multiples of wealth a year."""
    return series.sessions_per_year * _mean(series.turnover, series, draws)


MEASURES: dict[str, tuple[str, Measure]] = {
    "growth": ("growth, % a year", annual_growth),
    "gross": ("gross growth, % a year", gross_growth),
    "cost": ("costs, % a year", annual_cost),
    "volatility": ("volatility, % a year", volatility),
    "log_volatility": ("100 ln volatility", log_volatility),
    "sharpe": ("Sharpe", sharpe),
    "sortino": ("Sortino", sortino),
    "max_drawdown": ("max drawdown, %", max_drawdown),
    "cvar95": ("CVaR 95, % a day", tail_loss),
    "ce3": ("CE3, % a year", partial(certainty_equivalent, aversion=3.0)),
    "ce5": ("CE5, % a year", partial(certainty_equivalent, aversion=5.0)),
    "ce10": ("CE10, % a year", partial(certainty_equivalent, aversion=10.0)),
    "turnover": ("turnover a year", turnover),
}
"""Name in files -> name in tables, measure. They are averaged over seeds after measuring, because
the mean of the seeds' returns would be a portfolio that no seed holds."""
POOLED = "pooled"
"""Mean over the markets."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval over resampled dates."""

    value: float
    low: float
    high: float
    above: float
    """Share of the resampled histories in which it is above 0."""

    @classmethod
    def of(cls, samples: Float[np.ndarray, " samples"], confidence: float) -> "Estimate":
        """Read the value from row 0, and the equal-tailed interval from the others."""
        tail = 0.5 * (1.0 - confidence)
        low, high = np.quantile(samples[1:], [tail, 1.0 - tail])
        above = float((samples[1:] > 0).mean())
        return cls(float(samples[0]), float(low), float(high), above)


Differences = dict[str, dict[str, Estimate]]
"""Market or `POOLED` -> measure -> estimate of the difference."""


def compare(
    policies: dict[str, Series],
    references: dict[str, Series],
    names: tuple[str, ...],
    draws: Draws,
    confidence: float,
) -> Differences:
    """Compare a policy with a reference in each market, and on the mean over the markets.

    Args:
        policies: market -> series.
        references: market -> series over the same sessions.
        names: of `MEASURES`.
        draws: shared by all markets.
        confidence: of the intervals.

    Returns:
        Policy less reference.
    """
    found: Differences = {market: {} for market in (*policies, POOLED)}
    for name in names:
        measure = MEASURES[name][1]
        samples = {
            market: without_rounding(
                measure(policies[market], draws).mean(axis=1)
                - measure(references[market], draws).mean(axis=1),
                LARGEST_UNIT,
            )
            for market in policies
        }
        samples[POOLED] = np.mean(list(samples.values()), axis=0)
        for market, values in samples.items():
            found[market][name] = Estimate.of(values, confidence)
    return found


def points(series: Series, names: tuple[str, ...]) -> dict[str, float]:
    """Compute measures on the series as it was, without intervals."""
    once = np.arange(len(series.dates))[None]
    draws = Draws(series.dates, once, np.ones(once.shape))
    return {name: float(MEASURES[name][1](series, draws).mean()) for name in names}


def _mean(
    values: Float[np.ndarray, "D K"], series: Series, draws: Draws
) -> Float[np.ndarray, "samples K"]:
    counts = draws.counts[:, draws.rows(series)]
    found: np.ndarray = counts @ values / counts.sum(axis=1)[:, None]
    return found


def _deviation(
    values: Float[np.ndarray, "D K"], series: Series, draws: Draws
) -> Float[np.ndarray, "samples K"]:
    """Compute the sample deviation, 0 where it may be rounding of a constant series.

    The mean is taken out first, to keep digits.
    """
    centred = values - values.mean(axis=0)
    total = draws.counts[:, draws.rows(series)].sum(axis=1)[:, None]
    shift = _mean(centred, series, draws)
    variance = (_mean(centred**2, series, draws) - shift**2) * total / (total - 1)
    return without_rounding(np.sqrt(np.maximum(variance, 0.0)))
