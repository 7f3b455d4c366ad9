"""What is asked before a decision is made: whether data, agents and holdings allow one."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.contracts import Market
from hrl_sarp.daily.drift import DriftMeter, InputDrift, drift_problem, require_no_drift
from hrl_sarp.daily.market import Today, TrainedRun
from hrl_sarp.daily.portfolio import CASH, Holdings
from hrl_sarp.data.exchange_calendar import closed_sessions, sessions_between
from hrl_sarp.data.partners import twin_of
from hrl_sarp.data.quality import levels, rules
from hrl_sarp.data.store import read_manifest
from hrl_sarp.data.update import GOING_ON
from hrl_sarp.errors import CheckpointError, DataError
from hrl_sarp.features.macro import read_series
from hrl_sarp.reporting.table import counted

MONTH = 22
"""Sessions. A stock of the universe whose bars ended in the last month counts as missing: files
that stop coming look like companies that cease."""
SPLIT_DAYS = 7
"""Calendar days for which a split is told."""
JUMP_DAYS = 120
"""Calendar days in which the bar before a night is searched."""
NAMED = 5
"""Stocks that a line names."""
ALIKE = 0.75
"""Similarity of two spellings, by difflib, from which one may be meant by the other: three of four
letters."""


@dataclass(frozen=True)
class Checked:
    """What the checks of a day found without refusing it.

    Examples:
        >>> Checked((), (), ()).warnings
        ()
    """

    warnings: tuple[str, ...]
    missing: tuple[str, ...]
    """Stocks of the universe without a bar on the day: they cannot be traded."""
    drift: tuple[InputDrift, ...]
    """Of every input, the farthest from its training span first."""


def require_timely(
    run: TrainedRun,
    data_dir: Path,
    settings: DailyConfig,
    day: date | None,
    now: datetime,
    option: str = "--as-of",
) -> None:
    """Refuse a day that the run or the clock do not allow; the data are not read for it.

    Args:
        run: whose agents decide.
        data_dir: `data/raw`.
        settings: of daily decisions.
        day: session of the decision; None is the last one of the data, which must be the last one
            that has closed.
        now: with its zone.
        option: by which a command is told the day, for the messages.

    Raises:
        DataError: for a session that has not closed, and without `day` for data that lack one that
            has.
        CheckpointError: for a day in the training span.
    """
    profile, changes = run.config.market_profile, run.config.data.calendar_changes
    last = last_bar_day(data_dir)
    chosen = day or last
    _require_after_training(run, chosen, option if day is not None else "the last bar")
    closed_by = now - timedelta(minutes=settings.close_slack_minutes)
    require_closed(run, data_dir, chosen, now, f", or give {option} with a session before it")
    if day is not None:
        return
    later = closed_sessions(profile.calendar, last, closed_by, changes)
    if len(later) > settings.max_stale_sessions:
        update = _update(read_manifest(data_dir)["source"])
        raise DataError(
            f"{data_dir}: stale data: the last bars are of {last}, and {profile.calendar} has "
            f"closed {counted(len(later), 'session')} since, the last one on {later[-1]}; "
            f"{update}give {option} {last} to go on as if it were that evening"
        )


def _update(source: str) -> str:
    """Advise an update where the source of the data has new days."""
    return "run `hrl-sarp update-data`, or " if source in GOING_ON else ""


def require_closed(
    run: TrainedRun, data_dir: Path, day: date, now: datetime, instead: str = ""
) -> None:
    """Refuse a session whose bars are not final.

    Args:
        run: whose market has the calendar.
        data_dir: `data/raw`, for the message.
        day: the session.
        now: with its zone.
        instead: what else can be done, for the message.

    Raises:
        DataError: if the session has not closed.
    """
    if day >= now.date() and not _has_closed(run, day, now):
        raise DataError(
            f"{data_dir}: the session {day} has not closed at {now:%Y-%m-%d %H:%M %Z}, so that "
            f"its bars are not final; repeat the command after its close{instead}"
        )


def last_bar_day(data_dir: Path) -> date:
    """Return the day of the last bar, as the manifest of the data says it."""
    return date.fromisoformat(read_manifest(data_dir)["spans"]["bars"][1])


@dataclass(frozen=True)
class Accepted:
    """What the user has looked at, so that it is told and not refused.

    Examples:
        >>> Accepted().moves
        False
    """

    drift: bool = False
    """Inputs that left their training span."""
    moves: bool = False
    """Nights that look like a split or another unit that the data do not state."""


NOTHING = Accepted()


def check_close(
    today: Today,
    row: int,
    meter: DriftMeter,
    settings: DailyConfig,
    held: Collection[str],
    accepted: Accepted,
    instead: str = "",
) -> Checked:
    """Refuse data and agents of which nothing should be decided at a close.

    Args:
        today: a market that has the session; later rows are not read.
        row: of the session.
        meter: of the market.
        settings: the limits.
        held: stocks that the account holds or has ordered.
        accepted: what is told in place of refusing it.
        instead: what else can be done where bars are missing, for the message.

    Returns:
        What is worth telling nevertheless.

    Raises:
        DataError: for stocks without a bar, series that have stopped, nights that the data do not
            explain, and drift.
        CheckpointError: for agents whose training lies too far back.
    """
    day: date = today.market.dates[row].item()
    missing = require_bars(today.market, row, settings, instead)
    require_running_series(today, day, settings)
    warnings = [*_age_warnings(today.run, day, settings)]
    moves = unexplained_moves(today, row, held)
    if moves and not accepted.moves:
        raise DataError(
            f"{moves}; a source may state a split a day late: {_update(today.raw.source)}look at "
            "the prices and give --accept-moves to go on with them"
        )
    warnings += [f"moves accepted: {moves}"] if moves else []
    drift = meter.at(row)
    if accepted.drift:
        problem = drift_problem(drift, settings.drift)
        warnings += [] if problem is None else [f"drift accepted: {problem}"]
    else:
        require_no_drift(drift, settings.drift, day)
    return Checked(tuple(warnings), missing, drift)


def unexplained_moves(today: Today, row: int, held: Collection[str]) -> str:
    """Name stocks whose night looks like a split or another unit that the data do not state.

    Args:
        today: a market that has the session; later bars are not read.
        row: of the session.
        held: stocks that the account holds or has ordered. Those of the day's universe, which may
            be bought, count as well.

    Returns:
        A sentence with symbols, ratios and what the market takes them for; empty if there are none.
    """
    market = today.market
    day: date = market.dates[row].item()
    may_buy = {market.symbols[stock] for stock in market.slots[row] if stock >= 0}
    bars = today.raw.bars.filter(
        pl.col("symbol").is_in([*may_buy, *held]), pl.col("date") <= day
    ).sort("symbol", "date")
    moved = _moved(bars, day)
    if moved.is_empty():
        return ""
    config = today.run.config.data.validation
    bars = bars.join(moved, on="symbol", how="semi", maintain_order="left")
    found = rules.check_rows(rules.prepare(bars, config), config).filter(
        pl.col("date") == day, pl.col("rule").is_in(sorted(rules.UNEXPLAINED))
    )
    told = [
        f"{symbol} (x{night:.3g}, {rule}, {'no return' if rule in rules.BREAKING else 'earned'})"
        for symbol, rule, night in found.join(moved, on="symbol")
        .select("symbol", "rule", "night")
        .sort("symbol", "rule")
        .iter_rows()
    ]
    if not told:
        return ""
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return (
        f"over the night to {day} prices moved as by a split or another unit that the data do not "
        f"state, of stocks that are held or may be bought: {', '.join(told[:NAMED])}{more}"
    )


def _moved(bars: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return `symbol` and `night` of the stocks that the rules may name: most days, of none.

    The night is the open over the close before; the close where there is no open. Rules about
    splits and units look at no smaller move than `levels.JUMP`, unless a split or a dividend is
    stated.
    """
    close = pl.col("close")
    priced = bars.filter(pl.col("date") > day - timedelta(days=JUMP_DAYS), close > 0)
    before = close.shift(1).over("symbol")
    moves = priced.with_columns(night=pl.coalesce("open", "close") / before, whole=close / before)
    largest = pl.max_horizontal(pl.col("night", "whole").log().abs())
    is_stated = (pl.col("split") != 1) | (pl.col("dividend") > 0)
    found = moves.filter(pl.col("date") == day, (largest >= levels.JUMP) | is_stated)
    return found.select("symbol", "night")


