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
    SectorsTable,
)
from hrl_sarp.data.partners import without_partner
from hrl_sarp.data.quality.rules import LEFT_OUT
from hrl_sarp.data.quality.series import SCALES, doubtful_names
from hrl_sarp.data.sources.files.forms.content import find_table, stem_of
from hrl_sarp.data.sources.files.forms.headings import match
from hrl_sarp.data.sources.files.own_features import read_own_features
from hrl_sarp.data.sources.files.prices import OTHER_TABLES, in_time, price_files, read_prices
from hrl_sarp.data.sources.files.series import read_macro, read_rows, read_series
from hrl_sarp.data.sources.files.tables import (
    Read,
    not_read,
    read_table,
    refusal,
    refuse_repeated,
    refuse_unread_actions,
    refuse_unsorted,
    scan_table,
)
from hrl_sarp.data.store import (
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    MEMBERSHIP_SCHEMA,
    SECTORS_SCHEMA,
    FileReading,
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
_STRANGE = 0.2
"""Share of levels at or below 0 from which on they are no levels at all."""
_LISTED = 20
"""Files or symbols that a note lists."""


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
    if collected is None:  # tables of an increment need not name each other's symbols
        notes += _lonely(prices, sectors, membership)
    notes += _beside(folder, paths, readings, input_path)
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


def _beside(
    folder: Path, paths: list[Path], readings: tuple[FileReading, ...], input_path: Path
) -> tuple[str, ...]:
    """Name what of the folder was not read; refuse it if it states splits or dividends."""
    used = {path.relative_to(folder).parts[0] for path in paths}
    used |= {reading.file for reading in readings}
    if input_path.is_dir():
        refuse_unread_actions(folder, used)
    inner = {path.parent for path in paths if path.parent != folder}
    lost = sorted(
        str(table.relative_to(folder))
        for place in inner
        for stem in OTHER_TABLES
        if (table := find_table(place, stem)) is not None
    )
    note = f"not read: {', '.join(lost)}; name that folder with --input, or move them beside it"
    return (*not_read(folder, used, input_path), *((note,) if lost else ()))


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
        DataError: if one of them is an index or a rate: it would be bought as a stock.
    """
    marked = [name for name in symbols if name.startswith(_OF_INDEX) or name in SCALES]
    if marked:
        found = f"{', '.join(marked[:_LISTED])} and no table of sectors"
        cure = "move an index to index.csv and series to macro.csv, or add sectors.csv"
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
    notes = tuple(f"{path.name}: {note}" for note in doubtful_names(sectors))
    return read._replace(frame=sectors.sort("symbol"), notes=(*read.notes, *notes))


def _read_index(folder: Path, names: NamedTables, calendar: str | None) -> Read:
    """Read the levels of the benchmark; rows without a level are dropped."""
    table = names.index
    if table is None or (names is STANDARD and find_table(folder, table.table) is None):
        return Read(INDEX_SCHEMA.to_frame())
    path = _table(folder, table.table)
    given = {} if table.close == "close" else {"close": table.close}
    if table.only is None:
        _refuse_several(path)
    rows = read_rows(path, ("close",), given, table.only, calendar)
    index = in_time(rows.frame.select(INDEX_SCHEMA.names()).drop_nulls())
    is_strange = index["close"] <= 0
    if is_strange.sum() > _STRANGE * index.height:
        found = f"{is_strange.sum()} of {index.height} rows without, as where returns stand there"
        raise refusal(path, "levels above 0", found, "give the levels of the index", "close")
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
    parts = [read_series(_table(folder, table.table), table, calendar) for table in names.series]
    path, where = macro_path, ""
    if path is None and names is STANDARD:
        sibling = input_path.resolve().parent / SIBLING_MACRO_FOLDER
        path, where = find_table(folder, "macro"), "beside the prices"
        if path is None and sibling.is_dir():
            path, where = sibling, "beside the input"
    if path is not None:
        further = read_macro(path, calendar)
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
