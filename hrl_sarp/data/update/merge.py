"""Merges new raw data into collected ones: appends, names what changed, refuses what cannot fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.data.partners import misspelt
from hrl_sarp.data.sources.files.folder import ONE_SECTOR
from hrl_sarp.data.store import (
    MEMBERSHIP_SCHEMA,
    OWN_FEATURES_SCHEMA,
    PRICE_COLUMNS,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.data.update.adjusted import ADJUSTED, Scales, rescale, scales_of
from hrl_sarp.data.update.changes import (
    NEW,
    ROUNDING,
    Change,
    Compared,
    Keyed,
    compare,
    folded,
    in_some,
)
from hrl_sarp.data.update.units import other_units, other_value_units

_LEVELS = ("close", *(name for name in PRICE_COLUMNS if name != "close"), "volume")
_ACTIONS = {"split": 1.0, "dividend": 0.0}
"""What a file may state beside prices, and the value where it states nothing."""
BARS = Keyed("bars", ("symbol", "date"), "symbol", "date", (*_LEVELS, *_ACTIONS))
SECTORS = Keyed("sectors", ("symbol",), "symbol", None, ("sector",))
INDEX = Keyed("index", ("date",), None, "date", ("close",))
MACRO = Keyed("macro", ("series", "date"), "series", "date", ("value",))
OWN_FEATURES = Keyed(
    "own_features", ("name", "symbol", "known_at", "date"), "name", "known_at", ("value",)
)
MEMBERSHIP = Keyed("membership", ("symbol", "start"), "symbol", None, ("end",))


@dataclass(frozen=True)
class Update:
    """What new data make of collected ones."""

    raw: RawData
    """With the new rows, and with all changes accepted."""
    added: Mapping[str, int]
    """Table -> new rows."""
    changes: tuple[Change, ...]
    restated: tuple[Change, ...]
    """Changes of values that were provisional: vendors complete them in the days after."""
    refusals: tuple[str, ...]
    """What keeps the data from being merged, whatever is accepted; a line each."""
    rescaled: tuple[str, ...]
    """Symbols whose collected adjusted closes take the scale of the new ones."""
    first: date | None
    """First day of the new bars; None if there are none."""
    last: date | None
    repeated: int
    """Collected bars that the new data repeat: only there could changed history be seen."""
    new_symbols: tuple[str, ...]
    stale: tuple[str, ...]
    """Symbols with a bar on the last collected day, but none on the last day now."""
    absent: tuple[str, ...]
    """Those of them that the new data do not mention."""
    new_series: tuple[str, ...]
    """Macro series and own features that were not collected."""
    absent_series: tuple[str, ...]
    """Collected ones that the new data do not mention."""
    holes: tuple[str, ...]
    """Stocks without adjusted closes that lack a session between collected and new bars."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing new came, and nothing changed."""
        return not self.changes and not self.restated and not any(self.added.values())


