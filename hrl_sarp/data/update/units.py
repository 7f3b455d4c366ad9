"""Finds new rows that go on in another unit than the collected ones: lots, cents, adjusted prices.

Where the new data repeat collected days, a comparison shows it. Files of single days repeat none,
so here the first new days are held against the days before them, over all symbols: no day of a
market moves most of them so far.
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl

from hrl_sarp.data.quality.levels import SHARES_OF_MOST
from hrl_sarp.data.quality.series import SCALES, unit_steps
from hrl_sarp.data.update.changes import Change, in_words

_USUAL_DAYS, _FEWEST_USUAL = 20, 5
"""Collected bars whose median volume is the usual one of a symbol, and the fewest of them."""
_MANY_SYMBOLS, _UNLIKE_USUAL, _SHORT_SESSION, _ANY_VOLUME = 10, 6.0, 1 / 50, 50.0
"""Symbols that are many, and the factor by which their median volume never moves. An exchange may
open for an hour on a holiday: a single day has less. The volume of few symbols moves more."""
_SEVERAL_DAYS = 3
"""New days that are not all short sessions."""
_NIGHT_OF_MOST, _UNEXPLAINED_NIGHT = 0.25, 0.6
"""Logs of the median night that come with much trading, or not at all; and with any trading."""


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


def other_series_units(there: pl.DataFrame, fresh: pl.DataFrame) -> list[Change]:
    """Name the macro series that go on at a hundredth or a hundredfold.

    Args:
        there: collected values, `date, series, value`.
        fresh: values that were not collected.

    Returns:
        A change for each known series.
    """
    last = there.drop_nulls("value").sort("series", "date").group_by("series").last()
    first = fresh.drop_nulls("value").sort("series", "date").group_by("series").first()
    pairs = last.join(first, on="series", suffix="_new").filter(
        (pl.col("date_new") > pl.col("date")) & pl.col("series").is_in(sorted(SCALES))
    )
    return [
        Change(
            "macro",
            row["series"],
            "value",
            str(row["date_new"]),
            str(row["date_new"]),
            1,
            in_words(row["value"]),
            in_words(row["value_new"]),
            f"looks like another unit; expected {SCALES[row['series']].unit}",
        )
        for row in pairs.sort("series").iter_rows(named=True)
        if len(unit_steps(np.array([row["value"], row["value_new"]]), SCALES[row["series"]]))
    ]


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
    row = pairs.select(
        pl.len().alias("n"),
        pl.min("new_date"),
        pl.median("close", "new_close", "usual", "new_volume"),
        night=(worth / pl.col("close")).log().median(),
        trading=(pl.col("new_volume") / pl.col("usual")).log().median(),
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
    )


def _of_most(seam: _Seam, column: str, medians: tuple[float, float], guess: str) -> Change:
    before, after = (in_words(value) for value in medians)
    name = f"medians of {seam.n} symbols"
    return Change("bars", name, column, seam.day, seam.day, seam.n, before, after, guess)
