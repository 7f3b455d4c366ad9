"""Jumps of the price that are no return: splits that the data do not declare, and long holes.

A split moves the price over night and leaves the trading as it was; a crash brings many times the
usual trading, or goes on falling in the day. Both are named. Only the night of an undeclared split
is kept out of the market (`rules.BREAKING`): the bar itself is good and stays tradable.
"""

import math

import polars as pl

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.rules import findings_of

UNDECLARED_SPLIT = "undeclared_split"
LONG_HOLE = "long_hole"

_USUAL_DAYS = 20
"""Bars over which the usual trading is measured."""
_FEWEST_USUAL_DAYS = 5
_NIGHT_SHARE = 0.15
"""The night's own move may be this share of the split's log ratio ..."""
_MAX_NIGHT = 0.11
"""... up to this log return: a fall by a tenth beside a split is still a split."""
_MAX_INTRADAY = 0.15
"""Larger moves from open to close are news, not a change of units."""


def undeclared_splits(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report nights over which a price changed its unit without a declared split.

    All of these must hold: no split is declared; open over the close before (adjusted as far as
    the data are) is near 1 / n or n for one of the configured ratios n; open to close is a usual
    move; the dollar volume is below n x `split_turnover_multiple` times its median of the 20 bars
    before (unknown volume counts as usual). Bars after a long hole and bars at or after a gap of
    the adjustment are left to those rules.

    Args:
        prepared: bars as from `rules.prepare`.
        config: section `data.validation`.

    Returns:
        Findings; the value is the overnight return that is kept out.
    """
    dollars = pl.col("close") * pl.col("volume")
    usual = (
        dollars.rolling_median(_USUAL_DAYS, min_samples=_FEWEST_USUAL_DAYS).shift(1).over("symbol")
    )
    day = pl.col("close") / pl.coalesce("open", "close")
    judged = prepared.with_columns(
        night=(1 + pl.col("adjusted_return")) / day, day=day, busy=dollars / usual
    )
    looks_split = [
        _is_near(n) & (pl.col("busy").fill_null(0.0) <= n * config.split_turnover_multiple)
        for n in config.undeclared_split_ratios
    ]
    wrong = judged.filter(
        (pl.col("split") == 1)
        & (pl.col("day").log().abs() <= _MAX_INTRADAY)
        & ~_is_after_hole(config)
        & _is_adjustment_sound(config)
        & pl.any_horizontal(pl.lit(value=False), *looks_split)
    )
    return findings_of(wrong, UNDECLARED_SPLIT, pl.col("night") - 1)


def long_holes(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report bars more than `max_hole_days` calendar days after the one before.

    Splits and dividends may lie in the hole, so the move over it is kept out. The value is that
    move, the count the calendar days.
    """
    wrong = prepared.with_columns(days=_days_before()).filter(_is_after_hole(config))
    return findings_of(wrong, LONG_HOLE, pl.col("adjusted_return"), pl.col("days"))


def _is_near(n: float) -> pl.Expr:
    tolerance = min(_MAX_NIGHT, _NIGHT_SHARE * math.log(n))
    # consolidations give whole numbers of old shares for a new one
    change = pl.col("night").log().abs() if n == int(n) else -pl.col("night").log()
    return (change - math.log(n)).abs() <= tolerance


def _is_adjustment_sound(config: ValidationConfig) -> pl.Expr:
    # where adjusted and total return differ, or did on the row before, the jump is adj_close's own
    gap = (pl.col("adjusted_return") - pl.col("total_return")).abs() > config.max_adjustment_gap
    return ~gap & ~gap.shift(1).over("symbol").fill_null(value=False)


def _days_before() -> pl.Expr:
    return (pl.col("date") - pl.col("date").shift(1).over("symbol")).dt.total_days()


def _is_after_hole(config: ValidationConfig) -> pl.Expr:
    return (_days_before() > config.max_hole_days).fill_null(value=False)
