"""The rules about bars that only a later bar decides: levels taken back, swaps, late splits.

A price that jumps away and returns a few bars later was never paid. On the day of the jump nobody
can tell it from a crash. So these findings depend on up to `taken_back_bars` later rows.
"""

import numpy as np
import polars as pl
from jaxtyping import Float

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality import actions
from hrl_sarp.data.quality.expressions import findings_of
from hrl_sarp.data.quality.levels import is_calm

RULES = frozenset({"taken_back", "rows_exchanged", "split_displaced"})
"""Rules whose findings may depend on later rows."""

_USUAL_STEPS = 40
"""Steps (nights and days) before a jump whose median size is the usual one."""
_STEPS_ABOVE_USUAL = 12.0
"""A jump must be so many usual steps: stocks that move wildly do so without an error."""
_REST_SHARE = 0.15
"""A level counts as taken back if at most this share of the jump is left."""
_LARGEST_REST = 0.15
"""Largest log return that may be left."""
_LEAST_EXCHANGE = 0.05
"""Symbols whose levels differ by a smaller log return may exchange them unseen."""
_UNUSUAL = 6.0
"""The jumps of an exchange are so many usual moves of the symbol."""
_TIMES_UNDONE = 5.0
"""The jumps of an exchange are so many times the moves that are left if it is undone."""


def check_hindsight(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report levels that are taken back, and nights of splits that are stated too late.

    `taken_back`: open or close lies on a level that the price jumped to within one step (a night or
    a day) and left within one step by the same factor, at most `taken_back_bars` bars later, on
    usual trading or by more than `impossible_ratio`. The value is the factor.
    `rows_exchanged`: two symbols jump to each other's level on one day and back on another, as
    many sessions later. The value is the other symbol's level over the own one.
    `split_displaced`: as in `rules.row_rules`, for a split that is stated up to as many bars later.

    Args:
        prepared: sorted bars from `rules.prepare`, without the rows that `rules.EXCLUDING` keep
            out for other reasons.
        config: thresholds.
    """
    early = _of_symbols(prepared, prepared.filter("is_unseen"))
    early = early.filter(actions.displaced(config, is_early=True))
    marked = prepared.with_columns(
        _calm=is_calm(config),
        _open_step=_finite(pl.col("night").log()),
        _close_step=_finite(pl.col("day").log()),
    )
    largest = pl.max_horizontal(pl.col("_open_step").abs(), pl.col("_close_step").abs())
    limit = float(np.log1p(config.taken_back_return))
    jumping = marked.filter(largest >= limit)
    parts = [findings_of(early, "split_displaced", pl.col("night") - 1)]
    for rows in _of_symbols(marked, jumping).partition_by("symbol", maintain_order=True):
        factor = _factors(rows, limit, config)
        parts.append(
            findings_of(
                rows.with_columns(_factor=factor).filter(pl.col("_factor").is_not_nan()),
                "taken_back",
                pl.col("_factor"),
            )
        )
    return pl.concat([*parts, _exchanges(prepared, config.taken_back_bars)])


def _of_symbols(bars: pl.DataFrame, some: pl.DataFrame) -> pl.DataFrame:
    """Keep the bars of the symbols that have one of some rows."""
    symbols = some.select("symbol").unique()
    return bars.join(symbols, on="symbol", how="semi", maintain_order="left")


def _exchanges(prepared: pl.DataFrame, most_bars: int) -> pl.DataFrame:
    """Find spans of at most so many bars that two symbols have exchanged."""
    level = pl.col("close").log()
    rows = prepared.filter(pl.col("close") > 0).select(
        "symbol",
        "date",
        row=pl.int_range(pl.len()).over("symbol"),
        level=level,
        before=level.shift(1).over("symbol"),
        day_before=pl.col("date").shift(1).over("symbol"),
    )
    jump = pl.col("level") - pl.col("before")
    limit = pl.max_horizontal(_LEAST_EXCHANGE, _UNUSUAL * jump.abs().median().over("symbol"))
    far = rows.filter(jump.abs() > limit)
    # a span begins with a jump and ends before a jump back
    ends = far.select("symbol", stop="row", last="before", last_day="day_before", after="level")
    spans = far.join(ends, on="symbol").filter(
        (pl.col("stop") - pl.col("row")).is_between(1, most_bars)
        & (jump.sign() == (pl.col("last") - pl.col("after")).sign())
    )
    pairs = spans.join(spans, on=["date", "last_day"], suffix="_2").filter(
        pl.col("symbol") != pl.col("symbol_2")
    )
    given, undone = (
        [
            pl.col(f"level{own}") - pl.col("before"),
            pl.col("after") - pl.col(f"last{own}"),
            pl.col(f"level{other}") - pl.col("before_2"),
            pl.col("after_2") - pl.col(f"last{other}"),
        ]
        for own, other in (("", "_2"), ("_2", ""))
    )
    least = pl.min_horizontal(move.abs() for move in given)
    most = pl.max_horizontal(move.abs() for move in undone)
    exchanged = pairs.filter(least > _TIMES_UNDONE * most).select(
        "symbol", "symbol_2", "last_day", start="date", factor=jump.exp()
    )
    found = (
        exchanged.join(rows.select("symbol", "date"), on="symbol")
        .filter(pl.col("date").is_between("start", "last_day"))
        .unique(["symbol", "date"])
        .sort("symbol", "date")
    )
    detail = pl.format("{} and {} have each other's prices", "symbol", "symbol_2")
    return findings_of(found, "rows_exchanged", pl.col("factor"), None, detail)


def _factors(rows: pl.DataFrame, limit: float, config: ValidationConfig) -> Float[np.ndarray, " T"]:
    """Return for each row of one symbol the factor of a level that is taken back, else NaN."""
    steps = rows.select("_open_step", "_close_step").to_numpy().reshape(-1)
    calm = rows["_calm"].to_numpy()
    factor = np.full(rows.height, np.nan)
    for start in np.flatnonzero(np.abs(steps) >= limit):
        jump = steps[start]
        past = np.abs(steps[max(0, start - _USUAL_STEPS) : start])
        if len(past) and abs(jump) < _STEPS_ABOVE_USUAL * np.median(past):
            continue
        rest = min(_REST_SHARE * abs(jump), _LARGEST_REST)
        later = steps[start + 1 : start + 1 + 2 * config.taken_back_bars]
        is_back = (np.abs(later + jump) <= rest) & (np.abs(np.cumsum(later) + jump) <= 2 * rest)
        if not is_back.any():
            continue
        stop = start + 1 + int(np.argmax(is_back))  # the points start .. stop - 1 are wrong
        wrong = slice(start // 2, (stop - 1) // 2 + 1)
        if calm[wrong].all() or abs(jump) >= np.log(config.impossible_ratio):
            factor[wrong] = np.where(np.isnan(factor[wrong]), np.exp(jump), factor[wrong])
    return factor


def _finite(values: pl.Expr) -> pl.Expr:
    return pl.when(values.is_finite()).then(values).otherwise(0.0)
