"""Raw bars to (T, A) tables of returns: the one place where adjustment happens.

A bad row counts as a day without a bar: the next good bar earns the move since the last good one.
Where the adjusted series jumped for good at the bad row that move is false, so the night into the
next good bar earns 0. Nothing is rescaled: later defects leave earlier rows untouched to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.data.quality import rules
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import MarketError
from hrl_sarp.features.panel import PricePanel

DAY = "datetime64[D]"
REVERSALS = frozenset({"adjustment_reversal"})


@dataclass(frozen=True)
class PriceTables:
    """Returns of every stock of the data set that belongs to a sector of the profile."""

    dates: Shaped[np.ndarray, " T"]
    symbols: tuple[str, ...]
    sector_of: Int[np.ndarray, " A"]
    overnight: Float[np.ndarray, "T A"]
    """Simple return from the last valid close; 0 without a bar and on the first one."""
    intraday: Float[np.ndarray, "T A"]
    printed: Bool[np.ndarray, "T A"]
    """A bar with a price, good or bad."""
    tradable: Bool[np.ndarray, "T A"]
    """A good bar."""
    listed: Bool[np.ndarray, "T A"]
    """From the first good bar to the last: what a source prints after a delisting is no life."""
    log_high: Float[np.ndarray, "T A"]
    """log(high / close); NaN where unknown."""
    log_low: Float[np.ndarray, "T A"]
    dollar_volume: Float[np.ndarray, "T A"]
    """Raw close x raw volume; 0 where unknown."""
    columns: frozenset[str]
    """Which of open, high, low, close, volume the data have."""


def build_prices(raw: RawData, findings: pl.DataFrame, sectors: list[str]) -> PriceTables:
    """Arrange bars by session and symbol and turn them into returns.

    Args:
        raw: what a source delivered.
        findings: `symbol, date, rule` of what validation found.
        sectors: sector order of the market profile; stocks of other sectors are left out.

    Raises:
        MarketError: if no stock belongs to one of the sectors.
    """
    bars, symbols, sector_of = _select(raw, sectors)
    sessions = bars["date"].unique().sort()
    place = _placer(bars, sessions, symbols)

    def mark(kinds: frozenset[str]) -> Bool[np.ndarray, "T A"]:
        return _mark(findings.filter(pl.col("rule").is_in(sorted(kinds))), sessions, symbols)

    with np.errstate(divide="ignore", invalid="ignore"):  # prices of 0 become NaN or infinite
        close, adjusted = _adjusted_levels(place)
        printed = np.isfinite(close) & (close > 0) & np.isfinite(adjusted) & (adjusted > 0)
        tradable = printed & ~mark(rules.EXCLUDING)
        overnight, intraday = _split_returns(close, adjusted, place("open"), tradable)
        log_high, log_low = np.log(place("high") / close), np.log(place("low") / close)
        dollars = np.nan_to_num(close * place("volume"), posinf=0.0, neginf=0.0)
    return PriceTables(
        dates=sessions.to_numpy().astype(DAY),
        symbols=tuple(symbols.to_list()),
        sector_of=sector_of,
        overnight=np.where(tradable & ~_voided(tradable, printed, mark), overnight, 0.0),
        intraday=np.where(tradable, intraday, 0.0),
        printed=printed,
        tradable=tradable,
        listed=_listed(tradable),
        log_high=np.where(tradable & np.isfinite(log_high), np.maximum(log_high, 0.0), np.nan),
        log_low=np.where(tradable & np.isfinite(log_low), np.minimum(log_low, 0.0), np.nan),
        dollar_volume=np.where(tradable, np.maximum(dollars, 0.0), 0.0),
        columns=_columns_of(bars),
    )


def build_panel(
    prices: PriceTables, n_sectors: int, planted: dict[str, Float[np.ndarray, "T A"]]
) -> PricePanel:
    """Derive what features read: log returns, running levels and cross-sectional means."""
    present = prices.tradable
    total = (1.0 + prices.overnight) * (1.0 + prices.intraday)
    started = np.cumsum(present, axis=0) > 0
    earned = present & (np.cumsum(present, axis=0) > 1)
    log_return = np.where(earned, _log(total), np.nan)
    log_level = np.where(started, np.cumsum(np.nan_to_num(log_return), axis=0), np.nan)
    simple_return = np.where(earned, total - 1.0, np.nan)
    in_sector = prices.sector_of[:, None] == np.arange(n_sectors)
    return PricePanel(
        dates=prices.dates,
        symbols=prices.symbols,
        sector_of=prices.sector_of,
        n_sectors=n_sectors,
        present=present,
        log_return=log_return,
        log_overnight=np.where(earned, _log(1.0 + prices.overnight), np.nan),
        log_intraday=np.where(present, _log(1.0 + prices.intraday), np.nan),
        log_level=log_level,
        high_to_close=prices.log_high,
        low_to_close=prices.log_low,
        dollar_volume=np.where(present, prices.dollar_volume, np.nan),
        market_return=np.nan_to_num(mean_in_order(simple_return)),
        sector_return=np.stack(
            [mean_in_order(simple_return[:, in_sector[:, s]]) for s in range(n_sectors)], axis=1
        ),
        columns=prices.columns | frozenset(planted),
        planted=planted,
    )


def build_planted(raw: RawData, prices: PriceTables) -> dict[str, Float[np.ndarray, "T A"]]:
    """Arrange the features that the data set brings itself; NaN where it has none."""
    if raw.features is None:
        return {}
    sessions = pl.Series("date", prices.dates).cast(pl.Date)
    symbols = pl.Series("symbol", prices.symbols, dtype=pl.String)
    known = raw.features.filter(
        pl.col("symbol").is_in(symbols.implode()) & pl.col("date").is_in(sessions.implode())
    )
    parts = known.partition_by("name", as_dict=True, include_key=False)
    return {
        str(name): _placer(frame, sessions, symbols)("value") for (name,), frame in parts.items()
    }


def mean_in_order(values: Float[np.ndarray, "T A"]) -> Float[np.ndarray, " T"]:
    """Average each row over its finite entries, term by term in column order; NaN without one.

    A running sum, because a stock that is listed years later must not change the last bit of
    earlier rows, and pairwise summation depends on the number of columns.
    """
    if values.shape[1] == 0:
        return np.full(len(values), np.nan)
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).cumsum(axis=1)[:, -1]
    count = finite.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class _Placer:
    """Writes columns of long bars into (T, A) tables; NaN where there is no bar."""

    def __init__(
        self, bars: pl.DataFrame, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]
    ) -> None:
        self.bars, self.row, self.column, self.shape = bars, row, column, shape

    def __call__(self, name: str) -> Float[np.ndarray, "T A"]:
        table = np.full(self.shape, np.nan)
        values = self.bars[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        table[self.row, self.column] = values
        return table


def _select(
    raw: RawData, sectors: list[str]
) -> tuple[pl.DataFrame, pl.Series, Int[np.ndarray, " A"]]:
    known = raw.sectors.filter(pl.col("sector").is_in(sectors)).unique("symbol", keep="first")
    bars = raw.bars.join(known.select("symbol"), on="symbol", how="semi")
    if bars.is_empty():
        found = sorted(set(raw.sectors["sector"].to_list()))
        raise MarketError(
            f"no stock of the data belongs to a sector of the market profile: expected one of "
            f"{', '.join(sectors)}; found {', '.join(map(str, found)) or 'none'}; choose the "
            "market profile that fits the data"
        )
    symbols = bars["symbol"].unique().sort()
    of_symbol = dict(known.select("symbol", "sector").iter_rows())
    sector_of = np.array([sectors.index(of_symbol[symbol]) for symbol in symbols], dtype=np.int64)
    return bars, symbols, sector_of


def _placer(frame: pl.DataFrame, sessions: pl.Series, symbols: pl.Series) -> _Placer:
    row = sessions.search_sorted(frame["date"]).to_numpy()
    column = symbols.search_sorted(frame["symbol"]).to_numpy()
    return _Placer(frame, row, column, (len(sessions), len(symbols)))


def _mark(bad: pl.DataFrame, sessions: pl.Series, symbols: pl.Series) -> Bool[np.ndarray, "T A"]:
    marked = np.zeros((len(sessions), len(symbols)), dtype=bool)
    here = bad.filter(
        pl.col("symbol").is_in(symbols.implode()) & pl.col("date").is_in(sessions.implode())
    )
    if not here.is_empty():
        place = _placer(here, sessions, symbols)
        marked[place.row, place.column] = True
    return marked


def _columns_of(bars: pl.DataFrame) -> frozenset[str]:
    names = ("open", "high", "low", "close", "volume")
    return frozenset(name for name in names if bars[name].null_count() < bars.height)


def _adjusted_levels(place: _Placer) -> tuple[Float[np.ndarray, "T A"], Float[np.ndarray, "T A"]]:
    """Return raw closes and a total-return level; made from splits and dividends if need be."""
    close = place("close")
    if place.bars["adj_close"].null_count() < place.bars.height:
        return close, place("adj_close")
    valid = np.isfinite(close) & (close > 0)
    split, dividend = place("split"), np.nan_to_num(place("dividend"))
    split = np.where(np.isfinite(split) & (split > 0), split, 1.0)
    gross = (split * close + dividend) / _before(close, valid)
    level = np.cumprod(np.where(valid & np.isfinite(gross), gross, 1.0), axis=0)
    return close, np.where(valid, level, np.nan)


def _split_returns(
    close: Float[np.ndarray, "T A"],
    adjusted: Float[np.ndarray, "T A"],
    opening: Float[np.ndarray, "T A"],
    valid: Bool[np.ndarray, "T A"],
) -> tuple[Float[np.ndarray, "T A"], Float[np.ndarray, "T A"]]:
    has_open = valid & np.isfinite(opening) & (opening > 0)
    # without an open the whole move counts as overnight: that data set fills at the close
    day = np.where(has_open, close / opening, 1.0)
    whole = np.where(valid, adjusted, np.nan) / _before(adjusted, valid)
    overnight = np.where(np.isfinite(whole), whole / day, 1.0)
    return overnight - 1.0, day - 1.0


def _before(
    values: Float[np.ndarray, "T A"], valid: Bool[np.ndarray, "T A"]
) -> Float[np.ndarray, "T A"]:
    """Return the last valid value of the rows before; NaN if there is none."""
    n_days, n_assets = values.shape
    rows = np.where(valid, np.arange(n_days)[:, None], -1)
    last = np.full((n_days, n_assets), -1)
    last[1:] = np.maximum.accumulate(rows, axis=0)[:-1]
    found = values[np.maximum(last, 0), np.arange(n_assets)]
    return np.where(last >= 0, found, np.nan)


def _voided(
    tradable: Bool[np.ndarray, "T A"],
    printed: Bool[np.ndarray, "T A"],
    mark: Callable[[frozenset[str]], Bool[np.ndarray, "T A"]],
) -> Bool[np.ndarray, "T A"]:
    """Mark good bars whose move since the last good one crosses a lasting jump of adj_close."""
    jump, reversal = mark(rules.BREAKING), mark(REVERSALS)
    # a jump that the next bar takes back is none: the level before and after fit each other
    taken_back = reversal & (_before(jump.astype(np.float64), printed) == 1.0)
    jumps = np.cumsum(jump.astype(np.int64) - taken_back, axis=0).astype(np.float64)
    return tradable & (jumps != _before(jumps, tradable)) & np.isfinite(_before(jumps, tradable))


def _listed(tradable: Bool[np.ndarray, "T A"]) -> Bool[np.ndarray, "T A"]:
    begun = np.maximum.accumulate(tradable, axis=0)
    continues = np.maximum.accumulate(tradable[::-1], axis=0)[::-1]
    return begun & continues


def _log(gross: Float[np.ndarray, "T A"]) -> Float[np.ndarray, "T A"]:
    # a total loss is finite here: -1 would end every running level in -inf
    return np.log(np.maximum(gross, 1e-6))
