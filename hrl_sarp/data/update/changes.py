"""Compares collected rows with new rows of the same key, and names what changed."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import polars as pl

from hrl_sarp.data.store import PRICE_COLUMNS

ROUNDING = 1e-6
"""Relative difference up to which two numbers are the same."""
NEW = "_new"
"""Ends the name of a column that came with the new data."""
_CONSTANT = 2e-3
"""Relative spread up to which ratios are one ratio: prices are printed with few digits."""
_SCALED = {("bars", name) for name in (*PRICE_COLUMNS, "volume")} | {("macro", "value")}
"""Columns whose values may come in another unit."""
_SMALLEST_UNIT = 2.0
"""Vendors complete provisional values by other factors than one of at least this size."""
_SMALLEST_SPLIT = 0.04
"""A factor nearer to 1 than this is no split that a price shows."""
_SHOWN = 5
"""Symbols or days that a sentence lists."""
_MOST_SHARES, _LARGEST_FACTOR = 20, 60
"""Bounds of what a factor of prices is taken for: new shares for so many old ones."""


@dataclass(frozen=True)
class Change:
    """Collected values of one symbol or series that the new data contradict."""

    table: str
    name: str
    """Symbol or series; empty for the index."""
    column: str
    """Column or columns; `row` for rows that were missing."""
    first: str
    """First day that differs; empty where the table has no days."""
    last: str
    count: int
    """How many rows differ."""
    before: str
    """Value of the first such row as collected."""
    after: str
    """Value of the same row in the new data."""
    guess: str = ""
    """What the change looks like."""

    def __str__(self) -> str:
        """Say all of it in one line."""
        days = self.first if self.first == self.last else f"{self.first} to {self.last}"
        words = f"{self.table} {self.name}".strip()
        guess = f": {self.guess}" if self.guess else ""
        return (
            f"{words} {self.column}, {days or 'no day'} ({self.count} rows): {self.before} -> "
            f"{self.after}{guess}"
        )


class Keyed(NamedTuple):
    """A table whose rows have a key."""

    field: str
    """Name in `RawData`."""
    keys: tuple[str, ...]
    """In the order that rows are sorted by."""
    name: str | None
    """Column that names a history: rows after its last day continue it."""
    day: str | None
    """Column of days; None where rows have none."""
    values: tuple[str, ...]


class Compared(NamedTuple):
    """One table after the comparison."""

    frame: pl.DataFrame
    """Collected rows with every change accepted, and the new rows; sorted by the keys."""
    fresh: pl.DataFrame
    """Rows that were not collected."""
    both: pl.DataFrame
    """Rows that are in both, with the new values beside the old ones, under names with `NEW`."""
    changes: list[Change]


def compare(
    table: Keyed, there: pl.DataFrame, new: pl.DataFrame, values: Sequence[str] | None = None
) -> Compared:
    """Find the rows of a table that are new, and name those that were collected otherwise.

    Collected rows that the new data lack stay. Numbers that differ by rounding alone stay as they
    were collected.

    Args:
        table: keys and columns.
        there: what was collected.
        new: what continues it, with the same columns.
        values: the columns that the new data state; None for all.

    Returns:
        The merged table. A new row on or before the last day of its history is a change, too.
    """
    stated = table.values if values is None else values
    keys = list(table.keys)
    both = there.join(new, on=keys, how="inner", suffix=NEW, nulls_equal=True).sort(keys)
    fresh = new.join(there, on=keys, how="anti", nulls_equal=True)
    differs = {name: _differs(name, there.schema[name].is_float()) for name in stated}
    changes = [
        change for name in stated for change in _of_column(table, both.filter(differs[name]), name)
    ]
    changes += _inserted(table, there, fresh)
    frame = there
    if changes:
        corrected = both.filter(pl.any_horizontal(differs.values())).select(
            pl.when(differs[name]).then(f"{name}{NEW}").otherwise(name).alias(name)
            if name in differs
            else pl.col(name)
            for name in there.columns
        )
        frame = there.join(corrected, on=keys, how="anti", nulls_equal=True).vstack(corrected)
    if changes or fresh.height:
        frame = frame.vstack(fresh.select(frame.columns)).sort(keys).rechunk()
    return Compared(frame, fresh, both, changes)


def _differs(name: str, is_float: bool) -> pl.Expr:  # noqa: FBT001 -- one use
    before, after = pl.col(name), pl.col(f"{name}{NEW}")
    unequal = before.ne_missing(after)
    if not is_float:
        return unequal
    size = pl.max_horizontal(before.abs(), after.abs())
    return unequal & ~((before - after).abs() <= ROUNDING * size).fill_null(value=False)


def _of_column(table: Keyed, rows: pl.DataFrame, column: str) -> list[Change]:
    if rows.is_empty():
        return []
    has_ratio = (table.field, column) in _SCALED
    ratio = pl.col(f"{column}{NEW}") / pl.col(column) if has_ratio else pl.lit(None, pl.Float64)
    groups = rows.with_columns(
        _name=pl.col(table.name) if table.name else pl.lit(""),
        _day=pl.col(table.day).cast(pl.String) if table.day else pl.lit(""),
        _ratio=ratio,
    ).group_by("_name", maintain_order=True)
    found = groups.agg(
        pl.col("_day").first().alias("first"),
        pl.col("_day").last().alias("last"),
        pl.len().alias("count"),
        pl.col(column).first().alias("before"),
        pl.col(f"{column}{NEW}").first().alias("after"),
        pl.col("_ratio").min().alias("low"),
        pl.col("_ratio").max().alias("high"),
    )
    return [
        Change(
            table.field,
            row["_name"] or "",
            column,
            row["first"],
            row["last"],
            row["count"],
            in_words(row["before"]),
            in_words(row["after"]),
            _guess(table, column, row["low"], row["high"], row["count"]),
        )
        for row in found.iter_rows(named=True)
    ]


def _inserted(table: Keyed, there: pl.DataFrame, fresh: pl.DataFrame) -> list[Change]:
    if table.day is None or fresh.is_empty():
        return []
    # rows of one history share these keys; the index is one history
    keys = [key for key in table.keys if key not in (table.day, "date")] or ["_all"]
    there, fresh = (frame.with_columns(_all=pl.lit("")) for frame in (there, fresh))
    last = there.group_by(keys).agg(_last=pl.col(table.day).max())
    dated = fresh.join(last, on=keys, how="inner", nulls_equal=True)
    late = dated.filter(pl.col(table.day) <= pl.col("_last")).sort(table.keys)
    named = late.group_by(keys, maintain_order=True).agg(
        pl.col(table.name or "_all").first().alias("_name"),
        pl.col(table.day).min().cast(pl.String).alias("first"),
        pl.col(table.day).max().cast(pl.String).alias("last"),
        pl.len().alias("count"),
        pl.col(table.values[0]).first().alias("after"),
    )
    return [
        Change(
            table.field,
            row["_name"] or "",
            "row",
            row["first"],
            row["last"],
            row["count"],
            "none",
            in_words(row["after"]),
            "a row that was missing",
        )
        for row in named.iter_rows(named=True)
    ]


def in_words(value: Any) -> str:
    """Write a value of a table; a missing one is `none`."""
    if value is None:
        return "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def in_some(names: Sequence[str]) -> str:
    """List some names, and count the others."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _guess(table: Keyed, column: str, low: float | None, high: float | None, count: int) -> str:
    if column in ("split", "dividend"):
        return f"a {column} that is stated otherwise now"
    if low is None or high is None or low <= 0:
        return ""
    if table.field == "macro" or column == "volume":
        is_unit = _is_unit((low * high) ** 0.5, count) and high / low - 1 <= _CONSTANT
        return f"all by the factor {low:.6g}: looks like another unit" if is_unit else ""
    if high / low - 1 > _CONSTANT:
        return "corrected bars"
    words = split_in_words((low * high) ** 0.5)
    if words:
        return f"looks like a split {words} restated over the past"
    if count == 1:
        return "looks like a corrected bar"
    return f"all by the factor {low:.6g}: looks like another adjustment, currency or unit"


