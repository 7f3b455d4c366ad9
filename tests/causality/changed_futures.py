"""The test machinery: change what nobody could know at day t, rebuild, and name what moved."""

import dataclasses
from collections.abc import Callable
from functools import cache

import exchange_calendars
import numpy as np
import polars as pl
import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.data.store import RawData
from hrl_sarp.features.regime import RegimeModel
from hrl_sarp.market.assemble import assemble_market
from hrl_sarp.market.releases import release_of
from tests import raw_data

Change = Callable[[RawData, np.datetime64], RawData]
"""Raw data and a day to raw data that agree in all that was known at its close."""

N_DAYS = 700
MODEL = RegimeModel(
    centre=np.array([0.001, 0.01]),
    scale=np.array([0.02, 0.004]),
    start=np.array([0.2, 0.3, 0.5]),
    transition=np.array([[0.90, 0.05, 0.05], [0.04, 0.92, 0.04], [0.03, 0.03, 0.94]]),
    means=np.array([[-0.5, 1.0], [0.5, 0.0], [0.0, -0.5]]),
    covariances=np.tile(np.eye(2), (3, 1, 1)),
)
"""Fixed: a fit on the training span would rightly move when that span is changed."""

BY_STOCK = (
    "stock_features",
    "overnight_return",
    "intraday_return",
    "eligible",
    "tradable",
    "dollar_volume",
    "range_variance",
)
BY_DAY = (
    "implied_volatility",
    "macro_features",
    "filtered_regime",
    "is_week_end",
    "risk_free",
    "benchmark_return",
)
OF_RISK = ("sector_prior", "stock_prior", "prior_exposure", "normal_variance")
"""Without the inputs: their scale is the training span's, which a truncated data set shortens."""


def truncate(raw: RawData, day: np.datetime64) -> RawData:
    """Cut everything after the day."""
    keep = pl.col("date") <= day.item()
    return dataclasses.replace(
        raw,
        bars=raw.bars.filter(keep),
        macro=raw.macro.filter(keep),
        index=raw.index.filter(keep),
    )


def corrupt(raw: RawData, day: np.datetime64) -> RawData:
    """Replace every later number by another one of its kind; dates and symbols stay."""
    rng = np.random.default_rng(1)
    after = pl.col("date") > day.item()
    prices = ("open", "high", "low", "close", "adj_close", "volume")
    return dataclasses.replace(
        raw,
        bars=_scaled(raw.bars, after, rng, *prices),
        macro=_scaled(raw.macro, after, rng, "value"),
        index=_scaled(raw.index, after, rng, "close"),
    )


def permute(raw: RawData, day: np.datetime64) -> RawData:
    """Shuffle the later numbers of each symbol and series among their dates."""
    rng = np.random.default_rng(2)

    def shuffled(frame: pl.DataFrame, group: str | None) -> pl.DataFrame:
        if frame.is_empty():
            return frame
        parts = frame.partition_by(group, maintain_order=True) if group else [frame]
        done = []
        for part in parts:
            past = part.filter(pl.col("date") <= day.item())
            later = part.filter(pl.col("date") > day.item())
            order = rng.permutation(later.height)
            done += [past, later.select(pl.exclude("date"))[order].insert_column(0, later["date"])]
        return pl.concat(part.select(frame.columns) for part in done)

    return dataclasses.replace(
        raw,
        bars=shuffled(raw.bars, "symbol"),
        macro=shuffled(raw.macro, "series"),
        index=shuffled(raw.index, None),
    )


def unpublish(raw: RawData, day: np.datetime64) -> RawData:
    """Replace the macro values that describe days up to t but were printed after its close."""
    if raw.macro.is_empty():
        return raw
    before = raw.bars["date"].unique().sort().to_numpy().astype("datetime64[D]")
    before = before[before <= day]

    unknown = np.zeros(raw.macro.height, dtype=bool)
    dates = raw.macro["date"].to_numpy().astype("datetime64[D]")
    for series in raw.macro["series"].unique():
        if series.startswith("ETF_"):  # traded: printed at the close
            is_later = dates > day
        else:
            release = release_of(series)
            is_later = release.earliest(dates) > before[-1 - release.sessions]
        unknown |= (raw.macro["series"] == series).to_numpy() & is_later
    macro = _scaled(raw.macro, pl.lit(pl.Series(unknown)), np.random.default_rng(3), "value")
    return dataclasses.replace(raw, macro=macro)


