"""Reads the download of one symbol as it is: the rows that are there, and a finding for all else.

A job that appends one row a day also appends error pages, JSON, a second header and half a line.
Every line is either taken over or named with its number; nothing is repaired.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.data.sources.files.tables import NULL_TEXTS
from hrl_sarp.data.store import BARS_SCHEMA, FINDINGS_SCHEMA, PRICE_COLUMNS

YAHOO_COLUMNS = ("date", *PRICE_COLUMNS, "adj_close", "volume")
"""The order of a Yahoo download; assumed for rows above the first header."""
SUFFIXES = (".csv", ".csv.gz")
PLACE = "place"
"""Column with the line number of a row."""

_NUMBERS = (*PRICE_COLUMNS, "volume", "adj_close")
_REQUIRED = frozenset({"date", *PRICE_COLUMNS, "volume"})
_NO_NUMBER = math.nan
_SHOWN = 60
"""Characters of a line that a finding repeats."""


@dataclass(frozen=True)
class Download:
    """What one file holds."""

    bars: pl.DataFrame
    """`date, symbol`, prices, volume, adj_close (null where there is none) and `place`, in the
    order of the file, doubled dates included."""
    findings: pl.DataFrame
    """`FINDINGS_SCHEMA`, the value is a line number. `junk_lines`: a run of lines without a date,
    dated at the row above it. `bad_row`: a date, but other fields than the columns or text instead
    of a number. `no_header`: rows above the first header. `no_usable_row`: the file is left out."""


@dataclass
class _Reading:
    """What is known of a file after some of its lines."""

    columns: tuple[str, ...] = YAHOO_COLUMNS
    has_header: bool = False
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """date, numbers in the order of `_NUMBERS`, line."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    is_in_junk: bool = False
    """The line above was junk: the next one joins its finding."""


def symbol_of(path: Path) -> str:
    """Return the file name without .csv or .csv.gz: BRK.B.csv.gz is BRK.B."""
    return path.name.removesuffix(".gz").removesuffix(".csv")


def is_download(path: Path) -> bool:
    """Return whether a file is one symbol's CSV: its first line names no column symbol."""
    if not path.name.endswith(SUFFIXES):
        return False
    first = next((line for _, line in _lines(_read_text(path)[0])), "")
    return "symbol" not in _column_names(first)


def read_download(path: Path) -> Download:
    """Read a .csv or .csv.gz of one symbol.

    A header gives the order of the columns of the lines below it; above the first one the order is
    Yahoo's. A line is a row if its date is one; its numbers may be missing (null, empty).
    """
    text, problem = _read_text(path)
    reading = _Reading()
    for number, line in _lines(text):
        _take(reading, number, line)
    if not reading.rows:
        reading.findings = [_nothing(reading, problem)]
    symbol = symbol_of(path)
    names = ("date", *_NUMBERS)
    schema = {name: BARS_SCHEMA[name] for name in names} | {PLACE: pl.Int64()}
    bars = pl.DataFrame(reading.rows, schema=schema, orient="row")
    return Download(
        bars.with_columns(symbol=pl.lit(symbol)),
        pl.DataFrame(reading.findings, schema=FINDINGS_SCHEMA).with_columns(
            symbol=pl.lit(symbol), detail=pl.lit(f"{path.name} ") + pl.col("detail")
        ),
    )


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
        if stripped := line.strip():
            yield number, stripped


def _column_names(line: str) -> tuple[str, ...]:
    fields = (part.strip(' "\r').lower().replace(" ", "_") for part in line.split(","))
    return tuple(name.rstrip("*") for name in fields)


def _take(reading: _Reading, number: int, line: str) -> None:
    """Take a line over as a row, as the order of the next ones, or as a finding."""
    fields = [part.strip(' "') for part in line.split(",")]
    day = _day(fields, reading.columns)
    if day is None:
        _take_text(reading, number, line)
        return
    reading.is_in_junk = False
    cells = dict(zip(reading.columns, fields, strict=False))
    numbers = [_number(cells.get(name, "")) for name in _NUMBERS]
    problem = _problem(fields, reading.columns, numbers)
    if problem:
        found = _finding("bad_row", number, f"{_quoted(line)} ({problem})", day)
        reading.findings.append(found)
        return
    if not reading.rows and not reading.has_header:
        reading.findings.append(_finding("no_header", number, "Yahoo's columns assumed", day))
    reading.rows.append((day, *numbers, number))


def _take_text(reading: _Reading, number: int, line: str) -> None:
    names = _column_names(line)
    if {"date", "close"} <= set(names):
        reading.columns, reading.has_header, reading.is_in_junk = names, True, False
    else:
        _take_junk(reading, number, line)


def _take_junk(reading: _Reading, number: int, line: str) -> None:
    if reading.is_in_junk:
        reading.findings[-1]["count"] += 1
    else:
        above = reading.rows[-1][0] if reading.rows else None
        reading.findings.append(_finding("junk_lines", number, _quoted(line), above))
    reading.is_in_junk = True


def _day(fields: list[str], columns: tuple[str, ...]) -> date | None:
    place = columns.index("date")
    text = fields[place] if place < len(fields) else ""
    is_midnight = text[10:19] in ("", " 00:00:00", "T00:00:00")
    try:
        return date.fromisoformat(text[:10]) if len(text) >= 10 and is_midnight else None
    except ValueError:
        return None


def _problem(
    fields: list[str], columns: tuple[str, ...], numbers: list[float | None]
) -> str | None:
    if len(fields) != len(columns):
        return f"{len(fields)} fields, expected {len(columns)}"
    if not set(columns) >= _REQUIRED:
        return f"the header has no {', '.join(sorted(_REQUIRED - set(columns)))}"
    wrong = [name for name, value in zip(_NUMBERS, numbers, strict=True) if value is _NO_NUMBER]
    return f"{wrong[0]} is no number" if wrong else None


def _number(text: str) -> float | None:
    """Return None for a missing number and `_NO_NUMBER` for anything else that is none."""
    if text in NULL_TEXTS:
        return None
    try:
        value = float(text)
    except ValueError:
        return _NO_NUMBER
    return value if math.isfinite(value) else _NO_NUMBER


def _nothing(reading: _Reading, problem: str | None) -> dict[str, Any]:
    first = reading.findings[0] if reading.findings else None
    reason = problem or (first["detail"] if first else "no line is a row")
    return _finding("no_usable_row", int(first["value"]) if first else 0, reason, None)


def _finding(rule: str, number: int, what: str, day: date | None) -> dict[str, Any]:
    detail = what if rule == "no_usable_row" else f"line {number}: {what}"
    return {
        "symbol": None,
        "date": day,
        "value": float(number),
        "rule": rule,
        "count": 1,
        "detail": detail,
    }


def _quoted(line: str) -> str:
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
