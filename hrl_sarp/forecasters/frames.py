"""Tables and arrays of users as histories, and forecasts as tables, in the names of others.

The names are those of chronos (`item_id`, `timestamp`, `target`); those of statsforecast
(`unique_id`, `ds`, `y`) are taken for them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

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
        ForecastError: if there is no time or no target.
    """
    found = []
    for name in wanted:
        choices = [str(name), ALIASES.get(str(name), str(name))]
        found.append(next((choice for choice in choices if choice in frame.columns), None))
    symbol, time, target = found
    if target is None and wanted.target == "target" and CLOSE in frame.columns:
        target = CLOSE
    for name, column in ((wanted.time, time), (wanted.target, target)):
        if column is None:
            raise ForecastError(
                f"expected a column {name} ({ALIASES.get(name, name)} is taken for it), found "
                f"{', '.join(frame.columns)}; name yours by id_column, timestamp_column or target"
            )
    return Names(symbol, str(time), str(target))


def series_of_table(frame: pl.DataFrame, names: Names) -> list[Series]:
    """Take a long table apart.

    Args:
        frame: rows in any order.
        names: of its columns. Where open, high and low stand beside the target, they are bars.

    Returns:
        One series for each symbol, in the order of their first rows, sorted by time.

    Raises:
        ForecastError: if times are no times or values no numbers.
    """
    if not frame[names.time].dtype.is_temporal():
        raise ForecastError(
            f"column {names.time}: expected dates or times, found {frame[names.time].dtype}; "
            "convert it first"
        )
    parts = [frame]
    if names.symbol is not None:
        parts = frame.partition_by(names.symbol, maintain_order=True)
    made = []
    for part in parts:
        symbol = "the series" if names.symbol is None else str(part[names.symbol][0])
        rows = part.sort(names.time)
        times = rows[names.time].cast(pl.Datetime("us")).to_numpy()
        values = _numbers(rows, names.target, symbol)
        made.append(Series(symbol, times, values, _bars(rows, values, symbol)))
    return made


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
    if steps < 1:
        raise ForecastError(f"expected at least 1 step to forecast, found {steps}")
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


def history_of_values(name: str, values: Float[np.ndarray, " T"], steps: int) -> History:
    """Make a history of values alone; its times are days that are made up.

    Args:
        name: for messages.
        values: at equal distances.
        steps: to forecast.

    Returns:
        The history.
    """
    days = np.datetime64("2000-01-01") + np.arange(len(values) + steps)
    target = np.asarray(values, dtype=np.float64)
    return History(name, days[: len(values)], target, days[len(values) :])


def as_table(histories: Sequence[History], found: Forecast, names: Names) -> pl.DataFrame:
    """Write a forecast as a long table.

    Args:
        histories: that were forecast.
        found: their forecast.
        names: of the columns; without a symbol the table has no column for it.

    Returns:
        Symbol, time, `target_name`, `predictions` (the median where 0.5 is a level, else the mean)
        and a column for each level.
    """
    point = found.at(0.5) if 0.5 in found.levels else found.mean
    steps = point.shape[1]
    symbols = {} if names.symbol is None else {names.symbol: [one.symbol for one in histories]}
    return pl.DataFrame(
        {
            **{name: np.repeat(values, steps) for name, values in symbols.items()},
            names.time: np.concatenate([one.future for one in histories]),
            "target_name": [names.target] * point.size,
            "predictions": point.ravel(),
            **{
                str(level): found.quantiles[..., place].ravel()
                for place, level in enumerate(found.levels)
            },
        }
    )


def _bars(
    rows: pl.DataFrame, values: Float[np.ndarray, " T"], symbol: str
) -> Float[np.ndarray, "T 6"] | None:
    """Return the bars around the target, if the table has the other prices."""
    if not set(PRICES[:3]) <= set(rows.columns):
        return None
    columns = [*(_numbers(rows, price, symbol) for price in PRICES[:3]), values]
    volume = np.zeros(len(values))
    if "volume" in rows.columns:
        volume = _numbers(rows, "volume", symbol)
    return np.column_stack([*columns, volume, volume * np.mean(columns, axis=0)])


def _numbers(rows: pl.DataFrame, column: str, symbol: str) -> Float[np.ndarray, " T"]:
    if not rows[column].dtype.is_numeric():
        raise ForecastError(
            f"{symbol}: column {column}: expected numbers, found {rows[column].dtype}"
        )
    return rows[column].cast(pl.Float64).to_numpy()