def update(
    there: RawData,
    new: RawData,
    sessions: Shaped[np.ndarray, " T"] | None = None,
    provisional_sessions: int = 0,
) -> Update:
    """Bring collected data up to date.

    Collected rows that the new data lack stay: they are an increment, and a symbol that they lack
    did not cease. Rows of a key that was collected are compared. What differs is a change, and so
    is a new row on or before the last day of its history. A symbol that was not collected comes
    with all its rows.

    Args:
        there: what was collected. Of a market that was made up (`features`) nothing can be added.
        new: of the same source; the whole history or a part. A column that is null on all its bars
            is not stated.
        sessions: days of the exchange, to find a session that is missing between the two; None
            where nobody knows them.
        provisional_sessions: last collected sessions whose volumes and macro values vendors may
            still restate: other values there are named, and are no changed history.

    Returns:
        The merged data and what happened. `Update.raw` must not be kept if `refusals` are there, or
        if changes are not accepted.

    Examples:
        >>> from hrl_sarp.data.sources import sample
        >>> from datetime import date
        >>> whole = sample.load()
        >>> is_early = pl.col("date") < date(2022, 12, 28)
        >>> early = replace(whole, bars=whole.bars.filter(is_early))
        >>> done = update(early, whole)
        >>> done.added["bars"], done.changes, str(done.first), done.raw.bars.equals(whole.bars)
        (20, (), '2022-12-28', True)
    """
    refusals = _unlike(there, new)
    if refusals:
        return _refused(there, refusals)
    stated = [name for name in _LEVELS if new.bars[name].is_not_null().any()]
    stated += [name for name in _ACTIONS if _states(new, name)]
    bars = compare(BARS, there.bars, new.bars, stated)
    scales, frame = _with_one_scale(there, new, bars, has_actions={*_ACTIONS} <= {*stated})
    refusals += _unanchored(there.bars, bars.both) + scales.refusals
    refusals += _missing_sessions(there.bars, new.bars, sessions)
    new_symbols = sorted({*new.bars["symbol"].unique()} - {*there.bars["symbol"].unique()})
    last_day = _day(there.bars["date"].max())
    tables = {"bars": bars._replace(frame=frame), **_other_tables(there, new)}
    tables["membership"] = _membership(there, new, last_day, new_symbols)
    named, restated = _changes(there, tables, bars, scales, provisional_sessions)
    stale, absent = _stale(there.bars, frame, new.bars, last_day)
    series = _series(there, new)
    for new_names, old_names in ((new_symbols, absent), series):
        twin = misspelt(new_names, old_names)
        if twin is not None:
            refusals.append(f"{twin[0]} is new, and collected is {twin[1]}: spell both alike")
    refusals += _renamed(there.bars, new.bars, new_symbols, absent)
    findings, n_findings = _findings(there, new)
    frames: dict[str, Any] = {
        name: _as_before(there, name, table.frame) for name, table in tables.items()
    }
    return Update(
        raw=replace(
            there,
            **frames,
            adjustment=_adjustment(there, new),
            import_findings=findings,
        ),
        added={
            **{name: table.fresh.height for name, table in tables.items()},
            "import_findings": n_findings,
        },
        changes=tuple(named),
        restated=tuple(restated),
        refusals=tuple(refusals),
        rescaled=tuple(scales.rescaled),
        first=_day(bars.fresh["date"].min()),
        last=_day(bars.fresh["date"].max()),
        repeated=bars.both.height,
        new_symbols=tuple(new_symbols),
        stale=stale,
        absent=absent,
        new_series=series[0],
        absent_series=series[1],
        holes=_holes(there.bars, new.bars),
    )


def _changes(
    there: RawData,
    tables: dict[str, Compared],
    bars: Compared,
    scales: Scales,
    provisional_sessions: int,
) -> tuple[list[Change], list[Change]]:
    """List the changes that somebody has to accept, and those of provisional values."""
    of_bars, restated = _restated(bars.changes, there, provisional_sessions)
    of_macro, later = _restated(tables["macro"].changes, there, provisional_sessions)
    named = [*folded(of_bars), *other_units(there.bars, bars.fresh), *scales.changes, *of_macro]
    empty = OWN_FEATURES_SCHEMA.to_frame()
    for table in (INDEX, MACRO, OWN_FEATURES):
        collected = getattr(there, table.field)
        collected = empty if collected is None else collected
        named += other_value_units(table, collected, tables[table.field].fresh)
    others = [name for name in tables if name not in ("bars", "macro")]
    named += [change for name in others for change in tables[name].changes]
    return named, [*folded(restated), *later]


def _day(value: Any) -> date | None:
    return value if isinstance(value, date) else None


def _refused(there: RawData, refusals: list[str]) -> Update:
    return Update(there, {}, (), (), tuple(refusals), (), None, None, 0, (), (), (), (), (), ())


