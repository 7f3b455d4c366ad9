"""The rules by which sectors, the index and macro series are checked; they repair nothing."""

import difflib
import re
from collections.abc import Sequence
from datetime import date
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Shaped

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.partners import twin_of
from hrl_sarp.data.quality.expressions import finding, findings_of
from hrl_sarp.data.quality.rules import gaps, off_session
from hrl_sarp.data.store import FINDINGS_SCHEMA, RawData
from hrl_sarp.reporting.table import counted

INDEX = "index"
"""Symbol of the benchmark in findings."""
INDEX_BREAKING = frozenset({"index_jump", "index_not_positive"})
"""Rules whose breach sets the benchmark's return to 0. `index_wrong_level` is not among them,
because only a later level reveals it."""
REVISED = (
    r"^(ANFCI|NFCI|STLFSI.*|CFNAI.*|USREC.*|GDP.*|M2.*|WM2NS|CPIAUCSL|INDPRO|PAYEMS|PCE.*|UNRATE)$"
)
"""FRED's names of macro series that are revised after their first print: financial conditions,
activity, recessions, national accounts, money, and what is seasonally adjusted anew each year.
Today's values were not known then, and no delay repairs that. So sources leave such series out, and
features refuse them."""

OTHER_NAMES = {
    "basicmaterials": "Materials",
    "technology": "Information Technology",
    "financialservices": "Financials",
    "financial": "Financials",
    "healthcare": "Health Care",
    "consumercyclical": "Consumer Discretionary",
    "consumerdefensive": "Consumer Staples",
    "communications": "Communication Services",
    "telecommunications": "Communication Services",
    "telecommunicationservices": "Communication Services",
    "industrial": "Industrials",
    "industrialgoods": "Industrials",
}
"""Letters of a sector of another classification -> the sector of GICS that it means."""
_NEAR = 0.8
"""Share of equal letters from which on two names may be one, misspelt."""
_VERY_NEAR, _LONG_NAME = 0.9, 6
"""The same for two names of the data, which are told and not refused, from so many letters on."""
_MOST_COMPARED = 200
"""Names of sectors beyond which no two are compared: it takes the square of their number."""
_UNKNOWN = frozenset(
    (
        *("", "-", "--", ".", "?", "nan", "nat", "na", "n/a", "#n/a", "none", "null"),
        "unknown",
        "<na>",
    )
)
"""What tables write for a sector that nobody knows."""
_UNIT_STEP, _OFF_ZERO = 100.0, 3.0
"""Percent over fractions; a rate near zero makes such steps, too, so the larger must be off it."""
_SATURDAY = 6
_DAILY_SPACING_DAYS = 2
"""A series with a shorter median spacing is daily. Slower ones may be dated at a weekend."""
_FEWEST_VALUES = 6
"""Fewer values say nothing about how a series is dated."""
_MACRO_SLACK_DAYS = 100
"""Days by which a series may end before the bars: quarterly values are dated at their start."""


class Scale(NamedTuple):
    """The numbers that a published series takes in its usual unit."""

    unit: str
    least_maximum: float
    """All values below it: a fraction in place of the unit."""
    most: float
    """Any value above it: basis points or another multiple."""
    lowest: float
    highest: float
    """Values beyond both stand for a missing one, and say nothing about the unit."""


_RATE = Scale("percent a year", 0.3, 30.0, -20.0, 3000.0)
_VOLATILITY = Scale("index points", 3.0, 200.0, 0.01, 20000.0)
SCALES = {
    **dict.fromkeys(("FEDFUNDS", "IRX", "DGS2", "DGS10", "BAMLC0A0CM"), _RATE),
    "BAMLH0A0HYM2": Scale("percent", 1.0, 60.0, 0.01, 6000.0),
    "T10Y2Y": Scale("percent", 0.05, 15.0, -60.0, 60.0),
    **dict.fromkeys(("VIX", "VIXCLS", "INDIAVIX"), _VOLATILITY),
}
"""Unit and range of the series whose numbers are used as they are."""

