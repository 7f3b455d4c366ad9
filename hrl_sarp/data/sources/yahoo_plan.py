"""What to ask Yahoo for: the symbols of a market, its index and macro series, and the days."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR
from hrl_sarp.config.market_schema import MarketProfile
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.sources.tables import read_table, refuse_null_keys
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
    stocks = read_table(path, names, {"ticker": _TEXT})
    if stocks.is_empty():
        raise DataError(f"{path}: expected a row for each symbol, found none")
    refuse_null_keys(stocks, ["symbol", "sector"], path)
    doubled = stocks.filter(pl.col("symbol").is_duplicated())["symbol"]
    if len(doubled):
        raise DataError(f"{path}: column symbol: expected each once, found {doubled[0]} twice")
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
