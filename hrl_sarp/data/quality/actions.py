"""Whether prices show the splits and dividends that are stated, and splits that are not stated.

All read prepared bars (`rules.prepare`). The expressions are causal. A split shows on its day if
the price over the close before is nearer to 1 / split than to 1. A dividend is too small to be seen
alone, so the dividends of a symbol, or of all, are held against their prices together.
"""

import math

import polars as pl

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality.expressions import any_of, before, findings_of, so_far
from hrl_sarp.data.store import FINDINGS_SCHEMA

_NIGHT_SHARE = 0.15
"""The night's own move may be at most this share of the split's log ratio."""
_MAX_NIGHT = 0.11
"""The night's own move may be at most this log return."""
_MAX_INTRADAY = 0.15
"""A larger log return from open to close is news, not a split."""
_SMALLEST_VISIBLE = 0.04
"""Log ratio of a split below which an ordinary night hides it: such a split is believed."""
_LARGEST_OWN_MOVE = 0.35
"""Log return that a stock may make on the day of a split, beside the split."""
_BONUS_OFF, _BONUS_LEAST = 0.03, 0.08
"""Log return that a night may be off the ratio of a bonus issue, and is off the stated one."""
_REPEATED = 0.2
"""Share of its bars on which no stock pays a dividend: more is a rate that is repeated."""
_FEWEST_ROWS = 40
"""Fewer bars say nothing about what is usual."""
_CENT, _OF_FLOATS = 1e-3, 2e-7
"""Distance from a whole cent that is none: of decimals, and of prices stored in 32 bits."""
_FEWEST_BARS, _NEAR_BARS = 10, 60
"""Bars on each side of a dividend that show what prices are, and those before it that count."""
_WHOLE, _BROKEN = 0.95, 0.5
"""Share of whole cents above which prices are traded ones, and below which they are none."""
_SMALLEST_DIVIDEND, _FEWEST_DIVIDENDS = 1e-3, 2
"""Share of the price that rounded closes show, and dividends that say something."""
_LARGE, _FEWEST_PAID = 0.08, 12
"""A larger share of the price is no ordinary dividend; fewer dividends say nothing together."""
_ORDINARY_MOVE = 0.12
"""A larger return on the day of a dividend is due to something else."""
_ERRORS = 3.0
"""Standard errors that decide."""
_CLEAR_SPLIT, _NEAR_DAYS, _OFF_SPLIT = math.log(1.9), 200, 0.35
"""Log ratio of a split that no usual change of a dividend has, days to the dividends beside it, and
the share of that log ratio by which they may change besides."""
_LEAST_AT_NIGHT, _MOSTLY = 0.4, 0.5
"""The least share that nights show, because some sources have poor opens, and the share of opens
that repeat the close before, above which they are none."""
_LEAST_SHOWN, _MOST_SHOWN = 0.6, 1.6
"""Prices fall by about 0.9 of a dividend, in US stocks by 0.5 in the worst year."""


