"""The rules that raw bars are judged by: one pure function per rule, each a frame of findings.

A rule reports; what is kept out of the market follows from `EXCLUDING`. A crash is not an error:
large moves are named and stay.
"""

import math
from datetime import date

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.store import FINDINGS_SCHEMA, PRICE_COLUMNS, RawData

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
    }
)
"""A data set with one of these cannot be used before it is corrected."""

EXCLUDING = frozenset(
    {
        "missing_key",
        "missing_value",
        "duplicate",
        "non_positive_price",
        "ohlc_inconsistent",
        "no_trade",
        "stale_repeat",
        "adjustment_gap",
        "adjustment_reversal",
        "dividend_over_price",
    }
)
"""Rows with one of these are kept out of the market: the day counts as a day without a bar."""

BREAKING = frozenset({"adjustment_gap", "dividend_over_price", "undeclared_split", "long_hole"})
"""Rows at which the adjusted series may jump for good. Dropping such a row only moves the false
return to the next one, so the market voids the night into the next good bar (unless that row is an
`adjustment_reversal`). A row that is not excluded, too, is that bar itself."""

LEFT_OUT = frozenset(
    {"junk_lines", "bad_row", "no_usable_row", "duplicate_row", "conflicting_rows"}
)
"""What a source names here is not in the bars at all (see `sources/files`)."""

_ROUNDING = 1e-6
"""Relative slack of price comparisons: adjusted files are rounded to six digits."""
_REVERSAL_REST = 0.25
"""A move that takes back more than three quarters of the unexplained gap before it reverses it."""
_ORDINARY_DIVIDEND = 0.10
"""A share of the price that only special dividends exceed."""
_SPLIT_RATIOS = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0)
_SPLIT_TOLERANCE = 0.03
"""A price ratio this near to 1/2, 1/3 ... looks like a split; the day's own move is in it, too."""
_MACRO_SLACK_DAYS = 100
"""Quarterly values are dated at the start of their quarter, so the last one looks old."""
_USUAL_DAYS = 20
"""Bars over which the usual trading is measured."""
_FEWEST_USUAL_DAYS = 5
_NIGHT_SHARE = 0.15
"""The night's own move may be this share of the split's log ratio ..."""
_MAX_NIGHT = 0.11
"""... up to this log return: a fall by a tenth beside a split is still a split."""
_MAX_INTRADAY = 0.15
"""Larger moves from open to close are news, not a change of units."""


def prepare(bars: pl.DataFrame) -> pl.DataFrame:
    """Add the previous row of the same symbol and the returns that the rules compare.

    Args:
        bars: sorted by symbol and date.

    Returns:
        The bars with `previous_close`, `total_return` ((split x close + dividend) / previous close
        - 1) and `adjusted_return` (by adj_close, where there is none by `total_return`); null on
        the first row of a symbol.
    """
    previous = pl.col("close").shift(1).over("symbol")
    previous_adjusted = pl.col("adj_close").shift(1).over("symbol")
    total = (pl.col("split") * pl.col("close") + pl.col("dividend")) / previous - 1
    return bars.with_columns(
        previous_close=previous,
        total_return=total,
        adjusted_return=pl.coalesce(pl.col("adj_close") / previous_adjusted - 1, total),
    )


