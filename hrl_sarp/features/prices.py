"""Turns raw bars into one panel of returns; only this module adjusts prices.

A bad row counts as a day without a bar: the next good bar gets the move since the last good one. At
a lasting jump of the adjusted series that move is false, so the overnight return into the next good
bar is 0. Prices are never rescaled, so a later defect does not change earlier rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.contracts import USUAL_SESSIONS, Market, SessionCounts, session_growth
from hrl_sarp.data.known_at import stock_tables
from hrl_sarp.data.partners import without_partner
from hrl_sarp.data.quality import rules
from hrl_sarp.data.quality.expressions import priced_rows
from hrl_sarp.data.quality.validation import ValidationReport
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import MarketError
from hrl_sarp.features.technical import row_mean

DAY = "datetime64[D]"
SPLITS = frozenset({"undeclared_split", "unit_change"})
LAST_BARS = 5
"""A night with fewer bars after it, in a stock that ends before the data, is earned in any case."""
REVERSALS = frozenset({"adjustment_reversal"})
PRICES = ("open", "high", "low", "close", "volume")
Table = Float[np.ndarray, "T A"]


@dataclass(frozen=True)
class PricePanel:
    """Every stock of the data set on every session; row t is known at the close of day t.

    It holds returns, because later dividends and splits change the levels of an adjusted series.
    Logarithms, running levels and means over stocks are computed on their first use.
    """

    dates: Shaped[np.ndarray, " T"]
    """Sessions on which any stock has a price, datetime64[D], strictly increasing."""
    symbols: tuple[str, ...]
    """Length A: every stock that belongs to a sector of the market profile, in order."""
    sector_of: Int[np.ndarray, " A"]
    """Sector index of each stock."""
    n_sectors: int
    overnight_return: Table
    """Simple return from the last good close to the open, dividends included. 0 without a bar and
    on the first bar. Without an open it reaches to the close."""
    intraday_return: Table
    """Simple return from the open to the close; 0 without a bar."""
    printed: Bool[np.ndarray, "T A"]
    """The stock has a bar, good or bad, with a price."""
    tradable: Bool[np.ndarray, "T A"]
    """The stock has a good bar: no rule of `EXCLUDING` is broken."""
    listed: Bool[np.ndarray, "T A"]
    """From the first good bar to the last: sources may print bad bars after a delisting."""
    high_to_close: Table
    """log(high / close), at least 0; NaN without a bar and where the high is unknown."""
    low_to_close: Table
    """log(low / close), at most 0; NaN likewise."""
    dollar_volume: Table
    """Raw close x raw volume, in currency; 0 where the volume is unknown, NaN without a bar."""
    columns: frozenset[str]
    """Which of open, high, low, close, volume and the planted features the data have."""
    planted: dict[str, Table] = field(default_factory=dict)
    """Features that the data themselves have: planted, or the user's own, known at the close; NaN
    where they are missing."""
    sessions: SessionCounts = USUAL_SESSIONS
    """Of the market's calendar."""

    @cached_property
    def session_growth(self) -> Table:
        """Wealth at the close for one unit at the close before; 1 without a bar."""
        return session_growth(self.overnight_return, self.intraday_return)

    @cached_property
    def has_past(self) -> Bool[np.ndarray, "T A"]:
        """Whether the stock has a good bar that is not its first, so that it has a return."""
        return self.tradable & (np.cumsum(self.tradable, axis=0) > 1)

    @cached_property
    def log_return(self) -> Table:
        """Log return from close to close, with dividends; NaN without a bar and on the first."""
        return np.where(self.has_past, _log(self.session_growth), np.nan)

    @cached_property
    def log_overnight(self) -> Table:
        """Log return from the close before to the open; NaN as in `log_return`."""
        return np.where(self.has_past, _log(1.0 + self.overnight_return), np.nan)

    @cached_property
    def log_intraday(self) -> Table:
        """Log return from the open to the close; NaN without a bar."""
        return np.where(self.tradable, _log(1.0 + self.intraday_return), np.nan)

    @cached_property
    def log_level(self) -> Table:
        """Running sum of log returns from 0 at the first bar, carried over halts; NaN before it."""
        started = np.cumsum(self.tradable, axis=0) > 0
        return np.where(started, np.cumsum(np.nan_to_num(self.log_return), axis=0), np.nan)

    @cached_property
    def market_return(self) -> Float[np.ndarray, " T"]:
        """Mean simple return over the stocks that have one; 0 where there is none."""
        return np.nan_to_num(row_mean(self._simple_return))

    @cached_property
    def sector_return(self) -> Float[np.ndarray, "T S"]:
        """Mean simple return over the stocks of each sector; NaN where no stock has one."""
        means = [
            row_mean(self._simple_return[:, self.sector_of == s]) for s in range(self.n_sectors)
        ]
        return np.stack(means, axis=1)

    @cached_property
    def range_variance(self) -> Table | None:
        """Variance of the session between open and close, from its range; None for closes only.

        0 without a bar. Without an open it is Parkinson's. A bar whose high or low is unknown
        counts with the square of its move from close to close.

        Source:
            Parkinson (1980), "The Extreme Value Method for Estimating the Variance of the Rate of
            Return". Garman and Klass (1980), "On the Estimation of Security Price Volatilities".
        """
        if not {"high", "low"} <= self.columns:
            return None
        squared_range = (self.high_to_close - self.low_to_close) ** 2
        if "open" in self.columns:
            day = np.nan_to_num(self.log_intraday) ** 2
            variance = 0.5 * squared_range - (2.0 * np.log(2.0) - 1.0) * day
        else:
            variance = squared_range / (4.0 * np.log(2.0))
        whole = np.nan_to_num(self.log_return) ** 2
        return np.where(self.tradable, np.fmax(np.where(np.isnan(variance), whole, variance), 0), 0)

    @cached_property
    def _simple_return(self) -> Table:
        return np.where(self.has_past, self.session_growth - 1.0, np.nan)

    def to_market(
        self,
        rows: slice,
        stocks: Int[np.ndarray, " C"],
        stock_features: Float[np.ndarray, "T A F"],
        **given: Any,
    ) -> Market:
        """Cut returns, masks and features to the rows and stocks of a market.

        `stock_features` are of the whole panel; `given` is every other field of `Market`, cut
        already.
        """

        def cut(table: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(table[rows][:, stocks])

        return Market(
            dates=self.dates[rows],
            symbols=tuple(self.symbols[index] for index in stocks),
            sector_of=self.sector_of[stocks],
            overnight_return=cut(self.overnight_return),
            intraday_return=cut(self.intraday_return),
            tradable=cut(self.tradable),
            listed=cut(self.listed),
            dollar_volume=np.nan_to_num(cut(self.dollar_volume)),
            stock_features=cut(stock_features),
            range_variance=None if self.range_variance is None else cut(self.range_variance),
            sessions=self.sessions,
            **given,
        )


def build_panel(
    raw: RawData,
    findings: pl.DataFrame,
    sectors: list[str],
    counts: SessionCounts = USUAL_SESSIONS,
    halted_at_end: int = 0,
) -> PricePanel:
    """Arrange bars by session and symbol and turn them into returns.

    Stocks of other sectors are left out. `findings` are those of the validation, `counts` those of
    the market's calendar. A stock that lacks bars at the end of the data is gone, unless it lacks
    at most `halted_at_end` of them: then it counts as halted, because its next bar may come. Days
    on which no stock was traded, and the exchange was closed, are no sessions.

    Raises:
        MarketError: if no stock belongs to one of the sectors.
    """
    bars, symbols, sector_of = _select(raw, sectors)
    bars, sessions = _open_days(bars, findings)
    place = _Placer(priced_rows(bars.sort("symbol", "date")), sessions, symbols)

    def mark(kinds: frozenset[str]) -> Bool[np.ndarray, "T A"]:
        bad = findings.filter(pl.col("rule").is_in(sorted(kinds)))
        found = _Placer(_among(bad, sessions, symbols), sessions, symbols)
        marked = np.zeros(found.shape, dtype=bool)
        marked[found.row, found.column] = True
        return marked

    with np.errstate(divide="ignore", invalid="ignore"):  # prices of 0 become NaN or infinite
        close, adjusted = _adjusted_levels(place, mark(rules.NOT_APPLIED), mark(rules.PAID_BEFORE))
        printed = np.isfinite(close) & (close > 0) & np.isfinite(adjusted) & (adjusted > 0)
        tradable = printed & ~mark(rules.EXCLUDING)
        overnight, intraday = _split_returns(close, adjusted, place("open"), tradable)
        log_high, log_low = np.log(place("high") / close), np.log(place("low") / close)
        dollars = np.nan_to_num(close * place("volume"), posinf=0.0, neginf=0.0)
    has_range = tradable & ~mark(rules.UNRANGED)
    is_move = tradable & ~_crosses_jump(tradable, printed, mark)
    begun = np.maximum.accumulate(tradable, axis=0)
    continues = np.maximum.accumulate(tradable[::-1], axis=0)[::-1]
    continues |= tradable[len(tradable) - 1 - min(halted_at_end, len(tradable) - 1) :].any(axis=0)
    columns = [name for name in PRICES if bars[name].null_count() < bars.height]
    planted = _planted_features(raw, sessions, symbols)
    days = sessions.to_numpy().astype(DAY)
    planted |= stock_tables(raw.own_features, days, tuple(symbols.to_list()))
    return PricePanel(
        dates=days,
        symbols=tuple(symbols.to_list()),
        sector_of=sector_of,
        n_sectors=len(sectors),
        overnight_return=np.where(is_move, overnight, 0.0),
        intraday_return=np.where(tradable, intraday, 0.0),
        printed=printed,
        tradable=tradable,
        listed=begun & continues,
        high_to_close=np.where(has_range & np.isfinite(log_high), np.maximum(log_high, 0), np.nan),
        low_to_close=np.where(has_range & np.isfinite(log_low), np.minimum(log_low, 0.0), np.nan),
        dollar_volume=np.where(tradable, np.maximum(dollars, 0.0), np.nan),
        columns=frozenset(columns) | frozenset(planted),
        planted=planted,
        sessions=counts,
    )


def _open_days(bars: pl.DataFrame, findings: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Return the bars and their days, less those of which all bars are unusable and off session.

    Some sources print the close before once more on holidays. These rows stay without a close, so
    that a split that stands on one counts on the next bar.
    """
    keys = ["symbol", "date"]
    kinds = (frozenset({"off_session"}), rules.EXCLUDING)
    off, bad = (findings.filter(pl.col("rule").is_in(sorted(kind))) for kind in kinds)
    printed = bars.join(off, on=keys, how="semi").join(bad, on=keys, how="semi")
    used = bars.join(printed, on=keys, how="anti") if printed.height else bars
    days = used["date"].unique().sort()
    is_open = pl.col("date").is_in(days.implode())
    return bars.with_columns(close=pl.when(is_open).then("close")), days


def levels_around(
    raw: RawData, report: ValidationReport, sectors: list[str]
) -> pl.DataFrame | None:
    """Chain the returns of each stock that has a finding: `date, symbol, value` from 1 on.

    None if no panel can be made of the data.
    """
    named = report.table["symbol"].unique().implode()
    try:
        chosen = raw.bars.filter(pl.col("symbol").is_in(named))
        panel = build_panel(replace(raw, bars=chosen), report.table, sectors or _all_sectors(raw))
    except MarketError:
        return None
    frame = pl.DataFrame(np.exp(panel.log_level), schema=list(panel.symbols))
    dated = frame.with_columns(date=pl.Series(panel.dates).cast(pl.Date))
    long = dated.unpivot(index="date", variable_name="symbol")
    return long.filter(pl.col("value").is_finite())


def _all_sectors(raw: RawData) -> list[str]:
    return sorted(set(raw.sectors["sector"].drop_nulls()))


class _Placer:
    """Arranges columns of a long frame as (T, A) tables; NaN where there is no row."""

    def __init__(self, frame: pl.DataFrame, sessions: pl.Series, symbols: pl.Series) -> None:
        self.frame = frame
        self.row = sessions.search_sorted(frame["date"]).to_numpy()
        self.column = symbols.search_sorted(frame["symbol"]).to_numpy()
        self.shape = (len(sessions), len(symbols))

    def __call__(self, name: str) -> Table:
        table = np.full(self.shape, np.nan)
        values = self.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        table[self.row, self.column] = values
        return table


def _select(
    raw: RawData, sectors: list[str]
) -> tuple[pl.DataFrame, pl.Series, Int[np.ndarray, " A"]]:
    known = raw.sectors.filter(pl.col("sector").is_in(sectors)).unique("symbol", keep="first")
    bars = raw.bars.join(known.select("symbol"), on="symbol", how="semi")
    if bars.is_empty() and not known.is_empty() and not raw.bars.is_empty():
        traded = raw.bars["symbol"].unique().to_list()
        (note,) = without_partner(
            traded, known["symbol"].to_list(), "symbols of the prices", "the sectors"
        )
        raise MarketError(f"no stock has a sector: {note}; write the same symbols in both tables")
    if bars.is_empty():
        found = sorted(set(raw.sectors["sector"].to_list()))
        raise MarketError(
            f"no stock of the data belongs to a sector of the market profile: expected one of "
            f"{', '.join(sectors)}; found {', '.join(map(str, found)) or 'none'}; choose the "
            "market profile that fits the data; `own` takes the sectors of the data"
        )
    symbols = bars["symbol"].unique().sort()
    of_symbol = dict(known.select("symbol", "sector").iter_rows())
    sector_of = np.array([sectors.index(of_symbol[symbol]) for symbol in symbols], dtype=np.int64)
    return bars, symbols, sector_of


def _among(frame: pl.DataFrame, sessions: pl.Series, symbols: pl.Series) -> pl.DataFrame:
    return frame.filter(
        pl.col("symbol").is_in(symbols.implode()) & pl.col("date").is_in(sessions.implode())
    )


def _planted_features(raw: RawData, sessions: pl.Series, symbols: pl.Series) -> dict[str, Table]:
    if raw.features is None:
        return {}
    known = _among(raw.features, sessions, symbols)
    parts = known.partition_by("name", as_dict=True, include_key=False)
    return {
        str(name): _Placer(frame, sessions, symbols)("value") for (name,), frame in parts.items()
    }


def _adjusted_levels(
    place: _Placer, is_unseen: Bool[np.ndarray, "T A"], is_again: Bool[np.ndarray, "T A"]
) -> tuple[Table, Table]:
    """Return raw closes and a total-return level.

    The level of a stock is its adj_close, or follows from its splits and dividends if it has none.
    An unseen split is not applied, and a dividend that stands again is not counted again.
    """
    close, level = place("close"), place("adj_close")
    lacks = np.isnan(level).all(axis=0)
    if not (lacks.any() or is_again.any()):
        return close, level
    valid = np.isfinite(close) & (close > 0)
    split, dividend = place("split"), np.nan_to_num(place("dividend"))
    split = np.where(np.isfinite(split) & (split > 0) & ~is_unseen, split, 1.0)
    past = _before(close, valid)
    plain = (split * close + np.where(is_again, 0.0, dividend)) / past
    gross = np.where(valid & np.isfinite(plain), plain, 1.0)
    paid_again = np.where(is_again & valid, gross + dividend / past, gross)
    moved = level / _before(level, np.isfinite(level))
    counts = np.abs(moved - paid_again) < np.abs(moved - gross)
    level = level * np.cumprod(np.where(counts, gross / paid_again, 1.0), axis=0)
    own = np.cumprod(gross, axis=0)
    return close, np.where(lacks, np.where(valid, own, np.nan), level)


def _split_returns(
    close: Table,
    adjusted: Table,
    opening: Table,
    valid: Bool[np.ndarray, "T A"],
) -> tuple[Table, Table]:
    has_open = valid & np.isfinite(opening) & (opening > 0)
    # without an open the whole move is overnight, so orders of that data set fill at the close
    day = np.where(has_open, close / opening, 1.0)
    whole = np.where(valid, adjusted, np.nan) / _before(adjusted, valid)
    overnight = np.where(np.isfinite(whole), whole / day, 1.0)
    return overnight - 1.0, day - 1.0


def _before(values: Table, valid: Bool[np.ndarray, "T A"]) -> Table:
    """Return the last valid value of the rows before; NaN if there is none."""
    n_days, n_assets = values.shape
    rows = np.where(valid, np.arange(n_days)[:, None], -1)
    last = np.full((n_days, n_assets), -1)
    last[1:] = np.maximum.accumulate(rows, axis=0)[:-1]
    found = values[np.maximum(last, 0), np.arange(n_assets)]
    return np.where(last >= 0, found, np.nan)


def _crosses_jump(
    tradable: Bool[np.ndarray, "T A"],
    printed: Bool[np.ndarray, "T A"],
    mark: Callable[[frozenset[str]], Bool[np.ndarray, "T A"]],
) -> Bool[np.ndarray, "T A"]:
    """Mark good bars whose move since the last good one crosses a lasting jump of adj_close."""
    split, reversal = mark(SPLITS), mark(REVERSALS)
    later = np.cumsum(tradable[::-1], axis=0)[::-1] - tradable
    # nobody splits a stock that is about to cease: a fall just before the end is its collapse
    is_collapse = (later < LAST_BARS) & ~tradable[-1]
    jump = mark(rules.BREAKING - SPLITS) | (split & ~is_collapse)
    # a jump that the next bar takes back does not last
    taken_back = reversal & (_before(jump.astype(np.float64), printed) == 1.0)
    jumps = np.cumsum(jump.astype(np.int64) - taken_back, axis=0).astype(np.float64)
    return tradable & (jumps != _before(jumps, tradable)) & np.isfinite(_before(jumps, tradable))


def _log(gross: Table) -> Table:
    # a floor: the log of a total loss would make every later level -inf
    return np.log(np.maximum(gross, 1e-6))
