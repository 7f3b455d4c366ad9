"""Tiny raw data for the data tests: clean by construction, spoiled one cell at a time."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.store import BARS_SCHEMA, INDEX_SCHEMA, MACRO_SCHEMA, SECTORS_SCHEMA, RawData

SESSIONS = first_sessions("XNYS", date(2019, 1, 2), 20)
SYMBOLS = ("AAA", "BBB")


def clean_raw(symbols: tuple[str, ...] = SYMBOLS) -> RawData:
    """Two stocks whose close rises by 1 a day from 100, with every column filled."""
    frames = [_bars_of(symbol) for symbol in symbols]
    return RawData(
        bars=pl.concat(frames),
        sectors=pl.DataFrame(
            {"symbol": symbols, "sector": ["Energy"] * len(symbols)}, schema=SECTORS_SCHEMA
        ),
        macro=pl.DataFrame(
            {"date": SESSIONS, "series": ["DGS10"] * len(SESSIONS), "value": [2.5] * len(SESSIONS)},
            schema=MACRO_SCHEMA,
        ),
        index=pl.DataFrame(
            {"date": SESSIONS, "close": np.linspace(1.0, 2.0, len(SESSIONS))}, schema=INDEX_SCHEMA
        ),
        source="files",
        adjustment="adjusted by hand",
        survivorship="two stocks that stay",
    )


def _bars_of(symbol: str) -> pl.DataFrame:
    close = 100.0 + np.arange(len(SESSIONS))
    return pl.DataFrame(
        {
            "date": SESSIONS,
            "symbol": [symbol] * len(SESSIONS),
            "open": close - 0.5,
            "high": close + 1.0,
            "low": close - 1.0,
            "close": close,
            "volume": np.full(len(SESSIONS), 1000.0),
            "adj_close": close,
            "dividend": np.zeros(len(SESSIONS)),
            "split": np.ones(len(SESSIONS)),
        },
        schema=BARS_SCHEMA,
    )


def with_cells(raw: RawData, row: int, symbol: str = "AAA", **cells: float | None) -> RawData:
    """Change cells of the row-th bar of a symbol."""
    is_row = (pl.col("symbol") == symbol) & (pl.col("date") == pl.lit(day(row)))
    changes: dict[str, Any] = {
        name: pl.when(is_row).then(pl.lit(value, dtype=BARS_SCHEMA[name])).otherwise(pl.col(name))
        for name, value in cells.items()
    }
    return replace(raw, bars=raw.bars.with_columns(**changes))


def with_factor(raw: RawData, first_row: int, factor: float, columns: list[str]) -> RawData:
    """Multiply columns of AAA from a row on."""
    is_later = (pl.col("symbol") == "AAA") & (pl.col("date") >= pl.lit(day(first_row)))
    changes = [
        pl.when(is_later).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in columns
    ]
    return replace(raw, bars=raw.bars.with_columns(changes))


def without_row(raw: RawData, row: int) -> RawData:
    """Drop one bar of AAA."""
    is_row = (pl.col("symbol") == "AAA") & (pl.col("date") == pl.lit(day(row)))
    return replace(raw, bars=raw.bars.filter(~is_row))


def day(row: int) -> date:
    """Return the row-th session."""
    found = SESSIONS[row].item()
    assert isinstance(found, date)
    return found
