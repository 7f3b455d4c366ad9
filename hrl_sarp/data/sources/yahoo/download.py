"""Yahoo Finance: daily stocks, an index and macro series of a market, ticker by ticker.

What was fetched stays in a cache, so that a run after Ctrl-C, a kill or a rate limit asks for the
rest only. Nothing reaches `data/raw` before all of it is there.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
from loguru import logger
from rich.console import Console
from rich.progress import Progress

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR
from hrl_sarp.config.market_schema import MarketProfile, YahooConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.sources.files.tables import read_table, refuse_repeated
from hrl_sarp.data.sources.yahoo.history import (
    HistoryCache,
    Link,
    NoHistoryError,
    UnreachableError,
    as_traded,
    ask,
)
from hrl_sarp.data.store import BARS_SCHEMA, INDEX_SCHEMA, MACRO_SCHEMA, SECTORS_SCHEMA, RawData
from hrl_sarp.errors import DataError

SYMBOLS_DIR = DEFAULT_CONFIG_DIR / "symbols"
"""`<market>.csv` (symbol, sector, ticker) and `<market>_series.csv` (series, ticker, meaning)."""
INDEX_SERIES = "index"
"""The series that becomes the benchmark."""
SUFFIX_OF_MARKET = {"nse": ".NS"}
"""Added to a symbol without a ticker of its own."""
YEARS_BEFORE_TRAINING = 2
"""The first universe needs a year of bars before a first of January, so up to two years."""
_TEXT = pl.String()


@dataclass(frozen=True)
class YahooRequest:
    """What the user asked for; None takes the default."""

    symbols: Path | None
    """File with symbol, sector and optionally ticker; None takes the list of the market."""
    start: date | None
    """First day; None takes two years before the profile's training span."""
    end: date | None
    """Last day; None takes the end of the profile's test span."""
    today: date
    """Its bar is not final, so the last day must lie before it."""


@dataclass(frozen=True)
class Plan:
    """What will be asked of Yahoo."""

    stocks: pl.DataFrame
    """symbol, sector, ticker."""
    series: pl.DataFrame
    """series, ticker, meaning; the benchmark is called `index`."""
    start: date
    """First day."""
    end: date
    """Last day."""
    listed_in: str
    """Where the symbols come from."""


def load(request: YahooRequest, config: RunConfig, cache_dir: Path, link: Link) -> RawData:
    """Collect a market from Yahoo, what was fetched before from disk.

    Args:
        request: symbols and days.
        config: the market profile and `data.yahoo` are read.
        cache_dir: keeps the histories, one folder per span.
        link: how Yahoo is reached.

    Raises:
        DataError: if days or symbols cannot be used, Yahoo cannot be reached, or too many symbols
            fail. What came is kept for the next run.
        MissingArtifactError: if the symbols file does not exist.
    """
    plan = make_plan(request, config)
    cache = HistoryCache(cache_dir / f"{plan.start}_{plan.end}")
    collector = _Collector(plan, cache, link, config.data.yahoo)
    collector.collect()
    collector.refuse_too_many()
    return _to_raw(plan, collector, config.market)


def make_plan(request: YahooRequest, config: RunConfig) -> Plan:
    """Fill in the defaults of a request and read the lists.

    Raises:
        DataError: if the days are no span of the past, or a list breaks its format.
        MissingArtifactError: if the symbols file does not exist.
    """
    spans = config.market_profile.spans
    first = spans.train.start
    # a 29 February has no counterpart two years before
    start = request.start or first.replace(year=first.year - YEARS_BEFORE_TRAINING, day=1)
    end = request.end or spans.test.end
    if start >= end:
        raise DataError(f"--start and --end: expected start before end, found {start} and {end}")
    if end >= request.today:
        raise DataError(
            f"--end: expected a day before today, {request.today}, whose bar is not final; "
            f"found {end}"
        )
    path = request.symbols or _default_symbols(config.market)
    series_path = SYMBOLS_DIR / f"{config.market}_series.csv"
    series = {"series": _TEXT, "ticker": _TEXT, "meaning": _TEXT}
    return Plan(
        stocks=_read_stocks(path, config.market, config.market_profile),
        series=read_table(series_path, series)
        if series_path.is_file()
        else pl.DataFrame(schema=series),
        start=start,
        end=end,
        listed_in="the file of --symbols" if request.symbols else f"config/symbols/{path.name}",
    )


