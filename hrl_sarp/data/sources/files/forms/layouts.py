"""Finds out how a file is laid out: its separator, its header of one to three lines, its columns.

Tables of several symbols side by side become one row for each day and symbol. A file without a
header is read only if it has one of the known layouts of `HEADERLESS`, and its prices fit them.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from hrl_sarp.data.sources.files.forms.content import (
    SEPARATORS,
    TornError,
    cells_of,
    is_text,
    lines_of,
    read_parquet,
    read_rows,
    read_text,
)
from hrl_sarp.data.sources.files.forms.headings import (
    LABELS,
    MEASURES,
    PRICES,
    heading_key,
    match,
    meaning,
    measure,
    split_pair,
)
from hrl_sarp.data.sources.files.forms.values import UnclearError

HEAD_LINES = 60
"""Lines in which a header is looked for."""
YAHOO = ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume")
"""What Yahoo's downloads hold, in order: a job that appends rows may have lost their header."""

_SHOWN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DAY = re.compile(
    r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D.*)?$|^\d{8}(\D.*)?$|^\d{9,19}(\.0+)?$|^[2-6]\d{4}(\.0+)?$"
    r"|^(\w{3,9},? )?(\d{1,2}[- /]?[A-Za-z]{3,9}[- /]?\d{2,4}|[A-Za-z]{3,9}[- ]\d{1,2},? \d{4})"
)
"""What the cell of a day looks like."""
_NUMBER = re.compile(r"^[^A-Za-z]*\d[\d.,']*[KMBT%]?$")
_FEWEST_MEASURES = 2
_SHOWN_SIGNS = 60
_INDEX_KEYS = frozenset({"unnamed0", "unnamed", "index", "indexlevel0", "price"})
"""What an index of days is called that has no name of its own."""
_TABLE_COLUMNS = 3
_UNITS = frozenset(
    (
        *("float", "float64", "double", "number", "numeric", "decimal", "real", "int", "int64"),
        *("integer", "bigint", "string", "str", "text", "varchar", "object", "date", "utc"),
        *("usd", "eur", "gbp", "gbx", "inr", "jpy", "chf", "cny", "hkd", "shares", "lots"),
    )
)
"""What stands in a line of types or units below a header, where tickers may stand, too."""
_JSON = ("{", "[")
_NO_SYMBOL = re.compile(r"(?i)^(unnamed[:_ ]*\d*|_*index_level_\d+_*|level_\d+)$")
_COPY = re.compile(r"\.\d+$")
"""What pandas adds to a heading that stands again."""


class Column(NamedTuple):
    """One column of a file."""

    heading: str
    symbol: str | None = None
    """The symbol that the header gives to it; None if the header names none."""


class Head(NamedTuple):
    """The header of a text file."""

    words: str
    """The layout in words."""
    separator: str
    columns: tuple[Column, ...]
    line: int
    """Number of its first line, from 1; 0 for a file without a header."""
    n_lines: int
    """Number of its lines."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that the header names, each once."""
        return tuple(dict.fromkeys(column.symbol for column in self.columns if column.symbol))


class Sheet(NamedTuple):
    """The content of a file before its columns have a meaning."""

    frame: pl.DataFrame
    """The file's columns under its headings; text, or typed in a Parquet file."""
    words: str
    """The layout in words."""
    separator: str | None
    """None for a Parquet file."""
    notes: tuple[str, ...] = ()


class Headerless(NamedTuple):
    """A layout of files without a header."""

    words: str
    headings: tuple[str, ...]
    pattern: re.Pattern[str]
    """What a row begins with."""


HEADERLESS = (
    Headerless(
        "Binance's columns (no header)",
        (
            *("open_time", "open", "high", "low", "close", "volume", "close_time"),
            *("quote_volume", "trades", "taker_base", "taker_quote", "ignore"),
        ),
        re.compile(r"^\d{13}(\d{3})?,[^,]+,[^,]+,[^,]+,[^,]+,[^,]+,\d{13}(\d{3})?,"),
    ),
    Headerless(
        "MetaTrader's columns (no header)",
        ("date", "time", "open", "high", "low", "close", "volume"),
        re.compile(r"^\d{4}\.\d\d\.\d\d[,;\t]\d\d:\d\d[,;\t]"),
    ),
    Headerless(
        "HistData's columns (no header)",
        ("datetime", "open", "high", "low", "close", "volume"),
        re.compile(r"^\d{8} \d{6}[;,]"),
    ),
)


