"""Reads bars of any spacing from one file; impossible rows are left out.

An instrument is one distinct combination of the columns symbol, contract and instrument_id, as far
as the file has them. Instruments are ordered by their first bar. Rows are ordered by instrument,
then by time. So a front-month series whose instrument_id changes at each roll stays in the order of
time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float64, Int32, Shaped
from loguru import logger

from hrl_sarp.data.sources.files.forms.headings import HEADINGS, match
from hrl_sarp.data.sources.files.forms.layouts import Sheet
from hrl_sarp.data.sources.files.forms.values import TIME_WORDS, UnclearError, decimal_mark, stamps
from hrl_sarp.data.sources.files.tables import refusal, scan_table, typed_column, with_time
from hrl_sarp.data.store import PRICE_COLUMNS
from hrl_sarp.errors import DataError, MissingArtifactError
from hrl_sarp.run.files import sha256_file

NAME_COLUMNS = ("symbol", "contract", "instrument_id")
MOST_SHOWN_CHOICES = 20

_FIXED_POINT = 1e-9
"""What one unit of a price of whole numbers is worth in the files of Databento."""
_LEAST_FIXED = 1e7
"""A cent in those units."""
_O, _H, _L, _C = (pl.col(name) for name in PRICE_COLUMNS)
_RULES: Mapping[str, tuple[pl.Expr, str]] = {
    "no_time": (pl.col("time").is_null(), "the time is missing"),
    "no_instrument": (pl.col("instrument") == "", "every name of the instrument is missing"),
    "price_missing": (
        ~pl.all_horizontal(pl.col(PRICE_COLUMNS).is_finite().fill_null(value=False)),
        "a price is missing or infinite",
    ),
    "price_not_positive": (pl.min_horizontal(PRICE_COLUMNS) <= 0, "a price is zero or negative"),
    "high_below_low": (_H < _L, "the high is below the low"),
    "outside_range": (
        (pl.max_horizontal(_O, _C) > _H) | (pl.min_horizontal(_O, _C) < _L),
        "open or close lie outside low .. high",
    ),
}
"""Name of a rule -> the rows that break it, and its words in the log.

