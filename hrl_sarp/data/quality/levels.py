"""Levels that no trade can have had. The expressions read prepared bars and are causal.

A real move brings trading. A change of the unit (pence to pounds, a share to a lot) moves the price
by a factor and leaves the number of shares, or the money, as it was.
"""

import math

import polars as pl

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality.expressions import any_of, before, findings_of, within

_UNITS = (10.0, 50.0, 100.0, 1000.0)
"""Factors between units of one currency, or between a share and a lot."""
_UNIT_TOLERANCE = 0.25
"""Log return that a price may make beside a change of its unit."""
_AROUND_ZERO_BARS = 20
"""Bars after a price of zero or less whose moves mean nothing: they are shares of nearly nothing.
"""

_TWOFOLD = 1.9
"""A stock does not rise by so much in a night without many shares being traded."""
JUMP, _JUMP_SHARES = math.log(1.2), 2.0
"""Log return of a night that brings trading, and the shares over the usual ones that are few."""
_FEWEST_SHARES = 0.3
"""Shares over the usual ones below which hardly anyone could trade on the news."""
_STILL_BARS, _BARS_BEFORE, _FEWEST_BEFORE, _RARELY_STILL = 20, 60, 10, 0.2
"""Bars without any move after which a symbol of unknown volume does not trade, if it had moved on
most of the bars before. A share that nobody trades for weeks is quiet from the start."""
_FEWEST_SYMBOLS, _JUMP_OF_MOST, SHARES_OF_MOST = 3, 0.05, 1.3
"""Symbols that say something about a day, their median night that brings trading, and the shares
over the usual ones that are none."""
_USUAL_NIGHTS, _FEWEST_NIGHTS, _TIMES_USUAL = 60, 10, 12.0
"""Sessions whose median night is the usual one, and how many of it such a jump is: in a crisis a
market opens far away on the trading of every day."""
_BARS_OF_VOLUME, _VOLUME_STEP = 20, 25.0
"""Bars on both sides of a change of the unit of volumes, and the least factor of such a change."""
_PAUSE_DAYS, _PAUSE_STEP = 20, 4.0
"""Days without a bar after which the symbol may be another company's, and the least factor then."""
_STRAIGHT_STEPS, _STRAIGHT = 20, 1e-6
"""Equal steps in a row that no price makes, and the share of the price that rounding leaves."""
_ROUNDED_STEP = 0.0101
"""What rounding to cents leaves of equal steps."""

