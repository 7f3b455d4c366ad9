"""The market of every session as it was known at its close, also for sessions that are caught up.

Rows of a market use the past alone, so one market serves many sessions. The end of a stock is the
exception: on the day after its last bar nobody knows whether it is halted or gone. Sessions around
such ends are assembled again from data that are cut at their close.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool

from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.contracts import Market
from hrl_sarp.daily.decision.decide import deployed
from hrl_sarp.daily.market import Today, TrainedRun, read_today
from hrl_sarp.data.store import RawData
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.errors import DataError
from hrl_sarp.evaluation.backtest import ACCOUNTING_DTYPE
from hrl_sarp.features.prices import LAST_BARS
from hrl_sarp.market.tensors import MarketTensors

Todays = tuple[Today, ...]


class Bar(NamedTuple):
    """What the data say of a stock on a day."""

    close: float
    """As traded."""
    split: float
    """New shares for an old one; 1 without a split."""
    dividend: float
    """Cash for a share that was held before the split."""


@dataclass(frozen=True)
class View:
    """A market and what is deployed on it, each made once.

    Examples:
        >>> [field for field in View.__dataclass_fields__]
        ['todays']
    """

    todays: Todays
    """One for each run that decides."""

    @property
    def market(self) -> Market:
        """The market, which all runs share."""
        return self.todays[0].market

    @cached_property
    def tensors(self) -> MarketTensors:
        """The market in the precision of a backtest, where stocks end as late as one knows it."""
        halted = self.todays[0].halted_at_end
        known = replace(self.market, listed=known_listed(self.market, halted))
        return MarketTensors(known, ACCOUNTING_DTYPE, "cpu")

    @cached_property
    def policy(self) -> HierarchicalPolicy:
        """What is deployed of the runs."""
        return deployed(self.todays)

    def row(self, day: date) -> int:
        """Find a session.

        Raises:
            DataError: if the market has no such session.
        """
        row = int(np.searchsorted(self.market.dates, np.datetime64(day)))
        if row == self.market.n_days or self.market.dates[row].item() != day:
            dates = self.market.dates
            near = f"; the last one before it is {dates[row - 1]}" if row else ""
            raise DataError(
                f"the data have no session of {day} in the market ({dates[0]} to {dates[-1]}){near}"
                ": begin an account there, or give the data folder that it was booked on"
            )
        return row


@dataclass(frozen=True)
class KnownDay:
    """What is known at the close of one session.

    Examples:
        >>> [field for field in KnownDay.__dataclass_fields__]
        ['day', 'view', 'row']
    """

    day: date
    view: View
    row: int
    """Of the day in the view's market."""

    @cached_property
    def bars(self) -> dict[str, Bar]:
        """The bars of the day, by symbol."""
        return bars_of(self.view.todays[0].raw, self.day)

    @property
    def closes(self) -> dict[str, float]:
        """Closes as traded of the stocks that may be traded on the day."""
        market = self.view.market
        tradable = dict(zip(market.symbols, market.tradable[self.row].tolist(), strict=True))
        return {symbol: bar.close for symbol, bar in self.bars.items() if tradable.get(symbol)}

    @property
    def volumes(self) -> dict[str, float]:
        """Traded value of the day in currency; 0 where unknown."""
        market = self.view.market
        return dict(zip(market.symbols, market.dollar_volume[self.row].tolist(), strict=True))


