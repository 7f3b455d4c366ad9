"""The commands `paper init` and `paper step`: opens an account, and books what it has missed."""

import math
from collections.abc import Collection, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.daily.decision.checks import (
    NOTHING,
    Accepted,
    check_close,
    require_closed,
    require_timely,
)
from hrl_sarp.daily.decision.run import read_runs
from hrl_sarp.daily.drift import DriftMeter
from hrl_sarp.daily.market import TrainedRun, agents_hash
from hrl_sarp.daily.paper.account import PaperAccount, PaperDay, Terms
from hrl_sarp.daily.paper.book import first_day, next_day
from hrl_sarp.daily.paper.known import KnownDay, KnownMarkets, View
from hrl_sarp.errors import CheckpointError, DataError, OverwriteError, UsageError
from hrl_sarp.reporting.table import counted
from hrl_sarp.run.terminal import phase_progress


def open_account(
    path: Path,
    log_dirs: Sequence[Path],
    data_dir: Path,
    settings: DailyConfig,
    capital: float,
    lot_size: int | None,
    now: datetime,
    start: date | None = None,
    accepted: Accepted = NOTHING,
) -> PaperDay:
    """Write a new account, in cash, with the decision for the open after its start.

    Args:
        path: of the file; must not exist.
        log_dirs: of the runs that decide; several decide as their mean.
        data_dir: `data/raw`, kept up to date.
        settings: of daily decisions.
        capital: cash in currency.
        lot_size: orders are multiples of it; None holds fractions of a share.
        now: with its zone; a session that has not closed is not booked.
        start: session at whose close the account begins; None is the last one of the data, which
            must be the last one that has closed.
        accepted: what is told in place of refusing it.

    Returns:
        The day of the start.

    Raises:
        OverwriteError: if the file exists.
        UsageError: for a capital that is not above 0.
        DataError: for a start that is no session of the data, and data of which `decide` would
            decide nothing.
        CheckpointError: for a start in the training span, agents that are too old, and data that
            are not those of the runs, brought up to date.
    """
    if path.exists():
        raise OverwriteError(
            f"{path} exists: a paper account is never overwritten; choose another --account, or "
            "move this file away"
        )
    if not (math.isfinite(capital) and capital > 0):
        raise UsageError(f"--capital: expected an amount above 0, found {capital:g}")
    runs = read_runs(log_dirs)
    require_timely(runs[0], data_dir, settings, start, now, "--start")
    markets = KnownMarkets.collected(runs, data_dir, settings)
    day = start or markets.last_day
    terms = Terms(
        log_dirs=tuple(str(folder.resolve()) for folder in log_dirs),
        agents=agents_hash(runs),
        market=runs[0].config.market,
        capital=capital,
        lot_size=lot_size,
        halted_sessions=settings.halted_sessions,
        start=day,
    )
    known = markets.at(day)
    checks = SessionChecks(settings, accepted)
    first = first_day(known, terms, checks.warnings(known))
    PaperAccount.create(path, terms, first)
    return first


def catch_up(
    account: PaperAccount,
    data_dir: Path,
    settings: DailyConfig,
    now: datetime,
    day: date | None = None,
    accepted: Accepted = NOTHING,
) -> list[PaperDay]:
    """Book what an account has missed, from data that must be up to date.

    Args:
        account: open.
        data_dir: `data/raw`, kept up to date.
        settings: of daily decisions; how long a stock counts as halted is a term of the account.
        now: with its zone.
        day: session to book up to; None is the last one of the data, which must be the last one
            that has closed.
        accepted: what is told in place of refusing it.

    Returns:
        The sessions that were booked, oldest first; none if the account has all.

    Raises:
        DataError: for data that lack the last session that has closed, and as `step_account`.
        CheckpointError: if the agents are not those with which the account began, and as
            `step_account`.
    """
    runs, own = runs_of(account, settings)
    require_timely(runs[0], data_dir, own, day, now)
    if day is not None and day <= account.last.day:
        return []
    markets = KnownMarkets.collected(runs, data_dir, own, day)
    return step_account(account, markets, own, now, accepted)


