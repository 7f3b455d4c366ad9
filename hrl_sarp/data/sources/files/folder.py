"""The user's own files: prices, sectors and, where given, macro series, index and membership.

Prices are one long table, long tables, or one download per symbol. A table that breaks the format
is refused; a broken download gives the rows that it has. Rows are taken as they are and
validation judges them; what cannot be taken over is named in `RawData.import_findings`.
"""

from pathlib import Path

import polars as pl

from hrl_sarp.data.quality.rules import LEFT_OUT
from hrl_sarp.data.sources.files import downloads
from hrl_sarp.data.sources.files.actions import apply_actions
from hrl_sarp.data.sources.files.duplicates import settle_doubled
from hrl_sarp.data.sources.files.macro import broken_ranges, load_macro
from hrl_sarp.data.sources.files.tables import (
    SUFFIXES,
    find_table,
    read_table,
    refuse_null_keys,
    refuse_unsorted,
)
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    FINDINGS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    MEMBERSHIP_SCHEMA,
    PRICE_COLUMNS,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.errors import DataError, MissingArtifactError

SIBLING_MACRO_FOLDER = "us_macro"
_OTHER_STEMS = ("sectors", "index", "membership", "macro", "actions")
_OPTIONAL = ("adj_close", "dividend", "split")


def load(input_path: Path, macro_path: Path | None) -> RawData:
    """Load the user's files.

    Args:
        input_path: a folder with `prices.parquet` or `.csv` (or one file per symbol), `sectors`
            and optionally `index` (date, close), `membership`, `macro` and `actions` (splits and
            dividends, see `actions.py`); or one file of prices with those beside it. A .csv or
            .csv.gz without a column `symbol` is the download of the symbol that the file is named
            after.
        macro_path: a macro file or folder; None takes `macro` beside the prices or the folder
            `us_macro` beside the input, where one exists.

    Raises:
        MissingArtifactError: if the path, its prices or its sectors do not exist.
        DataError: naming file, column, expected and found.
    """
    if not input_path.exists():
        raise MissingArtifactError(
            f"{input_path} does not exist; give a file or folder of prices with --input"
        )
    folder = input_path if input_path.is_dir() else input_path.parent
    price_files = _price_files(input_path)
    bars, findings = _read_prices(input_path, price_files)
    has_column = {
        name: name in bars.columns and bars[name].is_not_null().any() for name in _OPTIONAL
    }
    bars, action_notes = apply_actions(_complete(bars), folder)
    has_column["split"] = has_column["split"] or bool(action_notes)
    refuse_unsorted(bars, "symbol", input_path)
    macro, macro_notes, broken = _find_macro(input_path, folder, macro_path)
    findings = pl.concat([findings, broken])
    membership_path = find_table(folder, "membership")
    prices_note = f"prices from {len(price_files)} file(s) of {input_path.name}"
    notes = (prices_note, *action_notes, *macro_notes)
    return RawData(
        bars=bars,
        sectors=_read_sectors(folder),
        macro=macro,
        index=_read_index(folder),
        source="files",
        adjustment=_describe_adjustment(has_column),
        survivorship="as in the files: stocks that they lack are not traded"
        if membership_path
        else "unknown: the files have no membership table, so delisted stocks may be missing",
        membership=_read_membership(membership_path) if membership_path else None,
        notes=notes + _describe_left_out(findings),
        import_findings=findings if findings.height else None,
    )


def _price_files(input_path: Path) -> list[Path]:
    if input_path.is_file():
        return [input_path]
    named = find_table(input_path, "prices")
    if named:
        return [named]
    found = sorted(
        path
        for path in input_path.iterdir()
        if path.name.endswith((*SUFFIXES, *downloads.SUFFIXES))
        and downloads.symbol_of(path) not in _OTHER_STEMS
        and path.stem not in _OTHER_STEMS
    )
    if not found:
        raise MissingArtifactError(
            f"{input_path}: expected prices.parquet, prices.csv or one file per symbol, found none"
        )
    return found


