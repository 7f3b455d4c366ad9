"""Reads macro series and the levels of an index: tables of days and numbers."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import RowFilter, SeriesTable
from hrl_sarp.data.quality.expressions import findings_of
from hrl_sarp.data.quality.series import REVISED, SCALES
from hrl_sarp.data.sources.files.forms.content import find_table, is_readable, stem_of
from hrl_sarp.data.sources.files.forms.headings import MEASURES, heading_key, match
from hrl_sarp.data.sources.files.forms.layouts import is_row_number
from hrl_sarp.data.sources.files.tables import (
    Read,
    not_read,
    read_table,
    refusal,
    refuse_unsorted,
    scan_table,
)
from hrl_sarp.data.store import FINDINGS_SCHEMA, MACRO_SCHEMA, PRICE_COLUMNS
from hrl_sarp.errors import MissingArtifactError

_SURELY_A_DAY = 12
"""A larger number cannot be a month, so such a date is right as it is."""
_SERIES_TABLES = ("macro", "fred_series")
_CLOSE_TABLES = {"vix_ohlc": "VIX", "sector_etf_close": "ETF_", "gold_daily": "GOLD"}
"""Table of closes -> name of its series; a name that ends in _ gets the row's symbol."""
_RELEASED = frozenset({"realtimestart", "vintagedate", "vintage", "releasedate"})
"""Headings of the day on which a value was released."""


def read_series(path: Path, names: SeriesTable, calendar: str | None) -> Read:
    """Read a table whose columns are macro series, as `MACRO_SCHEMA` without missing values.

    Where the profile declares that day and month are exchanged, dates are corrected. A note and
    the finding `day_month_exchanged` count them.
    """
    rows = read_rows(path, tuple(names.values), names.values, names.only, calendar)
    if names.day_month_swapped_until is not None:
        rows = _with_dates_corrected(rows, names, path)
    columns = [
        rows.frame.select("date", series=pl.lit(series), value=pl.col(series))
        for series in names.values
    ]
    series = pl.concat(columns).drop_nulls("value").sort("series", "date")
    refuse_unsorted(series, "series", path)
    return rows._replace(frame=series)


def read_macro(path: Path, calendar: str | None) -> Read:
    """Read macro series from a file `date, series (or series_id), value`, or from a folder.

    A file may have a column for each series instead, as FRED writes it. The folder has any of
    `macro`, `fred_series` (such files), `vix_ohlc`, `sector_etf_close` and `gold_daily`, or other
    files of series alone. The VIX close becomes VIX, sector ETFs ETF_<symbol>, gold GOLD. Missing
    values and revised indices are left out. The finding `macro_range` names the days on which open
    or close of the VIX or of gold lies outside low to high. The close is read all the same.
    """
    tables = [path]
    if not path.is_file():
        stems = (*_SERIES_TABLES, *_CLOSE_TABLES)
        tables = [table for table in (find_table(path, stem) for stem in stems) if table]
        tables = tables or [table for table in sorted(path.iterdir()) if is_readable(table)]
        if not tables:
            raise MissingArtifactError(
                f"{path}: expected a macro file or a folder with {', '.join(stems)} as .csv or "
                ".parquet, found none; name it with --macro"
            )
    parts = []
    for table in tables:
        stem = stem_of(table).lower()
        if stem in _CLOSE_TABLES and table != path:
            parts.append(_read_closes(table, _CLOSE_TABLES[stem], calendar))
        else:
            parts.append(_read_values(table, calendar))
    macro = pl.concat(part.frame for part in parts).drop_nulls("value")
    spelt = _known_spellings(macro["series"].unique().to_list())
    macro = macro.with_columns(pl.col("series").replace(spelt))
    if macro.filter(pl.col("series") == "VIX").is_empty():
        same_day = macro.filter(pl.col("series") == "VIXCLS")
        macro = macro.vstack(same_day.with_columns(series=pl.lit("VIX")))
    is_revised = pl.col("series").str.contains(REVISED)
    revised = macro.filter(is_revised)["series"].unique().sort()
    macro = macro.filter(~is_revised).sort("series", "date")
    refuse_unsorted(macro, "series", path)
    notes = tuple(note for part in parts for note in part.notes)
    if path.is_dir():
        rest = not_read(path, {table.name for table in tables}, path)
        notes += tuple(f"{path.name}: {note}" for note in rest)
    notes += tuple(f"series {theirs} is read as {ours}" for theirs, ours in spelt.items())
    if len(revised):
        notes += (f"revised macro indices left out, no vintages: {', '.join(revised)}",)
    readings = tuple(reading for part in parts for reading in part.readings)
    return Read(macro, notes, pl.concat(part.findings for part in parts), readings)


