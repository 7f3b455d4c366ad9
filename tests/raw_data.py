"""Small raw data sets for tests of features and assembly, with every kind of gap and event."""

import datetime
from typing import Any

import numpy as np
import polars as pl

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
)

START = datetime.date(2005, 1, 3)
SERIES = ("VIX", "FEDFUNDS", "BAMLH0A0HYM2", "T10Y2Y", "DTWEXBGS", "DCOILWTICO", "GOLD")


def small_config(market: str, n_days: int, **overrides: Any) -> RunConfig:
    """Return the market's configuration with 3 sectors x 4 slots and spans inside `n_days`."""
    days = sessions(n_days)
    marks = [days[int(share * n_days)].item() for share in (0.0, 0.6, 0.8)]
    day = datetime.timedelta(days=1)
    spans = {
        "train": {"start": marks[0], "end": marks[1] - day},
        "validation": {"start": marks[1], "end": marks[2] - day},
        "test": {"start": marks[2], "end": days[-1].item()},
    }
    profile = {
        "sectors": ["Alpha", "Beta", "Gamma"],
        "universe": {"stocks_per_sector": 4, "lookback_days": 252, "min_bars": 240},
        "spans": spans,
    }
    return load_config(market=market, overrides={"market_profile": {**profile, **overrides}})


def sessions(n_days: int) -> np.ndarray:
    """Return the first New York sessions from 2005 on."""
    return first_sessions("XNYS", START, n_days)


def random_raw(rng: np.random.Generator, n_days: int = 700) -> RawData:
    """Draw 3 sectors x 6 stocks with halts, a leaver, late listings, dividends and splits."""
    days = sessions(n_days)
    stocks = [(f"{name[0]}{i}", name) for name in ("Alpha", "Beta", "Gamma") for i in range(6)]
    market = rng.normal(4e-4, 0.01, n_days)
    frames = []
    for number, (symbol, _) in enumerate(stocks):
        first = {4: 300, 10: 450}.get(number, 0)
        last = {2: 520}.get(number, n_days)
        frame = stock_bars(rng, days, symbol, market).slice(first, last - first)
        halted = rng.random(frame.height) < (0.01 if number % 5 == 1 else 0.0)
        halted[[0, -1]] = False
        frames.append(frame.filter(pl.Series(~halted)))
    return RawData(
        bars=pl.concat(frames).select(BARS_SCHEMA.names()),
        sectors=pl.DataFrame(stocks, schema=SECTORS_SCHEMA, orient="row"),
        macro=random_macro(rng, days),
        index=pl.DataFrame(schema=INDEX_SCHEMA),
        source="files",
        adjustment="adj_close",
        survivorship="one stock leaves",
    )


def stock_bars(
    rng: np.random.Generator, days: np.ndarray, symbol: str, market: np.ndarray
) -> pl.DataFrame:
    """Draw one stock: total returns, then raw prices with a 2:1 split and yearly dividends."""
    n_days = len(days)
    returns = market + rng.normal(0.0, 0.015, n_days)
    split, dividend = np.ones(n_days), np.zeros(n_days)
    split[int(rng.integers(50, n_days - 50))] = 2.0
    dividend[100::250] = 0.5
    close = np.empty(n_days)
    close[0] = rng.uniform(30, 90)
    for t in range(1, n_days):
        close[t] = (close[t - 1] * np.exp(returns[t]) - dividend[t]) / split[t]
    growth = np.ones(n_days)
    growth[1:] = (split * close + dividend)[1:] / close[:-1]
    opening = close * np.exp(rng.normal(0.0, 0.006, n_days))
    return pl.DataFrame(
        {
            "date": days,
            "symbol": np.full(n_days, symbol),
            "open": opening,
            "high": np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.004, n_days))),
            "low": np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.004, n_days))),
            "close": close,
            "volume": np.exp(rng.normal(13.0, 0.5, n_days)),
            "adj_close": 7.0 * np.cumprod(growth),
            "dividend": dividend,
            "split": split,
        },
        schema_overrides={"date": pl.Date},
    )


def random_macro(rng: np.random.Generator, days: np.ndarray) -> pl.DataFrame:
    """Draw the published series that the us profile reads, and nine sector funds."""
    months = np.arange("2004-06", str(days[-1])[:7], dtype="datetime64[M]").astype("datetime64[D]")
    frames = []
    for name in (*SERIES, *(f"ETF_F{number}" for number in range(9))):
        dates = months if name == "FEDFUNDS" else days
        level = 20.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, len(dates))))
        frames.append(
            pl.DataFrame(
                {"date": dates, "series": [name] * len(dates), "value": level},
                schema=MACRO_SCHEMA,
            )
        )
    return pl.concat(frames).sort("series", "date")


def closes_only(raw: RawData) -> RawData:
    """Return the same data as a source of adjusted closes with an index delivers them."""
    bars = raw.bars.with_columns(
        *(pl.lit(None, dtype=pl.Float64).alias(name) for name in ("open", "high", "low", "volume")),
        close=pl.col("adj_close"),
        dividend=pl.lit(0.0),
        split=pl.lit(1.0),
    )
    level = bars.group_by("date").agg(close=pl.col("close").mean()).sort("date")
    return RawData(
        bars=bars.select(BARS_SCHEMA.names()),
        sectors=raw.sectors,
        macro=pl.DataFrame(schema=MACRO_SCHEMA),
        index=level,
        source="sample",
        adjustment="closes only",
        survivorship="one stock leaves",
    )