_PART, _FEWEST_ROWS = 126, 60
"""Bars of a symbol that are looked at together, and fewer that say nothing."""
_EXCHANGED = 1.5
"""Usual night over the usual move from open to next close: at most 1.1 in 28,000 quarters."""
_LINKED = 0.35
"""Correlation of a move with the next one that prices do not have: it is -0.2 to 0.2 in stocks."""
_WILD = 0.4
"""Log returns from here on say nothing about usual ones."""
_STANDING = 0.5
"""Share of the bars on which the closes of most stocks change, at least."""


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
    A rise from `_TWOFOLD` on is one, too, if hardly more shares than usual change hands: prices
    before it were divided by splits to come, and those after it were not.
    The close does not take the move back, because then only the open is wrong.
    """
    is_quiet = _has_few_shares()
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
        is_rise = is_merged & (size >= math.log(_TWOFOLD)) & is_quiet & size.is_finite()
        found.append(lasts & ((is_huge & (has_usual_shares(config) | new_number)) | is_rise))
    night, day = (where.fill_null(value=False) for where in found)
    return night & ~pl.col("is_gap").fill_null(value=False), day


def quiet_jump() -> pl.Expr:
    """Find nights of a lasting jump that brought no trading, as a change of currency does not."""
    night, whole = pl.col("night").log(), pl.col("adjusted_return").log1p()
    lasts = (night.sign() == whole.sign()) & (whole.abs() >= JUMP)
    is_jump = night.is_finite() & (night.abs() >= JUMP) & lasts & ~pl.col("is_gap")
    return (is_jump & _has_few_shares() & ~pl.col("is_after_hole")).fill_null(value=False)


def stands_still() -> pl.Expr:
    """Mark rows of an unknown volume whose prices are all the close of the twenty rows before.

    The symbol moved on most of the sixty rows before these.
    """
    close = pl.col("close")
    is_flat = pl.all_horizontal(
        (pl.col(name) == close).fill_null(value=True) for name in ("open", "high", "low")
    )
    is_same = (is_flat & (close == before("close"))).fill_null(value=False).cast(pl.Int8)
    lasts = is_same.rolling_min(_STILL_BARS, min_samples=_STILL_BARS).over("symbol") == 1
    stood = is_same.cast(pl.Float64).rolling_mean(_BARS_BEFORE, min_samples=_FEWEST_BEFORE)
    begins = (is_same == 1) & (is_same.shift(1).over("symbol") == 0)
    stood_before = pl.when(begins).then(stood.shift(1).over("symbol")).forward_fill().over("symbol")
    is_new = stood_before <= _RARELY_STILL
    return (lasts & is_new & pl.col("volume").is_null()).fill_null(value=False)


def jumps_of_most(prepared: pl.DataFrame) -> pl.DataFrame:
    """Report nights over which most symbols jump although no more shares than usual are traded.

    `jump_of_most`: two downloads that are adjusted to different days, or in different currencies,
    were joined there. It has the first symbol by name and the number of symbols; the value is the
    median night. The nights are earned, because a market may open so after a holiday.
    """
    night = pl.col("night").log()
    known = prepared.filter(night.is_finite() & pl.col("shares").is_not_null())
    of_days = known.group_by("date").agg(
        pl.min("symbol"),
        size=night.abs().median(),
        middle=night.median(),
        shares=pl.median("shares"),
        n=pl.len(),
    )
    usual = pl.col("size").rolling_median(_USUAL_NIGHTS, min_samples=_FEWEST_NIGHTS).shift(1)
    is_large = (pl.col("size") >= _JUMP_OF_MOST) & (pl.col("size") >= _TIMES_USUAL * usual)
    found = of_days.sort("date").filter(
        (pl.col("n") >= _FEWEST_SYMBOLS)
        & is_large
        & pl.col("shares").is_between(_FEWEST_SHARES, SHARES_OF_MOST)
    )
    detail = pl.format(
        "half of {} symbols and more jump by {} % over this night on {} of the usual shares; if "
        "two downloads are joined here, give all prices in one adjustment and currency",
        "n",
        (100 * pl.col("size")).round(1),
        pl.col("shares").round(2),
    )
    return findings_of(found, "jump_of_most", pl.col("middle").exp() - 1, pl.col("n"), detail)


def _has_few_shares() -> pl.Expr:
    """Mark rows on which hardly more shares than usual, and not next to none, changed hands."""
    return pl.col("shares").is_between(_FEWEST_SHARES, _JUMP_SHARES).fill_null(value=False)


def volume_steps(bars: pl.DataFrame) -> pl.DataFrame:
    """Report days from which on volumes have another unit, such as lots or thousands.

    `volume_step`: the median traded money of the twenty bars from there on is `_VOLUME_STEP` times
    that of the twenty bars before, or one part in so many, and the largest of one side lies below
    the smallest of the other. The value is the factor.
    `another_company`: the same after a pause, from `_PAUSE_STEP` on: symbols are given again.
    """
    money = (pl.col("close") * pl.col("volume")).log()
    traded = bars.filter((pl.col("volume") > 0) & (pl.col("close") > 0)).with_columns(
        money=money, pause=(pl.col("date") - before("date")).dt.total_days()
    )
    sides = {}
    for name in ("median", "min", "max"):
        rolled = getattr(pl.col("money"), f"rolling_{name}")(_BARS_OF_VOLUME)
        sides[f"{name}_before"] = rolled.shift(1).over("symbol")
        sides[f"{name}_after"] = rolled.shift(1 - _BARS_OF_VOLUME).over("symbol")
    step = pl.col("median_after") - pl.col("median_before")
    above = pl.col("min_after") - pl.col("max_before")
    below = pl.col("min_before") - pl.col("max_after")
    apart = traded.with_columns(**sides).with_columns(
        step=step, apart=pl.max_horizontal(above, below)
    )
    is_pause = (pl.col("pause") >= _PAUSE_DAYS).fill_null(value=False)
    least = pl.when(is_pause).then(math.log(_PAUSE_STEP)).otherwise(math.log(_VOLUME_STEP))
    found = apart.filter((pl.col("step").abs() >= least) & (pl.col("apart") > 0))
    near = (pl.col("date") - before("date")).dt.total_days() > 2 * _BARS_OF_VOLUME
    group = near.fill_null(value=False).cum_sum().over("symbol").alias("group")
    first = found.with_columns(group).group_by("symbol", "group", maintain_order=True)
    best = first.agg(pl.all().sort_by("apart", descending=True).first())
    unit = pl.lit("traded money is another by this factor from here on: give volumes in shares")
    company = pl.format(
        "after {} days without a bar traded money is another by this factor: if the symbol was "
        "given to another company, give that one its own",
        "pause",
    )
    factor = pl.col("step").exp()
    return pl.concat(
        [
            findings_of(best.filter(~is_pause), "volume_step", factor, detail=unit),
            findings_of(best.filter(is_pause), "another_company", factor, detail=company),
        ]
    )


def straight_lines(bars: pl.DataFrame) -> pl.DataFrame:
    """Report closes on a straight line, which somebody drew through days without prices.

    `straight_line`: at least `_STRAIGHT_STEPS` steps are as large as the step before, but for
    rounding. It has the first day of the line; the value is the close, the count the number of its
    bars.
    """
    step = pl.col("close") - before("close")
    marked = bars.filter(pl.col("close") > 0).with_columns(step=step)
    change = (pl.col("step") - before("step")).abs()
    is_same = change <= _STRAIGHT * pl.col("close")
    is_rounded = (change <= _ROUNDED_STEP) & (pl.col("step").abs() >= 5 * _ROUNDED_STEP)
    is_even = (pl.col("step") != 0) & (is_same | is_rounded)
    runs = (
        marked.with_columns(is_even=is_even.fill_null(value=False))
        .with_columns(run=pl.col("is_even").rle_id().over("symbol"))
        .filter("is_even")
        .group_by("symbol", "run", maintain_order=True)
        .agg(pl.first("date", "close"), pl.len().alias("bars"))
        .filter(pl.col("bars") >= _STRAIGHT_STEPS)
    )
    detail = pl.lit("closes lie on a straight line, as where days without a price were filled")
    return findings_of(runs, "straight_line", pl.col("close"), pl.col("bars"), detail)


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


def exchanged_opens(bars: pl.DataFrame) -> pl.DataFrame:
    """Report opens and closes that stand under each other's heading: `open_exchanged`.

    From a close to the next open prices move less than from an open to the next close, which is a
    whole session longer. In half a year of a symbol it is the other way round. The finding has the
    first such half; the value is the ratio of both moves, the count the number of bars.
    """
    traded = bars.filter((pl.col("open") > 0) & (pl.col("close") > 0)).with_columns(
        night=(pl.col("open") / before("close")).log().abs(),
        session=(pl.col("close") / before("open")).log().abs(),
        part=pl.int_range(pl.len()).over("symbol") // _PART,
    )
    moved = traded.drop_nulls(["night", "session"])
    ratio = pl.col("night").median() / pl.col("session").median()
    parts = moved.group_by("symbol", "part").agg(pl.min("date"), ratio=ratio, bars=pl.len())
    wrong = parts.filter((pl.col("bars") >= _FEWEST_ROWS) & (pl.col("ratio") > _EXCHANGED))
    found = (
        wrong.filter(pl.col("ratio").is_finite())
        .sort("symbol", "date")
        .group_by("symbol", maintain_order=True)
        .agg(pl.first("date", "ratio"), pl.sum("bars"))
    )
    detail = pl.lit(
        "prices move more from a close to the next open than from an open to the next close, as "
        "where the two are exchanged: exchange their headings"
    )
    return findings_of(found, "open_exchanged", pl.col("ratio"), pl.col("bars"), detail)


def unlike_prices(bars: pl.DataFrame) -> pl.DataFrame:
    """Report closes that do not move as prices do.

    `not_prices`: in most symbols a move tells the next one: it is taken back, as where returns or
    scores stand in place of prices, or goes on, as in averages. `moves_linked`: in a symbol.
    `closes_stand`: the closes of most symbols change on few bars, as where weekly or monthly ones
    were carried on.
    """
    priced = bars.filter(pl.col("close") > 0).with_columns(
        move=(pl.col("close") / before("close")).log()
    )
    both = priced.with_columns(past=before("move")).drop_nulls(["move", "past"])
    # single wrong levels are taken back, too, and have rules of their own
    follows = both.filter(pl.max_horizontal(pl.col("move").abs(), pl.col("past").abs()) < _WILD)
    linked = follows.group_by("symbol").agg(
        pl.min("date"),
        link=pl.corr("move", "past"),
        moved=(pl.col("move") != 0).mean(),
        bars=pl.len(),
    )
    known = linked.filter(pl.col("bars") >= _FEWEST_ROWS).sort("symbol")
    slack = _LINKED + 2 / pl.col("bars").sqrt()
    odd = known.filter(pl.col("link").is_finite() & (pl.col("link").abs() > slack))
    standing = known.filter(pl.col("moved") < _STANDING)
    is_most = 2 * odd.height > known.height
    rule, rows = ("not_prices", odd.head(1)) if is_most else ("moves_linked", odd)
    detail = pl.format(
        "a move correlates {} with the next one, that of prices hardly: give prices, no returns, "
        "scores or averages",
        pl.col("link").round(2),
    )
    count = pl.lit(odd.height) if is_most else pl.col("bars")
    parts = [findings_of(rows, rule, pl.col("link"), count, detail)]
    if 2 * standing.height > known.height:
        share = (100 * pl.col("moved")).round(0).cast(pl.Int64)
        words = pl.format("the close changes on {} % of the bars: collect daily bars", share)
        count = pl.lit(standing.height)
        parts.append(findings_of(standing.head(1), "closes_stand", pl.col("moved"), count, words))
    return pl.concat(parts)