def _default_symbols(market: str) -> Path:
    path = SYMBOLS_DIR / f"{market}.csv"
    if path.is_file():
        return path
    files = SYMBOLS_DIR.glob("*.csv")
    known = sorted(file.stem for file in files if not file.stem.endswith("_series"))
    raise DataError(
        f"source yahoo: no symbols are listed for the market {market}; expected --market "
        f"{' or '.join(known)}, or --symbols FILE with symbol, sector and optionally ticker"
    )


def _read_stocks(path: Path, market: str, profile: MarketProfile) -> pl.DataFrame:
    names = {"symbol": _TEXT, "sector": _TEXT}
    stocks = read_table(path, names, {"ticker": _TEXT}, keys=("symbol", "sector"))
    if stocks.is_empty():
        raise DataError(f"{path}: expected a row for each symbol, found none")
    refuse_repeated(stocks["symbol"], path)
    strange = stocks.filter(~pl.col("sector").is_in(profile.sectors))
    if strange.height:
        row = strange.row(0, named=True)
        raise DataError(
            f"{path}: column sector: expected one of {', '.join(profile.sectors)} (market "
            f"{market}), found {row['sector']} for {row['symbol']} ({strange.height} such rows)"
        )
    derived = pl.col("symbol").str.replace_all(".", "-", literal=True) + SUFFIX_OF_MARKET.get(
        market, ""
    )
    given = pl.col("ticker") if "ticker" in stocks.columns else pl.lit(None, dtype=pl.String)
    return stocks.select("symbol", "sector", ticker=given.fill_null(derived))


class _Collector:
    """Gets the histories of a plan, from the cache or from Yahoo, and counts what fails."""

    def __init__(self, plan: Plan, cache: HistoryCache, link: Link, config: YahooConfig) -> None:
        self.plan, self.cache, self.link, self.config = plan, cache, link, config
        self.tickers = [*plan.stocks["ticker"], *plan.series["ticker"]]
        self.histories: dict[str, pl.DataFrame] = {}
        self.failures: dict[str, str] = {}
        self.unreachable_in_a_row = 0

    def collect(self) -> None:
        """Fill `histories` and `failures`."""
        missing = [ticker for ticker in self.tickers if not self._is_kept(ticker)]
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

    def refuse_too_many(self) -> None:
        """Refuse a market of which too many stocks failed; a missing series is noted only.

        Raises:
            DataError: naming every failed stock.
        """
        failed = self.failed_stocks()
        n_stocks = self.plan.stocks.height
        allowed = int(self.config.max_failed_share * n_stocks)
        if len(failed) <= allowed and len(failed) < n_stocks:
            return
        raise DataError(
            f"source yahoo: {len(failed)} of {n_stocks} symbols failed, at most {allowed} may "
            f"(data.yahoo.max_failed_share = {self.config.max_failed_share}); nothing was "
            f"replaced, what came is kept in {self.cache.folder}; run the same command again or "
            f"take them off the list: {'; '.join(failed)}"
        )

    def failed_stocks(self) -> list[str]:
        """Return "symbol: reason" of the stocks that failed, in the order of the list."""
        rows = self.plan.stocks.select("symbol", "ticker").iter_rows()
        return [
            f"{symbol}: {self.failures[ticker]}"
            for symbol, ticker in rows
            if ticker in self.failures
        ]

    def _is_kept(self, ticker: str) -> bool:
        history = self.cache.read(ticker)
        if history is not None:
            self.histories[ticker] = history
        return history is not None

    def _fetch(self, ticker: str) -> None:
        plan = self.plan
        try:
            answer = ask(ticker, plan.start, self.link, self.config)
            history = as_traded(answer, plan.start, plan.end)
        except NoHistoryError as error:
            self.failures[ticker] = str(error)
            self.unreachable_in_a_row = 0
        except UnreachableError as error:
            self.failures[ticker] = str(error)
            self._give_up_if_hopeless(error)
        else:
            self.cache.keep(ticker, history)
            self.histories[ticker] = history
            self.unreachable_in_a_row = 0
        self.link.sleep(self.config.pause_seconds)

    def _give_up_if_hopeless(self, error: UnreachableError) -> None:
        self.unreachable_in_a_row += 1
        if self.unreachable_in_a_row < self.config.give_up_after:
            return
        raise DataError(
            f"source yahoo: {self.unreachable_in_a_row} tickers in a row had no usable answer "
            f"after {self.config.attempts} attempts each (last: {error}); {self._count()} are "
            f"kept in {self.cache.folder}, nothing was replaced; run the same command later, it "
            "fetches the rest"
        ) from error

    def _count(self) -> str:
        return f"{len(self.histories)} of {len(self.tickers)} tickers"