DAILY = frozenset(
    (
        *(name for name in SCALES if name != "FEDFUNDS"),
        *("GOLD", "WTI_FUTURE", "BRENT_FUTURE", "DXY", "USDINR", "DOMESTIC_FLOW", "FOREIGN_FLOW"),
        *("DCOILBRENTEU", "DCOILWTICO", "DTWEXBGS"),
    )
)
"""Published series of which each value is that of its own day."""
_OF_FIRST_DAYS = 0.9
"""Share of dates that are first days of months, from which on they stand for whole months."""


def sector_defects(raw: RawData) -> pl.DataFrame:
    """Report stocks without a sector (`symbol_without_sector`) or with two (`sector_duplicate`).

    The first has the date of the symbol's first bar, counts its bars, and names the spelling of the
    table of sectors that may be meant. The second has no date.
    """
    lonely = raw.bars.join(raw.sectors.drop_nulls("sector"), on="symbol", how="anti")
    firsts = lonely.group_by("symbol").agg(pl.min("date"), pl.len().alias("bars")).sort("symbol")
    named, traded = (
        set(table["symbol"].unique().drop_nulls()) for table in (raw.sectors, raw.bars)
    )
    details = [
        f"the table of sectors has no {symbol!r}{_cure(symbol, named, traded)}"
        for symbol in firsts["symbol"].drop_nulls()
    ]
    firsts = firsts.drop_nulls("symbol").with_columns(detail=pl.Series(details, dtype=pl.String))
    times = raw.sectors.group_by("symbol").agg(pl.len().alias("times"))
    repeated = times.filter(pl.col("times") > 1).with_columns(date=pl.lit(None, dtype=pl.Date))
    return pl.concat(
        [
            findings_of(
                firsts, "symbol_without_sector", pl.lit(None), pl.col("bars"), pl.col("detail")
            ),
            findings_of(repeated, "sector_duplicate", pl.lit(None), pl.col("times")),
        ]
    )


def _cure(symbol: str, named: set[str], traded: set[str]) -> str:
    """Say what to do about a symbol without a sector, by its near twins."""
    twin = twin_of(symbol, sorted(named - traded))
    if twin:
        return f"; it has {twin!r}: spell both alike"
    twin = twin_of(symbol, sorted(named & traded))
    if twin:
        return f"; the bars have {twin!r}, too: keep one of the two"
    return "; add its row, or the sector in its row"


def unknown_sectors(raw: RawData, served: Sequence[str], left_out: Sequence[str]) -> pl.DataFrame:
    """Report sectors of stocks with bars that the market profile neither serves nor leaves out.

    `unknown_sector`: one finding a sector, with the first such stock and the number of them. The
    detail names the served sector that is meant by another spelling or by another classification.
    A profile without sectors serves all; there `sector_spelling` reports names that differ by case,
    blanks or signs alone.
    """
    known = raw.sectors.join(raw.bars.select("symbol").unique(), on="symbol", how="semi")
    if not served:
        return _twin_sectors(known.drop_nulls("sector"))
    wrong = known.drop_nulls("sector").filter(~pl.col("sector").is_in([*served, *left_out]))
    if wrong.is_empty():
        return FINDINGS_SCHEMA.to_frame()
    parts = []
    for (name,), rows in wrong.sort("sector", "symbol").group_by("sector", maintain_order=True):
        twin = sector_twin(str(name), served)
        meant = f"is it {twin!r}?" if twin else f"served are {', '.join(served)};"
        detail = (
            f"sector {name!r} is not in the market profile, {meant} rename it in the table of "
            "sectors, or list it in `sectors_left_out`"
        )
        first = rows.head(1).with_columns(date=pl.lit(None, dtype=pl.Date))
        parts.append(
            findings_of(first, "unknown_sector", pl.lit(None), pl.lit(rows.height), pl.lit(detail))
        )
    return pl.concat(parts)


def _twin_sectors(sectors: pl.DataFrame) -> pl.DataFrame:
    """Report sectors of the data that are one under two spellings."""
    alike: dict[str, list[str]] = {}
    for name in sectors["sector"].unique().sort():
        alike.setdefault(_letters(name), []).append(name)
    parts = [FINDINGS_SCHEMA.to_frame()]
    for names in alike.values():
        if len(names) > 1:
            listed = " and ".join(map(repr, names))
            detail = pl.lit(f"sectors {listed} are one under several spellings: write all alike")
            rows = sectors.filter(pl.col("sector").is_in(names)).sort("symbol")
            first = rows.head(1).with_columns(date=pl.lit(None, dtype=pl.Date))
            count = pl.lit(rows.height)
            parts.append(findings_of(first, "sector_spelling", pl.lit(None), count, detail))
    return pl.concat(parts)


