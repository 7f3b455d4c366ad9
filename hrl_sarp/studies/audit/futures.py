"""Changes of raw data after a day: what was known at its close stays, all that came later differs.

Each makes another future out of the same past. Rows of a market up to the day may not depend on
which of them came.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from hrl_sarp.data.known_at import as_of, is_unseen, without_later_members
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import FeatureError
from hrl_sarp.market.rates import ETF_PREFIX
from hrl_sarp.market.releases import release_of

Change = Callable[[RawData, np.datetime64], RawData]
"""Raw data and a day to raw data that agree in all that was known at its close."""

PRICES = ("open", "high", "low", "close")
STEP = 0.02
"""Deviation of a step by which another future departs from the one that came."""
SPLIT = 2.0
"""New shares for an old one. Exact in binary, so that returns keep their last bit."""


def truncate(raw: RawData, day: np.datetime64) -> RawData:
    """Cut everything after the day."""
    return as_of(raw, _date(day))


def corrupt(raw: RawData, day: np.datetime64) -> RawData:
    """Replace every later number by another one of its kind; dates and symbols stay."""
    rng = np.random.default_rng(1)
    after = pl.col("date") > day.item()
    features, own = raw.features, raw.own_features
    return dataclasses.replace(
        without_later_members(raw, _date(day)),
        bars=_other_bars(raw.bars, after, rng),
        macro=_scaled(raw.macro, after, rng, "value"),
        index=_scaled(raw.index, after, rng, "close"),
        features=None if features is None else _scaled(features, after, rng, "value"),
        own_features=None if own is None else _scaled(own, is_unseen(_date(day)), rng, "value"),
    )


def permute(raw: RawData, day: np.datetime64) -> RawData:
    """Shuffle the later numbers of each symbol and series among their dates."""
    rng = np.random.default_rng(2)
    after = pl.col("date") > day.item()

    def shuffled(frame: pl.DataFrame, later: pl.Expr, *groups: str) -> pl.DataFrame:
        if frame.is_empty():
            return frame
        fixed = ("date", "known_at", *groups)
        parts = frame.partition_by(groups, maintain_order=True) if groups else [frame]
        done = []
        for part in parts:
            past, rest = part.filter(~later), part.filter(later)
            drawn = rest.select(pl.exclude(fixed))[rng.permutation(rest.height)]
            done += [past, rest.with_columns(drawn.get_columns())]
        return pl.concat(done)

    features, own = raw.features, raw.own_features
    return dataclasses.replace(
        raw,
        bars=shuffled(raw.bars, after, "symbol"),
        macro=shuffled(raw.macro, after, "series"),
        index=shuffled(raw.index, after),
        features=None if features is None else shuffled(features, after, "symbol", "name"),
        own_features=None
        if own is None
        else shuffled(own, is_unseen(_date(day)), "symbol", "name"),
    )


def delist(raw: RawData, day: np.datetime64) -> RawData:
    """Let every third symbol print its last bar on the day."""
    symbols = raw.bars["symbol"].unique().sort()[1::3]
    ends = pl.col("symbol").is_in(symbols.implode()) & (pl.col("date") > day.item())
    return dataclasses.replace(raw, bars=raw.bars.filter(~ends))


def split_later(raw: RawData, day: np.datetime64) -> RawData:
    """Split half of the symbols 2:1 after the day, and adjust their past as new files do."""
    symbols = raw.bars["symbol"].unique().sort()[::2]
    chosen, after = pl.col("symbol").is_in(symbols.implode()), pl.col("date") > day.item()
    first = chosen & after & (pl.col("date") == pl.col("date").filter(after).min().over("symbol"))

    def times(column: str, where: pl.Expr, factor: float) -> pl.Expr:
        changed = pl.when(where).then(pl.col(column) * factor).otherwise(pl.col(column))
        return changed.alias(column)

    bars = raw.bars.with_columns(
        *(times(name, chosen & after, 1 / SPLIT) for name in (*PRICES, "dividend")),
        times("volume", chosen & after, SPLIT),
        times("split", first, SPLIT),
        times("adj_close", chosen & ~after, 1 / SPLIT),
    )
    return dataclasses.replace(raw, bars=bars)


def unpublish(raw: RawData, day: np.datetime64) -> RawData:
    """Replace the values that describe days up to t but were printed after its close."""
    rng = np.random.default_rng(3)
    own = raw.own_features
    if own is not None:
        own = _scaled(own, is_unseen(_date(day)) & (pl.col("date") <= day.item()), rng, "value")
        raw = dataclasses.replace(raw, own_features=own)
    if raw.macro.is_empty():
        return raw
    before = raw.bars["date"].unique().sort().to_numpy().astype("datetime64[D]")
    before = before[before <= day]
    unknown = np.zeros(raw.macro.height, dtype=bool)
    dates = raw.macro["date"].to_numpy().astype("datetime64[D]")
    for series in raw.macro["series"].unique():
        is_later = dates > day
        if not series.startswith(ETF_PREFIX):  # these are traded: printed at the close
            try:
                release = release_of(series)
            except FeatureError:  # no feature can read it
                continue
            is_later = release.earliest(dates) > before[-1 - release.sessions]
        unknown |= (raw.macro["series"] == series).to_numpy() & is_later
    macro = _scaled(raw.macro, pl.lit(pl.Series(unknown)), rng, "value")
    return dataclasses.replace(raw, macro=macro)


@dataclass(frozen=True)
class Future:
    """A change with what the audit says about it."""

    name: str
    tried: str
    change: Change
    is_shorter: bool = False
    """The data end on the day, so that it must lie in the test span."""
    ends_stocks: bool = False
    """A stock that is halted on the day cannot be told from one that has left."""
    needs_raw_closes: bool = False
    """Closes that are adjusted themselves have no other close to be measured by."""
    unseen: frozenset[str] = frozenset()
    """Tables that may move, because nobody sees them at the close."""


FUTURES = (
    Future("truncated", "cut all data after t", truncate, is_shorter=True, ends_stocks=True),
    Future("corrupted", "replaced every number after t", corrupt),
    Future("permuted", "shuffled the days after t of each symbol and series", permute),
    Future("delisted", "let a third of the stocks end at t", delist, ends_stocks=True),
    Future(
        "split later",
        "split half of the stocks after t and adjusted their past",
        split_later,
        needs_raw_closes=True,
    ),
    Future(
        "not printed yet",
        "replaced values of days up to t that were printed after its close",
        unpublish,
        # cash earns the rate of the month before, which is printed later
        unseen=frozenset({"risk_free"}),
    ),
)
"""Every change of raw data that the audit tries."""


def _date(day: np.datetime64) -> date:
    return date.fromisoformat(str(day))


def _other_bars(bars: pl.DataFrame, after: pl.Expr, rng: np.random.Generator) -> pl.DataFrame:
    """Replace later prices and volumes by others that could have come.

    Prices depart along random walks, one of all stocks and one of each: noise on every level would
    leave no covariance that a portfolio could be made of. The volumes of a stock have another size.
    """
    days, symbols = bars["date"].unique(), bars["symbol"].unique().sort()
    common = pl.DataFrame({"date": days.sort(), "common": rng.normal(0.0, STEP, len(days))})
    traded = pl.DataFrame({"symbol": symbols, "traded": rng.lognormal(0.0, 1.0, len(symbols))})
    drawn = bars.join(common, on="date", how="left", maintain_order="left")
    drawn = drawn.join(traded, on="symbol", how="left", maintain_order="left")
    own, wide = (pl.Series(name, rng.normal(0.0, STEP, bars.height)) for name in ("own", "wide"))
    drawn = drawn.with_columns(own, wide.abs())
    step = pl.when(after).then(pl.col("common") + pl.col("own")).otherwise(0.0)
    walk, spread = step.cum_sum().over("symbol"), pl.col("own").abs() + pl.col("wide")
    factors = {
        "open": (walk + pl.col("own")).exp(),
        "high": (walk + spread).exp(),
        "low": (walk - spread).exp(),
        "close": walk.exp(),
        "adj_close": walk.exp(),
        "volume": pl.col("traded") * pl.col("wide").exp(),
    }
    return drawn.select(
        pl.when(after).then(pl.col(name) * factors[name]).otherwise(pl.col(name)).alias(name)
        if name in factors
        else pl.col(name)
        for name in bars.columns
    )


def _scaled(
    frame: pl.DataFrame, where: pl.Expr, rng: np.random.Generator, column: str
) -> pl.DataFrame:
    factor = pl.Series("factor", rng.uniform(0.5, 2.0, frame.height))
    changed = pl.when(where).then(pl.col(column) * factor).otherwise(pl.col(column))
    return frame.with_columns(changed.alias(column))