def readjust(raw: RawData, day: np.datetime64) -> RawData:
    """Rescale adj_close as files fetched after a later 1:2 split of half of the symbols have it.

    Halving is exact in binary, so that returns keep their last bit.
    """
    symbols = raw.bars["symbol"].unique().sort()[::2]
    halved = pl.when(pl.col("symbol").is_in(symbols.implode())).then(0.5).otherwise(1.0)
    return dataclasses.replace(
        raw, bars=raw.bars.with_columns(adj_close=pl.col("adj_close") * halved)
    )


def assemble(market: str, raw: RawData) -> Market:
    """Assemble a market of three sectors with spans inside the data and the fixed model."""
    config = _small_config(market, N_DAYS)
    n_days = raw.bars["date"].n_unique()
    if n_days < N_DAYS:  # spans must lie inside the data
        spans = _small_config(market, n_days).market_profile.spans
        profile = config.market_profile.model_copy(update={"spans": spans})
        config = config.model_copy(update={"market_profile": profile})
    return assemble_market(raw, config, MODEL)


def moved_until(expected: Market, found: Market, day: np.datetime64) -> list[str]:
    """Return the names of features and tables of which a row up to the day differs in any bit."""
    n_rows = int(np.searchsorted(expected.dates, day, side="right"))
    assert n_rows > 50
    if not np.array_equal(found.dates[:n_rows], expected.dates[:n_rows]):
        return ["dates"]
    common = [symbol for symbol in expected.symbols if symbol in found.symbols]
    left = [expected.symbols.index(symbol) for symbol in common]
    right = [found.symbols.index(symbol) for symbol in common]
    pairs = {
        name: (getattr(expected, name)[:n_rows][:, left], getattr(found, name)[:n_rows][:, right])
        for name in BY_STOCK
        if getattr(expected, name) is not None
    }
    pairs |= {
        name: (getattr(expected, name)[:n_rows], getattr(found, name)[:n_rows])
        for name in BY_DAY
        if getattr(expected, name) is not None
    }
    if expected.risk is not None and found.risk is not None:
        pairs |= {
            name: (getattr(expected.risk, name)[:n_rows], getattr(found.risk, name)[:n_rows])
            for name in OF_RISK
        }
    columns = {"stock_features": expected.feature_names, "macro_features": expected.macro_names}
    moved = []
    for name, (before, after) in pairs.items():
        labels = columns.get(name)
        parts = [(name, before, after)]
        if labels:
            parts = [(label, before[..., i], after[..., i]) for i, label in enumerate(labels)]
        moved += [label for label, old, new in parts if not np.array_equal(old, new)]
    if slot_symbols(found, n_rows) != slot_symbols(expected, n_rows):
        moved.append("slots")
    return moved


def slot_symbols(market: Market, n_rows: int) -> list[list[str]]:
    """Return which symbol stands in each slot of the first rows."""
    names = (*market.symbols, "empty")  # slot -1 reads the last entry
    return [[names[asset] for asset in row] for row in market.slots[:n_rows]]


def day_with_all_bars(raw: RawData, row: int) -> np.datetime64:
    """Return the first day from that session on without a halt.

    A halt on the very last day cannot be told from a delisting, so truncation needs such a t.
    """
    counts = raw.bars.group_by("date").len().sort("date")
    full = counts.filter(pl.col("len") == counts["len"][row:].max())["date"].to_numpy()
    return full[np.searchsorted(full, raw_data.sessions(N_DAYS)[row])].astype("datetime64[D]")


def remember_calendars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each exchange calendar once: it takes most of the time of a small market."""
    monkeypatch.setattr(exchange_calendars, "get_calendar", _CALENDARS)


_CALENDARS = cache(exchange_calendars.get_calendar)
_small_config = cache(raw_data.small_config)


def _scaled(
    frame: pl.DataFrame, where: pl.Expr, rng: np.random.Generator, *columns: str
) -> pl.DataFrame:
    factor = pl.Series("factor", rng.uniform(0.5, 2.0, frame.height))
    return frame.with_columns(
        pl.when(where).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in columns
    )
