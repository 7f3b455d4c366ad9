"""Reads the download of one symbol as it is: the rows that are there, and a finding for all else.

A job that appends one row a day also appends error pages, JSON, a second header and truncated
lines. Every line is either taken over or named with its number; nothing is repaired.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.data.quality.rules import findings_of
from hrl_sarp.data.sources.files.tables import SAME_COLUMN, Read, as_heading, convert
from hrl_sarp.data.store import BARS_SCHEMA, FINDINGS_SCHEMA, PRICE_COLUMNS

YAHOO_COLUMNS = ("date", *PRICE_COLUMNS, "adj_close", "volume")
"""The order of a Yahoo download; assumed for rows above the first header."""
SUFFIXES = (".csv", ".csv.gz")
PLACE = "place"
"""Column with the line number of a row."""

_COLUMNS = tuple(name for name in BARS_SCHEMA if name != "symbol")
_REQUIRED = frozenset({"date", *PRICE_COLUMNS, "volume"})
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}([ T]00:00:00.*)?$")
"""What the first field of a row looks like."""
_SHOWN = 60
"""Characters of a line that a finding repeats."""


def symbol_of(path: Path) -> str:
    """Return the symbol that a file is named after: BRK.B.csv.gz holds BRK.B."""
    return path.name.removesuffix(".gz").removesuffix(".csv")


def is_download(path: Path) -> bool:
    """Tell the download of one symbol from a table of several.

    It is a .csv or .csv.gz whose first line names no column symbol.
    """
    if not path.name.endswith(SUFFIXES):
        return False
    first = next((line for _, line in _lines(_read_text(path)[0])), "")
    return "symbol" not in _headings(first)


def read_download(path: Path) -> Read:
    """Read a .csv or .csv.gz of the one symbol that it is named after.

    A header gives the order of the columns of the lines below it; above the first one the order is
    Yahoo's. A line is a row if its date is one; its numbers may be missing (null, empty). Rows have
    the columns of `BARS_SCHEMA` and `place`, the line number; they stand in the order of the file,
    duplicate dates included.

    The value of a finding is a line number. `junk_lines` is a run of lines without a date, dated at
    the row above it. `bad_row` has a date, but other fields than the columns or text instead of a
    number. `no_header` says that rows stand above the first header. `no_usable_row` says that the
    file is left out.
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
    if good.is_empty():
        findings = _nothing(path, findings, problem)
    return Read(good.select(*BARS_SCHEMA.names(), PLACE), findings=findings)


def _read_text(path: Path) -> tuple[str, str | None]:
    """Return the text and, for a broken archive, what is wrong with it."""
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
    """Return the lines that look like rows, as text under our names, and the runs of junk."""
    columns: tuple[str, ...] = YAHOO_COLUMNS
    is_headed, is_in_junk = False, False
    rows: list[dict[str, Any]] = []
    junk: list[dict[str, Any]] = []
    for number, line in _lines(text):
        fields = [part.strip(' "') for part in line.split(",")]
        cells = dict(zip(columns, fields, strict=False))
        if _DAY.match(cells.get("date", "")):
            problem = _misfit(fields, columns)
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


def _misfit(fields: list[str], columns: tuple[str, ...]) -> str | None:
    if len(fields) != len(columns):
        return f"{len(fields)} fields, expected {len(columns)}"
    missing = sorted(_REQUIRED - set(columns))
    return f"the header has no {', '.join(missing)}" if missing else None


def _typed(lines: pl.DataFrame) -> pl.DataFrame:
    """Convert the cells; a line's problem is the first of its cells that is no number."""
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


def _nothing(path: Path, findings: pl.DataFrame, problem: str | None) -> pl.DataFrame:
    """Return the one finding of a file without a row: a broken archive, or what it begins with."""
    found = findings.head(1)
    if found.is_empty():
        start = {"symbol": symbol_of(path), "value": 0.0, "detail": f"{path.name} no line is a row"}
        found = pl.DataFrame([start], schema=FINDINGS_SCHEMA)
    detail = pl.lit(f"{path.name} {problem}") if problem else pl.col("detail")
    date, count = pl.lit(None, dtype=pl.Date), pl.lit(1, dtype=pl.Int64)
    rule = pl.lit("no_usable_row")
    return found.with_columns(rule=rule, count=count, date=date, detail=detail)


def _quoted(line: str) -> str:
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
