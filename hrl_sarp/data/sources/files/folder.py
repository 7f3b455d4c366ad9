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
from hrl_sarp.data.partners import without_partner
from hrl_sarp.data.quality.rules import LEFT_OUT, findings_of
from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.data.sources.files.forms.content import find_table, stem_of
from hrl_sarp.data.sources.files.forms.headings import match
from hrl_sarp.data.sources.files.own_features import read_own_features
from hrl_sarp.data.sources.files.prices import in_time, price_files, read_prices
from hrl_sarp.data.sources.files.tables import (
    Read,
    read_table,
    refusal,
    refuse_repeated,
    refuse_unsorted,
    scan_table,
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
ONE_SECTOR = "all stocks"
"""Sector of every stock where the folder has no table of sectors."""
_OF_INDEX = "^"
"""How Yahoo marks the symbol of an index."""
SIBLING_MACRO_FOLDER = "us_macro"
_SURELY_A_DAY = 12
"""A larger number cannot be a month, so such a date is right as it is."""

_LISTED = 20
"""Files or symbols that a note lists."""
_SERIES_TABLES = ("macro", "fred_series")
_CLOSE_TABLES = {"vix_ohlc": "VIX", "sector_etf_close": "ETF_", "gold_daily": "GOLD"}
"""Table of closes -> name of its series; a name that ends in _ gets the row's symbol."""


def load(
    input_path: Path,
    macro_path: Path | None = None,
    names: NamedTables | None = None,
    calendar: str | None = None,
    *,
    needs_sectors: bool = True,
    collected: pl.DataFrame | None = None,
) -> RawData:
    """Load a folder of the user's files, or one file of prices with the other tables beside it.

    The folder holds `prices` (or one file per symbol), `sectors` and optionally `index` (date,
    close), `membership`, `macro` and `actions` (see `apply_actions`). A text file without a column
    of symbols is the download of the symbol in its file name. With standard names and without a
    `macro_path`, the reader takes `macro` of the folder or the folder `us_macro` beside it.

    The names of the market profile apply if the input has their table of prices. Otherwise the
    standard names apply. The notes say what was read, left out and corrected, which files were not
    read, and what has no partner in another table.

    Args:
        input_path: The folder or file.
        macro_path: A file or folder of macro series.
        names: Tables and columns as the market profile names them.
        calendar: Name of the exchange's calendar: its sessions tell the day of a time.
        needs_sectors: Whether a folder of standard names without `sectors` is refused. Otherwise
            all its stocks are in one sector, with a note.
        collected: The bars that the files continue. Only prices must be there then. Each other
            table may be missing, and its frame is empty or None.

    Returns:
        The data, as collected.

    Raises:
        MissingArtifactError: if a file that must be there is not.
        DataError: if a table cannot be read.
    """
    if not input_path.exists():
        raise MissingArtifactError(
            f"{input_path} does not exist; give a file or folder of prices with --input"
        )
    if names is not None:
        is_folder, stem = input_path.is_dir(), names.prices.table
        has_prices = find_table(input_path, stem) if is_folder else stem_of(input_path) == stem
        names = names if has_prices else None
    names = names or STANDARD
    folder = input_path if input_path.is_dir() else input_path.parent
    # before the sectors: without prices nothing else is worth a line
    paths = price_files(input_path, names.prices.table)
    before = [] if collected is None else collected["symbol"].unique().sort().to_list()
    names = names if collected is None else _those_there(names, folder)
    sectors = _sectors_there(folder, names, needs_sectors, collected)
    known = {*before, *(sectors.frame["symbol"] if sectors else ())}
    prices, adjustment = read_prices(input_path, names.prices, calendar, known, collected)
    traded = prices.frame["symbol"].unique().sort().to_list()
    sectors = sectors or _one_sector(traded, input_path)
    own = read_own_features(folder, [*before, *traded], calendar)
    index = _read_index(folder, names, calendar)
    macro = _read_all_series(input_path, folder, names, macro_path, calendar)
    membership = _read_membership(find_table(folder, "membership"), calendar)
    findings = pl.concat([prices.findings, macro.findings])
    survivorship = names.survivorship
    notes: tuple[str, ...] = ()
    if names is not STANDARD:
        notes = ("tables read under the names of the market profile",)
    elif membership is not None:
        survivorship = "as in the files: stocks that they lack are not traded"
    parts = [prices, sectors, index, macro, *(part for part in (membership, own) if part)]
    notes += tuple(note for part in parts for note in part.notes)
    readings = tuple(reading for part in parts for reading in part.readings)
    used = {path.name for path in paths} | {reading.file for reading in readings}
    if collected is None:  # tables of an increment need not name each other's symbols
        notes += _lonely(prices, sectors, membership)
    notes += _not_read(folder, used, input_path)
    return RawData(
        bars=prices.frame,
        sectors=sectors.frame,
        macro=macro.frame,
        index=index.frame,
        source="files",
        adjustment=adjustment,
        survivorship=survivorship,
        own_features=own.frame if own else None,
        membership=membership.frame if membership else None,
        notes=notes + _left_out(findings),
        import_findings=findings if findings.height else None,
        readings=readings,
    )


def _those_there(names: NamedTables, folder: Path) -> NamedTables:
    """Leave out the tables of the index and of series that a folder lacks."""
    series = [table for table in names.series if find_table(folder, table.table)]
    index = names.index if names.index and find_table(folder, names.index.table) else None
    if names is STANDARD or (index == names.index and series == names.series):
        return names  # `load` tells the standard names by their identity
    return names.model_copy(update={"index": index, "series": series})


def _lonely(prices: Read, sectors: Read, membership: Read | None) -> tuple[str, ...]:
    """Name the symbols of each table that have no partner in the other."""
    traded = prices.frame["symbol"].unique().to_list()
    named = sectors.frame["symbol"].to_list()
    notes = without_partner(traded, named, "symbols of the prices", "the sectors")
    notes += without_partner(named, traded, "symbols of the sectors", "the prices")
    if membership is not None:
        members = membership.frame["symbol"].unique().to_list()
        notes += without_partner(members, traded, "symbols of the membership", "the prices")
        notes += without_partner(traded, members, "symbols of the prices", "the membership")
    return notes


def _not_read(folder: Path, used: set[str], input_path: Path) -> tuple[str, ...]:
    """Name the files and folders beside the tables that were not read."""
    if input_path.is_file():
        return ()
    rest = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            n_files = sum(1 for inner in path.rglob("*") if inner.is_file())
            rest.append(f"{path.name}/ ({n_files} files)")
        elif path.name not in used and not path.name.startswith("."):
            rest.append(path.name)
    more = f" and {len(rest) - _LISTED} more" if len(rest) > _LISTED else ""
    return (f"not read: {', '.join(rest[:_LISTED])}{more}",) if rest else ()


def _left_out(findings: pl.DataFrame) -> tuple[str, ...]:
    """Return the note that counts the rows left out by each rule and names the lost symbols."""
    left_out = findings.filter(pl.col("rule").is_in(sorted(LEFT_OUT)))
    if left_out.is_empty():
        return ()
    counts = left_out.group_by("rule").len().sort("rule").iter_rows()
    gone = left_out.filter(pl.col("rule") == "no_usable_row").sort("symbol")
    texts = [f"{symbol} ({why})" for symbol, why in gone.select("symbol", "detail").iter_rows()]
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    names = f"; without any usable row: {', '.join(texts[:_LISTED])}{more}" if texts else ""
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


def _one_sector(symbols: list[str], input_path: Path) -> Read:
    """Put all stocks into one sector.

    Raises:
        DataError: if one of them is marked as an index: it would be bought as a stock.
    """
    marked = [name for name in symbols if name.startswith(_OF_INDEX)]
    if marked:
        found = f"the index {', '.join(marked[:_LISTED])} and no table of sectors"
        cure = "move the index to index.csv, or add sectors.csv"
        raise refusal(input_path, "prices of stocks alone", found, cure)
    listed = pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String()})
    note = f"no table of sectors: all stocks are in one sector, '{ONE_SECTOR}'"
    return Read(listed.with_columns(sector=pl.lit(ONE_SECTOR)), (note,))