class SessionChecks:
    """Asks of each session what `decide` asks of its day.

    Args:
        settings: the limits.
        accepted: what is told in place of refusing it.

    Examples:
        >>> SessionChecks.__name__
        'SessionChecks'
    """

    def __init__(self, settings: DailyConfig, accepted: Accepted) -> None:
        self._settings, self._accepted = settings, accepted
        self._view: View | None = None

    def warnings(self, known: KnownDay, held: Collection[str] = ()) -> tuple[str, ...]:
        """Refuse a session of which nothing should be decided.

        Args:
            known: the session.
            held: stocks that the account holds or has ordered.

        Returns:
            What is worth telling nevertheless.

        Raises:
            DataError: as `check_close`.
            CheckpointError: for agents whose training lies too far back.
        """
        today = known.view.todays[0]
        if known.view is not self._view:  # most sessions share one view
            self._view = known.view
            self._meter = DriftMeter(today.market, today.raw.bars, self._settings.drift)
        given = (today, known.row, self._meter, self._settings)
        return check_close(*given, held, self._accepted).warnings


def step_account(
    account: PaperAccount,
    markets: KnownMarkets,
    settings: DailyConfig,
    now: datetime,
    accepted: Accepted = NOTHING,
) -> list[PaperDay]:
    """Book every session that the data have and the account lacks, each in one transaction.

    Args:
        account: open.
        markets: as `markets_of` returns them.
        settings: of daily decisions; a booked session cannot be taken back, so that one of which
            `decide` would decide nothing is refused.
        now: with its zone; a session that has not closed is refused.
        accepted: what is told in place of refusing it.

    Returns:
        The sessions that were booked, oldest first; none if the account has all.

    Raises:
        DataError: if the data end before the account, lack its last session, or have a session of
            which nothing should be decided; sessions before that one are booked.
        CheckpointError: for agents whose training lies too far back.
    """
    last = account.last.day
    if markets.last_day < last:
        raise DataError(
            f"the data end on {markets.last_day}, but {account.path} is booked to {last}; bring "
            "the data up to date with `hrl-sarp update-data`"
        )
    missing = markets.sessions_after(last)
    if not missing:
        return []
    require_closed(markets.view.todays[0].run, markets.data_dir, missing[-1], now)
    booked, checks = list[PaperDay](), SessionChecks(settings, accepted)
    with phase_progress("paper account", len(missing), unit="sessions") as bar:
        for count, day in enumerate(missing, 1):
            known = markets.at(day)
            warnings = checks.warnings(known, account.last.stocks)
            booked.append(next_day(known, account.last, account.terms, warnings))
            account.append(booked[-1])
            bar.update(count)
    return booked


def markets_of(account: PaperAccount, data_dir: Path, settings: DailyConfig) -> KnownMarkets:
    """Read the runs of an account and the data.

    Args:
        account: open.
        data_dir: `data/raw`, kept up to date.
        settings: of daily decisions; how long a stock counts as halted is a term of the account.

    Returns:
        The markets of all sessions.

    Raises:
        CheckpointError: if the agents are not those with which the account began.
    """
    runs, own = runs_of(account, settings)
    return KnownMarkets.collected(runs, data_dir, own)


def runs_of(account: PaperAccount, settings: DailyConfig) -> tuple[list[TrainedRun], DailyConfig]:
    """Read the runs of an account, and the settings under which it is booked.

    Args:
        account: open.
        settings: of daily decisions.

    Returns:
        The runs; the settings with how long a stock counts as halted in this account.

    Raises:
        CheckpointError: if the agents are not those with which the account began.
    """
    terms = account.terms
    runs = read_runs([Path(folder) for folder in terms.log_dirs])
    if agents_hash(runs) != terms.agents:
        raise CheckpointError(
            f"{account.path} is an account of other agents than those that lie in "
            f"{', '.join(terms.log_dirs)} now: they were trained or certified again; restore them, "
            "or open a new account"
        )
    return runs, settings.model_copy(update={"halted_sessions": terms.halted_sessions})


def as_json(day: PaperDay) -> dict[str, Any]:
    """Return what a command says of a day: the account, and the orders for the next open.

    Args:
        day: of an account.

    Returns:
        Plain values; amounts in currency, returns and costs as fractions.
    """
    kept = ("day", "net_return", "cost", "turnover", "wealth", "cash", "events")
    plain = day.to_json()
    return {
        **{name: plain[name] for name in kept},
        "orders": plain["decision"]["orders"],
        "warnings": list(day.warnings),
    }


def line_of(day: PaperDay) -> str:
    """Say in one line what a session earned, and how much was filled and happened.

    Args:
        day: of an account.

    Returns:
        The line, without a full stop.
    """
    parts = [counted(len(day.fills), "fill")]
    parts += [counted(len(day.events), "event")] if day.events else []
    return f"{day.day}: {day.net_return:+.3%}, {day.wealth:,.2f}, {', '.join(parts)}"
