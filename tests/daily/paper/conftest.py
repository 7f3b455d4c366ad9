"""The later days of the small run with everything that can happen to a holding."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from hrl_sarp.daily.market import TrainedRun
from hrl_sarp.daily.paper.account import PaperAccount, PaperDay
from hrl_sarp.daily.paper.known import KnownMarkets
from hrl_sarp.daily.paper.step import markets_of, open_account, step_account
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.store import RawData, write_raw
from tests.daily.conftest import HISTORY_DAYS, N_DAYS, QUIET, Site
from tests.raw_data import sessions

DAYS = [day.item() for day in sessions(N_DAYS)]
START = DAYS[HISTORY_DAYS]
ENDS, PAUSES, SHORT_PAUSE, SPLITS = "B0", "B5", "G2", "A3"
LAST_BAR, SPLIT_ROW, PAUSE, SHORT = 664, 655, (648, 653), (670, 672)
"""Row of the last bar of ENDS; of the split of SPLITS; rows without bars, stop exclusive."""
PAYS, DIVIDEND_ROW = "B1", 659
HALTED = 3
"""Sessions without a bar for which a stock counts as halted."""
RULES = QUIET.model_copy(update={"halted_sessions": HALTED})
NOW = datetime(2024, 1, 2, tzinfo=UTC)


def planted(raw: RawData) -> RawData:
    """End a stock, split another, pay a dividend, take bars out of two; all are in the universe."""
    symbol, day = pl.col("symbol"), pl.col("date")
    is_gap = (symbol == PAUSES) & day.is_between(DAYS[PAUSE[0]], DAYS[PAUSE[1] - 1])
    is_gap |= (symbol == SHORT_PAUSE) & day.is_between(DAYS[SHORT[0]], DAYS[SHORT[1] - 1])
    is_gap |= (symbol == ENDS) & (day > DAYS[LAST_BAR])
    after = (symbol == SPLITS) & (day >= DAYS[SPLIT_ROW])
    prices = [pl.col(name) for name in ("open", "high", "low", "close")]
    bars = raw.bars.filter(~is_gap).with_columns(
        *(pl.when(after).then(price / 3).otherwise(price).name.keep() for price in prices),
        split=pl.when(after & (day == DAYS[SPLIT_ROW])).then(3.0).otherwise(pl.col("split")),
    )
    return replace(raw, bars=pay(bars, PAYS, DAYS[DIVIDEND_ROW], 0.03))


def pay(bars: pl.DataFrame, symbol: str, day: date, share: float) -> pl.DataFrame:
    """Pay a share of the close as a dividend; prices fall by it, and returns stay."""
    is_own = pl.col("symbol") == symbol
    (close,) = bars.filter(is_own & (pl.col("date") == day))["close"]
    later = is_own & (pl.col("date") >= day)
    prices = [pl.col(name) for name in ("open", "high", "low", "close")]
    paid = pl.when(is_own & (pl.col("date") == day)).then(share * close)
    return bars.with_columns(
        *(pl.when(later).then(p * (1 - share)).otherwise(p).name.keep() for p in prices),
        dividend=paid.otherwise(pl.col("dividend")),
    )


@dataclass(frozen=True)
class PaperSite:
    """The run, and all days with what was planted."""

    site: Site
    raw: RawData
    folder: Path

    @property
    def settings(self) -> Path:
        """Return a file with the rules, for --settings."""
        there = self.folder / "daily.yaml"
        there.write_text(yaml.safe_dump(RULES.model_dump(mode="json")))
        return there

    @property
    def whole(self) -> Path:
        """All days."""
        return self.cut(N_DAYS - 1)

    def cut(self, row: int) -> Path:
        """Return a folder with the data up to a row."""
        there = self.folder / f"to_{row}" / "raw"
        if not there.is_dir():
            write_raw(as_of(self.raw, DAYS[row]), there)
        return there

    def markets(self, row: int = N_DAYS - 1) -> KnownMarkets:
        """Serve the sessions up to a row."""
        run = TrainedRun.read(self.site.run_dir)
        return KnownMarkets.collected([run], self.cut(row), RULES)

    def begin(
        self, path: Path, lot_size: int | None, row: int = N_DAYS - 1, start: date = START
    ) -> PaperDay:
        """Open an account."""
        runs = [self.site.run_dir]
        return open_account(path, runs, self.cut(row), RULES, 1e5, lot_size, NOW, start)

    def booked(self, path: Path, row: int = N_DAYS - 1) -> tuple[PaperDay, ...]:
        """Step an account to a row and return all its days."""
        with PaperAccount.open(path) as account:
            step_account(account, markets_of(account, self.cut(row), RULES), RULES, NOW)
            return account.days


@pytest.fixture(scope="session")
def paper_site(site: Site, tmp_path_factory: pytest.TempPathFactory) -> PaperSite:
    """A run and data that a test must not change."""
    return PaperSite(site, planted(site.raw), tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="session")
def booked(
    paper_site: PaperSite, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int | None], tuple[PaperDay, ...]]:
    """Return all days of an account by its lot size, caught up from one market."""
    kept: dict[int | None, tuple[PaperDay, ...]] = {}

    def of(lot_size: int | None) -> tuple[PaperDay, ...]:
        if lot_size not in kept:
            path = tmp_path_factory.mktemp("account") / "paper.sqlite"
            paper_site.begin(path, lot_size)
            kept[lot_size] = paper_site.booked(path)
        return kept[lot_size]

    return of


def day_of(days: tuple[PaperDay, ...], day: date) -> PaperDay:
    """Find a day of an account."""
    return next(each for each in days if each.day == day)


def events_of(days: tuple[PaperDay, ...], kind: str) -> list[tuple[date, str]]:
    """Return when an event happened, and to which stock."""
    return [(d.day, e["symbol"]) for d in days for e in d.events if e["kind"] == kind]