def _sectors_there(
    folder: Path,
    names: NamedTables,
    needs_sectors: bool,  # noqa: FBT001 -- one use
    collected: pl.DataFrame | None,
) -> Read | None:
    """Read the sectors; None where all stocks are in one. An increment may lack the table."""
    has_table = find_table(folder, names.sectors.table) is not None
    if collected is not None and not has_table:
        return Read(SECTORS_SCHEMA.to_frame())
    if has_table or needs_sectors or names is not STANDARD:
        return _read_sectors(folder, names.sectors)
    return None


def _read_sectors(folder: Path, names: SectorsTable) -> Read:
    path = _table(folder, names.table)
    theirs = {"symbol": names.symbol, "sector": names.sector}
    # the standard names are those of `HEADINGS`, under all their spellings
    given = {ours: heading for ours, heading in theirs.items() if ours != heading}
    read = read_table(path, SECTORS_SCHEMA, names=given, keys=("symbol",))
    sectors = read.frame.drop_nulls("sector")
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
    return read._replace(frame=sectors.sort("symbol"))


def _read_index(folder: Path, names: NamedTables, calendar: str | None) -> Read:
    """Read the levels of the benchmark; rows without a level are dropped."""
    table = names.index
    if table is None or (names is STANDARD and find_table(folder, table.table) is None):
        return Read(INDEX_SCHEMA.to_frame())
    path = _table(folder, table.table)
    given = {} if table.close == "close" else {"close": table.close}
    if table.only is None:
        _refuse_several(path)
    rows = _read_rows(path, ("close",), given, table.only, calendar)
    index = in_time(rows.frame.select(INDEX_SCHEMA.names()).drop_nulls())
    refuse_unsorted(index.with_columns(symbol=pl.lit("index")), "symbol", path)
    if index.is_empty():
        rows = rows._replace(notes=(*rows.notes, f"{path.name}: no level in it, so no index"))
    return rows._replace(frame=index)


