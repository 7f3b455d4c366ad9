"""From which origins is forecast, and what a model has seen of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import LEVELS
from hrl_sarp.forecasters.series import Series

INTERVALS = (0.5, 0.8, 0.9)
"""Probabilities of the central intervals whose coverage is measured."""
WIDE_LEVELS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
"""The usual levels and the ends of `INTERVALS`."""
SHOWN = 5
"""Symbols that a message names."""


@dataclass(frozen=True)
class RollingPlan:
    """From which origins how far is forecast.

    Examples:
        >>> plan = RollingPlan(5, np.datetime64("2017-01-03"), season=1)
        >>> plan.every, plan.lags
        (5, 0)
    """

    horizon: int
    """Rows that are forecast."""
    start: np.datetime64
    """No origin is before it."""
    end: np.datetime64 | None = None
    """No row after it is forecast; None takes all there are."""
    every_rows: int | None = None
    """Rows from one origin to the next, on the clock of all series of a kind; None takes the
    horizon, so that no row is forecast twice."""
    season: int = 1
    """Rows over which a series changes in the scale of MASE and of tests."""
    scale_rows: int = 252
    """Rows before an origin that the scale is measured on."""
    levels: tuple[float, ...] = WIDE_LEVELS
    """Quantiles that are asked for; the usual nine must be among them."""
    batch_size: int = 64
    """Histories that a forecaster gets at once."""
    block_origins: int = 16
    """Origins of a file."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no run can do."""
        counts = self.horizon, self.every, self.season, self.scale_rows, self.batch_size
        if min(*counts, self.block_origins) < 1:
            raise ForecastError(f"expected whole numbers from 1 in the plan, found {self}")
        if not set(LEVELS) <= set(self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ForecastError(
                f"expected ascending levels with {', '.join(map(str, LEVELS))} among them, found "
                f"{list(self.levels)}"
            )

    @property
    def every(self) -> int:
        """Rows from one origin to the next."""
        return self.horizon if self.every_rows is None else self.every_rows

    @property
    def lags(self) -> int:
        """Origins after one whose forecasts overlap with its own."""
        return -(-self.horizon // self.every) - 1


@dataclass(frozen=True)
class Vintage:
    """What a model has seen, and whether it may be tested on that.

    Examples:
        >>> seen = Vintage("toto", np.datetime64("2025-05-01"), "ab12", is_release=True)
        >>> seen.has_seen(np.datetime64("2024-01-02"))
        True
    """

    model: str
    """Name in tables."""
    fitted_to: np.datetime64 | None
    """Time of the last bar that chose anything of it; None if nothing was ever fitted."""
    identity: str
    """Tells its weights and settings from others, for example a hash."""
    is_release: bool = False
    """The time is that of its release, because its makers do not say more."""
    is_allowed: bool = False
    """The user asked to test it although it has seen the window."""
    symbols: frozenset[str] | None = None
    """Symbols that it was fitted on; None if that is not known."""

    def has_seen(self, start: np.datetime64) -> bool:
        """Say whether it was fitted on rows after the first origin.

        Args:
            start: the first origin.

        Returns:
            True if the test is contaminated.
        """
        return self.fitted_to is not None and bool(start < self.fitted_to)

    @property
    def stamp(self) -> str:
        """What it has seen, in words."""
        if self.fitted_to is None:
            return "never fitted"
        day = moment(self.fitted_to).removesuffix(" 23:59")
        return f"released on {day}" if self.is_release else f"fitted on data up to {day}"


@dataclass(frozen=True)
class Origin:
    """A time from which the series of a kind are forecast.

    Examples:
        >>> Origin("1-day bars in sessions", np.datetime64("2017-01-03"), ((0, 4310),)).rows
        ((0, 4310),)
    """

    kind: str
    time: np.datetime64
    rows: tuple[tuple[int, int], ...]
    """Series, as a place in their list, and its row of that time."""


def find_origins(series: Sequence[Series], plan: RollingPlan, least_rows: int) -> list[Origin]:
    """Choose the origins of every kind of series.

    The clock of a kind ticks wherever one of its series has a row. A series takes part where it has
    a row at the origin, enough rows before and all rows after it, and no hole among them.

    Args:
        series: with different symbols.
        plan: window and steps.
        least_rows: rows that a history must have, for all forecasters.

    Returns:
        Origins by kind, in the order of time.

    Raises:
        ForecastError: if symbols are not different, or no series takes part anywhere.
    """
    symbols = [one.symbol for one in series]
    if not symbols or len(set(symbols)) < len(symbols):
        raise ForecastError(f"expected series with different symbols, found {symbols}")
    found = []
    for kind in dict.fromkeys(one.kind for one in series):
        members = [i for i, one in enumerate(series) if one.kind == kind]
        clock = np.unique(np.concatenate([_window(series[i], plan) for i in members]))
        for at in clock[:: plan.every]:
            rows = [(i, _row_of(series[i], at, plan, least_rows)) for i in members]
            known = tuple((i, row) for i, row in rows if row is not None)
            if known:
                found.append(Origin(kind, at, known))
    if not found:
        spans = ", ".join(
            f"{one.symbol} {moment(one.timestamps[0])} to {moment(one.timestamps[-1])}"
            for one in series[:SHOWN]
        )
        raise ForecastError(
            f"no origin from {moment(plan.start)} on has {least_rows} rows up to it and "
            f"{plan.horizon} after it without a hole ({spans}); move the start, or give longer "
            "series"
        )
    return found


def moment(time: np.datetime64) -> str:
    """Write a time without what is 0.

    Args:
        time: in any unit.

    Returns:
        A date, with the time of day if that is not midnight.

    Examples:
        >>> moment(np.datetime64("2024-01-02T00:00")), moment(np.datetime64("2024-01-02T09:30"))
        ('2024-01-02', '2024-01-02 09:30')
    """
    return str(time.astype("datetime64[m]")).replace("T", " ").removesuffix(" 00:00")


def _window(series: Series, plan: RollingPlan) -> np.ndarray:
    times = series.timestamps
    inside = times >= plan.start
    return times[inside if plan.end is None else inside & (times < plan.end)]


def _row_of(series: Series, at: np.datetime64, plan: RollingPlan, least_rows: int) -> int | None:
    """Return the row of a time, if the series can be forecast from there."""
    times, stretch = series.timestamps, series.stretch
    row = int(np.searchsorted(times, at))
    last = row + plan.horizon
    if last >= len(times) or times[row] != at or stretch[last] != stretch[row]:
        return None
    if plan.end is not None and times[last] > plan.end:
        return None
    begin = int(np.searchsorted(stretch, stretch[row]))
    return row if row + 1 - begin >= least_rows else None
