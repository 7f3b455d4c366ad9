"""Series of bars for forecasters: read from files or a market, their holes, and the times to come.

Prices are adjusted where a file has adjusted closes. Windows and histories never cross from one
series to another, nor a hole.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped
from loguru import logger

from hrl_sarp.data.bars import Bars, read_bars
from hrl_sarp.encoders.windows.cut import bar_spacing
from hrl_sarp.errors import DataError, MissingArtifactError
from hrl_sarp.forecasters.contract import CLOSE, History

SUFFIXES = (".csv", ".parquet")
"""Files of a folder that are read."""
ADJUSTED = "adj_close"
SHOWN = 5
"""Moves that a message names."""
_DAY = np.timedelta64(1, "D")
_WEEK = np.timedelta64(7, "D")
_UNITS = (
    (_WEEK, "week"),
    (_DAY, "day"),
    (np.timedelta64(1, "h"), "hour"),
    (np.timedelta64(1, "m"), "minute"),
    (np.timedelta64(1, "s"), "second"),
)
LONGEST_CLOSING = np.timedelta64(5, "D")
"""Longer gaps of a series that keeps sessions are holes: a weekend with two holidays is shorter."""
MOST_MISSING = 3
"""Bars in a row that a series without closings may lack without a hole."""
PATTERN_WEEKS = 4
"""Weeks at the end of a series whose weekdays and times of day its next bars are taken to keep."""
SATURDAY = 5
YEAR_OF_MONTHS, MOST = 12, 0.75
"""Monthly rows that are looked at, and the part of them that must be ends of months."""
JUMP = np.log(1.8)
"""A close that moves by more between two bars moves as by a split."""


@dataclass(frozen=True)
class Series:
    """One series of bars, or of values alone, in the order of time.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(30)
        >>> Series("A", days, np.linspace(1.0, 2.0, 30), None).kind
        '1-day bars around the clock'
    """

    symbol: str
    timestamps: Shaped[np.ndarray, " T"]
    """Strictly ascending `datetime64`."""
    target: Float[np.ndarray, " T"]
    """What is forecast: closes, where there are bars."""
    bars: Float[np.ndarray, "T 6"] | None
    """Columns `contract.BAR_COLUMNS`."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.timestamps)

    @cached_property
    def spacing(self) -> np.timedelta64:
        """The most common step between two rows."""
        return bar_spacing(self.timestamps)

    @cached_property
    def keeps_sessions(self) -> bool:
        """Whether its market closes: fewer than every second Saturday has a bar.

        Bars within a day that reach no Saturday tell it by a gap between two days.
        """
        if self.spacing > _DAY:
            return False
        all_days = self.timestamps.astype("datetime64[D]")
        days = np.unique(all_days)
        saturdays = int(np.busday_count(days[0], days[-1] + 1, weekmask="Sat"))
        if not saturdays and self.spacing < _DAY:
            is_gap = np.diff(self.timestamps) > (MOST_MISSING + 1) * self.spacing
            return bool((is_gap & (np.diff(all_days) > np.timedelta64(0))).any())
        return not saturdays or int((_weekday(days) == SATURDAY).sum()) < saturdays / 2

    @property
    def kind(self) -> str:
        """Class of the series in reports, from its times alone."""
        clock = "in sessions" if self.keeps_sessions else "around the clock"
        return f"{spacing_words(self.spacing)} bars {clock}"

    @cached_property
    def stretch(self) -> Int[np.ndarray, " T"]:
        """Number of the run of rows without a hole, from 0."""
        longest = (MOST_MISSING + 1) * self.spacing
        if self.keeps_sessions or self.spacing > _DAY:
            longest = max(LONGEST_CLOSING, 2 * self.spacing)
        return np.cumsum(np.diff(self.timestamps, prepend=self.timestamps[:1]) > longest)

    def until(self, stop: int, future: Shaped[np.ndarray, " h"], most_rows: int) -> History:
        """Cut a history that ends before a row.

        Args:
            stop: first row that is not part of it.
            future: times of the steps to forecast.
            most_rows: the newest rows that it keeps, at most. It begins after the last hole.

        Returns:
            The history; it shares memory with the series.
        """
        begin = int(np.searchsorted(self.stretch, self.stretch[stop - 1]))
        rows = slice(max(begin, stop - most_rows), stop)
        bars = None if self.bars is None else self.bars[rows]
        return History(self.symbol, self.timestamps[rows], self.target[rows], future, bars)


