"""Reads one table of the user as named, typed columns.

`headings` says what a column is, `layouts` how the file is laid out, `values` what its cells mean.
A value that does not fit is refused: the error names file, column, row, cause and cure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from hrl_sarp.data.partners import misspelt
from hrl_sarp.data.sources.files.forms.content import (
    PACKED_ENDINGS,
    TABLE_ENDING,
    TEXT_ENDINGS,
    TornError,
    is_readable,
    partition_of,
)
from hrl_sarp.data.sources.files.forms.headings import (
    HEADINGS,
    adjusting,
    heading_key,
    match,
    volume_unit,
)
from hrl_sarp.data.sources.files.forms.layouts import Sheet, is_day, read_sheet
from hrl_sarp.data.sources.files.forms.values import (
    DAY_WORDS,
    UnclearError,
    days,
    decimal_mark,
    numbers,
    public_days,
    splits,
)
from hrl_sarp.data.store import FINDINGS_SCHEMA, FileReading
from hrl_sarp.errors import DataError, MissingArtifactError

Columns = Mapping[str, Any]
"""Column names and polars types. It is a pl.Schema, a class that run-time type checks refuse."""

_NONE: Columns = MappingProxyType({})
ACTIONS_CURE = "call a table of splits and dividends actions, with a column symbol, or remove it"
"""What may be done about a file of splits or dividends that would not be read."""
_OF_MONEY = frozenset({"snappedat", "timeopen"})
"""Headings of sources whose volumes are money."""
_FEW = 3
"""Other columns that a table of splits and dividends may have."""
_NAMED = 12
"""Headings that a note lists."""
_UNSEEN = "[\u200b\u200c\u200d\u200e\u200f\u2060\ufeff]"
"""Signs without a width, which web pages leave in what is copied from them."""
_NAMED_FILES = 20
_SHOWN_SPELLINGS = 4


class Read(NamedTuple):
    """The content of one or several files."""

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()
    """Remarks for the manifest."""
    findings: pl.DataFrame = FINDINGS_SCHEMA.to_frame()
    """`FINDINGS_SCHEMA`: rows that were changed or left out."""
    readings: tuple[FileReading, ...] = ()
    """What was read as what, a file each."""


def refusal(
    path: Path,
    expected: str,
    found: str,
    cure: str,
    column: str | None = None,
    rows: pl.Series | None = None,
) -> DataError:
    """Return the error for a table that cannot be used.

    `column` is a heading of the file; None means the whole table. `rows` is a mask of the offending
    rows, in the order of the file.
    """
    where = f"column {column}: " if column else ""
    row = ""
    if rows is not None:
        row = f" in data row {int(rows.arg_max() or 0) + 1} ({rows.sum()} such rows)"
    return DataError(f"{path}: {where}expected {expected}, found {found}{row}; {cure}")


def read_table(
    path: Path,
    required: Columns,
    optional: Columns = _NONE,
    names: Mapping[str, str] = _NONE,
    keys: tuple[str, ...] = (),
    calendar: str | None = None,
) -> Read:
    """Read a file and keep the required and, where present, the optional columns.

    Args:
        path: A file with a known ending.
        required: Our columns that the file must have, with their types.
        optional: Our columns that it may have.
        names: Our column -> the file's heading, where a market profile declares one. Other columns
            are found by `HEADINGS`.
        keys: Required columns with a value in every row.
        calendar: Name of the exchange's calendar: its sessions tell the day of a time.

    Returns:
        The columns under our names, in the order of `required` and `optional`; the rows keep the
        order of the file; missing values are null. Notes name what was not read and looks like an
        adjustment.

    Raises:
        DataError: if the file cannot be read, a column is missing or a value does not fit.
    """
    sheet = scan_table(path, is_of_prices="symbol" in required and "close" in required)
    return read_columns(sheet, path, required, optional, names, keys, calendar)


def read_columns(
    sheet: Sheet,
    path: Path,
    required: Columns,
    optional: Columns,
    names: Mapping[str, str],
    keys: tuple[str, ...],
    calendar: str | None,
) -> Read:
    """Give the columns of a sheet their names and types, see `read_table`."""
    table, schema = sheet.frame, {**required, **optional}
    found = match(table.columns, [*schema, *(["time"] if "date" in schema else [])], names)
    missing = [name for name in required if name not in found.taken]
    if missing:
        cure = _cure_of_missing(missing, found.taken, table.columns)
        raise DataError(
            f"{path}: expected the columns {', '.join(names.get(name, name) for name in required)}"
            f"; found no {', '.join(_spellings(name, names) for name in missing)} among "
            f"{_listed(table.columns)}; {cure}"
        )
    for name, rivals in found.rivals.items():
        cure = f"rename the right one to {name}"
        raise refusal(path, f"one column for {name}", " and ".join(rivals), cure)
    numeric = [
        table[found.taken[name]]
        for name, kind in schema.items()
        if kind == pl.Float64() and name in found.taken
    ]
    try:
        mark = decimal_mark(numeric, sheet.separator)
    except UnclearError as error:
        raise refusal(path, error.expected, error.found, error.cure) from error
    frame = {}
    for name, kind in schema.items():
        if name not in found.taken:
            continue
        column = table[found.taken[name]]
        if name == "date" and "time" in found.taken:
            column = with_time(column, table[found.taken["time"]])
        frame[name] = typed_column(column, kind, path, mark=mark, calendar=calendar, name=name)
        if kind == pl.Float64():
            _refuse_infinite(frame[name], column, path)
    read = in_shares(pl.DataFrame(frame), found.taken, found.unread, path)
    for key in keys:
        empty = read[key].is_null()
        if empty.any():
            cure = "complete or remove the row"
            raise refusal(path, "a value in every row", "none", cure, found.taken[key], empty)
    notes = (
        *sheet.notes,
        *unread_notes(path, found.unread),
        *_lost_zeros(path, table, found.taken),
    )
    return Read(read, notes, readings=(reading_of(path, sheet.words, found.taken, read),))


def _refuse_infinite(typed: pl.Series, column: pl.Series, path: Path) -> None:
    """Refuse what a division by 0 has left: one such value would spoil a year of its column."""
    endless = typed.is_infinite().fill_null(value=False)
    if endless.any():
        value = repr(column.filter(endless)[0])
        raise refusal(path, "finite numbers", value, "correct or remove them", column.name, endless)


def in_shares(
    frame: pl.DataFrame, taken: Mapping[str, str], unread: Collection[str], path: Path
) -> pl.DataFrame:
    """Give volumes in shares where their heading, or a known source, says another unit.

    CoinGecko and CoinMarketCap state the money that was traded; headings of theirs tell them.

    Raises:
        DataError: if the unit cannot be told in shares.
    """
    heading = taken.get("volume", "")
    if _OF_MONEY & {heading_key(text) for text in (*taken.values(), *unread)} and heading:
        return frame.with_columns(pl.col("volume") / pl.col("close"))
    unit = volume_unit(heading)
    if unit is None:
        raise refusal(path, "volumes in shares", heading, "convert them, or remove them", heading)
    return frame if unit == 1.0 else frame.with_columns(pl.col("volume") * unit)


def unread_notes(path: Path, unread: tuple[str, ...]) -> tuple[str, ...]:
    """Name the headings that are not read, first those that look like adjustments."""
    first = adjusting(unread)
    named = [*first, *(name for name in unread if name not in first and name.strip())]
    return (f"{path.name}: not read: {_listed(named)}",) if named else ()


def reading_of(
    path: Path, words: str, taken: Mapping[str, str], frame: pl.DataFrame
) -> FileReading:
    """Say what of a file was read as what."""
    days_read = frame["date"] if "date" in frame.columns else pl.Series([None], dtype=pl.Date)
    symbols = frame["symbol"].unique().sort().to_list() if "symbol" in frame.columns else []
    return FileReading(
        file=path.name,
        layout=words,
        columns=tuple((theirs, ours) for ours, theirs in taken.items()),
        n_rows=frame.height,
        first=str(days_read.min() or ""),
        last=str(days_read.max() or ""),
        symbols=tuple(map(str, symbols)),
    )


def not_read(folder: Path, used: set[str], input_path: Path) -> tuple[str, ...]:
    """Name the files and folders beside the tables that were not read."""
    if input_path.is_file():
        return ()
    rest = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name in used:
            continue
        if path.is_dir():
            n_files = sum(1 for inner in path.rglob("*") if inner.is_file())
            rest.append(f"{path.name}/ ({n_files} files)")
        elif path.name not in used and not path.name.startswith("."):
            rest.append(path.name)
    more = f" and {len(rest) - _NAMED_FILES} more" if len(rest) > _NAMED_FILES else ""
    return (f"not read: {', '.join(rest[:_NAMED_FILES])}{more}",) if rest else ()


def refuse_unread_actions(folder: Path, used: set[str]) -> None:
    """Refuse a file of splits or dividends beside the prices that is not read."""
    for path in sorted(folder.iterdir()):
        if path.name in used or not path.is_file() or not is_readable(path):
            continue
        try:
            headings = scan_table(path).frame.columns
        except DataError:  # whatever it holds, it is named as not read
            continue
        found = match(headings, ("date", "symbol", "close", "dividend", "split"))
        is_of_actions = len(found.taken.keys() & {"date", "dividend", "split"}) > 1
        if is_of_actions and "close" not in found.taken and len(found.unread) <= _FEW:
            words = ", ".join(headings)
            raise refusal(path, "no table beside those that are read", words, ACTIONS_CURE)


def refuse_unsorted(frame: pl.DataFrame, key: str, path: Path) -> None:
    """Refuse duplicate or descending dates within a `key` (symbol or series)."""
    previous = pl.col("date").shift(1).over(key)
    wrong = frame.with_columns(previous_date=previous).filter(
        pl.col("date") <= pl.col("previous_date")
    )
    if wrong.is_empty():
        return
    row = wrong.row(0, named=True)
    kind = "a duplicate" if row["date"] == row["previous_date"] else "an earlier date"
    raise refusal(
        path,
        f"strictly increasing dates within {key} {row[key]}",
        f"{kind}: {row['date']} after {row['previous_date']} ({wrong.height} such rows)",
        "sort and deduplicate the file",
        "date",
    )


def refuse_misspelt(symbols: Iterable[str], traded: Collection[str], path: Path) -> None:
    """Refuse a table that spells a symbol unlike the prices: its rows would reach nobody."""
    found = misspelt(symbols, traded)
    if found is not None:
        words = f"{found[0]!r}, where the prices have {found[1]!r}"
        raise refusal(path, "symbols as in the prices", words, "spell both alike", "symbol")


def refuse_repeated(column: pl.Series, path: Path) -> None:
    """Refuse a table in which a value of the column stands more than once."""
    is_again = column.is_duplicated()
    if is_again.any():
        found = f"{column.filter(is_again)[0]} twice"
        cure = "keep the right one"
        raise refusal(path, f"each {column.name} once", found, cure, column.name)


def scan_table(path: Path, *, is_of_prices: bool = False) -> Sheet:
    """Read all columns of a file under its own headings, those of a text file as text.

    What its folders say (`partition_of`) are columns, too.

    Raises:
        DataError: if the file is missing, of an unknown ending, or unreadable.
    """
    if not path.is_file():
        raise MissingArtifactError(
            f"{path} does not exist; give a file or folder that does (--input, --macro, --symbols)"
        )
    if not is_readable(path):
        endings = (TABLE_ENDING, *TEXT_ENDINGS)
        expected = f"{' or '.join(endings)}, the text also packed ({', '.join(PACKED_ENDINGS)})"
        raise refusal(path, expected, path.suffix or "none", "convert the file")
    try:
        sheet = read_sheet(path, is_of_prices=is_of_prices)
    except UnclearError as error:
        raise refusal(path, error.expected, error.found, error.cure) from error
    except TornError as error:
        kind = path.suffix.lower()
        raise refusal(
            path, f"a readable {kind} table", str(error), "repair or replace it"
        ) from error
    if not sheet.frame.columns:
        raise refusal(
            path, f"a readable {path.suffix} table", "an empty file", "repair or replace it"
        )
    frame = sheet.frame
    rest = {key: word for key, word in partition_of(path).items() if key not in frame.columns}
    return sheet._replace(frame=frame.with_columns(**{key: pl.lit(w) for key, w in rest.items()}))


def with_time(day: pl.Series, time: pl.Series) -> pl.Series:
    """Join a column of days and one of times of day; 0, 000000 and 930 are times, too."""
    if day.dtype == pl.Date or isinstance(day.dtype, pl.Datetime):
        day = day.cast(pl.Date).cast(pl.String)
    digits = time.cast(pl.String).str.strip_chars()
    is_bare = digits.str.contains(r"^\d{1,6}$").fill_null(value=False)
    n_digits = 6 if (digits.filter(is_bare).str.len_chars() > 4).any() else 4
    padded = digits.str.pad_start(n_digits, "0").str.replace(r"^(\d\d)(\d\d)(\d\d)?$", "$1:$2:$3")
    clock = padded.str.strip_chars_end(":").zip_with(is_bare, digits)
    text = day.cast(pl.String).str.strip_chars()
    return (text + " " + clock).zip_with(clock.is_not_null(), text).alias(day.name)


def typed_column(
    column: pl.Series,
    dtype: Any,
    path: Path,
    *,
    mark: str = ".",
    calendar: str | None = None,
    name: str = "",
) -> pl.Series:
    """Convert a column or refuse it; missing values and NaN become null.

    Args:
        column: The file's column.
        dtype: The type that it gets: Date, Float64 or String.
        path: The file, for the error.
        mark: The decimal mark, see `decimal_mark`.
        calendar: See `read_table`.
        name: Our name of the column; a `split` may be written 4:1.

    Raises:
        DataError: if a value does not fit.
    """
    is_number = dtype == pl.Float64()
    meaning = "numbers" if is_number else DAY_WORDS
    if is_number and not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
        raise refusal(path, meaning, str(column.dtype), "convert the column", column.name)
    try:
        typed, is_lost = convert(column, dtype, mark=mark, calendar=calendar, name=name)
    except UnclearError as error:
        raise refusal(
            path, error.expected, error.found, error.cure, column.name, error.rows
        ) from error
    if is_lost.any():
        value = repr(column.filter(is_lost)[0])
        raise refusal(path, meaning, value, "correct or remove them", column.name, is_lost)
    return typed


def convert(
    column: pl.Series,
    dtype: Any,
    *,
    mark: str = ".",
    calendar: str | None = None,
    name: str = "",
) -> tuple[pl.Series, pl.Series]:
    """Convert a column; return it with a mask of the values that do not fit.

    Values that are missing, NaN or do not fit become null. See `typed_column` for the arguments.

    Raises:
        UnclearError: if the meaning of the column cannot be decided.
    """
    if dtype == pl.Date():
        return (public_days if name == "known_at" else days)(column, calendar)
    if dtype == pl.Float64():
        return splits(column, mark) if name == "split" else numbers(column, mark)
    if column.dtype.is_float() and (column.drop_nulls() % 1 == 0).all():
        column = column.cast(pl.Int64)  # a gap made floats of whole numbers
    text = column.cast(pl.String, strict=False).str.replace_all(_UNSEEN, "").str.strip_chars()
    text = text.set((text == "").fill_null(value=False), None)
    return text, text.is_null() & text.is_not_null()


def _listed(headings: Sequence[str]) -> str:
    more = f" and {len(headings) - _NAMED} more" if len(headings) > _NAMED else ""
    return f"{', '.join(headings[:_NAMED])}{more}"


def _cure_of_missing(
    missing: Collection[str], taken: Collection[str], headings: Collection[str]
) -> str:
    """Say what may be done about a table that lacks columns, by what it seems to be."""
    if sum(map(is_day, headings)) > len(headings) / 2:
        return "exchange rows and columns: the days stand in the header"
    if "close" in missing and {"split", "dividend"} & set(taken):
        return "rename or add, or call a table of splits and dividends actions"
    if {"date", "close"} <= set(missing):
        return "rename or add, or take a file that holds no prices out of the folder"
    return "rename or add"


def _spellings(name: str, names: Mapping[str, str]) -> str:
    if name in names:
        return names[name]
    others = [text for text in HEADINGS.get(name, ()) if text != name][:_SHOWN_SPELLINGS]
    return f"{name} (or {', '.join(others)})" if others else name


def _lost_zeros(path: Path, table: pl.DataFrame, taken: Mapping[str, str]) -> tuple[str, ...]:
    """Say where a column of symbols holds numbers, which have lost their leading zeros."""
    column = table[taken["symbol"]] if "symbol" in taken else pl.Series([""])
    if not column.dtype.is_numeric():
        return ()
    texts = convert(column, pl.String())[0].drop_nulls().unique()
    longest = max(map(len, texts), default=0)
    short = min((text for text in texts if len(text) < longest), default=None)
    if short is None:
        return ()
    return (
        f"{path.name}: column {column.name} holds numbers, so leading zeros are lost: {short} "
        f"may be {short.zfill(longest)}; write the symbols as text",
    )
