"""Forecasts of each stock as agents see them: on which day one is made, and what it shows.

Row t shows a forecast that was made at the close of t or before it. A forecast reads the bars of
its stock up to its day, in logs, so that the unit of the prices does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.cut import number_stretches
from hrl_sarp.encoders.windows.panel import NONE, bar_rows
from hrl_sarp.forecasters.contract import CLOSE, LEVELS, Forecast, Forecaster, History
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk, HarWalk
from hrl_sarp.forecasters.series import Series, bar_table, next_times

ForecasterKind = Literal["ewma", "har", "toto", "kronos", "toto2"]
"""Values of `forecasters.observe` that forecast."""
HORIZONS = (1, 5, 21)
"""Sessions ahead."""
STATISTICS = ("mean", "q10", "q50", "q90", "width", "rise")
"""What a network shows of the log return over a horizon: its mean over the nine usual levels, three
quantiles, the distance of the outer two, and the probability that it is above 0."""
RULES: dict[str, Callable[[], Forecaster]] = {"ewma": EwmaWalk, "har": HarWalk}
"""They say no more of a return than its volatility. That of EWMA grows with the root of time, so
that one horizon shows all."""
SEED = 0
"""Of draws. Agents of all seeds see the same table."""
LARGEST_FACTOR = 1e3
"""A price is taken to rise or fall by no more: a drawn price may be 0 or below it."""
SESSIONS_BEFORE = 63
"""From so many sessions follows on which days the next ones are."""


def column_names(kind: ForecasterKind) -> tuple[str, ...]:
    """Name the columns of a forecaster, for example `toto q10 5d`."""
    if kind in RULES:
        horizons = HORIZONS[:1] if kind == "ewma" else HORIZONS
        return tuple(f"{kind} volatility {h}d" for h in horizons)
    return tuple(f"{kind} {name} {h}d" for h in HORIZONS for name in STATISTICS)


@dataclass(frozen=True)
class ForecastPlan:
    """The histories of all stocks of a market, and which forecast is seen on each day."""

    table: Float[np.ndarray, "N 6"]
    """Bars of all stocks, one stock after the other."""
    timestamps: Shaped[np.ndarray, " N"]
    first: Int[np.ndarray, " N"]
    """First row of the stretch without a hole that a bar belongs to."""
    sessions: Shaped[np.ndarray, " D"]
    """Days on which any stock has a bar."""
    row: Int[np.ndarray, "T A"]
    """Row of the bar of a day and stock; -1 without a bar."""
    origin: Int[np.ndarray, "T A"]
    """Day whose forecast is seen; -1 for none."""
    symbols: tuple[str, ...]

    @classmethod
    def of(cls, bars: Bars, market: Market, config: RunConfig, least_rows: int) -> "ForecastPlan":
        """Plan the forecasts of a market.

        A forecast is made after the last close of a week, or after each close, for every stock of
        the universe that has a bar on the day and `least_rows` of them without a hole. It is seen
        until the next one is due, or until the stock leaves the universe. Between two of these
        days, a stock that has none to show gets one as soon as it can.

        Args:
            bars: of the market's stocks.
            market: with the universe of each day.
            config: how often, and which hole ends a history.
            least_rows: bars that a forecaster needs.
        """
        sessions, session = np.unique(bars.timestamps, return_inverse=True)
        longest = config.encoders.panel.max_missing_sessions
        stretch = number_stretches(session, (bars.instrument,), longest, spacing=1)
        first = np.searchsorted(stretch, stretch)
        row = bar_rows(bars, market)
        can = market.eligible & (row >= 0) & (row + 1 - first[row] >= least_rows)
        every_day = np.ones_like(market.is_week_end)
        is_due = market.is_week_end if config.forecasters.every == "week" else every_day
        origin = origins(can, is_due, market.eligible)
        table = bar_table(bars)
        return cls(table, bars.timestamps, first, sessions, row, origin, market.symbols)

    @property
    def made(self) -> Bool[np.ndarray, "T A"]:
        """Where a forecast is made."""
        return self.origin == np.arange(len(self.origin))[:, None]

    def histories(self, day: int, stocks: Int[np.ndarray, " B"], most_rows: int) -> list[History]:
        """Return what is known of stocks at the close of a day."""
        rows = self.row[day, stocks]
        stop = int(np.searchsorted(self.sessions, self.timestamps[rows[0]], side="right"))
        known = self.sessions[max(0, stop - SESSIONS_BEFORE) : stop]
        future = next_times(Series("", known, np.zeros(len(known)), None), HORIZONS[-1])
        found = []
        for stock, row in zip(stocks, rows, strict=True):
            part = slice(max(self.first[row], row + 1 - most_rows), row + 1)
            bars = self.table[part]
            times = self.timestamps[part]
            found.append(History(self.symbols[stock], times, bars[:, CLOSE], future, bars))
        return found


def origins(
    can: Bool[np.ndarray, "T A"], is_due: Bool[np.ndarray, " T"], eligible: Bool[np.ndarray, "T A"]
) -> Int[np.ndarray, "T A"]:
    """Say which day's forecast is seen on each day; row t depends on rows up to t only.

    Args:
        can: where a forecast can be made.
        is_due: days on which all forecasts are made again.
        eligible: the universe; other stocks show none.
    """
    found = np.empty(can.shape, dtype=np.int64)
    seen = np.full(can.shape[1], NONE)
    for day in range(len(can)):
        if is_due[day]:
            seen[:] = NONE
        seen[~eligible[day]] = NONE
        seen[can[day] & (seen == NONE)] = day
        found[day] = seen
    return found


def forecast_day(
    forecaster: Forecaster, plan: ForecastPlan, day: int
) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, "B E"]]:
    """Make the forecasts of a day.

    A day is one batch, so that its forecasts have the same bits however many days there are.

    Args:
        forecaster: any.
        plan: of the market.
        day: row of the market.

    Returns:
        The stocks, and what is shown of them before it is standardised; NaN in all columns of a
        stock whose price never moved, of which a rule can say nothing.
    """
    stocks = np.flatnonzero(plan.made[day])
    histories = plan.histories(day, stocks, forecaster.context_rows)
    found = forecaster.forecast(histories, LEVELS, SEED)
    if isinstance(forecaster, EwmaWalk | HarWalk):
        return stocks, _volatilities(found, isinstance(forecaster, EwmaWalk))
    return stocks, _statistics(found, np.array([each.target[-1] for each in histories]))


def _volatilities(found: Forecast, is_one_enough: bool) -> Float[np.ndarray, "B E"]:  # noqa: FBT001 -- private
    steps = np.array(HORIZONS[:1] if is_one_enough else HORIZONS) - 1
    variance: Any = found.log_variance  # both rules have it
    return 0.5 * np.log(variance[:, steps])


def _statistics(found: Forecast, last: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B E"]:
    """Turn quantiles of prices into those of log returns, and these into `STATISTICS`."""
    steps = np.array(HORIZONS) - 1
    factor = found.quantiles[:, steps] / last[:, None, None]
    logs = np.log(np.clip(factor, 1.0 / LARGEST_FACTOR, LARGEST_FACTOR))
    low, middle, high = (logs[..., LEVELS.index(level)] for level in (0.1, 0.5, 0.9))
    flat = logs.reshape(-1, len(LEVELS))
    fall = np.array([np.interp(0.0, row, LEVELS) for row in flat]).reshape(low.shape)
    columns = logs.mean(axis=-1), low, middle, high, high - low, 1.0 - fall
    return np.stack(columns, axis=-1).reshape(len(last), -1)


@dataclass(frozen=True)
class Standard:
    """The unit of each column: mean and deviation of the forecasts made in the training span.

    Examples:
        >>> standard = Standard.fit(np.array([[1.0], [3.0], [np.nan]]), clip=5.0)
        >>> standard(np.array([[3.0], [99.0], [np.nan]])).ravel().tolist()
        [1.0, 5.0, 0.0]
    """

    mean: Float[np.ndarray, " E"]
    deviation: Float[np.ndarray, " E"]
    """1 for a column that never changes."""
    clip: float
    """Bound of what is shown, in deviations."""

    @classmethod
    def fit(cls, raw: Float[np.ndarray, "B E"], clip: float) -> "Standard":
        """Measure forecasts; rows with NaN do not count."""
        known = raw[np.isfinite(raw).all(axis=1)].astype(np.float64)
        deviation = known.std(axis=0)
        return cls(known.mean(axis=0), np.where(deviation > 0.0, deviation, 1.0), clip)

    def __call__(self, raw: Float[np.ndarray, "*shape E"]) -> Float[np.ndarray, "*shape E"]:
        """Show forecasts in this unit, float32; 0 for NaN."""
        scaled = (raw.astype(np.float64) - self.mean) / self.deviation
        return np.nan_to_num(np.clip(scaled, -self.clip, self.clip)).astype(np.float32)
