"""Reads bars of the user's stocks: one table, several, or one download per symbol.

A table that breaks the format is refused. A download is not: a job that appends one row a day also
appends error pages, JSON, a second header and truncated lines. So each line of a download is read
or reported with its number. Of duplicate rows at most one is kept, and the others are reported. A
table of splits and dividends may complete the prices.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.config.market_schema import PricesTable
from hrl_sarp.data.quality.rules import findings_of
from hrl_sarp.data.sources.files.tables import (
    SAME_COLUMN,
    SUFFIXES,
    Read,
    as_heading,
    convert,
    find_table,
    read_table,
    refusal,
    refuse_unsorted,
)
from hrl_sarp.data.store import BARS_SCHEMA, FINDINGS_SCHEMA, PRICE_COLUMNS
from hrl_sarp.errors import DataError, MissingArtifactError

_OPTIONAL = ("adj_close", "dividend", "split")
"""Columns that a file may lack."""
_OTHER_STEMS = ("sectors", "index", "membership", "macro", "actions")
_KEYS = ("date", "symbol")
_ROUNDING = 1e-6
"""Relative difference below which two closes are the same."""
YAHOO_COLUMNS = ("date", *PRICE_COLUMNS, "adj_close", "volume")
"""Columns of a Yahoo download, in order. Rows above the first header are read by it."""
DOWNLOAD_SUFFIXES = (".csv", ".csv.gz")
PLACE = "place"
"""Column with the line number of a row."""

_COLUMNS = tuple(name for name in BARS_SCHEMA if name != "symbol")
_REQUIRED = frozenset({"date", *PRICE_COLUMNS, "volume"})
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}([ T]00:00:00.*)?$")
"""What the first field of a row looks like."""
_SHOWN = 60
"""Characters of a line that a finding quotes."""


def read_prices(input_path: Path, names: PricesTable) -> tuple[Read, str]:
    """Read all bars of a folder, or of the file that was given.

    If the folder lacks the table of prices that `names` mentions, its other tables are read as
    prices. The bars have one row per symbol and date and are sorted by both. The text says how the
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
    """Keep at most one row of each symbol and date.

    If the closes agree, the first row stays, because it was known first. If they differ, no row
    stays, because the right one is unknown. `place_is` names file and unit of the column `place`,
    such as "AAPL.csv line".

    Findings: `duplicate_row` for each other row with the same close (the value is its volume) and
    `conflicting_rows` for each row with a differing close (the value is its close).
    """
    repeated = bars.filter(pl.struct(_KEYS).is_duplicated())
    if repeated.is_empty():
        return Read(bars)
    # a row without a close agrees with every other and stays only if no row has a close
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
    copy_detail = pl.format("{}: volume {}; {}", place, volume, kept)
    clash_detail = pl.format("{}: close {} is not the only one of the day", place, "close")
    findings = [
        findings_of(copies, "duplicate_row", pl.col("volume"), detail=copy_detail),
        findings_of(clash, "conflicting_rows", pl.col("close"), detail=clash_detail),
    ]
    leaving = pl.concat([clash.select(PLACE), copies.select(PLACE)])
    return Read(bars.join(leaving, on=PLACE, how="anti"), findings=pl.concat(findings))


def apply_actions(bars: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Write the splits and dividends of `actions.csv` or `.parquet` into the bars.

    The table has `date, symbol` and `split` (new shares for an old one, 1 for none) or `dividend`
    (cash per share). The date is the first day without the right. Its values replace those of the
    bars. Without such a table the bars stay unchanged.
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
        if path.name.endswith((*SUFFIXES, *DOWNLOAD_SUFFIXES))
        and symbol_of(path) not in _OTHER_STEMS
        and path.stem not in _OTHER_STEMS
    )
    if not found:
        raise MissingArtifactError(
            f"{input_path}: expected {stem}.parquet, {stem}.csv or one file per symbol, found "
            "none; name the folder of the prices with --input"
        )
    return found