def _is_unit(factor: float, count: int) -> bool:
    """Say whether values that are completed later hardly differ by such a factor."""
    if not 0 < factor < math.inf:
        return False
    power = abs(math.log10(factor))
    is_power = round(power) >= 1 and abs(power - round(power)) <= _CONSTANT
    return is_power or (count > 1 and power >= math.log10(_SMALLEST_UNIT))


def split_in_words(factor: float) -> str:
    """Name the split that multiplies earlier prices by a factor; empty if none is near.

    Examples:
        >>> split_in_words(0.5), split_in_words(10.0), split_in_words(0.6667), split_in_words(0.98)
        ('2:1', '1:10', '3:2', '')
    """
    if not 1 / _LARGEST_FACTOR <= factor <= _LARGEST_FACTOR or abs(factor - 1) < _SMALLEST_SPLIT:
        return ""
    turned = factor > 1
    share = Fraction(factor if turned else 1 / factor).limit_denominator(_MOST_SHARES)
    if abs(float(share) / (factor if turned else 1 / factor) - 1) > _CONSTANT or share == 1:
        return ""
    new, old = share.numerator, share.denominator
    if new > _MOST_SHARES and old > 1:  # any number is near some fraction of large numbers
        return ""
    return f"{old}:{new}" if turned else f"{new}:{old}"


def folded(changes: list[Change]) -> list[Change]:
    """Put the columns of a bar that changed on the same days into one change."""
    groups: dict[tuple[object, ...], list[Change]] = defaultdict(list)
    for change in changes:
        is_value = change.column in (*PRICE_COLUMNS, "volume")
        same = (change.table, change.name, change.first, change.last, change.count)
        groups[*same, "" if is_value else change.column].append(change)
    return [
        replace(same[0], column=", ".join(change.column for change in same))
        for same in groups.values()
    ]
