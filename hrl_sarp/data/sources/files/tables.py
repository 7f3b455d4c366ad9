"""Reads one table of the user (CSV, Parquet) as named, typed columns.

Only this module knows how files spell headings, days and missing values. A value that does not fit
is refused: the error names file, column, row, cause and cure.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
from polars.exceptions import PolarsError

from hrl_sarp.data.store import FINDINGS_SCHEMA
from hrl_sarp.errors import DataError, MissingArtifactError

Columns = Mapping[str, Any]
"""Column names and polars types. It is a pl.Schema, a class that run-time type checks refuse."""

SUFFIXES = (".parquet", ".csv")
NULL_TEXTS = ("", "null", "NULL", "NaN", "nan", "NA", "N/A")
"""What files write for a missing number."""
SAME_COLUMN = {"gics_sector": "sector", "series_id": "series"}
"""Other heading -> standard heading of the same column."""

_NONE: Columns = MappingProxyType({})
_MEANING = {"Date": "dates as YYYY-MM-DD", "Float64": "numbers", "String": "text"}
_MIDNIGHT = r"[ T]00:00:00.*$"
"""What follows the day in a file that dates its rows at midnight."""


class Read(NamedTuple):
    """The content of one or several files."""

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()
    """Remarks for the manifest."""
    findings: pl.DataFrame = FINDINGS_SCHEMA.to_frame()
    """`FINDINGS_SCHEMA`: rows that were changed or left out."""


def find_table(folder: Path, stem: str) -> Path | None:
    """Return `folder/stem.parquet`, else `folder/stem.csv`, else None."""
    paths = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


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
) -> pl.DataFrame:
    """Read a file and keep the required and, where present, the optional columns.

    `names` maps our column names to the file's headings; without an entry both are equal. `keys`
    are required columns with a value in every row. The columns get our names, in the order of
    `required` and `optional`. The rows keep the order of the file. Missing values (see
    `NULL_TEXTS`) are null.
    """
    table = scan_table(path)
    schema = {**required, **optional}
    theirs = {name: _heading_in(table, name, names) for name in schema}
    missing = [theirs[name] for name in required if theirs[name] not in table.columns]
    if missing:
        others = {standard: f"{standard} (or {other})" for other, standard in SAME_COLUMN.items()}
        raise DataError(
            f"{path}: expected the columns {', '.join(theirs[name] for name in required)}; found "
            f"no {', '.join(others.get(name, name) for name in missing)} among "
            f"{', '.join(table.columns)}; rename or add"
        )
    present = [name for name in schema if theirs[name] in table.columns]
    frame = pl.DataFrame(
        {name: typed_column(table[theirs[name]], schema[name], path) for name in present}
    )
    for key in keys:
        empty = frame[key].is_null()
        if empty.any():
            cure = "complete or remove the row"
            raise refusal(path, "a value in every row", "none", cure, theirs[key], empty)
    return frame


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


def refuse_repeated(column: pl.Series, path: Path) -> None:
    """Refuse a table in which a value of the column stands more than once."""
    is_again = column.is_duplicated()
    if is_again.any():
        found = f"{column.filter(is_again)[0]} twice"
        cure = "keep the right one"
        raise refusal(path, f"each {column.name} once", found, cure, column.name)


def scan_table(path: Path) -> pl.DataFrame:
    """Read all columns of a file, those of a CSV file as text; `as_heading` writes the headings."""
    if not path.is_file():
        raise MissingArtifactError(
            f"{path} does not exist; give a file or folder that does (--input, --macro, --symbols)"
        )
    if path.suffix not in SUFFIXES:
        found = path.suffix or "none"
        raise refusal(path, " or ".join(SUFFIXES), found, "convert the file")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            # as text, so that `typed_column` can name the value that does not fit
            frame = pl.read_csv(path, infer_schema=False, null_values=list(NULL_TEXTS))
    except (PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise refusal(
            path, f"a readable {path.suffix} table", reason, "repair or replace it"
        ) from error
    names = [as_heading(name) for name in frame.columns]
    # polars renames a repeated CSV heading, so the second column would be ignored silently
    if len(set(names)) < len(names) or any("_duplicated_" in name for name in names):
        raise refusal(path, "each column once", ", ".join(names), "rename or remove one")
    frame.columns = names
    return frame


def as_heading(text: str) -> str:
    """Normalise a heading: "Adj Close**" becomes adj_close."""
    return text.strip(' "\r').lower().replace(" ", "_").rstrip("*")


def typed_column(column: pl.Series, dtype: Any, path: Path) -> pl.Series:
    """Convert a column or refuse it; missing values and NaN become null."""
    meaning = _MEANING[str(dtype)]
    found = column.dtype
    fits = found.is_numeric()
    if dtype == pl.Date():
        fits = found == pl.Date or isinstance(found, pl.Datetime)
    # text may hold any type, and a column without a value fits every type
    if not (fits or found in (pl.String, pl.Null) or dtype == pl.String()):
        raise refusal(path, meaning, str(found), "convert the column", column.name)
    typed, is_lost = convert(column, dtype)
    if is_lost.any():
        value = repr(column.filter(is_lost)[0])
        raise refusal(path, meaning, value, "correct or remove them", column.name, is_lost)
    return typed


def convert(column: pl.Series, dtype: Any) -> tuple[pl.Series, pl.Series]:
    """Convert a column; return it with a mask of the values that do not fit.

    Values that are missing, NaN or do not fit become null. A day is YYYY-MM-DD, alone or with the
    time of midnight.
    """
    there = column.is_not_null()
    if column.dtype == pl.String and dtype != pl.String():
        text = column.str.strip_chars()
        there &= ~text.is_in(NULL_TEXTS)
        if dtype == pl.Date():
            typed = text.str.replace(_MIDNIGHT, "").str.to_date("%Y-%m-%d", strict=False)
        else:
            typed = text.cast(dtype, strict=False)
    else:
        typed = column.cast(dtype, strict=False)
    is_lost = (typed.is_null() & there).fill_null(value=False)
    return (typed.fill_nan(None) if dtype == pl.Float64() else typed), is_lost


def _heading_in(table: pl.DataFrame, name: str, names: Mapping[str, str]) -> str:
    """Return the heading of one of our columns in a table; the expected one if it is missing."""
    heading = as_heading(names.get(name, name))
    if heading in table.columns:
        return heading
    same = (other for other, standard in SAME_COLUMN.items() if standard == heading)
    return next((other for other in same if other in table.columns), heading)
