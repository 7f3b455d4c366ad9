"""Joins adjusted closes of two downloads into one series of one scale.

A vendor rescales all adjusted closes of a stock at each of its dividends and splits. So levels of
two downloads cannot be compared, but their returns can. The scale of the new download is carried
back over the collected days: from the days that both have, or else over the night between them, as
far as close, split and dividend explain it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from hrl_sarp.data.quality.expressions import priced_rows
from hrl_sarp.data.update.changes import NEW, ROUNDING, Change, Keyed, compare

ADJUSTED = "adj_close"
_FEWEST_DIGITS, _MOST_DIGITS = 2, 8
"""Digits behind the point that a vendor prints. More are those of a binary number."""
_SECOND_ORDER = 1.5
"""Vendors adjust a dividend in two ways that differ by its yield times the move of the day."""


@dataclass
class Scales:
    """What becomes of the adjusted closes of each symbol."""

    ratios: list[pl.DataFrame] = field(default_factory=list)
    """`symbol, date, ratio`: new scale over collected scale on single days."""
    rescaled: list[str] = field(default_factory=list)
    """Symbols whose collected days take another scale."""
    changes: list[Change] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


def scales_of(
    there: pl.DataFrame,
    both: pl.DataFrame,
    fresh: pl.DataFrame,
    changed: Collection[str],
    *,
    has_actions: bool,
) -> Scales:
    """Find how the adjusted closes of collected bars fit to those of new bars.

    Args:
        there: collected bars, sorted.
        both: collected bars that the new data repeat, with the new values under names with `NEW`.
        fresh: bars that were not collected.
        changed: symbols of which another column changed.
        has_actions: whether the new data state splits and dividends.

    Returns:
        Ratios, changed returns, and what cannot be joined.
    """
    scales = Scales()
    digits = tuple(
        _half_unit(column)
        for column in (there[ADJUSTED], pl.concat([both[f"{ADJUSTED}{NEW}"], fresh[ADJUSTED]]))
    )
    _overlapping(scales, there, both, {*fresh["symbol"].unique(), *changed}, digits)
    seen = scales.ratios[0]["symbol"].unique()
    known = there.drop_nulls(ADJUSTED)["symbol"].unique()
    nights = fresh.filter(
        pl.col("symbol").is_in(known.implode()) & ~pl.col("symbol").is_in(seen.implode())
    )
    _over_night(scales, there, nights, digits, has_actions=has_actions)
    _missing_values(scales, both, {*seen})
    scales.rescaled = sorted({*scales.rescaled})
    return scales


def rescale(bars: pl.DataFrame, both: pl.DataFrame, scales: Scales) -> pl.DataFrame:
    """Give every bar of the rescaled symbols the scale of the new data.

    Days that both have take the new value. Other collected days are multiplied by the ratio of the
    day before that both have, or of the first one. So no return over a seam changes.

    Args:
        bars: merged bars, sorted; fresh ones have the new scale already.
        both: as in `scales_of`.
        scales: what it found.
    """
    if not scales.rescaled:
        return bars
    ratios = pl.concat(scales.ratios)
    ratios = ratios.filter(pl.col("symbol").is_in(scales.rescaled))
    new = both.select("symbol", "date", _new=f"{ADJUSTED}{NEW}")
    new = new.filter(pl.col("symbol").is_in(scales.rescaled))
    of_both = new.with_columns(_is_both=True)
    keys = ["symbol", "date"]
    rows = bars.join(ratios, on=keys, how="left", maintain_order="left")
    rows = rows.join(of_both, on=keys, how="left", maintain_order="left")
    ratio = pl.col("ratio").forward_fill().backward_fill().over("symbol")
    kept = pl.col(ADJUSTED) * ratio.fill_null(1.0)
    is_both = pl.col("_is_both").fill_null(value=False)
    scaled = pl.when(is_both).then("_new").when(pl.col("_is_fresh")).then(ADJUSTED).otherwise(kept)
    return rows.with_columns(scaled.alias(ADJUSTED)).drop("ratio", "_new", "_is_both")


def _half_unit(values: pl.Series) -> float:
    """Return half of the last printed digit; 0 for binary numbers."""
    known = values.drop_nulls()
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
        rest = (known.round(digits) - known).abs()
        if not ((rest > 1e-12 * known.abs()) & (rest > 0)).any():
            return 0.5 * 10.0**-digits
    return 0.0


def _overlapping(
    scales: Scales,
    there: pl.DataFrame,
    both: pl.DataFrame,
    touched: Collection[str],
    digits: tuple[float, ...],
) -> None:
    """Compare returns where both have a stock; rescale the touched ones and those that changed."""
    before, after = pl.col(ADJUSTED), pl.col(f"{ADJUSTED}{NEW}")
    error = 2.0 * pl.max_horizontal(digits[0] / before, digits[1] / after) + ROUNDING
    rows = both.filter((before > 0) & (after > 0)).select(
        "symbol", "date", before, after, ratio=after / before, error=error
    )
    earlier = pl.col("ratio", "error").shift(1).over("symbol")
    rows = rows.with_columns(earlier.name.prefix("earlier_")).with_columns(
        number=pl.int_range(pl.len()).over("symbol"),
        is_same=((pl.col("ratio") - 1).abs() <= pl.col("error")).all().over("symbol"),
        breaks=(
            (pl.col("ratio") / pl.col("earlier_ratio") - 1).abs()
            > pl.col("error") + pl.col("earlier_error")
        ).fill_null(value=False),
        return_before=before / before.shift(1).over("symbol") - 1,
        return_after=after / after.shift(1).over("symbol") - 1,
    )
    broken = rows.filter("breaks")
    _name_returns(scales, broken)
    begins = there.group_by("symbol").agg(begin=pl.col("date").min())
    ambiguous = rows.filter(pl.col("number") == 1).join(begins, on="symbol")
    first = rows.filter(pl.col("number") == 0).select("symbol", first_day="date")
    ambiguous = ambiguous.join(first, on="symbol").filter(
        pl.col("breaks") & (pl.col("begin") < pl.col("first_day"))
    )
    scales.refusals += [
        f"{row['symbol']}: the return of adj_close on {row['date']} is not the collected one, and "
        f"{row['first_day']} is the first day that the new data repeat: nobody can tell which of "
        "the two days changed; give some days before, or the whole history"
        for row in ambiguous.sort("symbol").iter_rows(named=True)
    ]
    is_touched = pl.col("symbol").is_in(sorted(touched)) | pl.col("breaks").any().over("symbol")
    moved = rows.filter(~pl.col("is_same") & is_touched)
    scales.rescaled += moved["symbol"].unique().sort().to_list()
    scales.ratios.append(rows.select("symbol", "date", "ratio"))


def _name_returns(scales: Scales, broken: pl.DataFrame) -> None:
    for (symbol,), days in broken.partition_by("symbol", as_dict=True, maintain_order=True).items():
        row = days.row(0, named=True)
        scales.changes.append(
            Change(
                "bars",
                str(symbol),
                f"{ADJUSTED} (return of the day)",
                str(days["date"].min()),
                str(days["date"].max()),
                days.height,
                f"{row['return_before']:+.4%}",
                f"{row['return_after']:+.4%}",
                "a dividend, split or adjusted close that was not known so",
            )
        )


def _missing_values(scales: Scales, both: pl.DataFrame, seen: set[str]) -> None:
    """Name the days that have an adjusted close in one of the two only."""
    stated = Keyed("bars", ("symbol", "date"), "symbol", "date", (ADJUSTED,))
    rows = both.filter(pl.col(ADJUSTED).is_null() != pl.col(f"{ADJUSTED}{NEW}").is_null())
    before = rows.select("symbol", "date", ADJUSTED)
    after = rows.select("symbol", "date", pl.col(f"{ADJUSTED}{NEW}").alias(ADJUSTED))
    changes = compare(stated, before, after).changes
    scales.changes += changes
    scales.rescaled += [change.name for change in changes if change.name in seen]
    scales.refusals += [
        f"{change.name}: adj_close of {change.first} was {change.before} and is {change.after}, "
        "and no day has both: give its whole history"
        for change in changes
        if change.name not in seen
    ]


def _over_night(
    scales: Scales,
    there: pl.DataFrame,
    nights: pl.DataFrame,
    digits: tuple[float, ...],
    *,
    has_actions: bool,
) -> None:
    """Join stocks of which the new data repeat no day."""
    symbols = nights["symbol"].unique().sort().to_list()
    if not symbols:
        return
    last = there.filter(pl.col("symbol").is_in(symbols)).drop_nulls([ADJUSTED, "close"])
    last = last.group_by("symbol").last()
    ends = {row["symbol"]: row for row in last.iter_rows(named=True)}
    rows = priced_rows(nights.sort("symbol", "date")).drop_nulls(ADJUSTED)
    parts = {str(name): part for (name,), part in rows.partition_by("symbol", as_dict=True).items()}
    for symbol in symbols:
        if symbol not in parts:
            continue
        end, part = ends[symbol], parts[symbol]
        scale = None
        if has_actions and part["date"][0] > end["date"]:
            scale = _night_scale(end, part, digits)
        if scale is None:
            reason = (
                "they state no splits and dividends"
                if not has_actions
                else "close, split and dividend do not explain how it moves"
            )
            scales.refusals.append(
                f"{symbol}: adj_close cannot be joined: the new data do not repeat {end['date']}, "
                f"its last collected day, and {reason}; give the bars of that day, too"
            )
        elif scale != 1.0:
            scales.rescaled.append(symbol)
            row = {"symbol": [symbol], "date": [end["date"]], "ratio": [scale]}
            scales.ratios.append(pl.DataFrame(row))


def _night_scale(end: dict[str, Any], part: pl.DataFrame, digits: Iterable[float]) -> float | None:
    """Return the new scale over the collected one, 1.0 if it is the same; None if it is unclear.

    The return over the night follows from close, split and dividend. Either the adjusted closes
    move by it: the scale is the same. Or they differ from it by just what a vendor multiplies
    earlier days with for the splits and dividends among the new days.
    """
    if min(end["close"], end[ADJUSTED], *part["close"], *part["split"], *part[ADJUSTED]) <= 0:
        return None
    close, split, dividend = (part[name].to_numpy() for name in ("close", "split", "dividend"))
    before = np.concatenate([[end["close"]], close[:-1]])
    adjusted = part[ADJUSTED][0]
    gross = (split[0] * close[0] + dividend[0]) / before[0]
    moved = adjusted / end[ADJUSTED]
    factors = (1.0 - dividend / before) / split
    yields = np.abs(dividend / before)
    slack = yields * (np.abs(split * close / before - 1.0) + yields) * _SECOND_ORDER
    old, new = digits
    error = 2.0 * (max(old / end[ADJUSTED], new / adjusted) + ROUNDING)
    same = abs(moved / gross - 1.0)
    usual = abs(moved / gross / float(np.prod(factors)) - 1.0)
    if same <= error + slack[0] and same <= usual:
        return 1.0
    if usual <= error + slack.sum():
        return float(moved / gross)
    return None