def _restated(
    changes: list[Change], there: RawData, n_sessions: int
) -> tuple[list[Change], list[Change]]:
    """Divide changes into those of history, and those of provisional values alone."""
    days = there.bars["date"].unique().sort()
    if not n_sessions or days.is_empty():
        return changes, []
    since = str(days[-min(n_sessions, len(days))])
    found: tuple[list[Change], list[Change]] = ([], [])
    for change in changes:
        is_value = change.table == MACRO.field or change.column == "volume"
        is_unit = change.column != "row" and bool(change.guess)  # it completes nothing
        is_provisional = is_value and not is_unit
        found[is_provisional and change.first >= since].append(change)
    return found


def _holes(there: pl.DataFrame, new: pl.DataFrame) -> tuple[str, ...]:
    """Name the stocks of which only a split or dividend could tell what the missing days did."""
    last = there.group_by("symbol").agg(last=pl.col("date").max())
    late = (
        new.join(last, on="symbol")
        .group_by("symbol")
        .agg(
            pl.col("last").first(),
            first=pl.col("date").filter(pl.col("date") > pl.col("last")).min(),
            has_level=pl.col(ADJUSTED).is_not_null().any(),
        )
    )
    days = pl.concat([there["date"], new["date"]]).unique().sort()
    rows = late.filter(~pl.col("has_level"), pl.col("first").is_not_null()).sort("symbol")
    return tuple(
        symbol
        for symbol, last_day, first in rows.select("symbol", "last", "first").iter_rows()
        if days.is_between(last_day, first, closed="none").any()
    )


def _states(raw: RawData, action: str) -> bool:
    """Say whether data state splits or dividends: a source other than files always does."""
    read = {ours for reading in raw.readings for _, ours in reading.columns}
    return not raw.readings or action in read or _has_actions(raw.bars, action)


def _has_actions(bars: pl.DataFrame, action: str) -> bool:
    return bool((bars[action].fill_null(_ACTIONS[action]) != _ACTIONS[action]).any())


def _unlike(there: RawData, new: RawData) -> list[str]:
    """Say which columns the data of before have and the new ones lack, or the other way round."""
    if new.source != there.source:
        return [f"collected from the source {there.source}, the new data are of {new.source}"]
    has = {
        name: tuple(bool(raw.bars[name].is_not_null().any()) for raw in (there, new))
        for name in (*_LEVELS, ADJUSTED)
    }
    lost = [name for name, (before, now) in has.items() if before and not now]
    lost += [name for name in _ACTIONS if _has_actions(there.bars, name) and not _states(new, name)]
    gained = [name for name, (before, now) in has.items() if now and not before]
    refusals = []
    if lost:
        refusals.append(
            f"the collected bars state {', '.join(lost)}, the new ones do not; give the columns"
        )
    if gained:
        refusals.append(
            f"the new bars state {', '.join(gained)}, the collected ones do not: leave the columns "
            "out, or collect the whole history with `hrl-sarp collect-data --overwrite`"
        )
    return refusals or _partly_adjusted(there.bars, new.bars)


def _partly_adjusted(there: pl.DataFrame, new: pl.DataFrame) -> list[str]:
    """Name the symbols that have adjusted closes in one of the two only."""
    before, now = (
        frame.group_by("symbol").agg(has=pl.col(ADJUSTED).is_not_null().any())
        for frame in (there, new)
    )
    unlike = before.join(now, on="symbol", suffix=NEW).filter(pl.col("has") != pl.col(f"has{NEW}"))
    symbols = unlike["symbol"].sort().to_list()
    if not symbols:
        return []
    return [
        f"{in_some(symbols)}: adj_close is stated before or now, but not both; give it, or collect "
        "the whole history with `hrl-sarp collect-data --overwrite`"
    ]