def read_series(root: Path) -> list[Series]:
    """Read a file of bars, or all of a folder.

    Args:
        root: CSV or parquet, or a folder of such files; one file may hold several symbols. Where a
            file has adjusted closes, its prices are multiplied by adjusted close over close, and
            its volumes divided by it.

    Returns:
        The series, by symbol.

    Raises:
        MissingArtifactError: if there is no such file or folder.
        DataError: if a file is no file of bars, or two files hold the same symbol.
    """
    if not root.exists():
        raise MissingArtifactError(
            f"{root} does not exist; name a file of bars or a folder of them"
        )
    files = [root]
    if root.is_dir():
        files = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{root}: expected files that end with {' or '.join(SUFFIXES)}, found none")
    found: dict[str, tuple[Series, Path]] = {}
    for path in files:
        for series in series_of(read_bars(path, None, (ADJUSTED,))):
            if series.symbol in found:
                raise DataError(
                    f"{path}: {series.symbol} is also in {found[series.symbol][1]}; keep one of "
                    "the files, or join their rows"
                )
            found[series.symbol] = series, path
    return [found[symbol][0] for symbol in sorted(found)]


def series_of(bars: Bars) -> list[Series]:
    """Take the instruments of bars apart.

    Args:
        bars: of any number of instruments; `own` may hold adjusted closes.

    Returns:
        A series for each instrument. A missing volume is 0, and so is its amount.
    """
    factor = np.ones(len(bars))
    if ADJUSTED in bars.own:
        adjusted = bars.own[ADJUSTED]
        is_known = np.isfinite(adjusted) & (adjusted > 0)
        if not is_known.all():
            at = int(np.flatnonzero(~is_known)[0])
            raise DataError(
                f"{bars.file}: {bars.instruments[bars.instrument[at]]}, {bars.timestamps[at]}: "
                f"expected an adjusted close above 0, found {adjusted[at]}; correct it, or remove "
                f"the column {ADJUSTED} to read the prices as they are"
            )
        factor = adjusted / bars.close
    table = bar_table(bars, factor)
    edges = np.searchsorted(bars.instrument, np.arange(len(bars.instruments) + 1))
    parts = [slice(*edges[i : i + 2]) for i in range(len(bars.instruments))]
    for name, rows in zip(bars.instruments, parts, strict=True):
        if rows.stop - rows.start < 2:
            raise DataError(
                f"{bars.file}: {name}: expected at least 2 bars, found one at "
                f"{bars.timestamps[rows.start]}; give more of its bars, or remove it"
            )
    made = [
        Series(name, bars.timestamps[rows], table[rows, CLOSE], table[rows])
        for name, rows in zip(bars.instruments, parts, strict=True)
    ]
    _warn_of_jumps(made, bars.file)
    return made


def bar_table(
    bars: Bars, factor: Float[np.ndarray, " N"] | float = 1.0
) -> Float[np.ndarray, "N 6"]:
    """Arrange bars in the columns that forecasters read.

    Args:
        bars: of any number of instruments.
        factor: adjusted price over price.

    Returns:
        Columns `contract.BAR_COLUMNS`. A missing volume is 0, and so is its amount.
    """
    prices = np.column_stack([bars.open, bars.high, bars.low, bars.close])
    volume = np.zeros(len(bars)) if bars.volume is None else bars.volume
    amount = volume * prices.mean(axis=1)
    whole = np.broadcast_to(factor, len(bars))
    return np.column_stack([prices * whole[:, None], volume / whole, amount])


