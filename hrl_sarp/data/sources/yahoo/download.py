"""Collects daily stocks, the index and macro series of a market from Yahoo Finance.

Fetched tickers stay in a cache, so a run after Ctrl-C, a kill or a rate limit asks only for the
rest. An update removes it once all tickers are there. `data/raw` is written then.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from loguru import logger
from rich.console import Console
from rich.progress import Progress

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR
from hrl_sarp.config.market_schema import MarketProfile, SpansConfig, YahooConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.sources.files.tables import read_table, refusal, refuse_repeated
from hrl_sarp.data.sources.yahoo.history import (
    HistoryCache,
    Link,
    NoHistoryError,
    UnreachableError,
    as_traded,
    ask,
)
from hrl_sarp.data.store import BARS_SCHEMA, MACRO_SCHEMA, SECTORS_SCHEMA, RawData
from hrl_sarp.errors import DataError

SYMBOLS_DIR = DEFAULT_CONFIG_DIR / "symbols"
"""`<market>.csv` (symbol, sector, ticker) and `<market>_series.csv` (series, ticker, meaning)."""
INDEX_SERIES = "index"
"""The series that becomes the benchmark."""
SUFFIX_OF_MARKET = {"nse": ".NS"}
"""Market -> suffix that makes a ticker of a symbol."""
YEARS_BEFORE_TRAINING = 2
"""The first universe needs a year of bars before a first of January, so up to two years."""

OVERLAP_DAYS = 30
"""Calendar days before the last collected one that are fetched again."""


@dataclass(frozen=True)
class YahooRequest:
    """Options of the user; None takes the default."""

    symbols: Path | None
    """File with symbol, sector and optionally ticker; None takes the list of the market."""
    start: date | None
    """First day; None takes two years before the profile's training span."""
    end: date | None
    """Last day; None takes the end of the profile's test span."""
    today: date
    """The last day must lie before it, because its bar is not final."""
    lists: Path = SYMBOLS_DIR
    """Folder of the lists of symbols, read if `symbols` is None."""


@dataclass(frozen=True)
class Plan:
    """The tickers and days to ask Yahoo for."""

    stocks: pl.DataFrame
    """symbol, sector, ticker."""
    series: pl.DataFrame
    """series, ticker, meaning; the benchmark is called `index`."""
    start: date
    end: date
    listed_in: str
    """Name of the list of symbols, for messages."""


def load(request: YahooRequest, config: RunConfig, cache_dir: Path, link: Link) -> RawData:
    """Collect a market from Yahoo; tickers that were fetched before come from the cache.

    `cache_dir` keeps the histories, one folder per span, even if the run fails. The notes say what
    each series means and which tickers failed.
    """
    return _load(make_plan(request, config), config, cache_dir, link)


def _collect(
    plan: Plan, config: RunConfig, cache_dir: Path, link: Link
) -> tuple["_Collector", list[str]]:
    """Fetch a plan; return its histories, and each symbol that failed with the reason."""
    cache = _cache_of(plan, cache_dir)
    collector = _Collector(plan, cache, link, config.data.yahoo)
    collector.collect()
    failures = collector.failures
    tickers = plan.stocks.select("symbol", "ticker").iter_rows()
    return collector, [
        f"{symbol}: {failures[ticker]}" for symbol, ticker in tickers if ticker in failures
    ]


def _cache_of(plan: Plan, cache_dir: Path) -> HistoryCache:
    return HistoryCache(cache_dir / f"{plan.start}_{plan.end}")


def _load(plan: Plan, config: RunConfig, cache_dir: Path, link: Link) -> RawData:
    collector, failed = _collect(plan, config, cache_dir, link)
    failures, cache = collector.failures, collector.cache
    allowed_share = config.data.yahoo.max_failed_share
    allowed = int(allowed_share * plan.stocks.height)
    if len(failed) > allowed or len(failed) == plan.stocks.height:  # a lost series is only noted
        raise DataError(
            f"source yahoo: {len(failed)} of {plan.stocks.height} symbols failed, at most "
            f"{allowed} may (data.yahoo.max_failed_share = {allowed_share}); nothing was replaced, "
            f"fetched histories stay in {cache.folder}; run the same command again or remove the "
            f"failed symbols: {'; '.join(failed)}"
        )
    rows = plan.series.iter_rows()
    listed = {ticker: (f"{name} is {ticker}: {meaning}", name) for name, ticker, meaning in rows}
    notes = [text for ticker, (text, _) in listed.items() if ticker in collector.histories]
    notes += [f"not collected, {text}" for text in failed]
    notes += [
        f"series not collected, {name} ({ticker}): {failures[ticker]}"
        for ticker, (_, name) in listed.items()
        if ticker in failures
    ]
    notes += [
        f"damaged file in the cache, fetched again: {ticker}" for ticker in collector.cache.damaged
    ]
    if listed:
        notes.append(
            f"Yahoo lacks some macro series of the profile {config.market}; experiment "
            f"yahoo_{config.market} trains without them"
        )
    return _to_raw(plan, collector.histories, tuple(notes))