def require_known(path: Path | None, held: Holdings, today: Today) -> None:
    """Refuse stocks that the agents cannot know.

    Args:
        path: file of the holdings, for the message.
        held: shares and cash.
        today: the market of the day.

    Raises:
        DataError: naming each stock, with the spelling that may be meant.
    """
    market = today.market
    unknown = sorted(set(held.shares) - set(market.symbols))
    if not unknown:
        return
    in_data = set(today.raw.bars["symbol"].unique())
    told = []
    for symbol in unknown[:NAMED]:
        meant = twin_of(symbol, market.symbols) or _near(symbol, market.symbols)
        where = "never in the universe" if symbol in in_data else "not in the data"
        told.append(f"{symbol} ({where}{f'; is it {meant}?' if meant else ''})")
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    raise DataError(
        f"{path}: unknown symbols: {', '.join(told)}{more}: the agents of market {market.name} "
        "know nothing of them; correct the spelling, or sell them by hand and leave them out"
    )


def _near(symbol: str, symbols: Sequence[str]) -> str | None:
    """Return the symbol that is likely meant: a wrong letter is likelier than a missing one."""
    found = difflib.get_close_matches(symbol, symbols, n=NAMED, cutoff=ALIKE)
    return min(found, key=lambda other: len(other) != len(symbol), default=None)