A row that breaks several rules counts under the first.
"""


@dataclass(frozen=True)
class Bars:
    """Bars sorted by instrument, then time; strictly increasing times within an instrument."""

    timestamps: Shaped[np.ndarray, " N"]
    """datetime64[us] without a zone. Times that have a zone in the file are in UTC."""
    instrument: Int32[np.ndarray, " N"]
    """Index into `instruments`, never decreasing."""
    instruments: tuple[str, ...]
    """Names in the order of their first bar, for example `ES 201312`."""
    open: Float64[np.ndarray, " N"]
    high: Float64[np.ndarray, " N"]
    low: Float64[np.ndarray, " N"]
    close: Float64[np.ndarray, " N"]
    """All prices are positive and finite; open and close lie between low and high."""
    volume: Float64[np.ndarray, " N"] | None
    """At least 0; None if the file has none."""
    content_hash: str
    """SHA-256 of the whole file, also where one symbol was picked."""
    excluded: dict[str, int] = field(default_factory=dict)
    """Rule (`no_time`, ..., `duplicate`, `disputed`) to rows that were left out for it."""
    own: dict[str, Float64[np.ndarray, " N"]] = field(default_factory=dict)
    """Further columns of the file that the caller asked for; NaN where a value is missing."""
    file: str = "these bars"
    """What messages call the file."""

    def __len__(self) -> int:
        """Return the number of bars."""
        return len(self.timestamps)


def read_bars(path: Path, symbol: str | None = None, own: Sequence[str] = ()) -> Bars:
    """Read a CSV or Parquet file of bars.

    The file needs open, high, low, close and the time, under any of their `HEADINGS`; a day and a
    time of day may stand in two columns. The columns symbol, contract, instrument_id and volume are
    optional, and so are those of numbers that `own` names. All others are ignored. `symbol` picks a
    value of the column symbol (with all its contracts) or the full name of one instrument.

    Impossible bars are left out, with a log line for each rule. Where an instrument has several
    equal bars at one time, one is kept. Where they differ, none is kept. A missing volume counts
    as 0.
    """
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; name a file of bars as --data")
    frame = _named_and_typed(scan_table(path), path, own)
    if symbol is not None:
        is_picked = (pl.col("group") == symbol) | (pl.col("instrument") == symbol)
        choices = [name for name in frame["group"].unique().sort() if name]
        frame = frame.filter(is_picked)
        if frame.is_empty():
            shown, more = ", ".join(choices[:MOST_SHOWN_CHOICES]), len(choices) - MOST_SHOWN_CHOICES
            raise DataError(
                f"{path}: expected bars of the symbol {symbol!r}, found none; choose one of: "
                + (f"{shown} and {more} more" if more > 0 else shown)
            )
    n_rows = frame.height
    frame, excluded = _without_false_bars(frame, path)
    frame, repeated = _without_duplicates(_in_order(frame, path), path)
    excluded |= repeated
    if frame.is_empty():
        found = ", ".join(f"{rule} {count}" for rule, count in excluded.items()) or "no rows"
        raise DataError(
            f"{path}: expected bars, found none that can be used among {n_rows} rows ({found}); "
            "check the file's columns and units"
        )
    return Bars(
        timestamps=frame["time"].to_numpy(),
        # numbered again, because an instrument may have lost all its bars
        instrument=frame["number"].rle_id().cast(pl.Int32).to_numpy(),
        instruments=tuple(frame["instrument"].unique(maintain_order=True)),
        **{name: frame[name].to_numpy() for name in PRICE_COLUMNS},
        volume=frame["volume"].to_numpy() if "volume" in frame.columns else None,
        content_hash=sha256_file(path),
        excluded=excluded,
        own={name: frame[name].to_numpy() for name in own if name in frame.columns},
        file=str(path),
    )


def _named_and_typed(sheet: Sheet, path: Path, own: Sequence[str]) -> pl.DataFrame:
    """Return time, instrument, prices, volume and `own` if the file has them, and the group.

    The group is the value that `symbol` picks.
    """
    table = sheet.frame
    wanted = ("instant", "time", *PRICE_COLUMNS, "volume", *NAME_COLUMNS, *own)
    found = match(table.columns, wanted)
    missing = [name for name in PRICE_COLUMNS if name not in found.taken]
    if "instant" not in found.taken:
        missing = [f"time column (one of {', '.join(HEADINGS['date'])})", *missing]
    if missing:
        raise DataError(
            f"{path}: expected bars with a time, open, high, low and close; found no "
            f"{', no '.join(missing)} among the columns {', '.join(table.columns)}; rename or add"
        )
    for name, rivals in found.rivals.items():
        cure = f"rename the right one to {name}"
        raise refusal(path, f"one column for {name}", " and ".join(rivals), cure)
    numbers = [name for name in (*PRICE_COLUMNS, "volume", *own) if name in found.taken]
    names = [name for name in NAME_COLUMNS if name in found.taken]
    columns = {name: table[found.taken[name]] for name in (*numbers, *names)}
    time = table[found.taken["instant"]]
    if "time" in found.taken:
        time = with_time(time, table[found.taken["time"]])
    try:
        mark = decimal_mark([columns[name] for name in numbers], sheet.separator)
    except UnclearError as error:
        raise refusal(path, error.expected, error.found, error.cure) from error
    frame = pl.DataFrame(
        [
            _times(time, path).alias("time"),
            *(
                typed_column(columns[name], pl.Float64(), path, mark=mark).alias(name)
                for name in numbers
            ),
            *(typed_column(columns[name], pl.String(), path).alias(name) for name in names),
        ]
    )
    frame = _in_currency(frame, table.columns, path)
    group = pl.coalesce(names).fill_null("") if names else pl.lit(path.stem)
    full = pl.concat_str(names, separator=" ", ignore_nulls=True) if names else pl.lit(path.stem)
    return frame.with_columns(group=group, instrument=full).drop(names)


def _in_currency(frame: pl.DataFrame, headings: list[str], path: Path) -> pl.DataFrame:
    """Give prices of fixed point their unit: Databento writes billionths as whole numbers."""
    lowest = frame.select(pl.min_horizontal(PRICE_COLUMNS)).to_series().drop_nulls().to_numpy()
    is_theirs = {"rtype", "publisher_id"} & {heading.strip().lower() for heading in headings}
    if not is_theirs or not len(lowest) or np.median(lowest) < _LEAST_FIXED:
        return frame
    _report(path, "prices of fixed point are read in billionths", None)
    return frame.with_columns(pl.col(PRICE_COLUMNS) * _FIXED_POINT)


def _times(column: pl.Series, path: Path) -> pl.Series:
    """Return datetimes without a zone; a missing time is null.

    Times with a zone are told in UTC: a local clock shows one hour twice each autumn.
    """
    try:
        read = stamps(column)
    except UnclearError as error:
        raise refusal(
            path, error.expected, error.found, error.cure, column.name, error.rows
        ) from error
    if read.is_lost.any():
        value = repr(column.filter(read.is_lost)[0])
        cure = "correct or remove them"
        raise refusal(path, TIME_WORDS, value, cure, column.name, read.is_lost)
    return read.utc()


def _without_false_bars(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    """Leave out the rows that break a rule.

    A missing or negative volume becomes 0. Where no volume is known, the column is dropped.
    """
    names = list(_RULES)
    reasons = [pl.when(rule).then(pl.lit(i)) for i, (rule, _) in enumerate(_RULES.values())]
    frame = frame.with_columns(broken=pl.coalesce(*reasons))
    bad = frame.filter(pl.col("broken").is_not_null())
    found = bad.group_by("broken").agg(pl.len(), pl.col("time").min()).sort("broken")
    excluded = {}
    for code, count, first in found.iter_rows():
        excluded[names[code]] = count
        _report(path, f"left out {count} bars: {_RULES[names[code]][1]} ({names[code]})", first)
    kept = frame.filter(pl.col("broken").is_null()).drop("broken")
    if "volume" not in kept.columns:
        return kept, excluded
    volume = kept["volume"]
    usable = (volume.is_finite() & (volume >= 0)).fill_null(value=False)
    if not usable.any():
        return kept.drop("volume"), excluded
    if not usable.all():
        first = kept["time"].filter(~usable).min()
        _report(path, f"{(~usable).sum()} volumes are missing or negative and count as 0", first)
    return kept.with_columns(volume=pl.when(usable).then(volume).otherwise(0.0)), excluded


def _in_order(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Number the instruments by their first bar and sort; log how many bars were out of order."""
    first_bars = frame.group_by("instrument").agg(first_time=pl.col("time").min())
    numbered = first_bars.sort("first_time", "instrument").with_row_index("number")
    frame = frame.join(
        numbered.drop("first_time"), on="instrument", how="left", maintain_order="left"
    )
    backward = frame.filter(pl.col("time").diff().over("number") < pl.duration())["time"]
    if len(backward):
        _report(path, f"sorted: {len(backward)} bars stood after a later one", backward[0])
    return frame.sort("number", "time", maintain_order=True)


def _without_duplicates(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    """Keep one of several equal bars; where bars of one time differ, the true one is unknown."""
    key = ("number", "time")
    is_again = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in key)
    frame = frame.with_columns(is_again=is_again.fill_null(value=False))
    if not frame["is_again"].any():
        return frame.drop("is_again"), {}
    frame = frame.with_columns(group=(~pl.col("is_again")).cum_sum())
    is_other = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in PRICE_COLUMNS)
    disputed = frame.filter(is_other & pl.col("is_again"))["group"].unique()
    is_disputed = pl.col("group").is_in(disputed.implode())
    excluded = {}
    for rule, where, text in (
        ("duplicate", pl.col("is_again") & ~is_disputed, "equal to the bar of the same time"),
        ("disputed", is_disputed, "their prices differ from those of another bar of the same time"),
    ):
        times = frame.filter(where)["time"]
        if len(times):
            excluded[rule] = len(times)
            _report(path, f"left out {len(times)} bars: {text} ({rule})", times.min())
    return frame.filter(~is_disputed & ~pl.col("is_again")).drop("is_again"), excluded


def _report(path: Path, what: str, first: object) -> None:
    where = "" if first is None else f"; first at {first}"
    logger.warning("{}: {}{}", path.name, what, where)
