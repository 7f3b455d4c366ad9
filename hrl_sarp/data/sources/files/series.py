"""The user's index and macro series, under the standard names or under those of the profile.

Dates stay reference dates; release lags are applied when the series are joined to the market.
"""

from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import IndexTable, RowFilter, SeriesTable
from hrl_sarp.data.quality.rules import findings_of
from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.data.sources.files.tables import (
    Read,
    find_table,
    read_table,
    refusal,
    refuse_unsorted,
)
from hrl_sarp.data.store import FINDINGS_SCHEMA, INDEX_SCHEMA, MACRO_SCHEMA, PRICE_COLUMNS
from hrl_sarp.errors import MissingArtifactError

EXCHANGED = "day_month_exchanged"
"""Finding: how many dates of a series were put right; dated at the first as found."""
_SURELY_A_DAY = 12
"""A larger number cannot be a month, so the date was not exchanged."""

_SERIES_TABLES = ("macro", "fred_series")
_CLOSE_TABLES = {"vix_ohlc": "VIX", "sector_etf_close": "ETF_", "gold_daily": "GOLD"}
"""Table of closes -> its series; one that ends in _ is followed by the symbol of the row."""
_CLOSE = {"date": pl.Date(), "close": pl.Float64()}


def read_index(path: Path, names: IndexTable) -> Read:
    """Read the levels of the benchmark; rows without a level are dropped."""
    rows = _read_rows(path, {"close": names.close}, names.only)
    index = rows.frame.select(INDEX_SCHEMA.names()).drop_nulls()
    refuse_unsorted(index.with_columns(symbol=pl.lit("index")), "symbol", path)
    return Read(index, rows.notes)


def read_series(path: Path, names: SeriesTable) -> Read:
    """Read a table whose columns are macro series, as `MACRO_SCHEMA` without missing values.

    Dates whose day and month the profile declares to be exchanged are corrected, counted in a note
    and named as findings (`day_month_exchanged`).
    """
    rows = _read_rows(path, names.values, names.only)
    if names.day_month_swapped_until is not None:
        rows = _put_right(rows, names, path)
    columns = [
        rows.frame.select("date", series=pl.lit(series), value=pl.col(series))
        for series in names.values
    ]
    series = pl.concat(columns).drop_nulls("value").sort("series", "date")
    refuse_unsorted(series, "series", path)
    return rows._replace(frame=series)


def read_macro(path: Path) -> Read:
    """Read macro series from a file `date, series (or series_id), value`, or from a folder.

    The folder has any of `macro`, `fred_series` (such files), `vix_ohlc`, `sector_etf_close` and
    `gold_daily`. The VIX close becomes VIX, sector ETFs ETF_<symbol>, gold GOLD. Missing values and
    revised indices are left out. The finding `macro_range` names the days on which the range of the
    VIX or of gold does not contain its prices; only closes are read, so nothing follows from it.
    """
    tables = [path]
    if not path.is_file():
        stems = (*_SERIES_TABLES, *_CLOSE_TABLES)
        tables = [table for table in (find_table(path, stem) for stem in stems) if table]
        if not tables:
            raise MissingArtifactError(
                f"{path}: expected a macro file or a folder with {', '.join(stems)} as .csv or "
                ".parquet, found none; name it with --macro"
            )
    parts = [
        _read_closes(table, _CLOSE_TABLES[table.stem])
        if table.stem in _CLOSE_TABLES and table != path
        else _read_long(table)
        for table in tables
    ]
    macro = pl.concat(part.frame for part in parts).drop_nulls("value")
    if macro.filter(pl.col("series") == "VIX").is_empty():
        same_day = macro.filter(pl.col("series") == "VIXCLS")
        macro = macro.vstack(same_day.with_columns(series=pl.lit("VIX")))
    is_revised = pl.col("series").str.contains(REVISED)
    revised = macro.filter(is_revised)["series"].unique().sort()
    macro = macro.filter(~is_revised).sort("series", "date")
    refuse_unsorted(macro, "series", path)
    notes: tuple[str, ...] = ()
    if len(revised):
        notes = (f"revised macro indices left out, no vintages: {', '.join(revised)}",)
    return Read(macro, notes, pl.concat(part.findings for part in parts))


def _read_long(path: Path) -> Read:
    keys = ("date", "series")
    macro = read_table(path, MACRO_SCHEMA, keys=keys)
    refuse_unsorted(macro, "series", path)
    return Read(macro)


def _read_closes(path: Path, name: str) -> Read:
    """Read a table of closes as series, and name the rows whose range contradicts itself."""
    is_many = name.endswith("_")
    symbol = {"symbol": pl.String()} if is_many else {}
    wider = {other: pl.Float64() for other in PRICE_COLUMNS if other != "close"}
    bars = read_table(path, _CLOSE | symbol, {} if is_many else wider)
    series = pl.lit(name) + pl.col("symbol") if is_many else pl.lit(name)
    macro = bars.select("date", series=series, value="close")
    if is_many or not set(wider) <= set(bars.columns):
        return Read(macro)
    above = pl.max_horizontal("open", "close") > pl.col("high")
    below = pl.min_horizontal("open", "close") < pl.col("low")
    told = pl.format("open {}, high {}, low {}, close {}; the close is read", *PRICE_COLUMNS)
    wrong = bars.filter(above | below).with_columns(symbol=pl.lit(name))
    return Read(macro, (), findings_of(wrong, "macro_range", pl.col("open"), detail=told))


def _read_rows(path: Path, names: dict[str, str], only: RowFilter | None) -> Read:
    """Read days and numbers of the rows that are wanted; a note says how many are left out."""
    mark = {} if only is None else {only.column: pl.String()}
    numbers = dict.fromkeys(names, pl.Float64())
    table = read_table(path, {"date": pl.Date(), **mark, **numbers}, names=names, keys=("date",))
    if only is None:
        return Read(table)
    rows = table.filter(pl.col(only.column) == only.equals)
    if rows.is_empty():
        found = ", ".join(sorted(set(table[only.column].drop_nulls())))
        cure = "change `only` in `data.named_tables`"
        raise refusal(path, f"rows of {only.equals!r}", found, cure, only.column)
    left_out = table.height - rows.height
    return Read(rows, (f"{path.name}: {left_out} rows left out, not {only.equals}",))


def _put_right(rows: Read, names: SeriesTable, path: Path) -> Read:
    """Correct the dates that the profile declares to have day and month exchanged."""
    day = pl.col("date")
    may_be_exchanged = (
        (day <= pl.lit(names.day_month_swapped_until))
        & (day.dt.day() <= _SURELY_A_DAY)
        & (day.dt.day() != day.dt.month())
    )
    changed = rows.frame.filter(may_be_exchanged)
    note = (
        f"{path.name}: day and month exchanged back in {changed.height} of {rows.frame.height} "
        f"dates up to {names.day_month_swapped_until}, as the profile declares"
    )
    first = {"date": changed["date"].min(), "rule": EXCHANGED, "count": changed.height}
    findings = [
        {"symbol": series, **first, "detail": note}
        for series in sorted(names.values)
        if changed.height
    ]
    right = pl.when(may_be_exchanged).then(pl.date(day.dt.year(), day.dt.day(), day.dt.month()))
    return Read(
        rows.frame.with_columns(date=right.otherwise(day)),
        (*rows.notes, note),
        pl.DataFrame(findings, schema=FINDINGS_SCHEMA),
    )
