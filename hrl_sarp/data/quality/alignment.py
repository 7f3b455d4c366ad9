"""Rules that hold tables against each other: bars and calendar, index and bars, series and bars."""

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from hrl_sarp.data.quality.expressions import finding, findings_of, session_numbers
from hrl_sarp.data.store import FINDINGS_SCHEMA, RawData

_LEAST_SHARE = 0.5
"""Daily bars are there on more than half of the sessions, also in a stock that trades thinly."""
_MOST_STRANGE = 0.1
"""Share of bars off the calendar's sessions from which on the calendar is another one."""
_FEWEST_SESSIONS = 40
"""Fewer sessions say nothing about spacing or correlation."""
_CORRELATED = 0.5
"""A correlation from which on a shifted series is recognised."""
_HALF_YEAR = 126
"""Sessions of a part over which an index is held against the stocks."""
_BLOCK = 252
"""Bars of a symbol over which its correlation with the others is measured."""
_CERTAIN = 4.0
"""Lead of a shifted correlation over the one of the same day, in units of 1 / sqrt(bars)."""
_LARGEST_MOVE = 0.5
"""Larger returns of a stock do not count into the mean that series are held against."""
_MOST_DAYS = 60
"""Days without any bar from which on the days themselves must be wrong. No exchange of today was
closed so long."""
_SEVERAL = 1.5
"""Bars a day from which on the file holds bars within the day."""
_SHOWN_DAYS = 3
_LOG_LEVELS = (1.7, 13.0)
"""Logarithms of prices from 5 to 400,000."""
_LOG_MOVE = 0.006
"""Shares move 1 to 2 % a day, which is a fifth of that or less of their logarithm."""
_LAST_BARS, _NEARLY_ALL = 60, 0.95
"""Bars of a symbol that are held against others, and the share of them that must be the same."""
_RUN_BARS = 25
"""Bars in a row with the closes of another symbol that are no accident."""
_NEAR_END, _MOST_PAUSE = 20, 3
"""Bars whose trading is compared where one symbol ends and another begins, and the sessions between
them at most."""
_SAME_PRICE, _SAME_TRADE = 0.12, 1.0
"""Logs of the ratios of prices and of traded money below which both may be one share."""
_MOST_LAGS = 10
"""Sessions, or dates of a slower series, by which dates may be off: two weeks."""
_SLOW_DAYS = 4.0
"""Days between the dates of a series from which on its moves are held against whole periods."""
_TAKEN_BACK = -0.35
"""Correlation of a move with the next one that levels never have, and returns always."""
_UNRELATED, _TOGETHER = 0.2, 0.4
"""An index correlates less with stocks whose halves correlate more with each other."""
_FOLLOWS, _SMALL = 0.6, 0.3
"""Logarithms of levels correlate more with the stocks, and move by less than this part of them."""


