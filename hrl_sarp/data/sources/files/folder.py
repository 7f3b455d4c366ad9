"""The user's folder of files as `RawData`: prices, sectors and, where given, series and membership.

There is one reader. A column map (`NamedTables`, from the market profile) says which table and
column is what; `STANDARD` is the map of a folder that uses our own names. Rows are taken as they
are and validation judges them; what cannot be taken over is named in `RawData.import_findings`.
"""

from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import IndexTable, NamedTables, PricesTable, SectorsTable
from hrl_sarp.data.quality.rules import LEFT_OUT
from hrl_sarp.data.sources.files.prices import read_prices
from hrl_sarp.data.sources.files.series import read_index, read_macro, read_series
from hrl_sarp.data.sources.files.tables import (
    Read,
    find_table,
    read_table,
    refusal,
    refuse_repeated,
)
from hrl_sarp.data.store import (
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    MEMBERSHIP_SCHEMA,
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
"""The column map that says nothing: every table and column has the name that README gives it."""
SIBLING_MACRO_FOLDER = "us_macro"


def load(
    input_path: Path, macro_path: Path | None = None, names: NamedTables | None = None
) -> RawData:
    """Load a folder of the user's files, or one file of prices with the other tables beside it.

    The folder holds `prices.parquet` or `.csv` (or one file per symbol), `sectors` and optionally
    `index` (date, close), `membership`, `macro` and `actions` (splits and dividends, see
    `apply_actions`). A .csv or .csv.gz without a column `symbol` is the download of the symbol that
    the file is named after. Without `macro_path`, tables of standard names also take `macro` or the
    folder `us_macro` beside the input, where one exists.

    The names of the market profile count where the input is, or holds, the table of prices that
    they name; otherwise the standard names do. The notes say what was read, left out and corrected.
    """
    if not input_path.exists():
        raise MissingArtifactError(
            f"{input_path} does not exist; give a file or folder of prices with --input"
        )
    if names is None or not _has_prices(input_path, names):
        names = STANDARD
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
    """Say in one line how often each rule left something out, and which symbols are gone."""
    left_out = findings.filter(pl.col("rule").is_in(sorted(LEFT_OUT)))
    if left_out.is_empty():
        return ()
    counts = left_out.group_by("rule").len().sort("rule").iter_rows()
    gone = left_out.filter(pl.col("rule") == "no_usable_row")["symbol"].sort().to_list()
    names = f"; without any usable row: {', '.join(gone)}" if gone else ""
    told = ", ".join(f"{count} {rule}" for rule, count in counts)
    return (f"left out: {told}{names}; validate-data names each",)


def _has_prices(input_path: Path, names: NamedTables) -> bool:
    if input_path.is_dir():
        return find_table(input_path, names.prices.table) is not None
    return input_path.stem == names.prices.table


def _table(folder: Path, stem: str) -> Path:
    path = find_table(folder, stem)
    if path is None:
        raise MissingArtifactError(
            f"{folder}: expected {stem}.csv or {stem}.parquet (README lists the standard tables, "
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
    if names.index is None:
        return Read(INDEX_SCHEMA.to_frame())
    if names is STANDARD and find_table(folder, names.index.table) is None:
        return Read(INDEX_SCHEMA.to_frame())
    return read_index(_table(folder, names.index.table), names.index)


def _read_all_series(
    input_path: Path, folder: Path, names: NamedTables, macro_path: Path | None
) -> Read:
    """Read the series of named tables and, beside them, those that were given or are found."""
    parts = [read_series(_table(folder, table.table), table) for table in names.series]
    path, where = macro_path, ""
    if path is None and names is STANDARD:
        sibling = input_path.resolve().parent / SIBLING_MACRO_FOLDER
        path, where = find_table(folder, "macro"), "beside the prices"
        if path is None and sibling.is_dir():
            path, where = sibling, "beside the input"
    if path is not None:
        further = read_macro(path)
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
