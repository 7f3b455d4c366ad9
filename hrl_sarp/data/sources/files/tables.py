"""Reads one user's table (CSV or Parquet) and brings it to named, typed columns, or says why not.

Nothing is guessed: text that is no number, a missing column or a doubled key is an error that names
file, column, expected and found.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from hrl_sarp.errors import DataError, MissingArtifactError

Columns = Mapping[str, Any]
"""Column names and polars types: a pl.Schema (whose own name the run-time checks cannot take)."""

SUFFIXES = (".parquet", ".csv")
NULL_TEXTS = ("", "null", "NULL", "NaN", "nan", "NA", "N/A")
"""What files write for a missing number."""

_MEANING = {"Date": "dates as YYYY-MM-DD", "Float64": "numbers", "String": "text"}


def find_table(folder: Path, stem: str) -> Path | None:
    """Return `folder/stem.parquet` or `.csv`, or None if there is neither."""
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None


def read_table(
    path: Path, required: Columns, optional: Columns = MappingProxyType({})
) -> pl.DataFrame:
    """Read a file and keep the required and, where present, the optional columns.

    Column names are matched in lower case. Missing numbers (null, empty text, NaN) become null.

    Args:
        path: a .csv or .parquet file.
        required: names and types that must be there.
        optional: names and types that may be there.

    Raises:
        MissingArtifactError: if there is no such file.
        DataError: if the file is unreadable, or a column is missing or of another type.
    """
    frame = scan_table(path)
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path}: expected the columns {', '.join(required)}; found no "
            f"{', '.join(missing)} among {', '.join(frame.columns)}"
        )
    schema = {**required, **optional}
    present = [name for name in schema if name in frame.columns]
    return frame.select(typed_column(frame[name], schema, path) for name in present)


def refuse_null_keys(frame: pl.DataFrame, keys: list[str], path: Path) -> None:
    """Refuse rows without a key.

    Raises:
        DataError: naming the column and the first such row.
    """
    for key in keys:
        position = frame[key].is_null().arg_max()
        if frame[key].null_count() and position is not None:
            raise DataError(
                f"{path}: column {key}: expected a value in every row, found none in data row "
                f"{position + 1}; complete or remove the row"
            )


def refuse_unsorted(frame: pl.DataFrame, key: str, path: Path) -> None:
    """Refuse doubled or descending dates within a symbol or series.

    Raises:
        DataError: naming the symbol and the two dates.
    """
    previous = pl.col("date").shift(1).over(key)
    wrong = frame.with_columns(previous_date=previous).filter(
        pl.col("date") <= pl.col("previous_date")
    )
    if wrong.is_empty():
        return
    row = wrong.row(0, named=True)
    kind = "a duplicate" if row["date"] == row["previous_date"] else "an earlier date"
    raise DataError(
        f"{path}: column date: expected strictly increasing dates within {key} {row[key]}, found "
        f"{kind}: {row['date']} after {row['previous_date']} ({wrong.height} such rows); sort and "
        "deduplicate the file"
    )


def scan_table(path: Path) -> pl.DataFrame:
    """Read all columns of a file under lower-case names; those of a CSV file as text.

    Raises:
        MissingArtifactError: if there is no such file.
        DataError: if it is unreadable or names a column twice.
    """
    if not path.is_file():
        raise MissingArtifactError(
            f"{path} does not exist; give a file or folder that does (--input, --macro, --symbols)"
        )
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected {' or '.join(SUFFIXES)}, found {path.suffix or 'none'}")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            # all text: the conversion below can then name the value that does not fit
            frame = pl.read_csv(path, infer_schema=False, null_values=list(NULL_TEXTS))
    except (PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: expected a readable {path.suffix} table, found: {reason}"
        ) from error
    names = [name.strip().lower() for name in frame.columns]
    # polars renames a doubled CSV heading, which would drop the second column in silence
    if len(set(names)) < len(names) or any("_duplicated_" in name for name in names):
        raise DataError(f"{path}: expected each column once, found {', '.join(names)}")
    frame.columns = names
    return frame


def typed_column(column: pl.Series, schema: Columns, path: Path) -> pl.Series:
    """Return a column as the type that `schema` names for it; missing values are null.

    Raises:
        DataError: naming the first value, or the type, that does not fit.
    """
    expected = schema[column.name]
    is_text = column.dtype == pl.String
    if is_text and expected == pl.Date():
        typed = column.str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
    elif is_text and expected == pl.Float64():
        typed = column.str.strip_chars().cast(expected, strict=False)
    elif _is_convertible(column, schema):
        typed = column.cast(expected, strict=False)
    else:
        raise DataError(
            f"{path}: column {column.name}: expected {_MEANING[str(expected)]}, "
            f"found {column.dtype}"
        )
    lost = typed.is_null() & column.is_not_null()
    if lost.any():
        row = int(lost.arg_max() or 0)
        raise DataError(
            f"{path}: column {column.name}: expected {_MEANING[str(expected)]}, found "
            f"{column[row]!r} in data row {row + 1} ({lost.sum()} such rows); correct or remove "
            "them"
        )
    return typed.fill_nan(None) if expected == pl.Float64() else typed


def _is_convertible(column: pl.Series, schema: Columns) -> bool:
    if column.dtype == pl.Null():  # a column without any value fits every type
        return True
    if schema[column.name] == pl.Date():
        return column.dtype == pl.Date() or isinstance(column.dtype, pl.Datetime)
    return column.dtype.is_numeric() if schema[column.name] == pl.Float64() else True