def spacing_defects(
    bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"], calendar: str
) -> pl.DataFrame:
    """Report bars of another spacing than the calendar's sessions, or of another calendar.

    `bar_spacing`: half of the symbols have bars on less than half of the sessions between their
    first and last, as in weekly or monthly files, or several bars a day.
    `calendar_mismatch`: more than a tenth of the bars lie on days without a session.
    The value is the share, or the number of bars a day.
    """
    keyed = bars.drop_nulls(["symbol", "date"]).with_columns(is_bar=pl.lit(value=True))
    counted = keyed.group_by("symbol", "date").len()
    numbered = counted.join(session_numbers(sessions), on="date", how="left")
    of_symbol = numbered.group_by("symbol").agg(
        pl.min("date"),
        met=pl.col("session").is_not_null().sum(),
        span=pl.col("session").max() - pl.col("session").min() + 1,
        times=pl.col("len").mean(),
        spacing=pl.col("date").sort().diff().dt.total_days().median(),
    )
    long = of_symbol.filter(pl.col("span") >= _FEWEST_SESSIONS).sort("symbol")
    found = [FINDINGS_SCHEMA.to_frame()]
    if long.height:
        met, span, times, spacing = (
            float(np.median(column))
            for column in long.select(pl.col("met") / pl.col("span"), "span", "times", "spacing")
            .to_numpy()
            .T
        )
        value, detail = times, f"{times:.0f} bars a day; expected one: collect daily bars"
        if times < _SEVERAL:
            value, detail = (
                met,
                (
                    f"{met:.0%} of the {span:.0f} sessions of {calendar} have a bar, one every "
                    f"{spacing:g} days; expected daily bars: collect those, or name "
                    "the calendar of the bars in the profile"
                ),
            )
        if met < _LEAST_SHARE or times >= _SEVERAL:
            count = pl.lit(long.height)
            found.append(
                findings_of(long.head(1), "bar_spacing", pl.lit(value), count, pl.lit(detail))
            )
    strange = numbered.filter(pl.col("session").is_null()).sort("date", "symbol")
    if strange.height > max(_MOST_STRANGE * numbered.height, 2.0) and len(sessions):
        weekdays = strange["date"].dt.strftime("%A").value_counts(sort=True).to_series(0)
        part = strange.height / numbered.height
        detail = (
            f"{part:.0%} of the bars lie on days that are no session of {calendar} (mostly "
            f"{', '.join(weekdays.head(_SHOWN_DAYS))}); name the calendar of the market in the "
            "profile, such as 24/7"
        )
        count = pl.lit(strange.height)
        found.append(
            findings_of(strange.head(1), "calendar_mismatch", pl.lit(part), count, pl.lit(detail))
        )
    return pl.concat(found)


def level_defects(bars: pl.DataFrame) -> pl.DataFrame:
    """Report closes that look like logarithms of prices.

    `log_prices`: usual levels of symbols lie between `_LOG_LEVELS`, and half of all daily moves are
    below `_LOG_MOVE` of them. Shares so cheap move more; rates of currencies are lower.
    """
    moves = usual_returns(bars).sort("date")
    levels = bars.group_by("symbol").agg(pl.median("close"))["close"].drop_nulls().to_numpy()
    if moves.height < _FEWEST_SESSIONS:
        return FINDINGS_SCHEMA.to_frame()
    usual = float(np.median(np.abs(moves["value"].to_numpy())))
    middle, low, high = float(np.median(levels)), float(levels.min()), float(levels.max())
    if middle < _LOG_LEVELS[0] or high > _LOG_LEVELS[1] or not 0 < usual < _LOG_MOVE:
        return FINDINGS_SCHEMA.to_frame()
    detail = (
        f"all closes lie around {low:.3g} to {high:.3g} and usually move {usual:.2%} a day; if "
        "they are logarithms, give prices"
    )
    return finding("", moves["date"][0], "log_prices", usual, moves.height, detail)


def span_defects(
    bars: pl.DataFrame, good_bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]
) -> pl.DataFrame:
    """Report days that reach beyond the data: every other stock would cease on the day before.

    `empty_span`: no symbol has a bar for more than `_MOST_DAYS` days. A wrong month or year in some
    rows looks so. It has the first row on the side with fewer rows, and counts them.
    `end_unusable`: the last sessions have bars, but none that no rule excludes. It has the first of
    these bars, and counts them. Days without a session do not count: sources print the close before
    once more on a holiday.
    """
    keyed = bars.drop_nulls(["symbol", "date"]).sort("date", "symbol")
    days = keyed["date"].unique().sort()
    before = days.filter(days.diff().shift(-1).dt.total_days() > _MOST_DAYS)
    parts = [FINDINGS_SCHEMA.to_frame()]
    for last in before:
        first = days.filter(days > last)[0]
        sides = keyed.filter(pl.col("date") <= last), keyed.filter(pl.col("date") >= first)
        fewer = min(sides, key=lambda side: side.height)
        detail = (
            f"no symbol has a bar between {last} and {first}: correct the days, or collect one of "
            "the two spans"
        )
        count = pl.lit(fewer.height)
        parts.append(
            findings_of(fewer.head(1), "empty_span", pl.col("close"), count, pl.lit(detail))
        )
    late = keyed.filter(pl.col("date") > good_bars["date"].max())
    after = late.join(session_numbers(sessions), on="date", how="semi", maintain_order="left")
    if after.height:
        detail = (
            f"the {after.height} bars after {good_bars['date'].max()!s} cannot be used, see their "
            "findings: complete them, or leave these days out"
        )
        count = pl.lit(after.height)
        parts.append(
            findings_of(after.head(1), "end_unusable", pl.col("close"), count, pl.lit(detail))
        )
    return pl.concat(parts)


