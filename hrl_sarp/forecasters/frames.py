"""Tables and arrays of users as histories, and forecasts as tables, in the names of others.

The names are those of chronos (`item_id`, `timestamp`, `target`); those of statsforecast
(`unique_id`, `ds`, `y`) are taken for them.
"""

from collections.abc import Sequence
from datetime import time
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import BAR_COLUMNS, Forecast, History
from hrl_sarp.forecasters.series import Series, next_times

ALIASES = {"item_id": "unique_id", "timestamp": "ds", "target": "y"}
"""Usual column names here -> those of statsforecast."""
CLOSE = "close"
PRICES = BAR_COLUMNS[:4]


class Names(NamedTuple):
    """The columns of a long table."""

    symbol: str | None
    """None where the table is one series."""
    time: str
    target: str


def find_columns(frame: pl.DataFrame, wanted: Names) -> Names:
    """Find the columns of symbol, time and target under their names or those of statsforecast.

    Args:
        frame: a long table.
        wanted: their names; `close` is taken for a target of the usual name that is not there.

    Returns:
        The names in the table.

    Raises:
        ForecastError: if there is no time or no target, or no symbol under a name that is not the
            usual one.
    """
    found = []
    for name in wanted:
        choices = [str(name), ALIASES.get(str(name), str(name))]
        found.append(next((choice for choice in choices if choice in frame.columns), None))
    symbol, moment, target = found
    if target is None and wanted.target == "target" and CLOSE in frame.columns:
        target = CLOSE
    # a table without the usual name of the symbol is one series; another name was meant
    is_meant = wanted.symbol is not None and wanted.symbol not in ALIASES
    symbols = [(str(wanted.symbol), symbol)] if is_meant else []
    for name, column in (*symbols, (wanted.time, moment), (wanted.target, target)):
        if column is None:
            also = f" ({ALIASES[name]} is taken for it)" if name in ALIASES else ""
            raise ForecastError(
                f"expected a column {name}{also}, found {', '.join(frame.columns)}; name yours by "
                "id_column, timestamp_column or target"
            )
    return Names(symbol, str(moment), str(target))


def series_of_table(frame: pl.DataFrame, names: Names) -> list[Series]:
    """Take a long table apart.

    Args:
        frame: rows in any order. Times with a zone are told by its clock where the market closes,
            and in UTC where it does not: a clock shows one hour twice each autumn.
        names: of its columns. Where open, high and low stand beside the close, they are bars. The
            target is the close if it is named so, or if it has its usual name and the table has no
            column close.

    Returns:
        One series for each symbol, in the order of their first rows, sorted by time.

    Raises:
        ForecastError: if times are no times, values no numbers, or a symbol or a time is missing.
    """
    dtype = frame[names.time].dtype
    if not isinstance(dtype, pl.Date | pl.Datetime):
        raise ForecastError(
            f"column {names.time}: expected dates or times, found {dtype}; convert it first"
        )
    for column in (names.symbol, names.time):
        if column is not None:
            _require_filled(frame[column])
    parts = [frame]
    if names.symbol is not None:
        parts = frame.partition_by(names.symbol, maintain_order=True)
    made = []
    for part in parts:
        symbol = "the series" if names.symbol is None else str(part[names.symbol][0])
        rows = part.sort(names.time)
        values = _numbers(rows, names.target, symbol)
        bars = _bars(rows, names.target, values, symbol)
        made.append(Series(symbol, _clock(rows[names.time]), values, bars))
    return made


def _require_filled(column: pl.Series) -> None:
    """Refuse a missing symbol or time: nobody knows where its row belongs."""
    is_missing = column.is_null()
    if column.dtype.is_float():
        is_missing |= column.is_nan()
    if is_missing.any():
        raise ForecastError(
            f"row {is_missing.arg_max()}: column {column.name}: expected a value, found none; fill "
            "or remove the row"
        )


def _clock(column: pl.Series) -> Shaped[np.ndarray, " T"]:
    """Return sorted times without their zone."""
    zone = _zone(column)
    if zone is None:
        return column.cast(pl.Datetime("us")).to_numpy()
    local = column.dt.replace_time_zone(None).cast(pl.Datetime("us")).to_numpy()
    if len(local) > 1 and Series("", local, np.zeros(len(local)), None).keeps_sessions:
        return local
    return (
        column.dt.convert_time_zone("UTC")
        .dt.replace_time_zone(None)
        .dt.cast_time_unit("us")
        .to_numpy()
    )


def _zone(column: pl.Series) -> str | None:
    return column.dtype.time_zone if isinstance(column.dtype, pl.Datetime) else None


def _as_given(one: Series, times: Shaped[np.ndarray, " h"], given: pl.Series) -> pl.Series:
    """Return times of the clock of a series in the type of a column."""
    column, zone = pl.Series(times.astype("datetime64[us]")), _zone(given)
    if zone is not None and not one.keeps_sessions:
        column = column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    elif zone is not None:
        column = column.dt.replace_time_zone(zone, ambiguous="earliest")
    is_whole = bool((column.dt.time() == time(0)).all())
    return column if given.dtype == pl.Date and not is_whole else column.cast(given.dtype)