def missing_keys(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows without a date or a symbol."""
    wrong = bars.filter(pl.col("date").is_null() | pl.col("symbol").is_null())
    return findings_of(wrong, "missing_key", pl.col("close"))


def missing_values(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows that lack a close, or another price or the volume where the source has those."""
    columns = [
        name for name in (*PRICE_COLUMNS, "volume", "adj_close") if bars[name].is_not_null().any()
    ]
    unusable = [pl.col(name).is_null() | ~pl.col(name).is_finite() for name in columns]
    wrong = bars.filter(pl.any_horizontal(unusable)) if columns else bars
    return findings_of(wrong, "missing_value", pl.col("close"))


def duplicates(bars: pl.DataFrame) -> pl.DataFrame:
    """Report (symbol, date) pairs that stand more than once, with how often."""
    pairs = bars.group_by("symbol", "date").agg(pl.len().alias("times"), pl.first("close"))
    wrong = pairs.filter(pl.col("times") > 1)
    return findings_of(wrong, "duplicate", pl.col("close"), pl.col("times"))


def duplicates_beside_bars(raw: RawData) -> pl.DataFrame:
    """Report symbols with two sectors and macro series with two values of one day."""
    sectors = raw.sectors.group_by("symbol").agg(pl.len().alias("times"))
    macro = raw.macro.group_by(symbol="series", date="date").agg(
        pl.len().alias("times"), pl.first("value")
    )
    is_repeated = pl.col("times") > 1
    undated = sectors.filter(is_repeated).with_columns(date=pl.lit(None, dtype=pl.Date))
    return pl.concat(
        [
            findings_of(undated, "sector_duplicate", pl.lit(None), pl.col("times")),
            findings_of(
                macro.filter(is_repeated), "macro_duplicate", pl.col("value"), pl.col("times")
            ),
        ]
    )


def ordering(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows dated before the row above them of the same symbol."""
    previous = pl.col("date").shift(1).over("symbol")
    return findings_of(bars.filter(pl.col("date") < previous), "ordering", pl.col("close"))


def non_positive_prices(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows with a price of zero or below."""
    lowest = pl.min_horizontal(*PRICE_COLUMNS, "adj_close")
    return findings_of(bars.filter(lowest <= 0), "non_positive_price", lowest)


def ohlc_inconsistencies(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows whose high or low does not contain open and close; the value is the excess."""
    above = pl.max_horizontal("open", "close", "low") / pl.col("high") - 1
    below = 1 - pl.min_horizontal("open", "close", "high") / pl.col("low")
    excess = pl.max_horizontal(above, below)
    wrong = bars.filter(pl.col("high").is_not_null() & pl.col("low").is_not_null())
    return findings_of(wrong.filter(excess > _ROUNDING), "ohlc_inconsistent", excess)


def zero_volumes(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows without volume.

    `no_trade`: volume 0 and one price all day, as sources print halts and stocks after their
    takeover; nobody could trade, the value is the close. `zero_volume`: any other row with a volume
    of 0 or less; its prices moved, so the volume is what is wrong and the bar stays.
    """
    is_flat = pl.all_horizontal(pl.col(name) == pl.col("close") for name in PRICE_COLUMNS)
    no_trade = (is_flat & (pl.col("volume") == 0)).fill_null(value=False)
    return pl.concat(
        [
            findings_of(bars.filter(no_trade), "no_trade", pl.col("close")),
            findings_of(
                bars.filter(~no_trade & (pl.col("volume") <= 0)), "zero_volume", pl.col("volume")
            ),
        ]
    )


def stale_repeats(bars: pl.DataFrame) -> pl.DataFrame:
    """Report rows that repeat all prices and the volume of the row before, as stuck feeds do."""
    repeats = [
        pl.col(name) == pl.col(name).shift(1).over("symbol") for name in (*PRICE_COLUMNS, "volume")
    ]
    wrong = bars.filter(pl.all_horizontal(repeats) & (pl.col("volume") > 0))
    return findings_of(wrong, "stale_repeat", pl.col("close"))


def large_returns(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report adjusted one-day returns beyond the threshold without a split, real or not."""
    is_large = pl.col("adjusted_return").abs() > config.max_abs_return
    wrong = prepared.filter((pl.col("split") == 1) & is_large)
    return findings_of(wrong, "large_return", pl.col("adjusted_return"))


def suspected_splits(prepared: pl.DataFrame) -> pl.DataFrame:
    """Report price ratios close to 1/2, 1/3, ... that no split explains; the value is the return.

    Not excluded: a real crash may have the same size.
    """
    ratio = pl.col("adjusted_return") + 1
    looks_split = [(ratio * n - 1).abs() < _SPLIT_TOLERANCE for n in _SPLIT_RATIOS]
    wrong = prepared.filter((pl.col("split") == 1) & pl.any_horizontal(looks_split))
    return findings_of(wrong, "suspected_split", pl.col("adjusted_return"))


def undeclared_splits(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report nights over which a price changed its unit without a declared split.

    All of these must hold: no split is declared; open over the close before (adjusted as far as
    the data are) is near 1 / n or n for one of the configured ratios n; open to close is a usual
    move; the dollar volume is below n x `split_turnover_multiple` times its median of the 20 bars
    before (unknown volume counts as usual). Bars after a long hole and bars at or after a gap of
    the adjustment are left to those rules.

    Args:
        prepared: bars as from `prepare`.
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
    return findings_of(wrong, "undeclared_split", pl.col("night") - 1)


def long_holes(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report bars more than `max_hole_days` calendar days after the one before.

    Splits and dividends may lie in the hole, so the move over it is kept out. The value is that
    move, the count the calendar days.
    """
    wrong = prepared.with_columns(days=_days_before()).filter(_is_after_hole(config))
    return findings_of(wrong, "long_hole", pl.col("adjusted_return"), pl.col("days"))


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


def adjustment_defects(prepared: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report adjusted returns that closes, splits and dividends do not explain.

    `adjustment_gap`: adjusted and total return differ by more than the threshold; the value is
    the difference. `adjustment_reversal`: the next row takes the same move back, as when a factor
    was applied a day early; the value is its adjusted return. `dividend_over_price`: a dividend
    beyond the close before, such as a spin-off booked in other shares; the value is the dividend.
    `unstated_dividend`: a gap as a dividend makes it, of a symbol for which no dividend or split
    is ever stated; the value is the difference, and the row is sound.
    """
    gap = pl.col("adjusted_return") - pl.col("total_return")
    log_gap = (1 + pl.col("adjusted_return")).log() - (1 + pl.col("total_return")).log()
    states_actions = ((pl.col("dividend") > 0) | (pl.col("split") != 1)).any().over("symbol")
    is_gap = gap.abs() > config.max_adjustment_gap
    is_dividend = is_gap & _looks_like_dividend(gap) & ~states_actions
    judged = prepared.with_columns(
        gap=gap, log_gap=log_gap, is_gap=is_gap & ~is_dividend, is_dividend=is_dividend
    ).with_columns(
        after_gap=pl.col("is_gap").shift(1).over("symbol"),
        previous_log_gap=pl.col("log_gap").shift(1).over("symbol"),
    )
    rest = (1 + pl.col("adjusted_return")).log() + pl.col("previous_log_gap")
    reverses = pl.col("after_gap") & (
        rest.abs() < _REVERSAL_REST * pl.col("previous_log_gap").abs()
    )
    return pl.concat(
        [
            findings_of(judged.filter("is_gap"), "adjustment_gap", pl.col("gap")),
            findings_of(judged.filter("is_dividend"), "unstated_dividend", pl.col("gap")),
            findings_of(judged.filter(reverses), "adjustment_reversal", pl.col("adjusted_return")),
            findings_of(
                judged.filter(pl.col("dividend") > pl.col("previous_close")),
                "dividend_over_price",
                pl.col("dividend"),
            ),
        ]
    )


def _looks_like_dividend(gap: pl.Expr) -> pl.Expr:
    """A dividend lifts the adjusted return; a large one leaves it nearer to 0 than the price's."""
    is_ordinary = gap < _ORDINARY_DIVIDEND
    return (gap > 0) & (is_ordinary | (pl.col("adjusted_return").abs() < gap / 2))


def stale_runs(bars: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Report runs of identical closes, dated at their first day, with their length."""
    runs = (
        bars.with_columns(run=pl.col("close").rle_id().over("symbol"))
        .group_by("symbol", "run", maintain_order=True)
        .agg(pl.first("date"), pl.first("close"), pl.len().alias("days"))
    )
    wrong = runs.filter(pl.col("days") >= config.stale_run_days)
    return findings_of(wrong, "stale_run", pl.col("close"), pl.col("days"))


def gaps(bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report sessions without a bar between the first and last bar of a symbol.

    Dated at the first missing session; the value is the last close before, the count how many.
    """
    calendar = _session_numbers(sessions)
    known = bars.select("symbol", "date", "close").join(calendar, on="date", how="inner")
    known = known.sort("symbol", "session")
    missing = pl.col("session").shift(-1).over("symbol") - pl.col("session") - 1
    holes = known.with_columns(missing=missing).filter(pl.col("missing") > 0)
    first = holes.with_columns(session=pl.col("session") + 1).drop("date")
    dated = first.join(calendar, on="session", how="left")
    return findings_of(dated, "calendar_gap", pl.col("close"), pl.col("missing"))


def early_ends(good_bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report symbols that end before the data do: delisted, taken over, renamed.

    Dated at the last good bar; the value is its close, at which a holding becomes cash, the count
    how many sessions follow.
    """
    last = good_bars.group_by("symbol").agg(pl.all().sort_by("date").last())
    numbered = last.join(_session_numbers(sessions), on="date", how="left")
    after = len(sessions) - 1 - pl.col("session")
    return findings_of(numbered.filter(after > 0), "ends_early", pl.col("close"), after)


def off_session_bars(bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report bars on days that are no session; joins to the calendar drop them."""
    strange = bars.join(_session_numbers(sessions), on="date", how="anti")
    return findings_of(strange, "off_session", pl.col("close"))


def symbols_without_sector(raw: RawData) -> pl.DataFrame:
    """Report symbols that the sector table lacks, dated at their first bar."""
    lonely = raw.bars.join(raw.sectors.drop_nulls("sector"), on="symbol", how="anti")
    firsts = lonely.group_by("symbol").agg(pl.min("date"), pl.len().alias("bars"))
    return findings_of(firsts, "symbol_without_sector", pl.lit(None), pl.col("bars"))


def macro_overlaps(raw: RawData) -> pl.DataFrame:
    """Report macro series without overlap with the bars, or that start late or end early.

    `macro_overlap` if no series overlaps at all, else `macro_span` per series; dated at the first
    (late) or last value (early).
    """
    start, end = _span(raw.bars)
    if raw.macro.is_empty() or start is None or end is None:
        return FINDINGS_SCHEMA.to_frame()
    spans = raw.macro.group_by(symbol="series").agg(
        first=pl.min("date"), last=pl.max("date"), values=pl.len()
    )
    apart = (pl.col("first") > end) | (pl.col("last") < start)
    if spans.filter(~apart).is_empty():
        worst = spans.sort("symbol").head(1).with_columns(date=pl.col("first"))
        return findings_of(worst, "macro_overlap", pl.lit(None), pl.lit(spans.height))
    is_early = (pl.lit(end) - pl.col("last")).dt.total_days() > _MACRO_SLACK_DAYS
    wrong = spans.filter((pl.col("first") > start) | is_early)
    dated = wrong.with_columns(
        date=pl.when(pl.col("first") > start).then(pl.col("first")).otherwise(pl.col("last"))
    )
    return findings_of(dated, "macro_span", pl.lit(None), pl.col("values"))


def _span(frame: pl.DataFrame) -> tuple[date | None, date | None]:
    first, last = frame.select(pl.min("date").alias("a"), pl.max("date").alias("b")).row(0)
    return first, last


def _session_numbers(sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    return pl.DataFrame(
        {"date": sessions, "session": np.arange(len(sessions))}, schema_overrides={"date": pl.Date}
    )


def findings_of(
    rows: pl.DataFrame,
    rule: str,
    value: pl.Expr,
    count: pl.Expr | None = None,
    detail: pl.Expr | None = None,
) -> pl.DataFrame:
    """Turn rows with `symbol` and `date` into findings of one rule."""
    return rows.select(
        pl.col("symbol").cast(pl.String),
        pl.col("date").cast(pl.Date),
        value=value.cast(pl.Float64),
        rule=pl.lit(rule),
        count=(pl.lit(1) if count is None else count).cast(pl.Int64),
        detail=(pl.lit(None) if detail is None else detail).cast(pl.String),
    )