def _read_prices(input_path: Path, paths: list[Path]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return all bars, one per symbol and date, and what was not taken over."""
    parts = [_read_bars(path) for path in paths]
    bars = pl.concat((part for part, _ in parts), how="diagonal_relaxed")
    findings = pl.concat(found for _, found in parts)
    if bars.is_empty():
        first = findings["detail"].head(1).to_list()
        raise DataError(
            f"{input_path}: expected rows of prices, found none in {len(paths)} file(s)"
            + "".join(f"; the first says: {text}" for text in first)
        )
    return bars, findings


def _read_bars(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    if path.stem != "prices" and downloads.is_download(path):
        download = downloads.read_download(path)
        ordered, unordered = _sorted_rows(download.bars, path)
        bars, doubled = settle_doubled(ordered, f"{path.name} line")
        return bars.drop(downloads.PLACE), pl.concat([download.findings, unordered, doubled])
    required = pl.Schema({name: BARS_SCHEMA[name] for name in BARS_SCHEMA if name not in _OPTIONAL})
    optional = pl.Schema({name: BARS_SCHEMA[name] for name in _OPTIONAL})
    table = read_table(path, required, optional)
    if table.is_empty():
        raise DataError(f"{path}: expected rows of prices, found none")
    refuse_null_keys(table, ["date", "symbol"], path)
    numbered = table.with_row_index(downloads.PLACE, offset=1)
    bars, doubled = settle_doubled(numbered, f"{path.name} data row")
    refuse_unsorted(bars, "symbol", path)
    return bars.drop(downloads.PLACE), doubled


def _sorted_rows(bars: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sort a download, whose dates say where a row belongs, and name it if it was not sorted."""
    earlier = bars.filter(pl.col("date") < pl.col("date").shift(1))
    if earlier.is_empty():
        return bars, FINDINGS_SCHEMA.to_frame()
    first = earlier.row(0, named=True)
    finding = {
        "symbol": first["symbol"],
        "date": first["date"],
        "value": float(first[downloads.PLACE]),
        "rule": "unordered_rows",
        "count": earlier.height,
        "detail": f"{path.name} line {first[downloads.PLACE]}: earlier than the row above",
    }
    return bars.sort("date", maintain_order=True), pl.DataFrame([finding], schema=FINDINGS_SCHEMA)


def _describe_left_out(findings: pl.DataFrame) -> tuple[str, ...]:
    """Say in one line how often each rule left something out, and which symbols are gone."""
    left_out = findings.filter(pl.col("rule").is_in(sorted(LEFT_OUT)))
    if left_out.is_empty():
        return ()
    counts = left_out.group_by("rule").len().sort("rule").iter_rows()
    gone = left_out.filter(pl.col("rule") == "no_usable_row")["symbol"].sort().to_list()
    names = f"; without any usable row: {', '.join(gone)}" if gone else ""
    told = ", ".join(f"{count} {rule}" for rule, count in counts)
    return (f"left out: {told}{names}; validate-data names each",)


def _complete(bars: pl.DataFrame) -> pl.DataFrame:
    """Add the optional columns and sort; adj_close stays null where the files have none."""
    absent = {"adj_close": None, "dividend": 0.0, "split": 1.0}
    return (
        bars.with_columns(
            pl.lit(value, dtype=pl.Float64).alias(name)
            for name, value in absent.items()
            if name not in bars.columns
        )
        .with_columns(pl.col("dividend").fill_null(0.0), pl.col("split").fill_null(1.0))
        .select(BARS_SCHEMA.names())
        .sort("symbol", "date", maintain_order=True)
    )


def _describe_adjustment(has_column: dict[str, bool]) -> str:
    if has_column["adj_close"]:
        return f"{'/'.join(PRICE_COLUMNS)} as in the files; adj_close from the files"
    if has_column["split"] or has_column["dividend"]:
        return "raw prices with splits and dividends; adjusted when the market is assembled"
    return "prices as in the files: no adj_close, split or dividend column, so nothing is adjusted"


def _read_sectors(folder: Path) -> pl.DataFrame:
    path = find_table(folder, "sectors")
    if path is None:
        raise MissingArtifactError(
            f"{folder}: expected sectors.csv or sectors.parquet with symbol and sector, found none"
        )
    both = pl.Schema({"sector": pl.String(), "gics_sector": pl.String()})
    sectors = read_table(path, pl.Schema({"symbol": pl.String()}), both)
    if "sector" not in sectors.columns:
        if "gics_sector" not in sectors.columns:
            raise DataError(f"{path}: expected a column sector or gics_sector, found neither")
        sectors = sectors.rename({"gics_sector": "sector"})
    sectors = sectors.select(SECTORS_SCHEMA.names()).drop_nulls("sector")
    refuse_null_keys(sectors, ["symbol"], path)
    doubled = sectors.filter(pl.col("symbol").is_duplicated())
    if doubled.height:
        raise DataError(
            f"{path}: column symbol: expected each symbol once, found {doubled['symbol'][0]} twice"
        )
    return sectors.sort("symbol")


def _read_index(folder: Path) -> pl.DataFrame:
    path = find_table(folder, "index")
    if path is None:
        return INDEX_SCHEMA.to_frame()
    index = read_table(path, INDEX_SCHEMA).drop_nulls()
    refuse_unsorted(index.with_columns(symbol=pl.lit("index")), "symbol", path)
    return index


def _read_membership(path: Path) -> pl.DataFrame:
    membership = read_table(path, MEMBERSHIP_SCHEMA)
    refuse_null_keys(membership, ["symbol", "start"], path)
    wrong = membership.filter(pl.col("end") < pl.col("start"))
    if wrong.height:
        row = wrong.row(0, named=True)
        raise DataError(
            f"{path}: column end: expected a date not before start, found {row['symbol']} "
            f"{row['start']} to {row['end']}"
        )
    return membership.sort("symbol", "start")


def _find_macro(
    input_path: Path, folder: Path, macro_path: Path | None
) -> tuple[pl.DataFrame, tuple[str, ...], pl.DataFrame]:
    """Return the series, notes and findings of what was given or is found near the prices."""
    if macro_path is not None:
        return *load_macro(macro_path), broken_ranges(macro_path)
    own = find_table(folder, "macro")
    sibling = input_path.resolve().parent / SIBLING_MACRO_FOLDER
    if own is None and not sibling.is_dir():
        nothing = ("no macro series: none given, none found",)
        return MACRO_SCHEMA.to_frame(), nothing, FINDINGS_SCHEMA.to_frame()
    path = own or sibling
    macro, notes = load_macro(path)
    where = "beside the prices" if own else "beside the input"
    found = f"macro series found {where}: {path.name}"
    return macro, (found, *notes), broken_ranges(path)