def load_later(
    request: YahooRequest, config: RunConfig, cache_dir: Path, link: Link, there: RawData
) -> RawData:
    """Fetch what came after collected data, with some days of overlap that show changed history.

    Symbols of the list that were not collected are fetched from the first collected day on. One
    that fails is noted, because it was missing before; so is one whose bars ended before the
    overlap. Collected symbols that the list lacks are not asked for.

    Answers are kept only while a run is unfinished: Yahoo may be late or wrong in the evening, and
    the same command an hour later has to ask again.

    Args:
        request: of the user. Without a start it begins `OVERLAP_DAYS` before the last collected
            day, without an end it ends yesterday.
        config: as at the collection.
        cache_dir: as for `load`.
        link: to Yahoo.
        there: what was collected.

    Returns:
        What Yahoo has of these days.

    Raises:
        DataError: if nothing was collected, the list names no symbol that goes on, or too many
            symbols fail.
    """
    first, last = there.bars["date"].min(), there.bars["date"].max()
    if not isinstance(first, date) or not isinstance(last, date):
        raise DataError("no bars were collected; run `hrl-sarp collect-data` first")
    end = request.end or request.today - timedelta(days=1)
    start = request.start or min(last, end) - timedelta(days=OVERLAP_DAYS)
    plan = make_plan(replace(request, start=start, end=end), config)
    recent = min(start, last - timedelta(days=OVERLAP_DAYS))
    goes_on, is_known = (
        plan.stocks["symbol"].is_in(bars["symbol"].unique().implode())
        for bars in (there.bars.filter(pl.col("date") >= recent), there.bars)
    )
    if not goes_on.any():
        raise DataError(
            f"source yahoo: {plan.listed_in} names none of the collected symbols that go on; give "
            "the list of the collection with --symbols"
        )
    plans = [replace(plan, stocks=plan.stocks.filter(goes_on))]
    raw = _load(plans[0], config, cache_dir, link)
    for stocks, since in (
        (plan.stocks.filter(is_known & ~goes_on), start),
        (plan.stocks.filter(~is_known), first),
    ):
        if stocks.is_empty():
            continue
        plans.append(replace(plan, stocks=stocks, series=plan.series.clear(), start=since))
        raw = _with_more(raw, plans[-1], config, cache_dir, link)
    for each in plans:
        _cache_of(each, cache_dir).forget()
    return raw


def _with_more(raw: RawData, plan: Plan, config: RunConfig, cache_dir: Path, link: Link) -> RawData:
    """Add the stocks of a plan; those that fail are noted."""
    collector, failed = _collect(plan, config, cache_dir, link)
    notes = (*raw.notes, *(f"not collected, {text}" for text in failed))
    if not collector.histories:
        return replace(raw, notes=notes)
    added = _to_raw(plan, collector.histories, ())
    return replace(
        raw,
        bars=raw.bars.vstack(added.bars).sort("symbol", "date"),
        sectors=raw.sectors.vstack(added.sectors).sort("symbol"),
        notes=notes,
    )


def make_plan(request: YahooRequest, config: RunConfig) -> Plan:
    """Fill in the defaults of a request and read the lists of symbols and series."""
    spans = config.market_profile.spans
    start, end = request.start, request.end
    if isinstance(spans, SpansConfig):
        first = spans.train.start
        # on the first of the month, because 29 February does not exist two years before
        start = start or first.replace(year=first.year - YEARS_BEFORE_TRAINING, day=1)
        end = end or spans.test.end
    end = end or request.today - timedelta(days=1)
    if start is None:
        raise DataError(
            f"--start: the market profile {config.market} has spans as shares of the data, so it "
            "names no first day; give --start"
        )
    if start >= end:
        raise DataError(f"--start and --end: expected start before end, found {start} and {end}")
    if end >= request.today:
        raise DataError(
            f"--end: expected a day before today, {request.today}, whose bar is not final; "
            f"found {end}"
        )
    path = request.symbols or request.lists / f"{config.market}.csv"
    if request.symbols is None and not path.is_file():
        stems = (file.stem for file in request.lists.glob("*.csv"))
        known = sorted(stem for stem in stems if not stem.endswith("_series"))
        raise DataError(
            f"source yahoo: no symbols are listed for the market {config.market}; expected "
            f"--market {' or '.join(known)}, or --symbols FILE with symbol, sector and optionally "
            "ticker"
        )
    series_path = request.lists / f"{config.market}_series.csv"
    names = dict.fromkeys(("series", "ticker", "meaning"), pl.String())
    has_series = series_path.is_file()
    return Plan(
        stocks=_read_stocks(path, config.market, config.market_profile),
        series=read_table(series_path, names).frame if has_series else pl.DataFrame(schema=names),
        start=start,
        end=end,
        listed_in="the file of --symbols" if request.symbols else f"config/symbols/{path.name}",
    )