def require_priced(path: Path | None, held: Holdings, today: Today) -> tuple[str, ...]:
    """Refuse stocks that are gone: they cannot be sold, so that no decision could use their value.

    Args:
        path: file of the holdings, for the message.
        held: shares and cash, of stocks in the market.
        today: the market of the day.

    Returns:
        Warnings of the stocks that have no bar on the day, and of recent splits.

    Raises:
        DataError: naming each stock that is gone, with the day of its last bar.
    """
    market, days = today.market, today.last_days
    late = {s: days[s] for s in sorted(held.shares) if s in days and days[s] < today.day}
    listed = dict(zip(market.symbols, market.listed[-1].tolist(), strict=True))
    gone = [f"{symbol} (last bar {day})" for symbol, day in late.items() if not listed[symbol]]
    if gone:
        raise DataError(
            f"{path}: holdings without a bar for more than {today.halted_at_end} sessions before "
            f"{today.day}, which count as gone: {', '.join(gone)}: leave their rows out, and add "
            f"to {CASH} what was paid for them"
        )
    warnings = _split_warnings(path, held, today)
    if not late:
        return warnings
    told = ", ".join(f"{symbol} (of {day})" for symbol, day in late.items())
    unseen = f"holdings without a bar on {today.day} are valued at their last closes: {told}"
    return (*warnings, unseen)


def _split_warnings(path: Path | None, held: Holdings, today: Today) -> tuple[str, ...]:
    """Tell of splits of the last week: nothing shows whether a file was written before them."""
    since = today.day - timedelta(days=SPLIT_DAYS)
    bars = today.raw.bars.filter(
        pl.col("symbol").is_in(list(held.shares)),
        pl.col("date").is_between(since, today.day, closed="right"),
        ~pl.col("split").is_in([0.0, 1.0]),
    ).sort("symbol", "date")
    if path is None or bars.is_empty():
        return ()
    told = ", ".join(
        f"{symbol} ({split:g} new shares for an old one on {day})"
        for symbol, split, day in bars.select("symbol", "split", "date").iter_rows()
    )
    return (f"{path}: must hold the shares after recent splits: {told}",)


