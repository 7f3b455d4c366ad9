"""The bundled sample: adjusted closes of 20 large US stocks, 1990-2022, from the package skfolio.

It needs no network. There are no opens, highs, lows, volumes, dividends or macro series.
"""

import pandas as pd
import polars as pl

from hrl_sarp.data.store import BARS_SCHEMA, INDEX_SCHEMA, MACRO_SCHEMA, SECTORS_SCHEMA, RawData

SYMBOLS_OF_SECTOR = {
    "Consumer Discretionary": "BBY HD",
    "Consumer Staples": "KO PEP PG WMT",
    "Energy": "CVX RRC XOM",
    "Financials": "BAC JPM",
    "Health Care": "JNJ LLY MRK PFE UNH",
    "Industrials": "GE",
    "Information Technology": "AAPL AMD MSFT",
}
"""GICS sectors as of 2022."""


def load() -> RawData:
    """Load closes, sectors and the S&P 500; other prices and volumes are null, macro is empty.

    Source: `skfolio.datasets.load_sp500_dataset` and `load_sp500_index`, files of that package.
    """
    # skfolio takes seconds to import, and only this source needs it
    from skfolio.datasets import load_sp500_dataset, load_sp500_index

    closes = _to_long(load_sp500_dataset())
    index = _to_long(load_sp500_index())
    sectors = [
        (symbol, sector)
        for sector, symbols in SYMBOLS_OF_SECTOR.items()
        for symbol in symbols.split()
    ]
    unknown = [
        pl.lit(None, dtype=pl.Float64).alias(name) for name in ("open", "high", "low", "volume")
    ]
    return RawData(
        bars=closes.with_columns(
            *unknown, adj_close=pl.col("close"), dividend=pl.lit(0.0), split=pl.lit(1.0)
        ).select(BARS_SCHEMA.names()),
        sectors=pl.DataFrame(sectors, schema=SECTORS_SCHEMA, orient="row").sort("symbol"),
        macro=MACRO_SCHEMA.to_frame(),
        index=index.select(INDEX_SCHEMA.names()).sort("date"),
        source="sample",
        adjustment="closes adjusted for splits and dividends by the source; closes only, so every "
        "daily return falls over night",
        survivorship="20 companies that were large in 2022, chosen with hindsight: biased upwards",
        notes=("the index is the S&P 500 price index, without dividends",),
    )


def _to_long(prices: pd.DataFrame) -> pl.DataFrame:
    """Turn a table of dates x symbols into rows of (date, symbol, close)."""
    wide = pl.DataFrame({"date": prices.index.to_numpy()}).with_columns(
        pl.col("date").cast(pl.Date),
        *[pl.Series(name, prices[name].to_numpy(), dtype=pl.Float64) for name in prices.columns],
    )
    return wide.unpivot(index="date", variable_name="symbol", value_name="close").sort(
        "symbol", "date"
    )
