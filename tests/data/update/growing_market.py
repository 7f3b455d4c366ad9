"""A drawn market with splits, dividends, halts and late listings, as files of any day show it."""

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    MEMBERSHIP_SCHEMA,
    OWN_FEATURES_SCHEMA,
    SECTORS_SCHEMA,
    FileReading,
    RawData,
)

N_DAYS = 40
SESSIONS = first_sessions("XNYS", date(2020, 1, 2), N_DAYS)
STATED = FileReading(
    "prices.csv", "", (("split", "split"), ("dividend", "dividend")), 1, "", "", ()
)


@dataclass(frozen=True)
class GrowingMarket:
    """Bars as traded of all days, and what a vendor makes of them."""

    traded: pl.DataFrame
    """`BARS_SCHEMA`; adj_close is null."""
    digits: int
    """That the vendor prints of adjusted closes."""

    def seen(self, last: int, first: int = 0, vintage: int | None = None) -> RawData:
        """Return the rows `first` to `last`, adjusted as on the day `vintage` (default: last)."""
        as_of = day(last if vintage is None else vintage)
        known = self.traded.filter(pl.col("date") <= as_of)
        parts = [
            adjusted(part, self.digits)
            for part in known.partition_by("symbol", maintain_order=True)
        ]
        is_seen = pl.col("date").is_between(day(first), day(last))
        symbols = sorted(set(known["symbol"]))
        days = SESSIONS[first : last + 1]
        values = np.round(np.linspace(1.0, 2.0, N_DAYS), 4)[first : last + 1]
        series = pl.DataFrame({"date": days, "series": ["VIX"] * len(days), "value": values})
        own = pl.DataFrame(
            {
                "date": days,
                "known_at": days,
                "symbol": [None] * len(days),
                "name": ["mood"] * len(days),
                "value": values,
            },
            schema=OWN_FEATURES_SCHEMA,
        )
        begun = known.group_by("symbol").agg(start=pl.col("date").min()).sort("symbol")
        return RawData(
            bars=pl.concat(parts).filter(is_seen),
            sectors=pl.DataFrame(
                {"symbol": symbols, "sector": ["Energy"] * len(symbols)}, schema=SECTORS_SCHEMA
            ),
            macro=series.cast(dict(MACRO_SCHEMA)),
            index=pl.DataFrame({"date": days, "close": values}, schema=INDEX_SCHEMA),
            source="files",
            adjustment="adj_close from the files",
            survivorship="drawn",
            own_features=own,
            membership=begun.with_columns(end=pl.lit(None, pl.Date)).cast(dict(MEMBERSHIP_SCHEMA)),
            readings=(STATED,),
        )


def day(row: int) -> date:
    """Return the row-th session."""
    found = SESSIONS[row].item()
    assert isinstance(found, date)
    return found


def drawn(seed: int, digits: int = 6, n_symbols: int = 4) -> GrowingMarket:
    """Draw a market. Every symbol has a split or a dividend about every eighth day."""
    rng = np.random.default_rng(seed)
    parts = [_drawn_symbol(rng, f"S{number}") for number in range(n_symbols)]
    return GrowingMarket(pl.concat(parts).sort("symbol", "date"), digits)


def _drawn_symbol(rng: np.random.Generator, name: str) -> pl.DataFrame:
    begin = 0 if name == "S0" else int(rng.integers(0, 12))
    days = SESSIONS[begin:]
    n = len(days)
    split = np.where(rng.random(n) < 0.05, rng.choice([2.0, 3.0, 0.5], n), 1.0)
    has_dividend = (rng.random(n) < 0.08) & (split == 1.0)
    split[0], has_dividend[0] = 1.0, False
    growth = np.exp(rng.normal(0.0, 0.02, n))
    close, dividend = np.empty(n), np.zeros(n)
    level = 80.0
    for row in range(n):
        before, level = level, level * growth[row] / split[row]
        dividend[row] = round(0.01 * before, 2) if has_dividend[row] else 0.0
        level = round(level - dividend[row], 2)
        close[row] = level
    bars = pl.DataFrame(
        {
            "date": days,
            "symbol": [name] * n,
            "open": np.round(close * 1.001, 2),
            "high": np.round(close * 1.01, 2),
            "low": np.round(close * 0.99, 2),
            "close": close,
            "volume": rng.integers(1_000, 9_000, n).astype(float),
            "adj_close": np.full(n, np.nan),
            "dividend": dividend,
            "split": split,
        },
        schema=BARS_SCHEMA,
    )
    is_kept = rng.random(n) > 0.05  # single days without a bar
    is_kept |= (split != 1.0) | (dividend > 0)
    is_kept[0] = True
    return bars.filter(pl.Series(is_kept))


def adjusted(bars: pl.DataFrame, digits: int) -> pl.DataFrame:
    """Adjust the closes of one symbol back from its last bar, as vendors do, and print them.

    Every close before a split is divided by it, and before a dividend multiplied by
    1 - dividend / close before.
    """
    close, split, dividend = (bars[name].to_numpy() for name in ("close", "split", "dividend"))
    factor = np.ones(len(close))
    for row in range(len(close) - 1, 0, -1):
        step = (1.0 - dividend[row] / close[row - 1]) / split[row]
        factor[row - 1] = factor[row] * step
    return bars.with_columns(adj_close=pl.Series(np.round(close * factor, digits)))


def gross_returns(bars: pl.DataFrame) -> pl.DataFrame:
    """Return `symbol, date, gross`: adjusted close over the one before."""
    before = pl.col("adj_close").shift(1).over("symbol")
    return bars.select("symbol", "date", gross=pl.col("adj_close") / before)


def with_bars(raw: RawData, bars: pl.DataFrame) -> RawData:
    """Return the data with other bars."""
    return replace(raw, bars=bars)