def _to_raw(plan: Plan, collector: _Collector, market: str) -> RawData:
    histories = collector.histories
    stocks = plan.stocks.filter(pl.col("ticker").is_in(list(histories)))
    bars = pl.concat(
        histories[ticker].with_columns(symbol=pl.lit(symbol))
        for symbol, ticker in stocks.select("symbol", "ticker").iter_rows()
    )
    closes = {
        str(name): histories[ticker].select("date", value="close").drop_nulls()
        for name, ticker in plan.series.select("series", "ticker").iter_rows()
        if ticker in histories
    }
    index = closes.pop(INDEX_SERIES, pl.DataFrame(schema={"date": pl.Date, "value": pl.Float64}))
    macro = [frame.with_columns(series=pl.lit(name)) for name, frame in closes.items()]
    empty = MACRO_SCHEMA.to_frame()
    return RawData(
        bars=bars.select(BARS_SCHEMA.names()).sort("symbol", "date"),
        sectors=stocks.select(SECTORS_SCHEMA.names()).sort("symbol"),
        macro=pl.concat([empty, *(frame.select(empty.columns) for frame in macro)]).sort(
            "series", "date"
        ),
        index=index.rename({"value": "close"}).select(INDEX_SCHEMA.names()),
        source="yahoo",
        adjustment="prices, volume and dividends as traded: Yahoo's split adjustment is undone by "
        "its own splits; adj_close is Yahoo's, as of the day it was fetched",
        survivorship=f"symbols of {plan.listed_in}, chosen with hindsight; Yahoo drops delisted "
        "companies: biased upwards",
        notes=_notes(plan, collector, market),
    )


def _notes(plan: Plan, collector: _Collector, market: str) -> tuple[str, ...]:
    known = plan.series.filter(pl.col("ticker").is_in(list(collector.histories)))
    lost = plan.series.filter(pl.col("ticker").is_in(list(collector.failures)))
    notes = [f"{name} is {ticker}: {meaning}" for name, ticker, meaning in known.iter_rows()]
    notes += [f"not collected, {failed}" for failed in collector.failed_stocks()]
    notes += [
        f"series not collected, {name} ({ticker}): {collector.failures[ticker]}"
        for name, ticker, _ in lost.iter_rows()
    ]
    notes += [
        f"damaged file in the cache, fetched again: {ticker}" for ticker in collector.cache.damaged
    ]
    if not plan.series.is_empty():
        notes.append(
            f"Yahoo lacks some macro series of the profile {market}; experiment yahoo_{market} "
            "trains without them"
        )
    return tuple(notes)