def _read_stocks(path: Path, market: str, profile: MarketProfile) -> pl.DataFrame:
    keys = ("symbol", "sector")
    names = dict.fromkeys(keys, pl.String())
    stocks = read_table(path, names, {"ticker": pl.String()}, keys=keys).frame
    if stocks.is_empty():
        raise refusal(path, "a row for each symbol", "none", "list the symbols")
    refuse_repeated(stocks["symbol"], path)
    is_strange = ~stocks["sector"].is_in(profile.sectors or stocks["sector"])
    if is_strange.any():
        row = stocks.filter(is_strange).row(0, named=True)
        expected = f"one of {', '.join(profile.sectors)} (market {market})"
        found = f"{row['sector']} for {row['symbol']}"
        raise refusal(path, expected, found, "correct the sector", "sector", is_strange)
    suffix = SUFFIX_OF_MARKET.get(market, "")
    derived = pl.col("symbol").str.replace_all(".", "-", literal=True) + suffix
    given = pl.col("ticker") if "ticker" in stocks.columns else pl.lit(None, dtype=pl.String)
    return stocks.select("symbol", "sector", ticker=given.fill_null(derived))


class _Collector:
    """Gets the histories of a plan from the cache or from Yahoo, and notes which tickers fail."""

    def __init__(self, plan: Plan, cache: HistoryCache, link: Link, config: YahooConfig) -> None:
        self.plan, self.cache, self.link, self.config = plan, cache, link, config
        self.tickers = [*plan.stocks["ticker"], *plan.series["ticker"]]
        self.histories: dict[str, pl.DataFrame] = {}
        self.failures: dict[str, str] = {}
        self.unreachable_in_a_row = 0

    def collect(self) -> None:
        """Fill `histories` and `failures`."""
        kept = ((ticker, self.cache.read(ticker)) for ticker in self.tickers)
        self.histories = {ticker: history for ticker, history in kept if history is not None}
        missing = [ticker for ticker in self.tickers if ticker not in self.histories]
        logger.info("yahoo: {} in {}", self._count(), self.cache.folder)
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            try:
                for ticker in progress.track(missing, description="yahoo"):
                    self._fetch(ticker)
            except KeyboardInterrupt:
                logger.warning("stopped with {} in {}", self._count(), self.cache.folder)
                raise
            finally:
                for ticker, reason in self.failures.items():
                    logger.warning("failed: {}: {}", ticker, reason)

    def _fetch(self, ticker: str) -> None:
        plan, config = self.plan, self.config
        try:
            answer = ask(ticker, plan.start, self.link, config)
            history = as_traded(answer, plan.start, plan.end)
        except (NoHistoryError, UnreachableError) as error:
            self.failures[ticker] = str(error)
            is_unreachable = isinstance(error, UnreachableError)
            self.unreachable_in_a_row = self.unreachable_in_a_row + 1 if is_unreachable else 0
            if self.unreachable_in_a_row >= config.give_up_after:
                raise DataError(
                    f"source yahoo: {self.unreachable_in_a_row} tickers in a row had no usable "
                    f"answer after {config.attempts} attempts each (last: {error}); "
                    f"{self._count()} are kept in {self.cache.folder}, nothing was replaced; run "
                    "the same command later, it fetches the rest"
                ) from error
        else:
            self.cache.keep(ticker, history)
            self.histories[ticker] = history
            self.unreachable_in_a_row = 0
        self.link.sleep(config.pause_seconds)

    def _count(self) -> str:
        return f"{len(self.histories)} of {len(self.tickers)} tickers"


def _to_raw(plan: Plan, histories: dict[str, pl.DataFrame], notes: tuple[str, ...]) -> RawData:
    stocks = plan.stocks.filter(pl.col("ticker").is_in(list(histories)))
    bars = pl.concat(
        histories[ticker].with_columns(symbol=pl.lit(symbol))
        for symbol, ticker in stocks.select("symbol", "ticker").iter_rows()
    )
    closes = [MACRO_SCHEMA.to_frame()]
    closes += [
        histories[ticker].select("date", series=pl.lit(name), value="close").drop_nulls()
        for name, ticker in plan.series.select("series", "ticker").iter_rows()
        if ticker in histories
    ]
    series = pl.concat(closes)
    is_index = pl.col("series") == INDEX_SERIES
    return RawData(
        bars=bars.select(BARS_SCHEMA.names()).sort("symbol", "date"),
        sectors=stocks.select(SECTORS_SCHEMA.names()).sort("symbol"),
        macro=series.filter(~is_index).sort("series", "date"),
        index=series.filter(is_index).select("date", close="value"),
        source="yahoo",
        adjustment="prices, volume and dividends as traded: Yahoo's split adjustment is undone by "
        "its own splits; adj_close is Yahoo's, as of the day it was fetched",
        survivorship=f"symbols of {plan.listed_in}, chosen with hindsight; Yahoo drops delisted "
        "companies: biased upwards",
        notes=notes,
    )