def _with_one_scale(
    there: RawData, new: RawData, bars: Compared, *, has_actions: bool
) -> tuple[Scales, pl.DataFrame]:
    if not new.bars[ADJUSTED].is_not_null().any():
        return Scales(), bars.frame
    changed = {change.name for change in bars.changes}
    scales = scales_of(there.bars, bars.both, bars.fresh, changed, has_actions=has_actions)
    if not scales.rescaled:
        return scales, bars.frame
    keys = ["symbol", "date"]
    fresh = bars.fresh.select(*keys, _is_fresh=True)
    marked = bars.frame.join(fresh, on=keys, how="left", maintain_order="left")
    marked = marked.with_columns(pl.col("_is_fresh").fill_null(value=False))
    frame = rescale(marked, bars.both, scales)
    return scales, frame.select(bars.frame.columns)


def _unanchored(there: pl.DataFrame, both: pl.DataFrame) -> list[str]:
    """Refuse prices that changed from the first repeated day on, with older days that stay.

    The older days may be on the scale of before, and then the night between is a false return.
    """
    begins = there.group_by("symbol").agg(begin=pl.col("date").min())
    priced = both.filter(pl.col("close").is_not_null() & pl.col(f"close{NEW}").is_not_null())
    first = priced.group_by("symbol", maintain_order=True).first().join(begins, on="symbol")
    size = pl.max_horizontal(pl.col("close").abs(), pl.col(f"close{NEW}").abs())
    gap = (pl.col("close") - pl.col(f"close{NEW}")).abs()
    loose = first.filter((pl.col("begin") < pl.col("date")) & (gap > ROUNDING * size))
    return [
        f"{row['symbol']}: the close of {row['date']}, the first day that the new data repeat, is "
        f"{row[f'close{NEW}']:.10g} and was collected as {row['close']:.10g}: nobody can tell "
        f"whether the days from {row['begin']} on before it changed alike; give its whole history"
        for row in loose.sort("symbol").iter_rows(named=True)
    ]


def _missing_sessions(
    there: pl.DataFrame, new: pl.DataFrame, sessions: Shaped[np.ndarray, " T"] | None
) -> list[str]:
    """Refuse a hole between the collected days and the last new one."""
    if sessions is None or there.is_empty() or new.is_empty():
        return []
    days = new["date"].unique().to_numpy().astype("datetime64[D]")
    last = there["date"].to_numpy().astype("datetime64[D]").max()
    due = sessions[(sessions > last) & (sessions < days.max())]
    missing = np.setdiff1d(due, days)
    if not len(missing):
        return []
    return [
        f"no bar of {in_some([str(day) for day in missing])}, which the exchange's calendar has "
        f"between {last} and {days.max()}: a split or dividend of it would be lost; give its bars, "
        "or name the day in `data.calendar_changes.removed`"
    ]


def _other_tables(there: RawData, new: RawData) -> dict[str, Compared]:
    sectors = there.sectors["sector"].unique().to_list()
    unknown = new.bars.select("symbol").unique()
    unknown = unknown.join(there.sectors, on="symbol", how="anti")
    given = new.sectors
    if sectors == [ONE_SECTOR] and given.is_empty():
        given = unknown.sort("symbol").with_columns(sector=pl.lit(ONE_SECTOR))
    empty = OWN_FEATURES_SCHEMA.to_frame()
    before, now = (empty if raw.own_features is None else raw.own_features for raw in (there, new))
    return {
        "sectors": compare(SECTORS, there.sectors, given.select(SECTORS_SCHEMA.names())),
        "index": compare(INDEX, there.index, new.index),
        "macro": compare(MACRO, there.macro, new.macro),
        "own_features": compare(OWN_FEATURES, before, now),
    }