def sector_twin(name: str, served: Sequence[str]) -> str | None:
    """Return the served sector that another spelling or classification means, or None.

    Examples:
        >>> sector_twin("Basic Materials ", ["Energy", "Materials"])
        'Materials'
        >>> sector_twin("Technology", ["Information Technology"])
        'Information Technology'
        >>> sector_twin("Toys", ["Energy"]) is None
        True
    """
    plain = {_letters(sector): sector for sector in served}
    wanted = _letters(name)
    for candidate in (wanted, _letters(OTHER_NAMES.get(wanted, ""))):
        if candidate in plain:
            return plain[candidate]
    near = difflib.get_close_matches(wanted, list(plain), n=1, cutoff=_NEAR)
    return plain[near[0]] if near else None


def doubtful_names(sectors: pl.DataFrame) -> tuple[str, ...]:
    """Return notes on names of sectors that may be a missing value or another name, misspelt.

    Args:
        sectors: `SECTORS_SCHEMA`.

    Examples:
        >>> named = {"symbol": ["A", "B"], "sector": ["Financials", "Finacials"]}
        >>> doubtful_names(pl.DataFrame(named))
        ("sectors 'Finacials' (1 stock) and 'Financials' (1 stock): are they one?",)
    """
    counts = sectors["sector"].drop_nulls().value_counts().sort("sector")
    told = {name: f"{name!r} ({counted(n, 'stock')})" for name, n in counts.iter_rows()}
    notes = [
        f"sector {words} looks like a missing value and is read as a name"
        for name, words in told.items()
        if name.casefold() in _UNKNOWN
    ]
    words_only = [name for name in told if not re.search(r"\d", name)]
    if len(words_only) > _MOST_COMPARED:
        return tuple(notes)
    for first, second in combinations(words_only, 2):
        share = difflib.SequenceMatcher(None, _letters(first), _letters(second)).ratio()
        if _VERY_NEAR <= share < 1 and min(len(first), len(second)) >= _LONG_NAME:
            notes.append(f"sectors {told[first]} and {told[second]}: are they one?")
    return tuple(notes)


def membership_defects(raw: RawData) -> pl.DataFrame:
    """Report rows of the table of memberships and stocks with bars that do not meet.

    `membership_without_bars`: a symbol of the table has no bars. `symbol_without_membership`: a
    stock with bars is not in the table, so it is never eligible. The detail names the spelling on
    the other side that may be meant. Then the rule is `membership_spelling`, which fails.
    """
    if raw.membership is None:
        return FINDINGS_SCHEMA.to_frame()
    members = set(raw.membership["symbol"].drop_nulls())
    traded = set(raw.bars["symbol"].unique().drop_nulls())
    free = sorted(traded - members)
    rows = []
    for symbol in sorted(members - traded):
        twin = twin_of(symbol, free)
        free = [other for other in free if other != twin]
        rule = "membership_spelling" if twin else "membership_without_bars"
        text = f"{symbol!r} of the table of memberships has no bars"
        rows.append((symbol, rule, f"{text}; the bars have {twin!r}" if twin else text))
    rows += [
        (symbol, "symbol_without_membership", f"{symbol!r} is in no membership: never eligible")
        for symbol in free
    ]
    table = [
        {"symbol": symbol, "rule": rule, "count": 1, "detail": detail}
        for symbol, rule, detail in rows
    ]
    return pl.DataFrame(table, schema=FINDINGS_SCHEMA)


def _letters(name: str) -> str:
    """Reduce a name to what two spellings of it share: no case, blanks or signs; 45.0 is 45."""
    plain = re.sub(r"^(\d+)\.0+$", r"\1", name.strip()).replace("&", " and ")
    return re.sub(r"[\W_]+", "", plain.casefold())