def index_against_bars(raw: RawData, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report an index that does not go with the bars.

    `index_span`: it begins after the bars or ends before them. The benchmark of those sessions is
    1/N. The finding has the index's first or last day and counts the sessions.
    `index_shifted`: it moves with the mean stock of sessions before or after, not of the same one.
    `index_returns`: each move is taken back, as where returns stand in place of levels.
    `index_unrelated`: it hardly moves with stocks that move together, or by much less than they do.
    `index_spacing`: it has a level on less than half of the sessions inside its span.
    """
    levels = raw.index.filter(pl.col("close") > 0).sort("date")
    if levels.is_empty() or not len(sessions):
        return FINDINGS_SCHEMA.to_frame()
    first, last = levels["date"][0], levels["date"][-1]
    days = pl.Series(sessions).cast(pl.Date)
    parts = [FINDINGS_SCHEMA.to_frame()]
    for edge, missing, word in (
        (first, (days < first).sum(), "begins {} sessions after the bars"),
        (last, (days > last).sum(), "ends {} sessions before the bars"),
    ):
        if missing:
            detail = f"the index {word.format(missing)}; the benchmark is 1/N there"
            parts.append(finding("index", edge, "index_span", None, int(missing), detail))
    inside = days.filter((days >= first) & (days <= last))
    share = levels.filter(pl.col("date").is_in(inside.implode())).height / max(1, len(inside))
    if len(inside) >= _FEWEST_SESSIONS and share < _LEAST_SHARE:
        detail = f"{share:.0%} of the sessions have a level; expected a level a session"
        parts.append(finding("index", first, "index_spacing", share, len(inside), detail))
    else:
        series = levels.select("date", value="close")
        found = _taken_back(series)
        if found.is_empty():
            # other series have weeks in which they follow the stocks a day later
            returns = mean_returns(raw.bars)
            found = _shift(series, "index", "index_shifted", returns, _HALF_YEAR)
        parts.append(found if found.height else _unrelated(series, raw.bars))
    return pl.concat(parts)


def series_against_bars(raw: RawData) -> pl.DataFrame:
    """Report macro series that are dated off.

    `macro_shifted`: a series moves with the mean stock of sessions before or after, not of the same
    one, or of another period than that up to its date. Dated early it would show tomorrow's news.
    """
    returns = mean_returns(raw.bars)
    parts = [
        _shift(frame.select("date", "value"), str(name), "macro_shifted", returns)
        for (name,), frame in raw.macro.drop_nulls("value")
        .sort("series", "date")
        .group_by("series")
    ]
    return pl.concat([FINDINGS_SCHEMA.to_frame(), *parts]).sort("symbol")


def symbols_against_others(bars: pl.DataFrame) -> pl.DataFrame:
    """Report symbols that are dated unlike the others.

    `symbol_shifted`: through about a year, a symbol moves with the mean of the other symbols of the
    session before or after, not of the same one. It has the first bar of the first such year and
    counts the bars. It is a warning: stocks of another continent do so, too.
    """
    returns = usual_returns(bars)
    total, count = pl.col("value").sum().over("date"), pl.len().over("date")
    others = (total - pl.col("value")) / (count - 1)
    beside = returns.with_columns(others=pl.when(count > 1).then(others)).with_columns(
        before=pl.col("others").shift(1).over("symbol"),
        after=pl.col("others").shift(-1).over("symbol"),
    )
    known = beside.drop_nulls(["others", "before", "after"])
    year = (pl.int_range(pl.len()).over("symbol") // _BLOCK).alias("year")
    of_years = known.group_by("symbol", year).agg(
        pl.min("date"),
        *(pl.corr("value", name).alias(name) for name in ("others", "before", "after")),
        bars=pl.len(),
    )
    is_late = pl.col("before").abs() > pl.col("after").abs()
    found = pl.when(is_late).then("before").otherwise("after")
    lead = found.abs() - pl.col("others").abs()
    is_shifted = (
        (pl.col("bars") >= _FEWEST_SESSIONS)
        & (found.abs() > 2 * pl.col("others").abs())
        & (lead * pl.col("bars").sqrt() >= _CERTAIN)
    )
    shifted = of_years.with_columns(found=found, is_late=is_late).filter(is_shifted)
    first = shifted.sort("symbol", "date").group_by("symbol", maintain_order=True)
    rows = first.agg(pl.first("date", "found", "others", "is_late"), pl.sum("bars"))
    side = pl.when("is_late").then(pl.lit("late")).otherwise(pl.lit("early"))
    other_side = pl.when("is_late").then(pl.lit("before")).otherwise(pl.lit("after"))
    detail = pl.format(
        "dated a session {} from {} on: its moves correlate {} with the mean of the other symbols "
        "of the session {}, {} with that of the same one; correct its dates",
        side,
        "date",
        pl.col("found").round(2),
        other_side,
        pl.col("others").round(2),
    )
    return findings_of(rows, "symbol_shifted", pl.col("found"), pl.col("bars"), detail)


def copies(bars: pl.DataFrame) -> pl.DataFrame:
    """Report symbols whose closes are those of another one.

    `same_series`: on nearly all of the last bars of a symbol, the other has the same close. A file
    that was saved twice looks so, and a share under its old and its new name. The finding has the
    first of those bars, names the other symbol and counts the bars.
    `rows_of_another`: any other run of bars with the closes of another symbol: one of the two has
    rows that are not its own. The finding has the first of them and counts them.
    Constant closes say nothing.
    """
    priced = bars.filter(pl.col("close") > 0).select("symbol", "date", "close").sort("date")
    numbered = priced.with_columns(
        row=pl.int_range(pl.len()).over("symbol"), rows=pl.len().over("symbol")
    )
    both = ["symbol", "symbol_other"]
    pairs = numbered.join(priced, on=["date", "close"], suffix="_other", maintain_order="left")
    pairs = pairs.filter(pl.col("symbol") != pl.col("symbol_other")).with_columns(
        run=pl.col("row") - pl.int_range(pl.len()).over(both),
        of=pl.min_horizontal("rows", _LAST_BARS),
    )
    counts = (pl.min("date"), pl.first("close", "of"), pl.len().alias("bars"))
    kinds = pl.n_unique("close").alias("kinds")
    last = pairs.filter(pl.col("row") >= pl.col("rows") - _LAST_BARS)
    met = last.group_by(both).agg(*counts, kinds)
    is_long = (pl.col("of") >= _FEWEST_SESSIONS) & (pl.col("kinds") > _FEWEST_SESSIONS / 2)
    same = met.filter(is_long & (pl.col("bars") > _NEARLY_ALL * pl.col("of"))).sort(both)
    runs = pairs.join(same, on=both, how="anti").group_by(*both, "run").agg(*counts, kinds)
    is_moving = (pl.col("bars") >= _RUN_BARS) & (pl.col("kinds") > _RUN_BARS / 2)
    parts = runs.filter(is_moving).sort(*both, "date")
    detail = pl.format(
        "has the closes of {} on {} of its last {} bars; keep one of the two",
        *("symbol_other", "bars", "of"),
    )
    of_part = pl.format(
        "has the closes of {} on {} bars; give each symbol its own rows", "symbol_other", "bars"
    )
    return pl.concat(
        [
            findings_of(same, "same_series", pl.col("close"), pl.col("bars"), detail),
            findings_of(parts, "rows_of_another", pl.col("close"), pl.col("bars"), of_part),
        ]
    )


def renamed(bars: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report symbols that end where another begins at about the same price and trading.

    `renamed`: a share under its new name looks so. A holder would get the delisting return. The
    finding has the last day of the old symbol, its close, and names the new one.
    """
    priced = bars.filter(pl.col("close") > 0).join(session_numbers(sessions), on="date")
    money = (pl.col("close") * pl.col("volume")).fill_null(1.0)
    ends = priced.sort("date").with_columns(money=money).group_by("symbol", maintain_order=True)
    last = ends.agg(
        pl.last("date", "session", "close"), pl.col("money").tail(_NEAR_END).median(), pl.len()
    ).filter((pl.col("session") < len(sessions) - 1) & (pl.col("len") >= _NEAR_END))
    first = ends.agg(
        pl.first("date", "session", "close"), pl.col("money").head(_NEAR_END).median()
    ).filter(pl.col("session") > 0)
    met = last.join(first, how="cross", suffix="_new").filter(
        pl.col("symbol") != pl.col("symbol_new")
    )
    after = pl.col("session_new") - pl.col("session")
    price, trade = (
        (pl.col(f"{name}_new") / pl.col(name)).log().abs() for name in ("close", "money")
    )
    is_same = after.is_between(1, _MOST_PAUSE) & (price < _SAME_PRICE) & (trade < _SAME_TRADE)
    detail = pl.format(
        "ends on {} at {}, and {} begins on {} at {}: if it is the same share, give all its rows "
        "one symbol, or a holder gets the delisting return",
        *("date", "close", "symbol_new", "date_new", "close_new"),
    )
    return findings_of(met.filter(is_same), "renamed", pl.col("close"), detail=detail)


def mean_returns(bars: pl.DataFrame) -> pl.DataFrame:
    """Compute the mean return of all stocks of each day: `date, value`; huge ones do not count."""
    return usual_returns(bars).group_by("date").agg(pl.mean("value")).sort("date")


def usual_returns(bars: pl.DataFrame) -> pl.DataFrame:
    """Compute the returns of all stocks: `symbol, date, value`; huge ones are left out."""
    priced = bars.filter(pl.col("close") > 0).sort("symbol", "date")
    level = pl.coalesce("adj_close", "close")
    moved = priced.select("symbol", "date", value=level / level.shift(1).over("symbol") - 1)
    return moved.filter(pl.col("value").abs() < _LARGEST_MOVE)


def _unrelated(index: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Hold the moves of an index, `date, value`, against two halves of the stocks."""
    moves = usual_returns(bars)
    names = moves["symbol"].unique().sort()
    side = pl.when(pl.col("symbol").is_in(names.gather_every(2).implode()))
    halves = (
        moves.with_columns(side.then(pl.lit("one")).otherwise(pl.lit("two")).alias("half"))
        .pivot("half", index="date", values="value", aggregate_function="mean")
        .sort("date")
    )
    joined = halves.join(index.filter(pl.col("value") > 0), on="date")
    if halves.width < 3 or joined.height < _HALF_YEAR:
        return FINDINGS_SCHEMA.to_frame()
    both = joined.with_columns(pl.col("value").log().diff()).drop_nulls()
    mean = (pl.col("one") + pl.col("two")) / 2
    size = pl.col("value").std() / mean.std()
    together, own, size = both.select(
        pl.corr("one", "two"), own=pl.corr("value", mean), s=size
    ).row(0)
    if together > _TOGETHER and own > _FOLLOWS and size < _SMALL:
        detail = (
            f"the index moves with the mean stock, but {size:.2f} times as much; are its levels "
            "logarithms?"
        )
        return finding("index", joined["date"][0], "index_unrelated", size, joined.height, detail)
    if not (together > _TOGETHER and own < _UNRELATED):
        return FINDINGS_SCHEMA.to_frame()
    detail = (
        f"moves of the index correlate {own:.2f} with the mean stock, halves of the stocks "
        f"{together:.2f} with each other; is it the index of this market?"
    )
    return finding("index", joined["date"][0], "index_unrelated", own, joined.height, detail)


def _taken_back(index: pl.DataFrame) -> pl.DataFrame:
    """Report an index, `date, value`, of which each move is taken back by the next one."""
    move = pl.col("value").log().diff()
    moves = index.select("date", move=move, past=move.shift(1)).drop_nulls()
    if moves.height < _FEWEST_SESSIONS or moves["move"].std() == 0:
        return FINDINGS_SCHEMA.to_frame()
    link = float(moves.select(pl.corr("move", "past")).item())
    if not link < _TAKEN_BACK - 2 / moves.height**0.5:
        return FINDINGS_SCHEMA.to_frame()
    detail = (
        f"moves of the index correlate {link:.2f} with the next ones, as those of returns do; give "
        "its levels"
    )
    return finding("index", index["date"][0], "index_returns", link, index.height, detail)


def _shift(
    series: pl.DataFrame,
    name: str,
    rule: str,
    returns: pl.DataFrame,
    part_sessions: int | None = None,
) -> pl.DataFrame:
    """Compare the moves of `date, value` with those of the stocks sessions before, then, and after.

    The whole series is compared, then parts of so many sessions: dates may be wrong in a part. The
    moves of a series of weeks or months are held against those of the stocks between its dates.
    """
    nothing = FINDINGS_SCHEMA.to_frame()
    positive = series.filter(pl.col("value") > 0)
    if positive.height < max(_FEWEST_SESSIONS, series.height):
        return nothing
    unit, moves = "session", _moves_of_sessions(positive, returns)
    spacing = positive["date"].diff().dt.total_days().median()
    if isinstance(spacing, int | float) and spacing >= _SLOW_DAYS:
        unit, moves = "period", _moves_of_periods(positive, returns)
    parts = [moves, *(moves.iter_slices(part_sessions) if part_sessions else ())]
    for part in parts:
        if part.height < _FEWEST_SESSIONS:
            continue
        move, stocks = part["value"].to_numpy(), part["stocks"].to_numpy()
        lags = sorted(range(-_MOST_LAGS, _MOST_LAGS + 1), key=abs)
        found = {lag: _correlation(move, stocks, lag) for lag in lags}
        lag = max(found, key=lambda key: abs(found[key]))
        if lag == 0 or abs(found[lag]) < _CORRELATED or abs(found[0]) > abs(found[lag]) / 2:
            continue
        first, size = part["date"][0], abs(lag)
        off, away = (f"a {unit}", unit) if size == 1 else (f"{size} {unit}s", f"{size} {unit}s")
        detail = (
            f"{name} is dated {off} {'late' if lag > 0 else 'early'} from {first} on: its "
            f"moves correlate {found[lag]:.2f} with the mean stock of the {away} "
            f"{'before' if lag > 0 else 'after'}, {found[0]:.2f} with that of the same one; "
            "correct its dates"
        )
        return finding(name, first, rule, found[lag], part.height, detail)
    return nothing


def _moves_of_sessions(series: pl.DataFrame, returns: pl.DataFrame) -> pl.DataFrame:
    """Return `date, stocks, value`: returns of sessions and the log moves of a series over them."""
    joined = returns.rename({"value": "stocks"}).join_asof(series, on="date").drop_nulls()
    return joined.with_columns(pl.col("value").log().diff()).slice(1)


def _moves_of_periods(series: pl.DataFrame, returns: pl.DataFrame) -> pl.DataFrame:
    """Return the same between the dates of a series that lie among the sessions."""
    level = returns.select("date", stocks=pl.col("value").log1p().cum_sum())
    inside = series.filter(pl.col("date").is_between(returns["date"].min(), returns["date"].max()))
    joined = inside.sort("date").join_asof(level, on="date").drop_nulls()
    return joined.with_columns(pl.col("stocks").diff(), pl.col("value").log().diff()).slice(1)


def _correlation(move: Float[np.ndarray, " T"], stocks: Float[np.ndarray, " T"], lag: int) -> float:
    """Correlate move t with the stocks' return t - lag; 0 where one side does not move."""
    left = move[max(0, lag) : len(move) + min(0, lag)]
    right = stocks[max(0, -lag) : len(stocks) + min(0, -lag)]
    if left.std() == 0 or right.std() == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