def with_declared_states(bars: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Say of each row with a stated split whether prices confirm it.

    Args:
        bars: `split`, `dividend`, `open`, `close` and `adj_close`, sorted by symbol and date.
        config: thresholds.

    Returns:
        The bars with three columns.
        `is_unseen`: the price did not move as by the split, and if there is an adj_close, it did
        not count the split either: prices are adjusted already, or the split has another day.
        `is_contradicted`: with the split applied a move remains that is as large as the split
        itself: the ratio is inverse, or counted twice.
        `is_bonus`: the price moved as if so many shares were added to each old one: a bonus of 3:1
        makes four shares of one, and the ratio of its split is 4. All are False elsewhere.
    """
    # few rows state a split, so only they are looked at, each with the row before it
    is_stated = (pl.col("split") != 1).fill_null(value=False)
    numbered = bars.with_row_index("_row")
    few = numbered.filter(is_stated | is_stated.shift(-1))
    states = _declared_states(config)
    found = few.with_columns(**states).select("_row", *states)
    of_all = numbered.join(found, on="_row", how="left", maintain_order="left").drop("_row")
    return of_all.with_columns(pl.col(*states).fill_null(value=False))


def _declared_states(config: ValidationConfig) -> dict[str, pl.Expr]:
    ratio, dividend = pl.col("split"), pl.col("dividend")
    log_ratio = ratio.log()
    moves = [((pl.col(name) + dividend) / before("close")).log() for name in ("close", "open")]
    half = log_ratio.abs() / 2
    is_stated = (ratio > 0) & (log_ratio.abs() > _SMALLEST_VISIBLE)
    # an unknown open says nothing, and must not make the answer unknown
    shows, is_still = (
        any_of([condition.fill_null(value=False) for condition in conditions])
        for conditions in (
            [(move + log_ratio).abs() <= half for move in moves],
            [move.abs() < half for move in moves],
        )
    )
    adjusted = pl.col("adj_close") / before("adj_close") - 1
    applied = (ratio * pl.col("close") + dividend) / before("close") - 1
    plain = (pl.col("close") + dividend) / before("close") - 1
    limit = config.max_adjustment_gap
    confirms_split = ((adjusted - applied).abs() <= limit).fill_null(value=False)
    denies_split = ((adjusted - plain).abs() > limit).fill_null(value=False)
    left = (moves[0] + log_ratio).abs()
    is_left = left > pl.max_horizontal(half, pl.lit(_LARGEST_OWN_MOVE))
    has_adjusted = adjusted.is_not_null()
    is_bonus = is_stated & ~has_adjusted & _moves_as_bonus(pl.coalesce(moves[1], moves[0]))
    is_bonus = is_bonus.fill_null(value=False)
    is_unseen = is_stated & ~shows & is_still & ~denies_split & ~is_bonus
    is_contradicted = is_stated & ~shows & ~is_still & is_left & (~has_adjusted | confirms_split)
    is_contradicted &= ~is_bonus
    return {
        "is_bonus": is_bonus,
        "is_unseen": is_unseen.fill_null(value=False),
        "is_contradicted": is_contradicted.fill_null(value=False),
    }


def _moves_as_bonus(move: pl.Expr) -> pl.Expr:
    """Mark moves that are near 1 / (1 + split), and neither near 1 / split nor near none."""
    stated, bonus = pl.col("split").log(), pl.col("split").log1p()
    off = (move + bonus).abs()
    is_near = off <= pl.min_horizontal(pl.lit(_BONUS_OFF), bonus / 4)
    return is_near & ((move + stated).abs() >= pl.max_horizontal(pl.lit(_BONUS_LEAST), 3 * off))


def displaced(config: ValidationConfig, *, is_early: bool = False) -> pl.Expr:
    """Find nights that move by a split which is stated, unseen, on another day.

    Causal for a split stated up to `taken_back_bars` rows before; with `is_early` for one that is
    stated up to as many rows later.
    """
    pending = pl.when("is_unseen").then(pl.col("split").log())
    night = pl.col("night").log()
    matches = []
    for rows in range(1, config.taken_back_bars + 1):
        stated = pending.shift(-rows if is_early else rows).over("symbol")
        tolerance = pl.min_horizontal(pl.lit(_MAX_NIGHT), stated.abs() / 3)
        matches.append((night + stated).abs() <= tolerance)
    found = (pl.col("applied_split") == 1) & any_of(matches)
    return found.fill_null(value=False)


def is_again() -> pl.Expr:
    """Mark dividends that stand on one of the three bars before, too: nobody pays twice so soon."""
    dividend = pl.col("dividend")
    rows_before = [dividend.shift(row).over("symbol") for row in (1, 2, 3)]
    return any_of([(dividend > 0) & (dividend == row) for row in rows_before])


def without_again(total: pl.Expr) -> pl.Expr:
    """Return the return of adj_close, less a dividend that it counts again.

    `total` is the return of the close without that dividend. The one of both readings counts that
    is nearer to adj_close.
    """
    adjusted = pl.col("adj_close") / before("adj_close") - 1
    again = pl.when("is_again").then(pl.col("dividend") / before("close")).otherwise(0.0)
    counts = (adjusted - total - again).abs() < (adjusted - total).abs()
    less = (1 + adjusted) * (1 + total) / (1 + total + again) - 1
    return pl.when(counts).then(less).otherwise(adjusted)


def of_nights(config: ValidationConfig) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Find nights over which a price changed as by a split that the data do not state.

    The first expression looks at prices alone:
    no split is applied;
    open over the close before, adjusted as far as the data are, is near 1 / n or n for one of the
    configured ratios n;
    the move from open to close is a usual one;
    the bar follows no long hole, and neither it nor the bar before has an adjustment gap.
    The others say which of them are splits and no crashes: n times as many shares change hands for
    the same money, so the dollar volume stays between `split_min_turnover` and `split_max_turnover`
    times the usual one, and below n x `split_turnover_multiple` times; a crash multiplies it, and a
    dying stock loses it. An unknown volume speaks for neither.
    The second has those of a symbol that has stated no split so far. The third has the others: a
    source that states splits would have stated this one, though some state it a day late.
    """
    looks_split, is_usual = [], []
    busy = pl.col("busy").fill_null(1.0)
    for n in config.undeclared_split_ratios:
        tolerance = min(_MAX_NIGHT, _NIGHT_SHARE * math.log(n))
        # a reverse split exchanges a whole number of old shares for a new one
        night = pl.col("night").log()
        change = night.abs() if n == int(n) else -night
        looks_split.append((change - math.log(n)).abs() <= tolerance)
        most = min(n * config.split_turnover_multiple, config.split_max_turnover)
        is_usual.append(looks_split[-1] & busy.is_between(config.split_min_turnover, most))
    of_prices = (
        (pl.col("applied_split") == 1)
        & (pl.col("day").log().abs() <= _MAX_INTRADAY)
        & ~pl.col("is_after_hole")
        & ~pl.col("is_gap")
        & ~before("is_gap").fill_null(value=False)
    )
    stated = so_far(pl.col("split") != 1)
    traded = of_prices & any_of(is_usual)
    return of_prices & any_of(looks_split), traded & ~stated, traded & stated


def repeated(bars: pl.DataFrame) -> pl.DataFrame:
    """Report symbols that state a dividend on more than a fifth of their bars.

    `dividend_repeated`: a yearly rate on every row looks so, and would be paid each day. The value
    is the share of the bars, the count their number.
    """
    pays = pl.col("dividend") > 0
    shares = bars.group_by("symbol").agg(
        pl.min("date"), part=pays.mean(), times=pays.sum(), rows=pl.len()
    )
    found = shares.filter((pl.col("rows") >= _FEWEST_ROWS) & (pl.col("part") > _REPEATED))
    detail = pl.format(
        "a dividend on {} of {} bars, as where a rate is repeated: keep the days of payment, or "
        "leave the column out",
        "times",
        "rows",
    )
    return findings_of(
        found.sort("symbol"), "dividend_repeated", pl.col("part"), pl.col("times"), detail
    )


def in_prices(bars: pl.DataFrame) -> pl.DataFrame:
    """Report stated dividends that prices contain already: `dividend_in_price`.

    See `_paid_twice`. The value is the share of whole cents before the last dividend, the
    count the number of such symbols.
    """
    detail = pl.format(
        "closes are whole cents since the dividend of {} and mostly not before it, so they are "
        "adjusted for dividends and would count them twice; leave the dividends out, or give "
        "traded prices",
        "date",
    )
    found = _paid_twice(bars)
    return findings_of(found, "dividend_in_price", pl.col("early"), pl.len(), detail)


def _paid_twice(bars: pl.DataFrame) -> pl.DataFrame:
    """Find symbols whose prices contain the dividends that they state.

    Traded prices are whole cents. Closes that are adjusted for dividends are so after the last
    dividend alone. Prices that were rounded after the adjustment do not show it.

    Args:
        bars: sorted by symbol and date.

    Returns:
        `symbol, date` (of its last dividend) and the share of whole cents before it, since
        the last split (`early`). No row if half of the symbols that can tell, or
        fewer, show it. Symbols with an adj_close do not count: their returns come from it.
    """
    day, cents = pl.col("date"), 100 * pl.col("close")
    paid = day.filter(pl.col("dividend") > 0).max().over("symbol")
    divided = day.filter(pl.col("split") != 1).max().over("symbol")
    marked = bars.filter(pl.col("adj_close").is_null().all().over("symbol")).with_columns(
        is_whole=(cents - cents.round()).abs() <= _CENT + _OF_FLOATS * cents,
        is_late=day >= paid,
        is_comparable=paid.is_not_null() & (divided.is_null() | (day >= divided)),
    )
    sides = marked.filter("is_comparable").drop_nulls("close")
    early, late = ~pl.col("is_late"), pl.col("is_late")
    of_symbol = sides.group_by("symbol").agg(
        day.filter(late).min(),
        early=pl.col("is_whole").filter(early).tail(_NEAR_BARS).mean(),
        late=pl.col("is_whole").filter(late).mean(),
        fewest=pl.min_horizontal(early.sum(), late.sum()),
    )
    known = of_symbol.filter((pl.col("fewest") >= _FEWEST_BARS) & (pl.col("late") > _WHOLE))
    shown = known.filter(pl.col("early") < _BROKEN).sort("symbol")
    return shown if 2 * shown.height > known.height else shown.clear()


def not_adjusted(prepared: pl.DataFrame) -> pl.DataFrame:
    """Report adjusted closes that lack the dividends which are stated beside them.

    `dividend_not_adjusted`: on most days of a dividend, adj_close moves as the close alone. Returns
    come from adj_close, so these dividends would be lost. The finding has the first such row, and
    counts them. Dividends that rounding hides count for neither.
    """
    paid = pl.col("dividend") / pl.col("previous_close")
    alone = pl.col("total_return") - paid
    both = prepared.filter(pl.col("adj_close").is_not_null() & (paid > _SMALLEST_DIVIDEND))
    marked = both.with_columns(
        is_lost=(pl.col("adjusted_return") - alone).abs() < paid / 4,
        is_there=(pl.col("adjusted_return") - pl.col("total_return")).abs() < paid / 4,
    )
    lost = marked.filter("is_lost").sort("date", "symbol")
    if lost.height < _FEWEST_DIVIDENDS or lost.height <= int(marked["is_there"].sum()):
        return FINDINGS_SCHEMA.to_frame()
    detail = pl.format(
        "adj_close lacks {} of {} dividends, the first of {}; leave adj_close out, so that the "
        "dividends count, or give closes that are adjusted for them",
        *(pl.lit(lost.height), pl.lit(marked.height), "dividend"),
    )
    count = pl.lit(lost.height)
    return findings_of(lost.head(1), "dividend_not_adjusted", pl.col("dividend"), count, detail)


def not_shown(prepared: pl.DataFrame) -> pl.DataFrame:
    """Report dividends that prices as a whole do not show on their days, or show in another size.

    The share that prices show is the fall on the days of dividends beyond the usual move of the
    other symbols, over the dividends. It is about 0.9 where all is well, and 0 where prices are
    adjusted already or the days are wrong. The night alone is less noisy, and less exact where
    sources have poor opens.

    `dividend_not_shown`: the share of all dividends is surely below `_LEAST_SHOWN` or above
    `_MOST_SHOWN`; or that of nights is surely below `_LEAST_AT_NIGHT` or above `_MOST_SHOWN`, and
    the other one probably. The value is the share, the count the number of dividends.
    `dividend_doubtful`: the same for those of one symbol, where the share of all is right.
    Symbols with an adj_close do not count: their returns come from it.
    """
    paid, at_night = _paid(prepared, pl.col("total_return")), _paid(prepared, _night_return())
    whole = pl.lit("").alias("symbol")
    together = _off(paid.with_columns(whole), at_night.with_columns(whole))
    if together.height:
        return _not_shown(together, "dividend_not_shown")
    return _not_shown(_off(paid, at_night), "dividend_doubtful")


def _night_return() -> pl.Expr:
    """Return of the night; of the whole session where opens repeat the closes before."""
    repeats = (pl.col("open") == pl.col("previous_close")).mean().over("symbol")
    return pl.when(repeats > _MOSTLY).then("total_return").otherwise(pl.col("night") - 1)


def _paid(prepared: pl.DataFrame, total: pl.Expr) -> pl.DataFrame:
    """Return the rows of ordinary dividends with `size` and `fall`: shares of the price before.

    `total` is the return that contains the dividend. `fall_before`, `fall_after`: the falls of the
    session before and after.
    """
    size = pl.col("dividend") / pl.col("previous_close")
    move = total - size
    move = pl.when(move.abs() < _ORDINARY_MOVE).then(move)
    others = pl.col("move").filter(pl.col("dividend") == 0).median().over("date")
    rows = prepared.filter(pl.col("adj_close").is_null().all().over("symbol"))
    rows = rows.with_columns(size=size, move=move).with_columns(
        fall=others.fill_null(0.0) - pl.col("move")
    )
    fall = pl.col("fall")
    paid = rows.with_columns(
        fall_before=fall.shift(1).over("symbol"), fall_after=fall.shift(-1).over("symbol")
    ).filter((pl.col("size") > 0) & fall.is_not_null())
    usual = paid["size"].median()
    largest = max(_LARGE, 2 * usual) if isinstance(usual, float) else _LARGE
    return paid.filter(pl.col("size") <= largest)


def _off(paid: pl.DataFrame, at_night: pl.DataFrame) -> pl.DataFrame:
    """Return what is shown of each symbol's dividends, where it is not what it should be."""
    shown, nights = (
        rows.group_by("symbol").agg(**_shown()).sort("symbol") for rows in (paid, at_night)
    )
    both = shown.join(nights, on="symbol", how="left", suffix="_night")
    share, slack = pl.col("share"), _ERRORS * pl.col("error")
    night, night_slack = pl.col("share_night"), _ERRORS * pl.col("error_night")
    is_low = (share + slack < _LEAST_SHOWN) | (
        (night + night_slack < _LEAST_AT_NIGHT) & (share < _LEAST_SHOWN)
    )
    is_high = (share - slack > _MOST_SHOWN) | (
        (night - night_slack > _MOST_SHOWN) & (share > _MOST_SHOWN)
    )
    return both.filter((is_low | is_high) & (pl.col("n") >= _FEWEST_PAID))


def _shown() -> dict[str, pl.Expr]:
    """Return the share of dividends that falls show, by least squares, and its standard error."""
    size, whole = pl.col("size"), (pl.col("size") ** 2).sum()
    share = (size * pl.col("fall")).sum() / whole
    left = pl.col("fall") - share * size
    return {
        "date": pl.min("date"),
        "share": share,
        "error": ((size * left) ** 2).sum().sqrt() / whole,
        "before": (size * pl.col("fall_before")).sum() / whole,
        "after": (size * pl.col("fall_after")).sum() / whole,
        "n": pl.len(),
    }


def _not_shown(found: pl.DataFrame, rule: str) -> pl.DataFrame:
    share, percent = pl.col("share"), (100 * pl.col("share")).round(0).cast(pl.Int64)
    is_late = pl.col("after") > pl.max_horizontal(share, "before") + _LEAST_SHOWN
    is_early = pl.col("before") > pl.max_horizontal(share, "after") + _LEAST_SHOWN
    cause = (
        pl.when(is_late)
        .then(pl.lit("they show a session later: correct their days"))
        .when(is_early)
        .then(pl.lit("they show a session earlier: correct their days"))
        .when(share > 1)
        .then(pl.lit("they may be in another unit than the prices: give both in one"))
        .otherwise(
            pl.lit(
                "prices may be adjusted for them already: leave the dividends out; or they have "
                "other days, another unit or stand twice: correct them"
            )
        )
    )
    detail = pl.format(
        "on the days of {} dividends prices fall by {} % of them, expected about all; {}",
        *("n", percent, cause),
    )
    return findings_of(found, rule, share, pl.col("n"), detail)


def unlike_splits(prepared: pl.DataFrame) -> pl.DataFrame:
    """Report dividends and prices that are not adjusted alike for splits.

    `dividend_unlike_split`: over a split that prices show, dividends of a share fall by its ratio,
    and over one that prices are adjusted for, they stay. Over most splits it is the other way
    round; a single company may also raise its dividend. The finding has the first such split and
    counts them; the value is the later dividend over the earlier one. Symbols with an adj_close do
    not count.
    """
    pays = pl.col("dividend") > 0
    paid, day = (pl.when(pays).then(name) for name in ("dividend", "date"))
    rows = prepared.with_columns(
        past=paid.forward_fill().shift(1).over("symbol"),
        past_day=day.forward_fill().shift(1).over("symbol"),
        next=paid.backward_fill().over("symbol"),
        next_day=day.backward_fill().over("symbol"),
    )
    size = pl.col("split").log().abs()
    apart = (pl.col("next_day") - pl.col("past_day")).dt.total_days()
    clear = rows.filter(
        pl.col("adj_close").is_null() & (size >= _CLEAR_SPLIT) & (apart <= _NEAR_DAYS)
    )
    change = (pl.col("next") / pl.col("past")).log()
    stays = change.abs() <= _OFF_SPLIT * size
    falls = (change + pl.col("split").log()).abs() <= _OFF_SPLIT * size
    is_other = pl.when("is_unseen").then(falls).otherwise(stays)
    found = clear.filter(is_other).sort("date", "symbol")
    if found.height < _FEWEST_DIVIDENDS or 2 * found.height <= clear.height:
        return FINDINGS_SCHEMA.to_frame()
    detail = pl.format(
        "dividends go from {} to {} over a split of {} that prices {}, and likewise over {} of {} "
        "splits: adjust both alike",
        *("past", "next", "split"),
        pl.when("is_unseen").then(pl.lit("are adjusted for")).otherwise(pl.lit("show")),
        *(pl.lit(found.height), pl.lit(clear.height)),
    )
    count = pl.lit(found.height)
    return findings_of(found.head(1), "dividend_unlike_split", change.exp(), count, detail)
