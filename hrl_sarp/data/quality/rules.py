"""The rules by which raw bars are checked. A rule reports and repairs nothing.

Rules about one row are listed in `row_rules`. Rules about a whole symbol are functions below it.
`EXCLUDING` and `BREAKING` say what is kept out of the market. Large moves are reported and stay,
because a crash is not an error.
"""

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality import actions, levels
from hrl_sarp.data.quality.expressions import (
    any_of,
    before,
    findings_of,
    is_unpriced,
    priced_rows,
    session_numbers,
    so_far,
)
from hrl_sarp.data.store import PRICE_COLUMNS

STRUCTURAL = frozenset(
    {
        "schema",
        "missing_key",
        "duplicate",
        "ordering",
        "symbol_without_sector",
        "sector_duplicate",
        "macro_duplicate",
        "macro_overlap",
        "macro_shifted",
        "macro_impossible",
        "macro_period_start",
        "index_returns",
        "index_shifted",
        "index_spacing",
        "bar_spacing",
        "open_exchanged",
        "not_prices",
        "closes_stand",
        "calendar_mismatch",
        "empty_span",
        "end_unusable",
        "dividend_repeated",
        "dividend_in_price",
        "dividend_not_adjusted",
        "dividend_not_shown",
        "adjusted_unlike",
        "unknown_sector",
        "sector_spelling",
        "membership_spelling",
    }
)
"""Rules whose breach makes the whole data set unusable."""

EXCLUDING = frozenset(
    {
        "missing_key",
        "missing_value",
        "duplicate",
        "non_positive_price",
        "ohlc_inconsistent",
        "no_trade",
        "stale_repeat",
        "stale_close",
        "adjustment_gap",
        "adjustment_reversal",
        "dividend_over_price",
        "unit_change_in_day",
        "around_zero",
        "taken_back",
        "rows_exchanged",
    }
)
"""Rules whose breach excludes the row from the market: the day counts as a day without a bar."""

BREAKING = frozenset(
    {
        "adjustment_gap",
        "dividend_over_price",
        "dividend_unseen",
        "undeclared_split",
        "long_hole",
        "unit_change",
        "unit_change_in_day",
        "split_contradicted",
        "split_as_bonus",
        "split_displaced",
        "around_zero",
        "leaves_zero",
    }
)
"""Rules whose breach may mean a lasting jump of the adjusted series. The market then sets the
overnight return into the next good bar to 0: if only the row were dropped, the false return would
move to that night. The next good bar is the row itself, unless another rule excludes it. If an
`adjustment_reversal` follows at the next bar, the return stays."""

UNEXPLAINED = frozenset(
    {
        "undeclared_split",
        "late_split",
        "unit_change",
        "quiet_jump",
        "split_contradicted",
        "split_as_bonus",
    }
)
"""Rules about nights that look like something which the data do not state. On their evening nobody
can tell what they were; days later the source may have stated it."""

PAID_BEFORE = frozenset({"dividend_again"})
"""Rules about stated dividends that were counted on an earlier row."""

NOT_APPLIED = frozenset({"split_unseen"})
"""Rules about stated splits that prices do not show: their return is the price's own."""

UNRANGED = frozenset({"false_range"})
"""Rules whose breach hides the bar's high and low. Its return stays, and it can be traded."""

SUMMARISING = frozenset(
    {
        "stale_run",
        "calendar_gap",
        "ends_early",
        "column_missing",
        "volume_step",
        "another_company",
        "straight_line",
        "moves_linked",
    }
)
"""Rules about bars that say how long something lasted. Such a finding has the day on which that
began, and only later rows show it. Nothing but the report reads it. Beside these and the findings
of `hindsight`, all rules about bars are causal: a finding of a row depends on rows up to its day.
"""

LEFT_OUT = frozenset(
    {"junk_lines", "bad_row", "no_usable_row", "duplicate_row", "conflicting_rows"}
)
"""Rules of `sources/files` about rows that it did not take into the bars."""

