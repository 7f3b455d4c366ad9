"""The commands `paper init` and `paper step`: opens an account, and books what it has missed."""

import math
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.daily.decision.checks import require_bars, require_closed
from hrl_sarp.daily.decision.run import read_runs
from hrl_sarp.daily.market import TrainedRun, agents_hash
from hrl_sarp.daily.paper.account import PaperAccount, PaperDay, Terms
from hrl_sarp.daily.paper.book import first_day, next_day
from hrl_sarp.daily.paper.known import KnownDay, KnownMarkets
from hrl_sarp.errors import CheckpointError, DataError, OverwriteError, UsageError
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
        start: session at whose close the account begins; None is the last one of the data.

    Returns:
        The day of the start.

    Raises:
        OverwriteError: if the file exists.
        UsageError: for a capital that is not above 0.
        DataError: for a start that is no session of the data or lies in the training span, and a
            session that is not whole.
        CheckpointError: for data that are not those of the runs, brought up to date.
    """
    if path.exists():
        raise OverwriteError(
            f"{path} exists: a paper account is never overwritten; choose another --account, or "
            "move this file away"
        )
    if not (math.isfinite(capital) and capital > 0):
        raise UsageError(f"--capital: expected an amount above 0, found {capital:g}")
    runs = read_runs(log_dirs)
    markets = KnownMarkets.collected(runs, data_dir, settings)
    day = start or markets.last_day
    trained = date.fromisoformat(runs[0].origin.spans["train"][1])
    if day <= trained:
        raise DataError(
            f"--start {day} lies in the training span of {runs[0].log_dir}, which ends {trained}: "
            "the agents know what came; start after it"
        )
    require_closed(runs[0], data_dir, day, now)
    terms = Terms(
        log_dirs=tuple(str(folder.resolve()) for folder in log_dirs),
        agents=agents_hash(runs),
        market=runs[0].config.market,
        capital=capital,
        lot_size=lot_size,
        halted_sessions=settings.halted_sessions,
        start=day,
    )
    first = first_day(_whole(markets.at(day), settings), terms)
    PaperAccount.create(path, terms, first)
    return first


def step_account(
    account: PaperAccount, markets: KnownMarkets, settings: DailyConfig, now: datetime
) -> list[PaperDay]:
    """Book every session that the data have and the account lacks, each in one transaction.

    Args:
        account: open.
        markets: as `markets_of` returns them.
        settings: of daily decisions; a booked session cannot be taken back, so that one of which
            too much of the universe lacks its bar is refused.
        now: with its zone; a session that has not closed is refused.

    Returns:
        The sessions that were booked, oldest first; none if the account has all.

    Raises:
        DataError: if the data end before the account, lack its last session, or have a session
            that is not whole; sessions before that one are booked.
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
    booked = []
    with phase_progress("paper account", len(missing), unit="sessions") as bar:
        for count, day in enumerate(missing, 1):
            known = _whole(markets.at(day), settings)
            booked.append(next_day(known, account.last, account.terms))
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
    return {**{name: plain[name] for name in kept}, "orders": plain["decision"]["orders"]}


def _whole(known: KnownDay, settings: DailyConfig) -> KnownDay:
    require_bars(known.view.market, known.row, settings)
    return known