def history_of(series: Series, steps: int, most_rows: int) -> History:
    """Cut the newest rows of a series, and say when the next ones come.

    Args:
        series: rows in the order of time.
        steps: to forecast.
        most_rows: that are kept.

    Returns:
        The history.

    Raises:
        ForecastError: if a time stands twice, or a hole lies among the kept rows.
    """
    _require_steps(steps)
    times = series.timestamps
    is_back = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if len(is_back):
        raise ForecastError(
            f"{series.symbol}: expected one row for each time, found two at {times[is_back[0]]}; "
            "keep one of them"
        )
    if len(times) < 2:
        raise ForecastError(
            f"{series.symbol}: expected at least 2 rows, found {len(times)}; give a longer history"
        )
    first = max(0, len(times) - most_rows)
    holes = np.flatnonzero(np.diff(series.stretch[first:]))
    if len(holes):
        row = first + int(holes[-1])
        raise ForecastError(
            f"{series.symbol}: row {row + 1}: expected a time soon after {times[row]}, found "
            f"{times[row + 1]}; fill the hole, or give the rows after it alone"
        )
    return series.until(len(series), next_times(series, steps), most_rows)


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise ForecastError(f"expected at least 1 step to forecast, found {steps}")


def history_of_values(name: str, values: Float[np.ndarray, "*axes"], steps: int) -> History:
    """Make a history of values alone; its times are days that are made up.

    Args:
        name: for messages.
        values: at equal distances.
        steps: to forecast.

    Returns:
        The history.

    Raises:
        ForecastError: if the values have not one axis, or no step is asked for.
    """
    target = np.asarray(values, dtype=np.float64)
    if target.ndim != 1:
        raise ForecastError(
            f"{name}: expected values along one axis, found {target.ndim} axes; give a list of "
            "series, or a table with a series in each row"
        )
    _require_steps(steps)
    days = np.datetime64("2000-01-01") + np.arange(len(target) + steps)
    return History(name, days[: len(target)], target, days[len(target) :])


def as_table(
    series: Sequence[Series],
    histories: Sequence[History],
    found: Forecast,
    names: Names,
    given: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Write a forecast as a long table.

    Args:
        series: that the histories are of.
        histories: that were forecast.
        found: their forecast.
        names: of the columns; without a symbol the table has no column for it.
        given: the table of the series, in the order of `series_of_table`; symbols and times get the
            types that they have in it.

    Returns:
        Symbol, time, `target_name`, `predictions` (the median where 0.5 is a level, else the mean)
        and a column for each level.
    """
    point = found.at(0.5) if 0.5 in found.levels else found.mean
    columns: dict[str, pl.Series] = {}
    if names.symbol is not None:
        symbols = pl.Series([one.symbol for one in histories], dtype=pl.String)
        if given is not None:
            symbols = given[names.symbol].unique(maintain_order=True)
        each = np.repeat(np.arange(len(symbols)), point.shape[1])
        columns[names.symbol] = symbols.gather(each)
    like = pl.Series(dtype=pl.Datetime("us")) if given is None else given[names.time]
    times = zip(series, histories, strict=True)
    columns[names.time] = pl.concat(_as_given(one, history.future, like) for one, history in times)
    levels = {
        str(level): found.quantiles[..., place].ravel() for place, level in enumerate(found.levels)
    }
    return pl.DataFrame(
        {
            **columns,
            "target_name": [names.target] * point.size,
            "predictions": point.ravel(),
            **levels,
        }
    )


def _bars(
    rows: pl.DataFrame, target: str, values: Float[np.ndarray, " T"], symbol: str
) -> Float[np.ndarray, "T 6"] | None:
    """Return the bars around the target, if it is the close and the table has the other prices."""
    is_usual = target in ("target", ALIASES["target"]) and CLOSE not in rows.columns
    if not set(PRICES[:3]) <= set(rows.columns) or not (target == CLOSE or is_usual):
        return None
    columns = [*(_numbers(rows, price, symbol) for price in PRICES[:3]), values]
    volume = np.zeros(len(values))
    if "volume" in rows.columns:
        volume = _numbers(rows, "volume", symbol)
    amount = volume * np.mean(columns, axis=0)
    if "amount" in rows.columns:
        amount = _numbers(rows, "amount", symbol)
    return np.column_stack([*columns, volume, amount])


def _numbers(rows: pl.DataFrame, column: str, symbol: str) -> Float[np.ndarray, " T"]:
    if not rows[column].dtype.is_numeric():
        raise ForecastError(
            f"{symbol}: column {column}: expected numbers, found {rows[column].dtype}"
        )
    return rows[column].cast(pl.Float64).to_numpy()