def _membership(
    there: RawData, new: RawData, last_day: date | None, new_symbols: list[str]
) -> Compared:
    """Compare memberships: an end after the collected days is news, one within them a change."""
    empty = MEMBERSHIP_SCHEMA.to_frame()
    before, now = (empty if raw.membership is None else raw.membership for raw in (there, new))
    keys = list(MEMBERSHIP.keys)
    ends = before.join(now, on=keys, how="inner", suffix=NEW)
    is_news = pl.col("end").is_null() & (pl.col(f"end{NEW}") >= pl.lit(last_day, pl.Date))
    ends = ends.filter(is_news).select(*keys, pl.col(f"end{NEW}").alias("end"))
    rest = before.join(ends, on=keys, how="anti")
    told = compare(MEMBERSHIP, rest.vstack(ends).sort(keys), now)
    late = told.fresh.filter(
        (pl.col("start") <= pl.lit(last_day, pl.Date)) & ~pl.col("symbol").is_in(new_symbols)
    ).sort(keys)
    changes = [
        Change(
            "membership",
            row["symbol"],
            "row",
            str(row["start"]),
            str(row["start"]),
            1,
            "none",
            f"to {row['end'] or 'now'}",
            "a membership of collected days that was missing",
        )
        for row in late.iter_rows(named=True)
    ]
    return told._replace(fresh=told.fresh.vstack(ends), changes=[*told.changes, *changes])


def _as_before(there: RawData, name: str, frame: pl.DataFrame) -> pl.DataFrame | None:
    """Return a table; None where an optional one neither was there nor has rows now."""
    return None if getattr(there, name) is None and frame.is_empty() else frame


def _stale(
    there: pl.DataFrame, merged: pl.DataFrame, new: pl.DataFrame, last_day: date | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    alive = there.filter(pl.col("date") == pl.lit(last_day, pl.Date))["symbol"]
    last = _day(merged["date"].max())
    if last == last_day:
        return (), ()
    fresh = merged.filter(pl.col("date") == pl.lit(last, pl.Date))["symbol"]
    stale = sorted({*alive} - {*fresh})
    return tuple(stale), tuple(sorted({*stale} - {*new["symbol"].unique()}))


def _series(there: RawData, new: RawData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List macro series and own features that one of the two lacks: the new ones, the absent."""
    before, now = (
        {*raw.macro["series"]}
        | ({*raw.own_features["name"]} if raw.own_features is not None else set())
        for raw in (there, new)
    )
    return tuple(sorted(now - before)), tuple(sorted(before - now))


def _renamed(
    there: pl.DataFrame, new: pl.DataFrame, new_symbols: list[str], absent: tuple[str, ...]
) -> list[str]:
    """Refuse a new symbol that has the bars of one that the new data lack: it would be held twice.

    All days that both have must agree. Only those with a volume count, because two stocks may have
    one close.
    """
    ours = there.filter(pl.col("symbol").is_in(absent), pl.col("volume") > 0)
    theirs = new.filter(pl.col("symbol").is_in(new_symbols), pl.col("volume") > 0)
    agrees = pl.all_horizontal(
        pl.col(name) == pl.col(f"{name}{NEW}") for name in ("close", "volume")
    )
    pairs = (
        theirs.join(ours, on="date", suffix=NEW)
        .group_by("symbol", f"symbol{NEW}")
        .agg(pl.min("date"), agrees=agrees.all())
        .filter("agrees")
    )
    return [
        f"{name} is new, and its bar of {day} is that of {old}, which the new data lack: one "
        f"company would count as two; name it {old} in the new data, or collect the whole history "
        "with `hrl-sarp collect-data --overwrite`"
        for name, day, old in pairs.sort("symbol").select("symbol", "date", f"symbol{NEW}").rows()
    ]


def _adjustment(there: RawData, new: RawData) -> str:
    """Return the sentence about adjustment: that of the data which state splits or dividends."""
    states = [any(_has_actions(raw.bars, name) for name in _ACTIONS) for raw in (there, new)]
    return new.adjustment if states[1] and not states[0] else there.adjustment


def _findings(there: RawData, new: RawData) -> tuple[pl.DataFrame | None, int]:
    if new.import_findings is None:
        return there.import_findings, 0
    if there.import_findings is None:
        return new.import_findings, new.import_findings.height
    names = there.import_findings.columns
    more = new.import_findings.join(there.import_findings, on=names, how="anti", nulls_equal=True)
    return there.import_findings.vstack(more), more.height