class KnownMarkets:
    """Serves each session of the data as it was known at its close.

    Args:
        data_dir: `data/raw`, for messages.
        todays: the market of each run at the last close.
        cut: the same at an earlier close, from data that are cut there.

    Examples:
        >>> KnownMarkets.__name__
        'KnownMarkets'
    """

    def __init__(self, data_dir: Path, todays: Todays, cut: Callable[[date], Todays]) -> None:
        self.data_dir, self._whole, self._cut = data_dir, View(todays), cut
        self._unlike = unlike_days(todays[0].raw, todays[0].halted_at_end)

    @classmethod
    def collected(
        cls,
        runs: Sequence[TrainedRun],
        data_dir: Path,
        settings: DailyConfig,
        day: date | None = None,
    ) -> "KnownMarkets":
        """Serve the sessions of a data folder.

        Args:
            runs: whose agents decide.
            data_dir: `data/raw`, kept up to date.
            settings: of daily decisions.
            day: the last session that is served; None is the last one of the data.
        """

        def read(close: date | None) -> Todays:
            return tuple(read_today(run, data_dir, settings, close) for run in runs)

        return cls(data_dir, read(day), read)

    @property
    def view(self) -> View:
        """The market of the last session."""
        return self._whole

    @property
    def last_day(self) -> date:
        """The last session of the data."""
        return self._whole.todays[0].day

    def at(self, day: date) -> KnownDay:
        """Serve a session.

        Args:
            day: a session of the market.

        Raises:
            DataError: if the market has no such session.
        """
        row = self._whole.row(day)
        if day not in self._unlike:
            return KnownDay(day, self._whole, row)
        view = View(self._cut(day))
        return KnownDay(day, view, view.row(day))

    def sessions_after(self, day: date) -> list[date]:
        """Return the sessions after one that the market has.

        Raises:
            DataError: if the market has no such session.
        """
        later = self._whole.market.dates[self._whole.row(day) + 1 :]
        return [each.item() for each in later]


def known_listed(market: Market, halted_sessions: int) -> Bool[np.ndarray, "T A"]:
    """Mark when each stock was taken for listed, from its bars up to that day.

    Args:
        market: whose own mask also knows later bars.
        halted_sessions: without a bar, for which a stock counts as listed.

    Returns:
        The mask; before the first bar in the market it is the market's own.
    """
    rows = np.arange(market.n_days)[:, None]
    last = np.maximum.accumulate(np.where(market.tradable, rows, -1), axis=0)
    known: np.ndarray = np.where(last < 0, market.listed, rows - last <= halted_sessions)
    return known


def unlike_days(raw: RawData, halted_sessions: int) -> set[date]:
    """Find the sessions whose rows may not be those that were known at their close.

    These are the last bars of a stock that has ended (a fall there is a collapse in hindsight), the
    sessions after them on which it counted as halted, and the later part of a long gap.

    Args:
        raw: up to the last session.
        halted_sessions: without a bar, for which a stock counts as halted.
    """
    sessions = raw.bars["date"].unique().sort()
    bars = raw.bars.drop_nulls(["symbol", "date", "close"]).sort("symbol", "date")
    rows = bars.select(
        "symbol", row=sessions.search_sorted(bars["date"]).cast(pl.Int64)
    ).with_columns(next=pl.col("row").shift(-1).over("symbol"))
    end, days = len(sessions) - 1, sessions.to_list()
    spans = [
        (row + halted_sessions + 1, after)
        for row, after in rows.drop_nulls("next")
        .filter(pl.col("next") - pl.col("row") > halted_sessions + 1)
        .select("row", "next")
        .iter_rows()
    ]
    for (row,) in rows.filter(pl.col("next").is_null(), pl.col("row") < end).select("row").rows():
        taken = halted_sessions if end - row > halted_sessions else 0
        spans.append((max(row - LAST_BARS + 1, 0), min(row + taken, end - 1) + 1))
    return {days[row] for first, stop in spans for row in range(first, stop)}


def bars_of(raw: RawData, day: date) -> dict[str, Bar]:
    """Read the bars of a day that have a close."""
    found = raw.bars.filter(pl.col("date") == day).drop_nulls(["symbol", "close"])
    rows = found.select("symbol", "close", pl.col("split").fill_null(1.0), "dividend").iter_rows()
    return {symbol: Bar(close, split, dividend or 0.0) for symbol, close, split, dividend in rows}