def _refuse_several(path: Path) -> None:
    """Refuse levels of several indices in one table."""
    frame = scan_table(path).frame
    heading = match(frame.columns, ("symbol",)).taken.get("symbol")
    names = frame[heading].drop_nulls().unique().sort().to_list() if heading else []
    if len(names) > 1:
        found = ", ".join(map(str, names[:_LISTED]))
        cure = "keep the rows of one, or name it in `data.named_tables.index.only`"
        raise refusal(path, "levels of one index", found, cure, heading)


def _read_all_series(
    input_path: Path,
    folder: Path,
    names: NamedTables,
    macro_path: Path | None,
    calendar: str | None,
) -> Read:
    """Read the series of the named tables, then those of `macro_path` or of a default place."""
    parts = [_read_series(_table(folder, table.table), table, calendar) for table in names.series]
    path, where = macro_path, ""
    if path is None and names is STANDARD:
        sibling = input_path.resolve().parent / SIBLING_MACRO_FOLDER
        path, where = find_table(folder, "macro"), "beside the prices"
        if path is None and sibling.is_dir():
            path, where = sibling, "beside the input"
    if path is not None:
        further = _read_macro(path, calendar)
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
        tuple(reading for part in parts for reading in part.readings),
    )


def _read_membership(path: Path | None, calendar: str | None) -> Read | None:
    if path is None:
        return None
    read = read_table(path, MEMBERSHIP_SCHEMA, keys=("symbol", "start"), calendar=calendar)
    membership = read.frame
    is_wrong = (membership["end"] < membership["start"]).fill_null(value=False)
    if is_wrong.any():
        row = membership.filter(is_wrong).row(0, named=True)
        found = f"{row['symbol']} {row['start']} to {row['end']}"
        raise refusal(path, "a date not before start", found, "correct the row", "end", is_wrong)
    return read._replace(frame=membership.sort("symbol", "start"))


def _read_series(path: Path, names: SeriesTable, calendar: str | None) -> Read:
    """Read a table whose columns are macro series, as `MACRO_SCHEMA` without missing values.

    Where the profile declares that day and month are exchanged, dates are corrected. A note and
    the finding `day_month_exchanged` count them.
    """
    rows = _read_rows(path, tuple(names.values), names.values, names.only, calendar)
    if names.day_month_swapped_until is not None:
        rows = _with_dates_corrected(rows, names, path)
    columns = [
        rows.frame.select("date", series=pl.lit(series), value=pl.col(series))
        for series in names.values
    ]
    series = pl.concat(columns).drop_nulls("value").sort("series", "date")
    refuse_unsorted(series, "series", path)
    return rows._replace(frame=series)


def _read_macro(path: Path, calendar: str | None) -> Read:
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
        stem = stem_of(table).lower()
        if stem in _CLOSE_TABLES and table != path:
            parts.append(_read_closes(table, _CLOSE_TABLES[stem], calendar))
        else:
            read = read_table(table, MACRO_SCHEMA, keys=("date", "series"), calendar=calendar)
            refuse_unsorted(read.frame, "series", table)
            parts.append(read)
    macro = pl.concat(part.frame for part in parts).drop_nulls("value")
    if macro.filter(pl.col("series") == "VIX").is_empty():
        same_day = macro.filter(pl.col("series") == "VIXCLS")
        macro = macro.vstack(same_day.with_columns(series=pl.lit("VIX")))
    is_revised = pl.col("series").str.contains(REVISED)
    revised = macro.filter(is_revised)["series"].unique().sort()
    macro = macro.filter(~is_revised).sort("series", "date")
    refuse_unsorted(macro, "series", path)
    notes = tuple(note for part in parts for note in part.notes)
    if path.is_dir():
        rest = _not_read(path, {table.name for table in tables}, path)
        notes += tuple(f"{path.name}: {note}" for note in rest)
    if len(revised):
        notes += (f"revised macro indices left out, no vintages: {', '.join(revised)}",)
    readings = tuple(reading for part in parts for reading in part.readings)
    return Read(macro, notes, pl.concat(part.findings for part in parts), readings)


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


def _read_rows(
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
