"""Bars of the user's stocks: one long table, several, or one download per symbol.

A table that breaks the format is refused; a broken download gives the rows that it has. Duplicate
rows are settled and named. A table of splits and dividends may complete prices that state none.
"""

from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import PricesTable
from hrl_sarp.data.quality.rules import findings_of
from hrl_sarp.data.sources.files import downloads
from hrl_sarp.data.sources.files.downloads import PLACE
from hrl_sarp.data.sources.files.tables import (
    SUFFIXES,
    Read,
    find_table,
    read_table,
    refusal,
    refuse_unsorted,
)
from hrl_sarp.data.store import BARS_SCHEMA, PRICE_COLUMNS
from hrl_sarp.errors import DataError, MissingArtifactError

_OPTIONAL = ("adj_close", "dividend", "split")
"""Columns that a file may lack."""
_OTHER_STEMS = ("sectors", "index", "membership", "macro", "actions")
_KEYS = ("date", "symbol")
_ROUNDING = 1e-6
"""Relative difference below which two closes are the same."""


def read_prices(input_path: Path, names: PricesTable) -> tuple[Read, str]:
    """Read all bars of a folder, or of the file that was given.

    Where the folder lacks the table of prices that `names` mentions, every other table of it holds
    prices. The bars have one row per symbol and date and are sorted by both; the text says how the
    prices are adjusted.
    """
    paths = _price_files(input_path, names.table)
    parts = [_read_bars(path, names) for path in paths]
    frames = (part.frame for part in parts)
    bars = pl.concat([BARS_SCHEMA.to_frame(), *frames], how="diagonal_relaxed")
    findings = pl.concat(part.findings for part in parts)
    if bars.is_empty():
        first = findings["detail"].head(1).to_list()
        raise DataError(
            f"{input_path}: expected rows of prices, found none in {len(paths)} file(s)"
            + "".join(f"; the first says: {text}" for text in first)
        )
    states = {name: bars[name].is_not_null().any() for name in _OPTIONAL}
    bars = bars.with_columns(pl.col("dividend").fill_null(0.0), pl.col("split").fill_null(1.0))
    bars = bars.sort("symbol", "date", maintain_order=True)
    bars, notes = apply_actions(bars, input_path if input_path.is_dir() else input_path.parent)
    refuse_unsorted(bars, "symbol", input_path)
    if states["adj_close"]:
        adjustment = f"{'/'.join(PRICE_COLUMNS)} as in the files; adj_close from the files"
    elif states["split"] or states["dividend"] or notes:
        adjustment = "raw prices with splits and dividends; adjusted when the market is assembled"
    else:
        adjustment = (
            "prices as in the files: no adj_close, split or dividend column, so nothing is adjusted"
        )
    counted = f"prices from {len(paths)} file(s) of {input_path.name}"
    return Read(bars, (counted, *notes), findings), adjustment


def settle_duplicates(bars: pl.DataFrame, place_is: str) -> Read:
    """Keep one row of each symbol and date, or none.

    Of copies that agree in the close the first one stays, as the one that was known first. Of
    copies that do not agree nobody knows which is right: all leave, and the day has no bar.
    `place_is` says what the column `place` counts, with the file, such as "AAPL.csv line".

    Findings: `duplicate_row` for each copy that leaves (the value is its volume) and
    `conflicting_rows` for each row that contradicts another (the value is its close).
    """
    repeated = bars.filter(pl.struct(_KEYS).is_duplicated())
    if repeated.is_empty():
        return Read(bars)
    # a copy without a close says nothing: it agrees with all and stays only if none has one
    ranked = repeated.sort(pl.col("close").is_null(), PLACE).with_columns(
        spread=(pl.col("close").max() / pl.col("close").min() - 1).over(_KEYS),
        first_place=pl.col(PLACE).first().over(_KEYS),
        first_volume=pl.col("volume").first().over(_KEYS),
    )
    conflicts = pl.col("spread").fill_null(0.0) > _ROUNDING
    clash = ranked.filter(conflicts).sort("symbol", PLACE)
    copies = ranked.filter(~conflicts & (pl.col(PLACE) != pl.col("first_place")))
    copies = copies.sort("symbol", PLACE)
    volume, first_volume = (
        pl.col(name).cast(pl.Int64, strict=False).cast(pl.String).fill_null("unknown")
        for name in ("volume", "first_volume")
    )
    place = pl.format("{} {}", pl.lit(place_is), PLACE)
    kept = pl.format("kept {}: volume {}", "first_place", first_volume)
    copy_told = pl.format("{}: volume {}; {}", place, volume, kept)
    clash_told = pl.format("{}: close {} is not the only one of the day", place, "close")
    findings = [
        findings_of(copies, "duplicate_row", pl.col("volume"), detail=copy_told),
        findings_of(clash, "conflicting_rows", pl.col("close"), detail=clash_told),
    ]
    leaving = pl.concat([clash.select(PLACE), copies.select(PLACE)])
    return Read(bars.join(leaving, on=PLACE, how="anti"), findings=pl.concat(findings))


