"""Reads the user's folder of files as `RawData`: prices, sectors, series and membership.

`NamedTables` of the market profile name the tables and columns. `STANDARD` holds the names of a
folder without such a profile. Rows are read unchanged, and validation checks them later.
`RawData.import_findings` name the rows that could not be read. Series keep their reference dates,
because the market adds the release delays.
"""

from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import (
    IndexTable,
    NamedTables,
    PricesTable,
    RowFilter,
    SectorsTable,
    SeriesTable,
)
from hrl_sarp.data.quality.rules import LEFT_OUT, findings_of
from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.data.sources.files.prices import read_prices
from hrl_sarp.data.sources.files.tables import (
    Read,
    find_table,
    read_table,
    refusal,
    refuse_repeated,
    refuse_unsorted,
)
from hrl_sarp.data.store import (
    FINDINGS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    MEMBERSHIP_SCHEMA,
    PRICE_COLUMNS,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.errors import MissingArtifactError

STANDARD = NamedTables(
    survivorship="unknown: the files have no membership table, so delisted stocks may be missing",
    prices=PricesTable(table="prices", columns={}),
    sectors=SectorsTable(
        table="sectors", symbol="symbol", sector="sector", renamed_symbols={}, sectors={}
    ),
    index=IndexTable(table="index", close="close", only=None),
    series=[],
)
"""The names that README gives to tables and columns."""
SIBLING_MACRO_FOLDER = "us_macro"
_SURELY_A_DAY = 12
"""A larger number cannot be a month, so such a date is right as it is."""

_SERIES_TABLES = ("macro", "fred_series")
_CLOSE_TABLES = {"vix_ohlc": "VIX", "sector_etf_close": "ETF_", "gold_daily": "GOLD"}
"""Table of closes -> name of its series; a name that ends in _ gets the row's symbol."""


def load(
    input_path: Path, macro_path: Path | None = None, names: NamedTables | None = None
) -> RawData:
    """Load a folder of the user's files, or one file of prices with the other tables beside it.

    The folder holds `prices.parquet` or `.csv` (or one file per symbol), `sectors` and optionally
    `index` (date, close), `membership`, `macro` and `actions` (see `apply_actions`). A .csv or
    .csv.gz without a column `symbol` is the download of the symbol in its file name. With standard
    names and without a `macro_path`, the reader takes `macro` of the folder or the folder
    `us_macro` beside it.

    The names of the market profile apply if the input has their table of prices. Otherwise the
    standard names apply. The notes say what was read, left out and corrected.
    """
    if not input_path.exists():
        raise MissingArtifactError(
            f"{input_path} does not exist; give a file or folder of prices with --input"
        )
    if names is not None:
        is_folder, stem = input_path.is_dir(), names.prices.table
        has_prices = find_table(input_path, stem) if is_folder else input_path.stem == stem
        names = names if has_prices else None
    names = names or STANDARD
    folder = input_path if input_path.is_dir() else input_path.parent
    prices, adjustment = read_prices(input_path, names.prices)
    index = _read_index(folder, names)
    macro = _read_all_series(input_path, folder, names, macro_path)
    membership_path = find_table(folder, "membership")
    findings = pl.concat([prices.findings, macro.findings])
    notes = (*prices.notes, *index.notes, *macro.notes)
    survivorship = names.survivorship
    if names is not STANDARD:
        notes = ("tables read under the names of the market profile", *notes)
    elif membership_path:
        survivorship = "as in the files: stocks that they lack are not traded"
    return RawData(
        bars=prices.frame,
        sectors=_read_sectors(folder, names.sectors),
        macro=macro.frame,
        index=index.frame,
        source="files",
        adjustment=adjustment,
        survivorship=survivorship,
        membership=_read_membership(membership_path) if membership_path else None,
        notes=notes + _left_out(findings),
        import_findings=findings if findings.height else None,
    )


def _left_out(findings: pl.DataFrame) -> tuple[str, ...]:
    """Return the note that counts the rows left out by each rule and names the lost symbols."""
    left_out = findings.filter(pl.col("rule").is_in(sorted(LEFT_OUT)))
    if left_out.is_empty():
        return ()
    counts = left_out.group_by("rule").len().sort("rule").iter_rows()
    gone = left_out.filter(pl.col("rule") == "no_usable_row")["symbol"].sort().to_list()
    names = f"; without any usable row: {', '.join(gone)}" if gone else ""
    listed = ", ".join(f"{count} {rule}" for rule, count in counts)
    return (f"left out: {listed}{names}; validate-data names each",)


def _table(folder: Path, stem: str) -> Path:
    path = find_table(folder, stem)
    if path is None:
        raise MissingArtifactError(
            f"{folder}: expected {stem}.csv or {stem}.parquet (docs/your_data.md lists them, "
            "`data.named_tables` of a market profile names others), found neither; add the table"
        )
    return path


def _read_sectors(folder: Path, names: SectorsTable) -> pl.DataFrame:
    path = _table(folder, names.table)
    theirs = {"symbol": names.symbol, "sector": names.sector}
    sectors = read_table(path, SECTORS_SCHEMA, names=theirs, keys=("symbol",)).drop_nulls("sector")
    unknown = sorted(set(sectors["sector"]) - set(names.sectors))
    if names.sectors and unknown:
        raise refusal(
            path,
            f"one of {', '.join(sorted(names.sectors))}",
            ", ".join(unknown),
            "map it in `data.named_tables.sectors.sectors`",
            names.sector,
        )
    sectors = sectors.with_columns(
        pl.col("symbol").replace(names.renamed_symbols), pl.col("sector").replace(names.sectors)
    )
    refuse_repeated(sectors["symbol"], path)
    return sectors.sort("symbol")


def _read_index(folder: Path, names: NamedTables) -> Read:
    """Read the levels of the benchmark; rows without a level are dropped."""
    table = names.index
    if table is None or (names is STANDARD and find_table(folder, table.table) is None):
        return Read(INDEX_SCHEMA.to_frame())
    path = _table(folder, table.table)
    rows = _read_rows(path, {"close": table.close}, table.only)
    index = rows.frame.select(INDEX_SCHEMA.names()).drop_nulls()
    refuse_unsorted(index.with_columns(symbol=pl.lit("index")), "symbol", path)
    return Read(index, rows.notes)


def _read_all_series(
    input_path: Path, folder: Path, names: NamedTables, macro_path: Path | None
) -> Read:
    """Read the series of the named tables, then those of `macro_path` or of a default place."""
    parts = [_read_series(_table(folder, table.table), table) for table in names.series]
    path, where = macro_path, ""
    if path is None and names is STANDARD:
        sibling = input_path.resolve().parent / SIBLING_MACRO_FOLDER
        path, where = find_table(folder, "macro"), "beside the prices"
        if path is None and sibling.is_dir():
            path, where = sibling, "beside the input"
    if path is not None:
        further = _read_macro(path)
        own = {series for table in names.series for series in table.values}
        twice = sorted(own & set(further.frame["series"]))
        notes = further.notes
        if where:
            notes = (f"macro series found {where}: {path.name}", *notes)
        if twice:
            notes = (f"series {', '.join(twice)} of {path.name} left out: named table", *notes)
        frame = further.frame.filter(~pl.col("series").is_in(sorted(own)))
        parts.append(further._replace(frame=frame, notes=notes))
    if not parts:
        return Read(MACRO_SCHEMA.to_frame(), ("no macro series: none given, none found",))
    return Read(
        pl.concat(part.frame for part in parts).sort("series", "date"),
        tuple(note for part in parts for note in part.notes),
        pl.concat(part.findings for part in parts),
    )


def _read_membership(path: Path) -> pl.DataFrame:
    membership = read_table(path, MEMBERSHIP_SCHEMA, keys=("symbol", "start"))
    is_wrong = (membership["end"] < membership["start"]).fill_null(value=False)
    if is_wrong.any():
        row = membership.filter(is_wrong).row(0, named=True)
        found = f"{row['symbol']} {row['start']} to {row['end']}"
        raise refusal(path, "a date not before start", found, "correct the row", "end", is_wrong)
    return membership.sort("symbol", "start")


def _read_series(path: Path, names: SeriesTable) -> Read:
    """Read a table whose columns are macro series, as `MACRO_SCHEMA` without missing values.

    Where the profile declares that day and month are exchanged, dates are corrected. A note and
    the finding `day_month_exchanged` count them.
    """
    rows = _read_rows(path, names.values, names.only)
    if names.day_month_swapped_until is not None:
        rows = _with_dates_corrected(rows, names, path)
    columns = [
        rows.frame.select("date", series=pl.lit(series), value=pl.col(series))
        for series in names.values
    ]
    series = pl.concat(columns).drop_nulls("value").sort("series", "date")
    refuse_unsorted(series, "series", path)
    return rows._replace(frame=series)


def _read_macro(path: Path) -> Read:
    """Read macro series from a file `date, series (or series_id), value`, or from a folder.

    The folder has any of `macro`, `fred_series` (such files), `vix_ohlc`, `sector_etf_close` and
    `gold_daily`. The VIX close becomes VIX, sector ETFs ETF_<symbol>, gold GOLD. Missing values and
    revised indices are left out. The finding `macro_range` names the days on which open or close of
    the VIX or of gold lies outside low to high. The close is read all the same.
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
    parts = []
    for table in tables:
        if table.stem in _CLOSE_TABLES and table != path:
            parts.append(_read_closes(table, _CLOSE_TABLES[table.stem]))
        else:
            values = read_table(table, MACRO_SCHEMA, keys=("date", "series"))
            refuse_unsorted(values, "series", table)
            parts.append(Read(values))
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


def _read_closes(path: Path, name: str) -> Read:
    """Read closes as series; report the rows whose open or close lies outside low to high."""
    is_many = name.endswith("_")
    symbol = {"symbol": pl.String()} if is_many else {}
    wider = {other: pl.Float64() for other in PRICE_COLUMNS if other != "close"}
    required = {"date": pl.Date(), "close": pl.Float64(), **symbol}
    bars = read_table(path, required, {} if is_many else wider)
    series = pl.lit(name) + pl.col("symbol") if is_many else pl.lit(name)
    macro = bars.select("date", series=series, value="close")
    if is_many or not set(wider) <= set(bars.columns):
        return Read(macro)
    above = pl.max_horizontal("open", "close") > pl.col("high")
    below = pl.min_horizontal("open", "close") < pl.col("low")
    detail = pl.format("open {}, high {}, low {}, close {}; the close is read", *PRICE_COLUMNS)
    wrong = bars.filter(above | below).with_columns(symbol=pl.lit(name))
    return Read(macro, (), findings_of(wrong, "macro_range", pl.col("open"), detail=detail))


def _read_rows(path: Path, names: dict[str, str], only: RowFilter | None) -> Read:
    """Read days and numbers of the rows that `only` selects; a note counts the others."""
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
    return Read(
        rows.frame.with_columns(date=right.otherwise(day)),
        (*rows.notes, note),
        pl.DataFrame(findings, schema=FINDINGS_SCHEMA),
    )