def require_running_series(today: Today, day: date, settings: DailyConfig) -> None:
    """Refuse published series that have stopped: their last value would be read for ever.

    Args:
        today: a market that has the day, and its data; later values are not read.
        day: of the decision.
        settings: how late a value may be.

    Raises:
        DataError: naming each series with its last day.
    """
    known = today.raw.macro.filter(pl.col("date") <= day)
    known = known.drop_nulls(["date", "series", "value"]).sort("series", "date")
    spans = known.group_by("series", maintain_order=True).agg(
        last=pl.col("date").last(), gap=pl.col("date").diff().max().dt.total_days()
    )
    found = {name: (last, gap) for name, last, gap in spans.iter_rows()}
    stopped = {}
    for name in read_series(today.market.macro_names, found).values():
        if found[name][1] is None:
            continue
        last, gap = found[name]
        if (day - last).days > settings.series_gap_factor * gap:
            stopped[name] = f"{name} ends on {last} (its longest gap before was {gap} days)"
    if stopped:
        raise DataError(
            f"series of the market have stopped before {day}: {', '.join(stopped.values())}; "
            f"{_update(today.raw.source)}raise series_gap_factor in the file of --settings"
        )


def require_bars(
    market: Market, row: int, settings: DailyConfig, instead: str = ""
) -> tuple[str, ...]:
    """Refuse a session of which too much of the universe has no bar.

    Args:
        market: as it was known at the close of the session.
        row: of the session.
        settings: the limit.
        instead: what else can be done, for the message.

    Returns:
        The stocks of the universe without a bar.

    Raises:
        DataError: naming the first ones, if they are too many.
    """
    recent = market.slots[max(row + 1 - MONTH, 0) : row + 1]
    universe = np.unique(recent[recent >= 0])
    missing = [market.symbols[stock] for stock in universe if not market.tradable[row, stock]]
    if len(missing) > settings.max_missing_share * len(universe):
        told = ", ".join(missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise DataError(
            f"{len(missing)} of {len(universe)} stocks of the universe have no bar on "
            f"{market.dates[row]} ({told}{more}): expected at most "
            f"{settings.max_missing_share:.0%}; {_update(market.manifest['source'])}{instead}raise "
            "max_missing_share in the file of --settings"
        )
    return tuple(missing)


def _require_after_training(run: TrainedRun, day: date, what: str) -> None:
    start, end = (date.fromisoformat(text) for text in run.origin.spans["train"])
    if day > end:
        return
    calendar, changes = run.config.market_profile.calendar, run.config.data.calendar_changes
    later = sessions_between(calendar, end + timedelta(days=1), end + timedelta(days=31), changes)
    raise CheckpointError(
        f"{what} {day} lies in the training span of {run.log_dir} ({start} to {end}), where a "
        f"decision is no evidence: expected a later day, the first one is {later[0]}"
    )


def _has_closed(run: TrainedRun, day: date, now: datetime) -> bool:
    """Say whether a day is over: a session by its close, any other day by its date."""
    calendar, changes = run.config.market_profile.calendar, run.config.data.calendar_changes
    if len(sessions_between(calendar, day, day, changes)) == 0:
        return day <= now.date()
    before = day - timedelta(days=1)
    return np.datetime64(day) in closed_sessions(calendar, before, now, changes)


def _age_warnings(run: TrainedRun, day: date, settings: DailyConfig) -> list[str]:
    """Return a warning for agents that grow old; too old ones are refused."""
    end = date.fromisoformat(run.origin.spans["train"][1])
    age = (day - end).days
    told = f"the training span of {run.log_dir} ended on {end}, {age} days before {day}"
    if age > settings.max_age_days:
        raise CheckpointError(
            f"{told}: expected at most {settings.max_age_days}; train again with later spans, or "
            "raise max_age_days in the file of --settings"
        )
    if age > settings.warn_age_days:
        return [f"{told}; at {settings.max_age_days} a decision is refused"]
    return []