def apply_actions(bars: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Write the splits and dividends of `actions.csv` or `.parquet` into the bars.

    The table has `date, symbol` and `split` (new shares for an old one, 1 for none) or `dividend`
    (cash per share), each on the first day without the right. It replaces what the bars state on
    that day. Where there is no such table, the bars stay as they are.
    """
    path = find_table(folder, "actions")
    if path is None:
        return bars, ()
    required = {name: BARS_SCHEMA[name] for name in _KEYS}
    optional = {name: BARS_SCHEMA[name] for name in ("split", "dividend")}
    found = read_table(path, required, optional, keys=_KEYS)
    if set(found.columns) == set(required):
        raise refusal(path, "a column split or dividend", "neither", "add one of them")
    actions = pl.concat([pl.DataFrame(schema=required | optional), found], how="diagonal")
    own = actions.join(bars.select("symbol").unique(), on="symbol", how="semi")
    is_wrong = (pl.col("split") <= 0) | (pl.col("dividend") < 0)
    for expected, wrong, cure in (
        ("a split above 0 and no negative dividend", actions.filter(is_wrong), "correct the row"),
        ("one row", actions.filter(pl.struct(_KEYS).is_duplicated()), "keep the right row"),
        (
            "a bar of the stock",
            own.join(bars, on=list(_KEYS), how="anti"),
            "give the first day without the right",
        ),
    ):
        if wrong.height:
            row = wrong.row(0, named=True)
            cells = f"{row['symbol']} {row['date']} split {row['split']} dividend {row['dividend']}"
            first = f"{cells} ({wrong.height} such rows)"
            raise refusal(path, f"{expected} for each symbol and day", first, cure)
    added = own.rename({"split": "new_split", "dividend": "new_dividend"})
    joined = bars.join(added, on=list(_KEYS), how="left", maintain_order="left")
    filled = joined.with_columns(
        split=pl.coalesce("new_split", "split"), dividend=pl.coalesce("new_dividend", "dividend")
    )
    return filled.select(bars.columns), (f"{own.height} splits and dividends from {path.name}",)


def _price_files(input_path: Path, stem: str) -> list[Path]:
    if input_path.is_file():
        return [input_path]
    table = find_table(input_path, stem)
    if table:
        return [table]
    found = sorted(
        path
        for path in input_path.iterdir()
        if path.name.endswith((*SUFFIXES, *downloads.SUFFIXES))
        and downloads.symbol_of(path) not in _OTHER_STEMS
        and path.stem not in _OTHER_STEMS
    )
    if not found:
        raise MissingArtifactError(
            f"{input_path}: expected {stem}.parquet, {stem}.csv or one file per symbol, found "
            "none; name the folder of the prices with --input"
        )
    return found


def _read_bars(path: Path, names: PricesTable) -> Read:
    """Read one file of prices; its bars stand in order and once."""
    if path.stem != names.table and downloads.is_download(path):
        download = downloads.read_download(path)
        # the dates of a download say where a row belongs
        earlier = download.frame.filter(pl.col("date") < pl.col("date").shift(1))
        told = pl.format("{} line {}: earlier than the row above", pl.lit(path.name), PLACE)
        unordered = findings_of(
            earlier.head(1), "unordered_rows", pl.col(PLACE), pl.lit(earlier.height), told
        )
        bars = download.frame.sort("date", maintain_order=True)
        settled = settle_duplicates(bars, f"{path.name} line")
        findings = pl.concat([download.findings, unordered, settled.findings])
    else:
        required = {name: kind for name, kind in BARS_SCHEMA.items() if name not in _OPTIONAL}
        optional = {name: BARS_SCHEMA[name] for name in _OPTIONAL}
        table = read_table(path, required, optional, names.columns, _KEYS)
        if table.is_empty():
            raise refusal(path, "rows of prices", "none", "collect them again")
        numbered = table.with_row_index(PLACE, offset=1)
        settled = settle_duplicates(numbered, f"{path.name} data row")
        refuse_unsorted(settled.frame, "symbol", path)
        findings = settled.findings
    return Read(settled.frame.drop(PLACE), findings=findings)
