"""Expressions about splits: whether a stated one shows in the price, and which were not stated.

All read prepared bars (`rules.prepare`) and are causal. A split shows on its day if the price over
the close before is nearer to 1 / split than to 1.
"""

import math

import polars as pl

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality.expressions import any_of, before, so_far

_NIGHT_SHARE = 0.15
"""The night's own move may be at most this share of the split's log ratio."""
_MAX_NIGHT = 0.11
"""The night's own move may be at most this log return."""
_MAX_INTRADAY = 0.15
"""A larger log return from open to close is news, not a split."""
_SMALLEST_VISIBLE = 0.04
"""Log ratio of a split below which an ordinary night hides it: such a split is believed."""
_CENT, _OF_FLOATS = 1e-3, 2e-7
"""Distance from a whole cent that is none: of decimals, and of prices stored in 32 bits."""
_FEWEST_BARS, _NEAR_BARS = 10, 60
"""Bars on each side of a dividend that show what prices are, and those before it that count."""
_WHOLE, _BROKEN = 0.95, 0.5
"""Share of whole cents above which prices are traded ones, and below which they are none."""
_LARGEST_OWN_MOVE = 0.35
"""Log return that a stock may make on the day of a split, beside the split."""


def declared_states(config: ValidationConfig) -> dict[str, pl.Expr]:
    """Say of each row with a stated split whether prices confirm it.

    Needs `split`, `dividend`, `open`, `close` and `adj_close` of bars sorted by symbol and date.

    Returns:
        `is_unseen`: the price did not move as by the split, and if there is an adj_close, it did
        not count the split either: prices are adjusted already, or the split has another day.
        `is_contradicted`: with the split applied a move remains that is as large as the split
        itself: the ratio is inverse, or counted twice. Both are False elsewhere.
    """
    ratio, dividend = pl.col("split"), pl.col("dividend")
    log_ratio = ratio.log()
    moves = [((pl.col(name) + dividend) / before("close")).log() for name in ("close", "open")]
    half = log_ratio.abs() / 2
    is_stated = (ratio > 0) & (log_ratio.abs() > _SMALLEST_VISIBLE)
    shows = any_of([(move + log_ratio).abs() <= half for move in moves])
    is_still = any_of([move.abs() < half for move in moves])
    adjusted = pl.col("adj_close") / before("adj_close") - 1
    applied = (ratio * pl.col("close") + dividend) / before("close") - 1
    plain = (pl.col("close") + dividend) / before("close") - 1
    limit = config.max_adjustment_gap
    confirms_split = ((adjusted - applied).abs() <= limit).fill_null(value=False)
    denies_split = ((adjusted - plain).abs() > limit).fill_null(value=False)
    left = (moves[0] + log_ratio).abs()
    is_left = left > pl.max_horizontal(half, pl.lit(_LARGEST_OWN_MOVE))
    is_unseen = is_stated & ~shows & is_still & ~denies_split
    has_adjusted = adjusted.is_not_null()
    is_contradicted = is_stated & ~shows & ~is_still & is_left & (~has_adjusted | confirms_split)
    return {
        "is_unseen": is_unseen.fill_null(value=False),
        "is_contradicted": is_contradicted.fill_null(value=False),
    }


def paid_twice(bars: pl.DataFrame) -> pl.DataFrame:
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


def of_nights(config: ValidationConfig) -> tuple[pl.Expr, pl.Expr]:
    """Find nights over which a price changed as by a split that the data do not state.

    The first expression looks at prices alone:
    no split is applied;
    open over the close before, adjusted as far as the data are, is near 1 / n or n for one of the
    configured ratios n;
    the move from open to close is a usual one;
    the bar follows no long hole, and neither it nor the bar before has an adjustment gap.
    The second says which of them are splits and no crashes:
    n times as many shares change hands for the same money, so the dollar volume stays between
    `split_min_turnover` and `split_max_turnover` times the usual one, and below n x
    `split_turnover_multiple` times; a crash multiplies it, and a dying stock loses it;
    the symbol has stated no split so far: a source that states splits would have stated this one.
    An unknown volume speaks for neither.
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
    return of_prices & any_of(looks_split), of_prices & any_of(is_usual) & ~stated