_COMPARED = ("open", "high", "low", "volume", "adj_close")
"""Columns that a symbol may lack as a whole."""
_ROUNDING = 1e-6
"""Relative tolerance of price comparisons: adjusted files are rounded to six digits."""
_REVERSAL_REST = 0.25
"""A reversal may leave at most this share of the unexplained gap before it."""
_VISIBLE_DIVIDEND = 0.08
"""Share of the price from which on an ordinary day cannot hide that a dividend was paid."""
_UNLIKE = 0.5
"""Usual difference of adjusted and plain returns, in usual returns, that no adjustment makes."""
_FEWEST_ROWS = 40
"""Fewer bars say nothing about what is usual."""
_ORDINARY_DIVIDEND = 0.10
"""Only special dividends exceed this share of the price."""
_FEWEST_GAPS = 3
"""So many stocks with a gap on one day, and most of all, share its cause."""
_SPLIT_RATIOS = (1.5, 2.0, 2.5, *(float(n) for n in (3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50)))
_SPLIT_TOLERANCE = 0.03
"""Tolerance around 1/2, 1/3 ..., because the day has a move of its own."""
_USUAL_DAYS = 20
"""Bars whose median dollar volume is the usual one."""
_FEWEST_USUAL_DAYS = 5


def prepare(bars: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Add the columns that the rules compare to bars sorted by symbol and date.

    Rows without a close are left out (`priced_rows`), so that a change over them is seen, too. All
    columns are known at the close of the row. Most compare with the row before and are null on the
    first row of a symbol.
    `is_unseen`, `is_contradicted`: whether prices confirm a stated split (`splits`).
    `applied_split`: the stated split, or 1 where it is unseen.
    `total_return`: (applied split x close + dividend) / `previous_close` - 1.
    `is_again`: the same dividend stands on one of the bars just before; no return counts it twice.
    `adjusted_return`: return of adj_close, or `total_return` without an adj_close.
    `gap`: adjusted less total return. `is_gap`: it exceeds the threshold.
    `is_dividend`: the gap looks like a dividend, the symbol has stated no dividend or split, and
    most symbols have no gap that day: stocks do not all pay on one day, but two downloads of
    adjusted closes that were joined leave a gap in all of them. What a symbol states later does not
    count, here and in all rules about rows.
    `days`: calendar days since the row before. `is_after_hole`: they are too many.
    `day`: close over open. `night`: adjusted open over the close before.
    `busy`: dollar volume over its median of the 20 rows before; `shares`: volume likewise.
    """
    dividend = pl.when("is_again").then(0.0).otherwise("dividend")
    total = (pl.col("applied_split") * pl.col("close") + dividend) / before("close") - 1
    is_action = (pl.col("dividend") > 0) | (pl.col("split") != 1)
    dollars = pl.col("close") * pl.col("volume")
    usual, usual_shares = (
        column.rolling_median(_USUAL_DAYS, min_samples=_FEWEST_USUAL_DAYS)
        for column in (dollars, pl.col("volume"))
    )
    # a dividend lifts the adjusted return above the price's; a large one brings it nearer to 0
    gap = pl.col("gap")
    is_small = (gap < _ORDINARY_DIVIDEND) | (pl.col("adjusted_return").abs() < gap / 2)
    is_dividend = (gap > 0) & is_small & ~so_far(is_action)
    return (
        actions.with_declared_states(priced_rows(bars), config)
        .with_columns(
            applied_split=pl.when("is_unseen").then(1.0).otherwise("split"),
            is_again=actions.is_again(),
        )
        .with_columns(
            previous_close=before("close"),
            total_return=total,
            adjusted_return=pl.coalesce(actions.without_again(total), total),
            days=(pl.col("date") - before("date")).dt.total_days(),
            day=pl.col("close") / pl.coalesce("open", "close"),
            busy=dollars / usual.shift(1).over("symbol"),
            shares=pl.col("volume") / usual_shares.shift(1).over("symbol"),
        )
        .with_columns(
            gap=pl.col("adjusted_return") - pl.col("total_return"),
            night=(1 + pl.col("adjusted_return")) / pl.col("day"),
            is_after_hole=(pl.col("days") > config.max_hole_days).fill_null(value=False),
        )
        .with_columns(is_gap=gap.abs() > config.max_adjustment_gap)
        .with_columns(is_dividend=pl.col("is_gap") & is_dividend & ~_is_gap_of_most())
    )


def _is_gap_of_most() -> pl.Expr:
    n_gaps = pl.col("is_gap").sum().over("date")
    return (n_gaps >= _FEWEST_GAPS) & (n_gaps > pl.col("is_gap").count().over("date") / 2)


def row_rules(config: ValidationConfig) -> dict[str, tuple[pl.Expr, pl.Expr]]:
    """Map each rule about single rows to (where it is broken, the value of its finding).

    The bars come from `prepare`. A value is computed from its row alone.

    `non_positive_price`: a price is zero or negative.
    `ohlc_inconsistent`: open or close lies outside low to high. The value is the excess.
    `no_trade`: volume 0 and one price all day. Sources print halts and taken-over stocks so.
    `zero_volume`: any other volume of 0 or less. Prices moved, so only the volume is wrong.
    `stale_repeat`: prices and volume equal those of the row before, as stuck feeds write them.
    `stale_close`: without a known volume, all prices are the close of the row and of the twenty
    rows before, of a symbol that had moved on most rows, as where a table of closes was filled
    after a stock had ceased.
    `large_return`: an adjusted return exceeds the threshold, a stated split counted. It may be
    real.
    `long_hole`: more than `max_hole_days` calendar days lie before the row. Splits and dividends
    may be missing there.
    `undeclared_split`: see `actions.of_nights`. The value is the overnight return.
    `late_split`: the same of a symbol that has stated a split before. It is earned, because its
    source would have stated this one, too; but some state it a day late.
    `split_unseen`: a stated split does not show in the price, so it is not applied. The value is
    the split.
    `split_contradicted`: a stated split leaves a move as large as itself: inverse, or twice.
    `split_as_bonus`: a stated split counts the shares that are added to each old one.
    `split_displaced`: the night of a split that is stated, unseen, a few bars earlier.
    `unit_change`: see `levels.unit_changes`; the value is the factor. `unit_change_in_day`: the
    same between open and close.
    `quiet_jump`: any other lasting jump without trading, see `levels.quiet_jump`. It is earned.
    `false_range`: see `levels.false_range`; the value is the factor.
    `around_zero`: the bars after a price of zero or less. `leaves_zero`: the first bar after them.
    `suspected_split`: any other price ratio near 2/3, 1/2, 1/3 ..., and a night that looks like a
    split where the volume speaks against it. The night is earned, because a crash may have the same
    size.
    `adjustment_gap`: adjusted and total return differ by more than the threshold. The value is the
    difference.
    `unstated_dividend`: such a gap looks like a dividend, and the symbol has stated none so far.
    The row is sound.
    `adjustment_reversal`: the row after a gap takes it back: a factor was applied a day early.
    `dividend_over_price`: a dividend exceeds the close before, such as a spin-off in other shares.
    `dividend_again`: the same dividend stands on one of the bars just before, too; it is counted
    once.
    `dividend_unseen`: a large dividend of which the price does not show half, as where it stands in
    another unit, or a negative one. The value is its share of the close before.
    """
    close, volume, adjusted = (pl.col(name) for name in ("close", "volume", "adjusted_return"))
    priced = (*PRICE_COLUMNS, "volume")
    lowest = pl.min_horizontal(*PRICE_COLUMNS, "adj_close")
    above = pl.max_horizontal("open", "close", "low") / pl.col("high") - 1
    below = 1 - pl.min_horizontal("open", "close", "high") / pl.col("low")
    excess = pl.max_horizontal(above, below)
    has_range = pl.col("high").is_not_null() & pl.col("low").is_not_null()
    is_flat = pl.all_horizontal(pl.col(name) == close for name in PRICE_COLUMNS)
    no_trade = (is_flat & (volume == 0)).fill_null(value=False)
    repeats = pl.all_horizontal(pl.col(name) == before(name) for name in priced)
    no_split = pl.col("applied_split") == 1
    is_displaced = actions.displaced(config)
    like_split, undeclared, is_late = (
        where.fill_null(value=False) & ~is_displaced for where in actions.of_nights(config)
    )
    new_unit, new_unit_in_day = levels.unit_changes(config)
    new_unit = new_unit & ~undeclared & ~is_displaced
    jumps = [new_unit, undeclared, is_displaced]
    is_false, factor = levels.false_range(config)
    looks_split = [((adjusted + 1) * n - 1).abs() < _SPLIT_TOLERANCE for n in _SPLIT_RATIOS]
    unexplained = pl.col("is_gap") & ~pl.col("is_dividend")
    log_gap = (1 + adjusted).log() - (1 + pl.col("total_return")).log()
    gap_before = log_gap.shift(1).over("symbol")
    is_back = ((1 + adjusted).log() + gap_before).abs() < _REVERSAL_REST * gap_before.abs()
    dividend = pl.col("dividend")
    paid = dividend / pl.col("previous_close")
    return {
        "non_positive_price": (lowest <= 0, lowest),
        "ohlc_inconsistent": (has_range & (excess > _ROUNDING), excess),
        "no_trade": (no_trade, close),
        "zero_volume": (~no_trade & (volume <= 0), volume),
        "stale_repeat": (repeats & (volume > 0), close),
        "stale_close": (levels.stands_still(), close),
        "large_return": (adjusted.abs() > config.max_abs_return, adjusted),
        "undeclared_split": (undeclared, pl.col("night") - 1),
        "late_split": (is_late, pl.col("night") - 1),
        "long_hole": (pl.col("is_after_hole"), adjusted),
        "suspected_split": (
            any_of([*looks_split, like_split]) & no_split & ~(undeclared | is_late | is_displaced),
            adjusted,
        ),
        "split_unseen": (pl.col("is_unseen"), pl.col("split")),
        "split_contradicted": (pl.col("is_contradicted"), pl.col("split")),
        "split_as_bonus": (pl.col("is_bonus"), pl.col("split")),
        "split_displaced": (is_displaced, pl.col("night") - 1),
        "unit_change": (new_unit, pl.col("night")),
        "unit_change_in_day": (new_unit_in_day, pl.col("day")),
        "quiet_jump": (levels.quiet_jump() & ~any_of(jumps) & ~like_split, pl.col("night") - 1),
        "false_range": (is_false, factor),
        "around_zero": (levels.around_zero(), close),
        "leaves_zero": (levels.leaves_zero(), close),
        "adjustment_gap": (unexplained, pl.col("gap")),
        "unstated_dividend": (pl.col("is_dividend"), pl.col("gap")),
        "adjustment_reversal": (unexplained.shift(1).over("symbol") & is_back, adjusted),
        "dividend_again": (pl.col("is_again"), dividend),
        "dividend_over_price": ((dividend > 0) & (dividend > pl.col("previous_close")), dividend),
        "dividend_unseen": (_is_unpaid(paid) & (dividend <= pl.col("previous_close")), paid),
    }


def _is_unpaid(paid: pl.Expr) -> pl.Expr:
    """Mark dividends, shares of the price, that are large and do not show, or are negative."""
    moves = [pl.col(name) / pl.col("previous_close") for name in ("open", "close")]
    is_still = pl.all_horizontal(move.fill_null(1.0) > 1 - paid / 2 for move in moves)
    no_split = pl.col("applied_split") == 1
    return (paid < 0) | ((paid > _VISIBLE_DIVIDEND) & is_still & no_split)


def check_rows(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Apply every rule about single rows to bars from `prepare`."""
    found = row_rules(config)
    # one lazy query, because the rules share expressions, which it computes once
    hits = {f"_{rule}": where for rule, (where, _) in found.items()}
    marked = prepared.lazy().with_columns(**hits).collect()
    return pl.concat(
        findings_of(
            marked.filter(f"_{rule}"),  # null is no hit
            rule,
            value,
            pl.col("days") if rule == "long_hole" else None,
        )
        for rule, (_, value) in found.items()
    )


def missing_values(bars: pl.DataFrame) -> pl.DataFrame:
    """Report the rows of bars sorted by symbol and date that lack a value.

    The close is missing, a column that the symbol has had by that day, or the adj_close of a symbol
    that has any. Each finding has the close (value) and the names of the columns.
    """
    marked = bars.with_columns(
        _is_lacking=any_of([is_unpriced(), *_absences().values()]), _detail=_absent_columns()
    )
    lacking = marked.filter("_is_lacking")
    return findings_of(lacking, "missing_value", pl.col("close"), detail=pl.col("_detail"))


def stale_runs(bars: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report runs of identical closes in bars sorted by symbol and date.

    Each finding has the run's first day, its close (value) and its number of days (count).
    """
    runs = (
        bars.with_columns(run=pl.col("close").rle_id().over("symbol"))
        .group_by("symbol", "run", maintain_order=True)
        .agg(pl.first("date"), pl.first("close"), pl.len().alias("days"))
    )
    wrong = runs.filter(pl.col("days") >= config.stale_run_days)
    return findings_of(wrong, "stale_run", pl.col("close"), pl.col("days"))


def missing_columns(bars: pl.DataFrame) -> pl.DataFrame:
    """Report symbols without any value of a column that other symbols have.

    Their rows stay: what needs the column is unknown for them alone. Each finding has the symbol's
    first day and close (value), its number of rows (count) and the name of the column.
    """
    of_symbol = bars.group_by("symbol").agg(
        pl.first("date"),
        pl.first("close"),
        pl.len().alias("rows"),
        *(pl.col(name).is_not_null().any().alias(f"has_{name}") for name in _COMPARED),
    )
    return pl.concat(
        findings_of(
            of_symbol.filter(~pl.col(f"has_{name}") & pl.col(f"has_{name}").any()),
            "column_missing",
            pl.col("close"),
            pl.col("rows"),
            pl.lit(f"no {name}, which other symbols have"),
        )
        for name in _COMPARED
    )


def unlike_adjusted(prepared: pl.DataFrame) -> pl.DataFrame:
    """Report symbols whose adjusted closes do not follow their closes.

    `adjusted_unlike`: the usual difference of their returns is more than half of a usual return, so
    the column holds something else, such as a factor or another stock. The value is the ratio of
    the two. Adjusted closes that are rounded until nothing is left of them look so, too.
    """
    both = prepared.filter(pl.col("adj_close").is_not_null()).drop_nulls(["gap"])
    of_symbol = both.group_by("symbol").agg(
        pl.min("date"),
        usual=pl.col("total_return").abs().median(),
        off=pl.col("gap").abs().median(),
        rows=pl.len(),
    )
    unlike = (pl.col("off") > _UNLIKE * pl.col("usual")) & (pl.col("rows") >= _FEWEST_ROWS)
    detail = pl.format(
        "adj_close moves unlike close: usually by {} % of the price; give the adjusted closes, or "
        "leave the column out",
        (100 * pl.col("off")).round(2),
    )
    found = of_symbol.filter(unlike).sort("symbol")
    return findings_of(
        found, "adjusted_unlike", pl.col("off") / pl.col("usual"), pl.col("rows"), detail
    )


def gaps(
    bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"], rule: str = "calendar_gap"
) -> pl.DataFrame:
    """Report sessions without a bar between the first and last bar of a symbol.

    Each finding has the first missing session, the last close before it (value) and the number of
    missing sessions (count).
    """
    calendar = session_numbers(sessions)
    known = bars.select("symbol", "date", "close").join(calendar, on="date", how="inner")
    known = known.sort("symbol", "session")
    missing = pl.col("session").shift(-1).over("symbol") - pl.col("session") - 1
    holes = known.with_columns(missing=missing).filter(pl.col("missing") > 0)
    first = holes.with_columns(session=pl.col("session") + 1).drop("date")
    dated = first.join(calendar, on="session", how="left")
    return findings_of(dated, rule, pl.col("close"), pl.col("missing"))


def off_session(
    bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"], rule: str = "off_session"
) -> pl.DataFrame:
    """Report bars on days that are no session of the calendar."""
    strange = bars.join(session_numbers(sessions), on="date", how="anti")
    return findings_of(strange, rule, pl.col("close"))


def early_ends(good_bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report symbols that end before the data do: delisted, taken over or renamed.

    Each finding has the day of the last bar that no rule excludes, its close (value), at which a
    holding becomes cash, and the number of later sessions (count).
    """
    last = good_bars.group_by("symbol").agg(pl.all().sort_by("date").last())
    numbered = last.join(session_numbers(sessions), on="date", how="left")
    after = len(sessions) - 1 - pl.col("session")
    return findings_of(numbered.filter(after > 0), "ends_early", pl.col("close"), after)


def _absences() -> dict[str, pl.Expr]:
    """Map each column but the close to the rows that lack it although their symbol has it."""
    absent = {}
    for name in _COMPARED:
        known = pl.col(name).is_not_null()
        # an adjusted close is due in all rows of a symbol or in none: its returns are read from it
        first = pl.col("date").filter(known).min() if name != "adj_close" else pl.col("date").min()
        is_due = known.any() & (pl.col("date") >= first)
        absent[name] = (~known | ~pl.col(name).is_finite()) & is_due.over("symbol")
    return {name: rows.fill_null(value=False) for name, rows in absent.items()}


def _absent_columns() -> pl.Expr:
    named = {"close": is_unpriced(), **_absences()}
    words = [pl.when(rows).then(pl.lit(name)) for name, rows in named.items()]
    return pl.format("no {}", pl.concat_str(words, separator=", ", ignore_nulls=True))