def index_defects(
    index: pl.DataFrame, config: ValidationConfig, sessions: Shaped[np.ndarray, " T"]
) -> pl.DataFrame:
    """Report impossible levels of the index; `sessions` span the bars, not the index.

    `index_not_positive`: a level is zero or negative.
    `index_jump`: the move between two levels exceeds the threshold, as after a change of base.
    `index_wrong_level`: a level lies between a jump and the jump back.
    `index_gap`: sessions without a level; it has the first one's date and counts them.
    `index_off_session`: a level on a day that is no session, such as the base day.
    """
    levels = index.with_columns(symbol=pl.lit(INDEX)).sort("date")
    good = levels.filter(pl.col("close") > 0)
    moved = good.with_columns(move=pl.col("close") / pl.col("close").shift(1) - 1)
    is_jump = pl.col("move").abs() > config.max_abs_index_return
    level = moved["close"].to_numpy()
    jumps = moved.select(is_jump.fill_null(value=False).arg_true()).to_series()
    is_wrong = np.zeros(len(level), dtype=bool)
    for start, stop in pairwise(jumps.to_list()):
        whole_move = level[stop] / level[start - 1] - 1
        if abs(whole_move) <= config.max_abs_index_return and not is_wrong[start - 1]:
            is_wrong[start:stop] = True
    first, last = sessions[[0, -1]].tolist() if len(sessions) else (None, None)
    inside = good.filter(pl.col("date").is_between(pl.lit(first, pl.Date), pl.lit(last, pl.Date)))
    return pl.concat(
        [
            findings_of(levels.filter(pl.col("close") <= 0), "index_not_positive", pl.col("close")),
            findings_of(moved.filter(is_jump), "index_jump", pl.col("move")),
            findings_of(moved.filter(pl.Series(is_wrong)), "index_wrong_level", pl.col("close")),
            gaps(inside, sessions, "index_gap"),
            off_session(levels, sessions, "index_off_session"),
        ]
    )