def _known_spellings(names: Sequence[str]) -> dict[str, str]:
    """Return series under another spelling -> the known name: ^VIX, vix and "Fed Funds" are known.

    Examples:
        >>> _known_spellings(["^vix", "Fed Funds", "DGS10", "GDP"])
        {'^vix': 'VIX', 'Fed Funds': 'FEDFUNDS'}
    """
    known = {heading_key(name): name for name in (*SCALES, *_CLOSE_TABLES.values())}
    free = {key: name for key, name in known.items() if name not in names}
    spelt = [name for name in sorted(names) if heading_key(name) in free]
    once = {heading_key(name): name for name in reversed(spelt)}  # a second spelling stays
    return {name: free[key] for key, name in once.items()}


def _read_values(path: Path, calendar: str | None) -> Read:
    """Read series below each other, or side by side with a column for each."""
    headings = scan_table(path).frame.columns
    released = next((text for text in headings if heading_key(text) in _RELEASED), None)
    names = _side_by_side(headings)
    if names:
        schema = {"date": pl.Date(), **dict.fromkeys(names, pl.Float64())}
        given = {name: name for name in names}
        read = read_table(path, schema, names=given, keys=("date",), calendar=calendar)
        wide = read.frame.unpivot(names, index="date", variable_name="series", value_name="value")
        read = read._replace(frame=wide.select(MACRO_SCHEMA.names()).drop_nulls("value"))
    else:
        read = read_table(path, MACRO_SCHEMA, keys=("date", "series"), calendar=calendar)
    twice = read.frame.select("date", "series").is_duplicated()
    if released and twice.any():
        row = read.frame.row(int(twice.arg_max() or 0), named=True)
        found = f"several of {row['series']} for {row['date']}"
        cure = (
            "keep the first release of each, or give all as macro_features with that day as "
            "known_at: later ones were not known then"
        )
        raise refusal(path, "one value a series and date", found, cure, released, twice)
    refuse_unsorted(read.frame, "series", path)
    return read


def _side_by_side(headings: Sequence[str]) -> list[str]:
    """Return the headings of series of a table with a column for each; none for any other."""
    others = ("series", "value", "symbol", *MEASURES)
    found = match(headings, ("date", *others))
    if "date" not in found.taken or found.taken.keys() & set(others):
        return []
    return [name for name in found.unread if not is_row_number(name)]


def _read_closes(path: Path, name: str, calendar: str | None) -> Read:
    """Read closes as series; report the rows whose open or close lies outside low to high."""
    is_many = name.endswith("_")
    symbol = {"symbol": pl.String()} if is_many else {}
    wider = {other: pl.Float64() for other in PRICE_COLUMNS if other != "close"}
    required = {"date": pl.Date(), "close": pl.Float64(), **symbol}
    read = read_table(path, required, {} if is_many else wider, calendar=calendar)
    bars = read.frame
    series = pl.lit(name) + pl.col("symbol") if is_many else pl.lit(name)
    macro = bars.select("date", series=series, value="close")
    if is_many or not set(wider) <= set(bars.columns):
        return read._replace(frame=macro)
    above = pl.max_horizontal("open", "close") > pl.col("high")
    below = pl.min_horizontal("open", "close") < pl.col("low")
    detail = pl.format("open {}, high {}, low {}, close {}; the close is read", *PRICE_COLUMNS)
    wrong = bars.filter(above | below).with_columns(symbol=pl.lit(name))
    named = findings_of(wrong, "macro_range", pl.col("open"), detail=detail)
    return read._replace(frame=macro, findings=named)


def read_rows(
    path: Path,
    columns: tuple[str, ...],
    given: dict[str, str],
    only: RowFilter | None,
    calendar: str | None,
) -> Read:
    """Read days and numbers of the rows that `only` selects; a note counts the others."""
    mark = {} if only is None else {only.column: pl.String()}
    schema = {"date": pl.Date(), **mark, **dict.fromkeys(columns, pl.Float64())}
    names = given | ({} if only is None else {only.column: only.column})
    read = read_table(path, schema, names=names, keys=("date",), calendar=calendar)
    if only is None:
        return read
    table = read.frame
    rows = table.filter(pl.col(only.column) == only.equals)
    if rows.is_empty():
        found = ", ".join(sorted(set(table[only.column].drop_nulls())))
        cure = "change `only` in `data.named_tables`"
        raise refusal(path, f"rows of {only.equals!r}", found, cure, only.column)
    left_out = table.height - rows.height
    note = f"{path.name}: {left_out} rows left out, not {only.equals}"
    return read._replace(frame=rows, notes=(*read.notes, note))


def _with_dates_corrected(rows: Read, names: SeriesTable, path: Path) -> Read:
    """Exchange day and month of the dates that the profile declares to be wrong.

    The finding counts them and has the first of them as the file states it.
    """
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
    first = {"date": changed["date"].min(), "rule": "day_month_exchanged", "count": changed.height}
    findings = [
        {"symbol": series, **first, "detail": note}
        for series in sorted(names.values)
        if changed.height
    ]
    right = pl.when(may_be_exchanged).then(pl.date(day.dt.year(), day.dt.day(), day.dt.month()))
    return rows._replace(
        frame=rows.frame.with_columns(date=right.otherwise(day)),
        notes=(*rows.notes, note),
        findings=pl.DataFrame(findings, schema=FINDINGS_SCHEMA),
    )