def is_day(cell: str) -> bool:
    """Say whether a cell looks like a day or a time, or a line begins with one."""
    return bool(_DAY.match(cell))


def is_row_number(heading: str) -> bool:
    """Say whether a program gave a heading to the numbers of rows, or to a column without one."""
    return bool(_NO_SYMBOL.match(heading))


def find_head(lines: Sequence[tuple[int, str]]) -> Head | None:
    """Find the header in the first lines of a text.

    Args:
        lines: Lines with their numbers, see `lines_of`.

    Returns:
        The first header of known headings; else that of symbols beside dates, or of a headerless
        layout; None if there is none of them.
    """
    for i, (_, line) in enumerate(lines[:HEAD_LINES]):
        head = head_at(lines, i)
        if head is not None:
            return head
        for layout in HEADERLESS:
            if layout.pattern.match(line):
                return _headerless(lines, i, layout)
    return None


def head_at(lines: Sequence[tuple[int, str]], i: int) -> Head | None:
    """Return the header that begins at line i, or None if the line begins none."""
    number, line = lines[i]
    if is_day(line.strip(' "')):
        return None
    for separator in sorted(SEPARATORS, key=line.count, reverse=True):
        first = cells_of(line, separator)
        if len(first) < 2 or any(_NUMBER.match(cell) or is_day(cell) for cell in first):
            continue
        block = [first, *_label_rows(lines[i + 1 : i + 3], separator, len(first))]
        columns = _columns_of_block(block)
        words = f"{_SHOWN[separator]}, {len(block)} header line" + "s" * (len(block) > 1)
        below = i + len(block)
        follower = cells_of(lines[below][1], separator) if below < len(lines) else []
        if columns is not None:
            return Head(words, separator, _dated(columns, follower), number, len(block))
        known = [meaning(cell) for cell in first]
        has_letters = {"o", "h", "l", "c"} <= {heading_key(cell) for cell in first}
        is_dated = len(follower) == len(first) and is_day(follower[0])
        named = sum(name is not None for name in known)
        if named > 1 or has_letters or (is_dated and (named or not first[0])):
            columns = tuple(map(Column, _named(first)))
            return Head(words, separator, _dated(columns, follower), number, 1)
    return None


def looks_like_head(cells: Sequence[str]) -> bool:
    """Say whether a line could be a header whose headings are unknown."""
    filled = [cell for cell in cells if cell]
    return len(filled) >= _TABLE_COLUMNS and not any(
        _NUMBER.match(cell) or is_day(cell) or len(cell) > 40 or "<" in cell or "{" in cell
        for cell in filled
    )


def read_sheet(path: Path, *, is_of_prices: bool = False) -> Sheet:
    """Read a whole file as columns under its headings.

    Args:
        path: A file with a known ending.
        is_of_prices: Whether a table of dates and other columns alone holds closes of symbols.

    Returns:
        The columns. Several symbols side by side are stacked, with a column `symbol`.

    Raises:
        TornError: if the file cannot be read.
        UnclearError: if two columns have the same heading.
    """
    if not is_text(path):
        frame = read_parquet(path)
        names = _named(frame.columns)
        frame.columns = names
        columns = _columns_of_block([names])
        return _stacked(Sheet(frame, "parquet", None), columns, is_of_prices=is_of_prices)
    text = read_text(path)
    lines = lines_of(text)
    head = find_head(lines) or _first_line(lines)
    if head is None:
        return Sheet(pl.DataFrame(), "empty", ",")
    if lines[0][1].startswith(_JSON) and lines[0][0] == head.line:
        raise TornError("JSON inside; save it as plain .csv")
    if len(set(head.columns)) < len(head.columns):
        raise _repeated(head.columns)
    names = [f"{i}" for i in range(len(head.columns))]
    above = head.line + head.n_lines - 1
    if head.n_lines > 1 and head.line:  # blank lines may stand between them
        position = next(k for k, (number, _) in enumerate(lines) if number == head.line)
        above = lines[position + head.n_lines - 1][0]
    frame = read_rows(text, head.separator, names, above if head.line else 0)
    notes: tuple[str, ...] = ()
    n_above = sum(number < head.line for number, _ in lines)
    if n_above:
        first = lines[0][1][:_SHOWN_SIGNS]
        notes = (f"{path.name}: {n_above} lines above the header left out: {first}",)
    sheet = Sheet(frame, head.words, head.separator, notes)
    return _stacked(sheet, head.columns, is_of_prices=is_of_prices)