def macro_defects(raw: RawData, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report macro series that contradict themselves, the bars or the calendar.

    `macro_duplicate`: one day has several values; the count is their number.
    `macro_overlap`: no series overlaps with the bars.
    `macro_span`: a series starts late (date of its first value) or ends early (of its last); the
    count is the number of its values.
    `macro_weekend`: a daily series has values on weekends without a session, which happens where
    day and month are exchanged. It has the first such day and counts them.
    `macro_period_start`: the values of a daily series are dated on first days of months, so they
    are means or last values of months that had only begun. It has the first one and counts them.
    """
    named = raw.macro.rename({"series": "symbol"})
    twice = named.group_by("symbol", "date").agg(pl.len().alias("times"), pl.first("value"))
    twice = twice.filter(pl.col("times") > 1)
    days = pl.DataFrame({"date": sessions}, schema_overrides={"date": pl.Date})
    spacing = pl.col("date").sort().diff().dt.total_days().median().over("symbol")
    weekends = (
        named.filter((spacing < _DAILY_SPACING_DAYS) & (pl.col("date").dt.weekday() >= _SATURDAY))
        .join(days, on="date", how="anti")
        .group_by("symbol")
        .agg(pl.min("date"), pl.len().alias("days"))
    )
    return pl.concat(
        [
            findings_of(twice, "macro_duplicate", pl.col("value"), pl.col("times")),
            _span_defects(named, raw.bars["date"].min(), raw.bars["date"].max()),
            findings_of(weekends, "macro_weekend", pl.lit(None), pl.col("days")),
            _period_starts(named),
        ]
    )


def _period_starts(named: pl.DataFrame) -> pl.DataFrame:
    daily = named.filter(pl.col("symbol").is_in(sorted(DAILY))).drop_nulls("value")
    of_series = daily.group_by("symbol").agg(
        pl.min("date"),
        share=(pl.col("date").dt.day() == 1).mean(),
        values=pl.len(),
    )
    found = of_series.filter(
        (pl.col("share") >= _OF_FIRST_DAYS) & (pl.col("values") >= _FEWEST_VALUES)
    )
    detail = pl.format(
        "{} of days is dated on first days of months, so its values describe months that had only "
        "begun; give daily values, or date them on the days on which they were known",
        "symbol",
    )
    return findings_of(
        found.sort("symbol"), "macro_period_start", pl.col("share"), pl.col("values"), detail
    )


def scale_defects(macro: pl.DataFrame) -> pl.DataFrame:
    """Report known macro series whose numbers do not fit their unit.

    `macro_unit`: they are too small or too large for it, or go over from one unit to another.
    `macro_impossible`: single values are -9999, 0 for the VIX, or others that no market has shown.
    """
    parts = [FINDINGS_SCHEMA.to_frame()]
    known = macro.drop_nulls("value").filter(pl.col("series").is_in(sorted(SCALES)))
    for (name,), frame in known.sort("series", "date").group_by("series"):
        series = str(name)
        scale, values = SCALES[series], frame["value"].to_numpy()
        is_real = (values >= scale.lowest) & (values <= scale.highest)
        largest = float(np.abs(values[is_real]).max(initial=0.0))
        usual = float(np.median(np.abs(values)))
        is_large = max(usual, largest) > scale.most
        if 0 < largest < scale.least_maximum or is_large:
            cure = "divide" if is_large else "multiply"
            detail = (
                f"{series} lies between {values.min():g} and {values.max():g}, read as "
                f"{scale.unit}; if it has another unit, {cure} it by 100"
            )
            parts.append(
                finding(series, frame["date"][0], "macro_unit", usual, len(values), detail)
            )
        changed = unit_steps(values, scale)
        if len(changed):
            row = int(changed[0])
            detail = (
                f"{series} goes from {values[row]:g} to {values[row + 1]:g}; write all of it in "
                f"{scale.unit}"
            )
            day = frame["date"][row + 1]
            parts.append(finding(series, day, "macro_unit", usual, len(changed), detail))
        if usual <= scale.most:
            parts.append(_impossible(frame, series, scale))
    return pl.concat(parts).sort("rule", "symbol")


def _impossible(frame: pl.DataFrame, series: str, scale: Scale) -> pl.DataFrame:
    """Report the values of a series, `date, value`, that no market has shown."""
    wrong = frame.filter(~pl.col("value").is_between(scale.lowest, scale.highest))
    if wrong.is_empty():
        return FINDINGS_SCHEMA.to_frame()
    day, value = wrong.select("date", "value").row(0)
    detail = f"{series} is {value:g}, as where a value is missing; leave the cells empty"
    return finding(series, day, "macro_impossible", value, wrong.height, detail)


def unit_steps(values: Float[np.ndarray, " T"], scale: Scale) -> Int[np.ndarray, " N"]:
    """Return the rows after which a series goes on at a hundredth or a hundredfold."""
    size = np.abs(values)
    smaller, larger = np.minimum(size[1:], size[:-1]), np.maximum(size[1:], size[:-1])
    ratio = larger / np.where(smaller > 0, smaller, np.inf)
    is_step = (ratio > _UNIT_STEP / 2) & (ratio < _UNIT_STEP * 2)
    return np.flatnonzero(is_step & (larger > _OFF_ZERO * scale.least_maximum))


def _span_defects(named: pl.DataFrame, start: object, end: object) -> pl.DataFrame:
    if named.is_empty() or not isinstance(start, date) or not isinstance(end, date):
        return FINDINGS_SCHEMA.to_frame()
    spans = named.group_by("symbol").agg(first=pl.min("date"), last=pl.max("date"), values=pl.len())
    apart = (pl.col("first") > end) | (pl.col("last") < start)
    if spans.filter(~apart).is_empty():
        worst = spans.sort("symbol").head(1).with_columns(date=pl.col("first"))
        return findings_of(worst, "macro_overlap", pl.lit(None), pl.lit(spans.height))
    is_late = pl.col("first") > start
    is_early = (pl.lit(end) - pl.col("last")).dt.total_days() > _MACRO_SLACK_DAYS
    dated = spans.filter(is_late | is_early).with_columns(
        date=pl.when(is_late).then(pl.col("first")).otherwise(pl.col("last"))
    )
    return findings_of(dated, "macro_span", pl.lit(None), pl.col("values"))