def content_hash(series: Sequence[Series]) -> str:
    """Return a hash of symbols, times and values."""
    digest = hashlib.sha256()
    for one in series:
        values = one.target if one.bars is None else one.bars
        digest.update(one.symbol.encode())
        digest.update(one.timestamps.astype("datetime64[us]").tobytes())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def next_times(series: Series | History, n_steps: int) -> Shaped[np.ndarray, " h"]:
    """Say when the next bars come.

    Args:
        series: what has been so far.
        n_steps: number of times.

    Returns:
        Times after the last row. A series in sessions keeps the weekdays of its last weeks, and of
        each weekday the times of its fullest day, the newest of several; holidays to come are not
        known. Bars of months, quarters or years keep their day of the month, or its end.
    """
    times = series.timestamps
    whole = series if isinstance(series, Series) else Series("", times, series.target, None)
    months = round(whole.spacing / _DAY / 30.44)
    if whole.spacing >= 28 * _DAY and abs(whole.spacing / _DAY - 30.44 * months) < 3 * months:
        return _next_months(times, months, n_steps)
    if not whole.keeps_sessions:
        return times[-1] + whole.spacing * (1 + np.arange(n_steps))
    offsets = _week_of(times)
    weeks = -(-n_steps // len(offsets)) + 2
    mondays = _monday(times[-1:]) + _WEEK * np.arange(weeks)
    ahead = (mondays[:, None] + offsets).ravel()
    return ahead[ahead > times[-1]][:n_steps].astype(times.dtype)


def _week_of(times: Shaped[np.ndarray, " T"]) -> Shaped[np.ndarray, " W"]:
    """Return the times of a week in sessions, after the beginning of its Monday."""
    recent = times[times > times[-1] - PATTERN_WEEKS * _WEEK]
    days, counts = np.unique(recent.astype("datetime64[D]"), return_counts=True)
    fullest = np.lexsort([days, counts])  # the last one is the newest of the fullest days
    of_weekday = {int(_weekday(days[i : i + 1])[0]): days[i] for i in fullest}
    if days[-1] - days[0] < _WEEK:  # too short to show which weekdays are closed
        of_weekday = dict.fromkeys(range(SATURDAY), days[fullest[-1]]) | of_weekday
    found = [
        recent[recent.astype("datetime64[D]") == day] - day + weekday * _DAY
        for weekday, day in of_weekday.items()
    ]
    return np.sort(np.concatenate(found))


def _next_months(
    times: Shaped[np.ndarray, " T"], months: int, n_steps: int
) -> Shaped[np.ndarray, " h"]:
    """Go on by months: at their ends or last weekdays, if most rows are there, else by the day."""
    day = times[-1].astype("datetime64[D]")
    known = times[-YEAR_OF_MONTHS:].astype("datetime64[D]")
    ends = _month_ends(known.astype("datetime64[M]"))
    coming = day.astype("datetime64[M]") + months * (1 + np.arange(n_steps))
    is_end, is_weekday_end = known == ends, known == _weekday_before(ends)
    if max(is_end.mean(), is_weekday_end.mean()) >= MOST:
        found = _month_ends(coming)
        found = found if is_end.mean() >= is_weekday_end.mean() else _weekday_before(found)
    else:
        in_month = day - day.astype("datetime64[M]").astype("datetime64[D]")
        found = np.minimum(coming.astype("datetime64[D]") + in_month, _month_ends(coming))
    return (found + (times[-1] - day)).astype(times.dtype)


def _month_ends(months: Shaped[np.ndarray, " M"]) -> Shaped[np.ndarray, " M"]:
    return (months + 1).astype("datetime64[D]") - _DAY


def _weekday_before(days: Shaped[np.ndarray, " D"]) -> Shaped[np.ndarray, " D"]:
    """Return the days themselves, or the Fridays before weekends."""
    return np.busday_offset(days, 0, roll="backward")


def spacing_words(spacing: np.timedelta64) -> str:
    """Return a spacing in words, for example `15-minute`."""
    for length, word in _UNITS:
        if spacing >= length and spacing % length == np.timedelta64(0):
            return f"{int(spacing / length)}-{word}"
    return str(spacing)


def _weekday(days: Shaped[np.ndarray, " D"]) -> Int[np.ndarray, " D"]:
    """Number the weekdays, Monday as 0."""
    return (days.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _monday(times: Shaped[np.ndarray, " T"]) -> Shaped[np.ndarray, " T"]:
    """Return the beginning of the Monday of each time's week."""
    days = times.astype("datetime64[D]")
    return days - _weekday(days) * _DAY


def _warn_of_jumps(series: Sequence[Series], file: str) -> None:
    """Say where prices move as by a split; they are taken as they are, for crashes look alike."""
    found = []
    for one in series:
        is_jump = np.abs(np.diff(np.log(one.target))) > JUMP
        rows = np.flatnonzero(is_jump & (np.diff(one.stretch) == 0))
        found += [f"{one.symbol} {one.timestamps[row + 1].astype('datetime64[m]')}" for row in rows]
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        logger.warning(
            f"{file}: {len(found)} closes move by a factor of 1.8 or more between two bars, as "
            f"by a split that prices are not adjusted for: {', '.join(found[:SHOWN])}{more}; they "
            "are taken as they are"
        )