def is_wide(headings: Sequence[str]) -> bool:
    """Say whether a table has a column for each symbol: dates, and headings of no other meaning."""
    found = match(headings, ("date", *MEASURES, "symbol", "value", "series"))
    if "date" not in found.taken or found.taken.keys() & {"symbol", "value", "series", "close"}:
        return False
    # LOW and OPEN are symbols, too: in capitals, and without the other measures of a bar
    others = {name: heading for name, heading in found.taken.items() if name != "date"}
    is_bar = "volume" in others or {"high", "low"} <= others.keys()
    is_capital = all(heading.isupper() for heading in others.values())
    return bool(found.unread) and not is_bar and is_capital


def _stacked(sheet: Sheet, columns: Sequence[Column] | None, *, is_of_prices: bool) -> Sheet:
    """Give the columns their headings, and each symbol its own rows."""
    frame = sheet.frame
    if columns is None:
        columns = tuple(map(Column, frame.columns))
    headings = [column.heading for column in columns]
    symbols = tuple(dict.fromkeys(column.symbol for column in columns if column.symbol))
    if not symbols and len(set(headings)) == len(headings):
        frame = frame.rename(dict(zip(frame.columns, headings, strict=True)))
        frame = _with_dated_index(frame)
        if is_of_prices and is_wide(frame.columns):
            return _melted(sheet._replace(frame=frame))
        return sheet._replace(frame=frame)
    if not symbols:
        raise _repeated(columns)
    shared = {
        column.heading: frame.to_series(i) for i, column in enumerate(columns) if not column.symbol
    }
    parts = []
    for symbol in symbols:
        own = {
            column.heading: frame.to_series(i)
            for i, column in enumerate(columns)
            if column.symbol == symbol
        }
        part = pl.DataFrame({**shared, **own}).with_columns(symbol=pl.lit(symbol))
        # side by side every symbol has a row on every day; an empty one is no row of the symbol
        parts.append(part.filter(~pl.all_horizontal(pl.col(list(own)).is_null())))
    stacked = _with_dated_index(pl.concat(parts, how="diagonal"))
    words = f"{sheet.words}, {len(symbols)} symbols side by side"
    return sheet._replace(frame=stacked, words=words if len(symbols) > 1 else sheet.words)


def _repeated(columns: Sequence[Column]) -> UnclearError:
    headings = ", ".join(column.heading for column in columns)
    return UnclearError("each column once", headings, "rename or remove one")


def _melted(sheet: Sheet) -> Sheet:
    date = match(sheet.frame.columns, ("date",)).taken["date"]
    symbols = [name for name in sheet.frame.columns if name != date and not is_row_number(name)]
    _refuse_copies(symbols)
    long = sheet.frame.unpivot(symbols, index=date, variable_name="symbol", value_name="close")
    words = f"{sheet.words}, closes of {len(symbols)} symbols side by side"
    return sheet._replace(frame=long.drop_nulls("close"), words=words)


def _refuse_copies(headings: Sequence[str]) -> None:
    """Refuse a column of a wide table that programs name as the copy of another."""
    for name in headings:
        stem = _COPY.sub("", name)
        if stem != name and stem in headings:
            found = f"{stem} and {name}, as programs call a column that stands twice"
            raise UnclearError("each symbol once", found, "remove one of them")


def _with_dated_index(frame: pl.DataFrame) -> pl.DataFrame:
    """Call an index without a name `date` if it holds days and no column is called so."""
    if "date" in match(frame.columns, ("date",)).taken:
        return frame
    for name in frame.columns:
        if heading_key(name) not in _INDEX_KEYS:
            continue
        column = frame[name].drop_nulls()
        is_time = column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime)
        if is_time or (
            column.dtype == pl.String and len(column) and all(map(is_day, column.head(50)))
        ):
            return frame.rename({name: "date"})
    return frame


def _dated(columns: tuple[Column, ...], row: Sequence[str]) -> tuple[Column, ...]:
    """Call an index without a name `Date` if the first row has a day there."""
    headings = [column.heading for column in columns]
    if "date" in match(headings, ("date",)).taken or len(row) < len(columns):
        return columns
    for i, heading in enumerate(headings):
        if heading_key(heading) in _INDEX_KEYS and is_day(row[i]):
            return (*columns[:i], Column("Date", columns[i].symbol), *columns[i + 1 :])
    return columns


