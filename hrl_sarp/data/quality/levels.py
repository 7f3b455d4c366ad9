"""Expressions about levels that no trade can have had; all read prepared bars and are causal.

A real move brings trading. A change of the unit (pence to pounds, a share to a lot) moves the price
by a factor and leaves the number of shares, or the money, as it was.
"""

import math

import polars as pl

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality.expressions import any_of, within

_UNITS = (10.0, 50.0, 100.0, 1000.0)
"""Factors between units of one currency, or between a share and a lot."""
_UNIT_TOLERANCE = 0.25
"""Log return that a price may make beside a change of its unit."""
_AROUND_ZERO_BARS = 20
"""Bars after a price of zero or less whose moves mean nothing: they are shares of nearly nothing.
"""


def has_usual_shares(config: ValidationConfig) -> pl.Expr:
    """Mark rows whose share volume is a usual one; an unknown volume speaks for neither."""
    return (
        pl.col("shares")
        .fill_null(1.0)
        .is_between(config.split_min_turnover / 2, config.split_max_turnover)
    )


def is_calm(config: ValidationConfig) -> pl.Expr:
    """Mark rows without unusually many shares, or without unusually much money."""
    trading = pl.min_horizontal("shares", "busy").fill_null(1.0)
    return trading <= config.split_max_turnover


def unit_changes(config: ValidationConfig) -> tuple[pl.Expr, pl.Expr]:
    """Find a night, and a day from open to close, over which the unit changed.

    The move is `impossible_ratio` or more either way, and as many shares as usual change hands.
    Where their number changed, the money must be usual, and the move must be near a factor of
    `_UNITS` or go up: shares are merged in any ratio, and no stock rises so far on the usual money.
    The close does not take the move back, because then only the open is wrong.
    """
    whole = pl.col("adjusted_return").log1p().abs()
    found = []
    for name in ("night", "day"):
        size = pl.col(name).log().abs()
        near = any_of([(size - math.log(unit)).abs() <= _UNIT_TOLERANCE for unit in _UNITS])
        money = pl.col("busy").fill_null(1.0)
        usual_money = money.is_between(config.split_min_turnover, config.split_max_turnover)
        is_huge = size.is_finite() & (size >= math.log(config.impossible_ratio))
        lasts = whole >= size / 2
        is_merged = pl.col(name) > 1
        new_number = (near | is_merged) & usual_money
        found.append(is_huge & lasts & (has_usual_shares(config) | new_number))
    night, day = (where.fill_null(value=False) for where in found)
    return night & ~pl.col("is_gap").fill_null(value=False), day


def false_range(config: ValidationConfig) -> tuple[pl.Expr, pl.Expr]:
    """Find bars whose high or low is far from their other prices and from the close before.

    The value is the factor. The high lies more than `max_abs_return` above the largest of open,
    close and the close before, or the low as far below the smallest, on usual trading or beyond
    `impossible_ratio`. A first bar and one after a hole or a gap have no close to compare with.
    """
    past = pl.col("close") / (1 + pl.col("adjusted_return"))
    above = pl.col("high") / pl.max_horizontal("open", "close", past)
    below = pl.min_horizontal("open", "close", past) / pl.col("low")
    factor = pl.max_horizontal(above, below)
    is_known = past.is_finite() & (past > 0) & (pl.col("low") > 0) & ~pl.col("is_after_hole")
    is_far = factor.is_finite() & (factor > 1 + config.max_abs_return)
    is_false = is_far & (is_calm(config) | (factor > config.impossible_ratio))
    return (is_known & is_false & ~pl.col("is_gap")).fill_null(value=False), factor


def around_zero() -> pl.Expr:
    """Mark the positive rows that follow a price of zero or less within `_AROUND_ZERO_BARS`."""
    is_zero = pl.col("close") <= 0
    return within(is_zero, _AROUND_ZERO_BARS) & ~is_zero.fill_null(value=False)


def leaves_zero() -> pl.Expr:
    """Mark the first row after the bars around zero: the move to it means nothing either."""
    is_near = within(pl.col("close") <= 0, _AROUND_ZERO_BARS)
    was_near = is_near.shift(1).over("symbol").fill_null(value=False)
    return was_near & ~is_near
