"""Finds new rows that go on in another unit than the collected ones: lots, cents, percent.

Where the new data repeat collected days, a comparison shows it. Files of single days repeat none,
so here the first new days are held against the days before them, over all symbols: no day of a
market moves most of them so far.
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl

from hrl_sarp.data.quality.levels import SHARES_OF_MOST
from hrl_sarp.data.quality.series import SCALES, Scale, unit_steps
from hrl_sarp.data.update.changes import Change, Keyed, in_some, in_words

_USUAL_DAYS, _FEWEST_USUAL = 20, 5
"""Collected bars whose median volume is the usual one of a symbol, and the fewest of them."""
_MANY_SYMBOLS, _UNLIKE_USUAL, _SHORT_SESSION, _ANY_VOLUME = 10, 6.0, 1 / 50, 50.0
"""Symbols that are many, and the factor by which their median volume never moves. An exchange may
open for an hour on a holiday: a single day has less. The volume of few symbols moves more."""
_SEVERAL_DAYS = 3
"""New days that are not all short sessions."""
_NIGHT_OF_MOST, _UNEXPLAINED_NIGHT = 0.25, 0.6
"""Logs of the median night that come with much trading, or not at all; and with any trading."""
_FEW_SYMBOLS, _PART_OF_SYMBOLS, _FAR_VOLUME = 3, 0.1, 30.0
"""Symbols, their share of all, and the factor by which volumes of a part jump in another unit."""
_FEWEST_BEFORE, _FEWEST_MOVES = 3, 60
"""Values before one that say what is usual, and moves from it that say how far values go."""
_SMALLEST_STEP, _TIMES_LARGEST = 5.0, 2.0
"""Factor, and times the largest collected move in logs, up to which values go on as before."""
_TIMES_FARTHEST = 1.2
"""Times the farthest collected values from their usual ones, in their own unit: near zero a large
factor is a small step."""
_SMALLEST_POINTS, _TIMES_POINTS = 3.0, 3.0
"""The same of a rate, which goes through zero: points, and times the largest collected change."""


class _Seam(NamedTuple):
    """The medians over all symbols that have collected and new bars."""

    n: int
    """Symbols."""
    n_days: int
    """New days."""
    day: str
    """The first of them."""
    closes: tuple[float, float]
    """Of the last collected and of the first new bars."""
    volumes: tuple[float, float]
    """Usual one, and that of the new bars; NaN where unknown."""
    night: float
    """Log of the first new close, with its split and dividend, over the collected one."""
    trading: float
    """Log of the first new volume over the usual one; NaN where unknown."""
    volumes_of: pl.DataFrame
    """`symbol, usual, new_volume, trading` of each symbol with both volumes."""


def other_units(there: pl.DataFrame, fresh: pl.DataFrame) -> list[Change]:
    """Name the columns of bars that go on at another level.

    Args:
        there: collected bars, sorted by symbol and date.
        fresh: bars that were not collected.

    Returns:
        A change for the volumes, and one for the prices, where most symbols have the factor.
    """
    seam = _seam(there, fresh)
    if seam is None:
        return []
    changes = []
    is_other_volume = _is_other_volume(seam)
    if is_other_volume:
        guess = f"by the factor {np.exp(seam.trading):.3g}: looks like another unit, such as lots"
        changes.append(_of_most(seam, "volume", seam.volumes, guess))
    elif abs(seam.trading) < np.log(_UNLIKE_USUAL):  # else most of them had a short session
        changes += _other_volumes(seam)
    is_quiet = seam.trading <= np.log(SHARES_OF_MOST) or is_other_volume
    if abs(seam.night) >= (_NIGHT_OF_MOST if is_quiet else _UNEXPLAINED_NIGHT):
        factor = float(np.exp(seam.night))
        guess = (
            f"by the factor {factor:.4g}: looks like another adjustment, currency or unit, or like "
            "a split that is not stated"
        )
        changes.append(_of_most(seam, "close", seam.closes, guess))
    return changes


def _is_other_volume(seam: _Seam) -> bool:
    most = _UNLIKE_USUAL if seam.n >= _MANY_SYMBOLS else _ANY_VOLUME
    least = 1 / most if seam.n_days >= _SEVERAL_DAYS else _SHORT_SESSION
    return bool(seam.trading >= np.log(most) or seam.trading <= np.log(least))


def _other_volumes(seam: _Seam) -> list[Change]:
    """Name the symbols whose volumes jump alike while those of the others stay."""
    changes = []
    for sign in (1.0, -1.0):
        far = seam.volumes_of.filter(sign * pl.col("trading") >= np.log(_FAR_VOLUME))
        if far.height < max(_FEW_SYMBOLS, _PART_OF_SYMBOLS * seam.volumes_of.height):
            continue
        row, factor = far.row(0, named=True), np.exp(np.median(far["trading"].to_numpy()))
        guess = (
            f"by the factor {factor:.3g} in {far.height} of {seam.n} "
            f"symbols ({in_some(far['symbol'].to_list())}): looks like another unit, such as lots"
        )
        told = (in_words(row["usual"]), in_words(row["new_volume"]), guess)
        changes.append(
            Change("bars", row["symbol"], "volume", seam.day, seam.day, far.height, *told)
        )
    return changes


def other_value_units(table: Keyed, there: pl.DataFrame, fresh: pl.DataFrame) -> list[Change]:
    """Name an index, series and own features that go on at another level.

    The first new values are held against the usual ones before them, and that move against the
    largest one that was collected: `_other_level`. A rate is held against its changes in points.

    Args:
        table: keys and columns; of several keys of a name, such as stocks, the median counts.
        there: collected values.
        fresh: values that were not collected.

    Returns:
        A change for each name.
    """
    day = table.day or "date"
    keys = [key for key in table.keys if key not in (day, "date")]
    before, after = (
        frame.select(
            _name=pl.col(table.name) if table.name else pl.lit(""),
            _key=pl.concat_str(keys or pl.lit(""), separator="\n", ignore_nulls=True),
            _day=day,
            _value=pl.col(table.values[0]).cast(pl.Float64),
        )
        .drop_nulls("_value")
        .sort("_key", "_day")
        for frame in (there, fresh)
    )
    last = before.group_by("_key").agg(pl.last("_day").alias("_last"), pl.last("_value"))
    after = after.join(last, on="_key", suffix="_last").filter(pl.col("_day") > pl.col("_last"))
    changes = []
    parts = before.partition_by("_name", as_dict=True)
    for (name,), rows in after.sort("_day", "_key").group_by("_name", maintain_order=True):
        values, row = parts[name,], rows.row(0, named=True)
        if table.field == "macro" and name in SCALES:
            guess = _other_scale(values, rows, SCALES[str(name)])
        else:
            guess = _other_level(values, rows)
        if guess:
            told = (in_words(row["_value_last"]), in_words(row["_value"]), guess)
            first, count = str(row["_day"]), rows["_key"].n_unique()
            where = (table.field, str(name), table.values[0])
            changes.append(Change(*where, first, first, count, *told))
    return changes


def _other_scale(before: pl.DataFrame, after: pl.DataFrame, scale: Scale) -> str:
    """Say what the new values of a published series look like; empty if they go on as before."""
    values, first = before["_value"].to_numpy(), after["_value"][0]
    if len(unit_steps(np.array([values[-1], first]), scale)):
        return f"looks like another unit; expected {scale.unit}"
    if "percent" not in scale.unit:
        return _other_level(before, after)
    if len(values) <= _FEWEST_MOVES:
        return ""
    largest, move = float(np.abs(np.diff(values)).max()), abs(first - values[-1])
    if move <= max(_SMALLEST_POINTS, _TIMES_POINTS * largest):
        return ""
    return f"by {move:.3g} points: looks like another series, or a wrong value"


def _other_level(before: pl.DataFrame, after: pl.DataFrame) -> str:
    """Say by which factor new values lie elsewhere; empty if collected ones have moved like that.

    Args:
        before: `_key, _day, _value` of one name, sorted.
        after: the same of its new values.
    """
    size = pl.col("_value").abs()
    log = pl.when(size > 0).then(size.log())  # the log of 0 says nothing about the unit
    usual = log.rolling_median(_USUAL_DAYS, min_samples=_FEWEST_BEFORE).shift(1).over("_key")
    moves = before.select("_day", move=log - usual, points=size - usual.exp()).drop_nulls()
    last = before.group_by("_key").agg(last=log.drop_nulls().tail(_USUAL_DAYS).median())
    first = after.group_by("_key").agg(first=log.drop_nulls().head(_USUAL_DAYS).median())
    pairs = first.join(last, on="_key").drop_nulls()
    of_days = moves.group_by("_day").agg(pl.median("move", "points"))
    if pairs.is_empty() or of_days.height < _FEWEST_MOVES:
        return ""
    move = float(np.median((pairs["first"] - pairs["last"]).to_numpy()))
    points = float(np.median((pairs["first"].exp() - pairs["last"].exp()).to_numpy()))
    largest = float(np.max(np.sign(move) * of_days["move"].to_numpy(), initial=0.0))
    is_far = abs(move) > max(math.log(_SMALLEST_STEP), _TIMES_LARGEST * largest)
    farthest = float(np.abs(of_days["points"].to_numpy()).max())
    if not is_far or abs(points) <= _TIMES_FARTHEST * farthest:  # a small step near zero
        return ""
    return f"by the factor {math.exp(move):.3g}: looks like another unit, or another series"


def _seam(there: pl.DataFrame, fresh: pl.DataFrame) -> _Seam | None:
    volume = pl.col("volume").filter(pl.col("volume") > 0)
    usual = volume.tail(_USUAL_DAYS)
    of_there = (
        there.filter(pl.col("close") > 0)
        .group_by("symbol")
        .agg(
            pl.last("date"),
            pl.last("close"),
            usual=pl.when(usual.len() >= _FEWEST_USUAL).then(usual.median()),
        )
    )
    of_fresh = (
        fresh.filter(pl.col("close") > 0)
        .sort("symbol", "date")
        .group_by("symbol")
        .agg(
            pl.first("date", "split", "dividend").name.prefix("new_"),
            pl.first("close").alias("new_close"),
            new_volume=volume.head(_USUAL_DAYS).median(),
        )
    )
    pairs = of_there.join(of_fresh, on="symbol").filter(pl.col("new_date") > pl.col("date"))
    if pairs.is_empty():
        return None
    split = pl.col("new_split").fill_null(1.0)
    worth = split * pl.col("new_close") + pl.col("new_dividend").fill_null(0.0)
    trading_of = (pl.col("new_volume") / pl.col("usual")).log()
    row = pairs.select(
        pl.len().alias("n"),
        pl.min("new_date"),
        pl.median("close", "new_close", "usual", "new_volume"),
        night=(worth / pl.col("close")).log().median(),
        trading=trading_of.median(),
    ).row(0, named=True)
    trading = row["trading"]
    return _Seam(
        n=row["n"],
        n_days=fresh["date"].n_unique(),
        day=str(row["new_date"]),
        closes=(row["close"], row["new_close"]),
        volumes=(row["usual"] or math.nan, row["new_volume"] or math.nan),
        night=row["night"],
        trading=math.nan if trading is None else trading,
        volumes_of=pairs.select("symbol", "usual", "new_volume", trading=trading_of)
        .drop_nulls()
        .sort("symbol"),
    )


def _of_most(seam: _Seam, column: str, medians: tuple[float, float], guess: str) -> Change:
    before, after = (in_words(value) for value in medians)
    name = f"medians of {seam.n} symbols"
    return Change("bars", name, column, seam.day, seam.day, seam.n, before, after, guess)