def _label_rows(
    lines: Sequence[tuple[int, str]], separator: str, n_columns: int
) -> list[list[str]]:
    """Return the lines below a header that belong to it: tickers, and the name of the index."""
    rows: list[list[str]] = []
    for _, line in lines:
        cells = cells_of(line, separator)
        is_label = heading_key(cells[0]) in LABELS or meaning(cells[0]) == "date"
        has_data = any(_NUMBER.match(cell) or is_day(cell) for cell in cells[1:] if cell)
        if not is_label or has_data or len(cells) > n_columns:
            break
        rows.append(cells + [""] * (n_columns - len(cells)))
    return rows


def _columns_of_block(block: list[list[str]]) -> tuple[Column, ...] | None:
    """Return the columns of a header that names measures and symbols; None for any other."""
    if len(block) == 1:
        return _flattened(block[0])
    for row in block:
        others = [cell for cell in row[1:] if cell and meaning(cell) != "date"]
        if len(others) >= 1 and all(measure(cell) or _is_extra(cell) for cell in others):
            n_measures = sum(measure(cell) is not None for cell in others)
            if n_measures < _FEWEST_MEASURES and len(set(others)) > 1:
                continue
            fields = row
            break
    else:
        return None
    rest = [row for row in block if row is not fields]
    symbols = next((row for row in rest if any(row[1:])), [""] * len(fields))
    if not _are_symbols(fields[1:], symbols[1:]):
        return None
    dated = next((row[0] for row in block if meaning(row[0]) == "date"), None)
    has_dates = any(meaning(cell) == "date" for cell in fields[1:])
    columns = [Column(dated or ("unnamed_0" if has_dates else "Date"))]
    for field, symbol in zip(fields[1:], symbols[1:], strict=True):
        columns.append(Column(field or f"unnamed_{len(columns)}", symbol or None))
    return tuple(columns)


def _are_symbols(fields: Sequence[str], names: Sequence[str]) -> bool:
    """Say whether names below measures are tickers: each has a price, and none is a unit."""
    given = {name for name in names if name}
    priced = {
        name
        for field, name in zip(fields, names, strict=True)
        if measure(field) in (*PRICES, "adj_close")
    }
    return given <= priced and not (given and all(heading_key(name) in _UNITS for name in given))


def _is_extra(cell: str) -> bool:
    return heading_key(cell) in {"capitalgains", "repaired"}


def _flattened(cells: list[str]) -> tuple[Column, ...] | None:
    """Return the columns of a header such as Date, Close_AAA, Open_AAA; None for any other."""
    names = _named(cells)
    if sum(measure(cell) is not None for cell in names) > 0:
        return None
    columns, n_pairs = [], 0
    for i, cell in enumerate(names):
        pair = split_pair(cell)
        if pair is not None:
            columns.append(Column(*pair))
            n_pairs += 1
        elif i == 0 or meaning(cell) in ("date", "time") or heading_key(cell) in _INDEX_KEYS:
            columns.append(Column(cell))
        else:
            return None
    return tuple(columns) if n_pairs else None


def _named(cells: Sequence[str]) -> list[str]:
    """Give a name to headings that are empty."""
    return [cell.strip(' "\ufeff') or f"unnamed_{i}" for i, cell in enumerate(cells)]


def _first_line(lines: Sequence[tuple[int, str]]) -> Head | None:
    """Take the first line for the header of a table whose headings are not known."""
    if not lines:
        return None
    number, line = lines[0]
    separator = max(SEPARATORS, key=line.count)
    columns = tuple(map(Column, _named(cells_of(line, separator))))
    return Head(f"{_SHOWN[separator]}, 1 header line", separator, columns, number, 1)


def _headerless(lines: Sequence[tuple[int, str]], i: int, layout: Headerless) -> Head | None:
    """Return the columns of a headerless layout if the rows have them and their prices fit."""
    separator = max(SEPARATORS, key=lines[i][1].count)
    rows = [cells_of(line, separator) for _, line in lines[i : i + HEAD_LINES]]
    fits = [len(row) == len(layout.headings) and prices_fit(row, layout.headings) for row in rows]
    if not fits[0] or sum(fits) < 0.9 * len(fits):
        return None
    return Head(layout.words, separator, tuple(map(Column, layout.headings)), 0, 0)


def prices_fit(cells: Sequence[str], headings: Sequence[str]) -> bool:
    """Say whether a row has open and close between low and high under these headings."""
    try:
        o, h, l, c = (  # noqa: E741 -- the letters of the trade
            float(cells[[measure(text) for text in headings].index(name)])
            for name in ("open", "high", "low", "close")
        )
    except (ValueError, IndexError):
        return False
    return l <= min(o, c) and max(o, c) <= h