def _read_bars(path: Path, names: PricesTable) -> Read:
    """Read one file of prices; the bars are in order, without duplicates."""
    if path.stem != names.table and is_download(path):
        download = read_download(path)
        # rows of a download may be out of order: they are sorted by date
        earlier = download.frame.filter(pl.col("date") < pl.col("date").shift(1))
        detail = pl.format("{} line {}: earlier than the row above", pl.lit(path.name), PLACE)
        unordered = findings_of(
            earlier.head(1), "unordered_rows", pl.col(PLACE), pl.lit(earlier.height), detail
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


def symbol_of(path: Path) -> str:
    """Return the symbol in a file name: BRK.B.csv.gz holds BRK.B."""
    return path.name.removesuffix(".gz").removesuffix(".csv")


def is_download(path: Path) -> bool:
    """Say whether a file is the download of one symbol: a CSV without a column symbol."""
    if not path.name.endswith(DOWNLOAD_SUFFIXES):
        return False
    first = next((line for _, line in _lines(_read_text(path)[0])), "")
    return "symbol" not in _headings(first)


def read_download(path: Path) -> Read:
    """Read a .csv or .csv.gz of the symbol in its file name.

    Lines are read by the header above them, or else by `YAHOO_COLUMNS`. A line that begins with a
    date is a row. Its numbers may be missing (null, empty). Rows have the columns of `BARS_SCHEMA`
    and `place`, the line number. They keep the order of the file, duplicate dates included.

    The value of a finding is a line number.
    `junk_lines`: several lines in a row have no date. It has the date of the row above.
    `bad_row`: a row has the wrong number of fields, or text instead of a number.
    `no_header`: rows stand above the first header.
    `no_usable_row`: the file is left out.
    """
    text, problem = _read_text(path)
    symbol = pl.lit(symbol_of(path))
    place = pl.format("{} line {}: ", pl.lit(path.name), PLACE)
    lines, junk = _rows_and_junk(text)
    rows = _typed(lines).with_columns(symbol=symbol)
    good = rows.filter(pl.col("problem").is_null())
    bad = rows.filter(pl.col("problem").is_not_null())
    unordered = good.head(1).filter(~pl.col("is_headed"))
    strange = junk.join_asof(good.select(PLACE, "date"), on=PLACE).with_columns(symbol=symbol)
    findings = pl.concat(
        findings_of(found, rule, pl.col(PLACE), count, place + detail)
        for found, rule, count, detail in (
            (bad, "bad_row", pl.lit(1), pl.format("{} ({})", "line", "problem")),
            (unordered, "no_header", pl.lit(1), pl.lit("Yahoo's columns assumed")),
            (strange, "junk_lines", pl.col("count"), pl.col("line")),
        )
    ).sort("value")
    if good.is_empty():  # one finding is enough: the broken archive, or the first of the file
        start = {"symbol": symbol_of(path), "value": 0.0, "detail": f"{path.name} no line is a row"}
        first = pl.DataFrame([start], schema=FINDINGS_SCHEMA)
        findings = (
            (findings if findings.height else first)
            .head(1)
            .with_columns(
                date=pl.lit(None, dtype=pl.Date),
                rule=pl.lit("no_usable_row"),
                count=pl.lit(1, dtype=pl.Int64),
                detail=pl.lit(f"{path.name} {problem}") if problem else pl.col("detail"),
            )
        )
    return Read(good.select(*BARS_SCHEMA.names(), PLACE), findings=findings)


def _read_text(path: Path) -> tuple[str, str | None]:
    """Return the text and, for a broken archive, the problem."""
    content = path.read_bytes()
    problem = None
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            content, problem = b"", f"no whole gzip file: {error}"
    return content.decode("utf-8-sig", errors="replace"), problem


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped:
            yield number, stripped


def _headings(line: str) -> tuple[str, ...]:
    names = (as_heading(part) for part in line.split(","))
    return tuple(SAME_COLUMN.get(name, name) for name in names)


def _rows_and_junk(text: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows, as text under our column names, and the runs of other lines."""
    columns: tuple[str, ...] = YAHOO_COLUMNS
    is_headed, is_in_junk = False, False
    rows: list[dict[str, Any]] = []
    junk: list[dict[str, Any]] = []
    for number, line in _lines(text):
        fields = [part.strip(' "') for part in line.split(",")]
        cells = dict(zip(columns, fields, strict=False))
        if _DAY.match(cells.get("date", "")):
            missing = ", ".join(sorted(_REQUIRED - set(columns)))
            problem = f"the header has no {missing}" if missing else None
            if len(fields) != len(columns):
                problem = f"{len(fields)} fields, expected {len(columns)}"
            row = {PLACE: number, "line": _quoted(line), "problem": problem, "is_headed": is_headed}
            rows.append(row | {name: cells.get(name) for name in _COLUMNS})
            is_in_junk = False
        elif {"date", "close"} <= set(_headings(line)):
            columns, is_headed, is_in_junk = _headings(line), True, False
        elif is_in_junk:
            junk[-1]["count"] += 1
        else:
            junk.append({PLACE: number, "line": _quoted(line), "count": 1})
            is_in_junk = True
    words, whole = pl.String(), pl.Int64()
    row_schema = {PLACE: whole, "line": words, "problem": words, "is_headed": pl.Boolean()}
    return (
        pl.DataFrame(rows, schema=row_schema | dict.fromkeys(_COLUMNS, words)),
        pl.DataFrame(junk, schema={PLACE: whole, "line": words, "count": whole}),
    )


def _typed(lines: pl.DataFrame) -> pl.DataFrame:
    """Convert the cells; the problem of a line is its first cell that does not fit."""
    problem, typed = lines["problem"], []
    for name in _COLUMNS:
        column, is_lost = convert(lines[name], BARS_SCHEMA[name])
        if column.dtype == pl.Float64:
            is_lost |= column.is_infinite().fill_null(value=False)
        meaning = "number" if column.dtype == pl.Float64 else "day"
        what = pl.when(is_lost).then(pl.lit(f"{name} is no {meaning}"))
        problem = pl.select(pl.coalesce(problem, what)).to_series()
        typed.append(column)
    return lines.with_columns(*typed, problem=problem)


def _quoted(line: str) -> str:
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
