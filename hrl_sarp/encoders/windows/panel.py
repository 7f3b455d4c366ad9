"""Daily windows of all stocks of a market: adjusted bars, and where windows begin and may end."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.config.encoder_schema import PanelConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.data.quality.validation import read_validated
from hrl_sarp.encoders.windows.cut import Windows
from hrl_sarp.errors import DataError
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.market.cache import data_hash

NONE = -1
"""First row of a window that is not complete, and column of a stock that the market lacks."""


@dataclass(frozen=True)
class PanelWindows:
    """The window that ends at each bar."""

    starts: Int[np.ndarray, " N"]
    """First row of the window that ends at this row; -1 where it would be incomplete."""
    place: Int[np.ndarray, " N"]
    """Usable bars of the stock before this one, back to the last border; -1 if unusable."""


def read_panel_bars(data_dir: Path, market: Market, config: RunConfig) -> Bars:
    """Rebuild the bars of all stocks that a market was made from: it holds no highs and lows.

    All stocks of the profile's sectors are there, those never eligible too: pretraining must not
    choose by what the universe becomes later.

    Args:
        data_dir: `data/raw` as written by collect-data.
        market: assembled from it.
        config: the run's configuration, as the market was assembled with.

    Raises:
        DataError: if the returns of the bars are not those of the market.
    """
    raw, report = read_validated(data_dir, config)
    panel = build_panel(raw, report.table, config.market_profile.sectors)
    _require_same_market(panel, market, data_dir)
    return panel_bars(panel, data_hash(data_dir))


def panel_bars(panel: PricePanel, content_hash: str) -> Bars:
    """Lay out the good bars of a panel stock by stock, in units of each stock's first close.

    Levels are built forwards, dividends included, so later splits and dividends leave earlier bars
    untouched. Where the data have closes only, a bar opens at the close before it and its high and
    low are the larger and the smaller of both. A single unknown high, low or open is taken from
    the other prices of its bar.

    Args:
        panel: prices of the data set; every stock's own sessions are those with a good bar.
        content_hash: what identifies the data.
    """
    stock, day = np.nonzero(panel.tradable.T)
    close = np.exp(panel.log_level.T[stock, day])
    if "open" in panel.columns:
        opening = close * np.exp(-panel.log_intraday.T[stock, day])
    else:
        is_first = np.diff(stock, prepend=NONE) != 0
        opening = np.where(is_first, close, np.roll(close, 1))
    high = close * np.exp(np.nan_to_num(panel.high_to_close.T[stock, day]))
    low = close * np.exp(np.nan_to_num(panel.low_to_close.T[stock, day]))
    volume = None
    if "volume" in panel.columns:  # in units of the adjusted price: a split leaves it as it was
        volume = np.nan_to_num(panel.dollar_volume.T[stock, day]) / close
    return Bars(
        timestamps=panel.dates[day].astype("datetime64[us]"),
        instrument=stock.astype(np.int32),
        instruments=panel.symbols,
        open=opening,
        high=np.maximum(high, np.maximum(opening, close)),
        low=np.minimum(low, np.minimum(opening, close)),
        close=close,
        volume=volume,
        content_hash=content_hash,
        excluded={},
    )


def complete_windows(
    bars: Bars, usable: Bool[np.ndarray, " N"], config: PanelConfig
) -> PanelWindows:
    """Find the window that ends at each bar.

    It crosses neither an unusable bar nor a stretch of more than `max_missing_sessions` sessions
    without a bar; sessions are the days on which any stock has one.

    Args:
        bars: stock by stock, in time.
        usable: False where a feature is not known yet.
        config: length of windows, longest halt.
    """
    _, session = np.unique(bars.timestamps, return_inverse=True)
    is_border = np.diff(bars.instrument, prepend=NONE) != 0
    is_border |= np.diff(session, prepend=0) > config.max_missing_sessions + 1
    row = np.arange(len(session))
    begin = np.maximum(np.where(is_border, row, 0), np.where(usable, 0, row + 1))
    place = row - np.maximum.accumulate(begin)
    length = config.window_length
    return PanelWindows(np.where(place >= length - 1, row - length + 1, NONE), place)


def pretraining_windows(
    bars: Bars, found: PanelWindows, market: Market, panel: PanelConfig
) -> Windows:
    """Choose the windows that an encoder is fitted on, selected by and described with.

    Training and validation windows end inside the market's training span; the last `val_share` of
    it is validation, whose windows share no bar with training. Test windows lie in the market's
    validation span and choose nothing.

    Raises:
        DataError: if training or validation is left without a window.
    """
    split = market.split
    is_due = (found.starts != NONE) & ((found.place - panel.window_length + 1) % panel.stride == 0)
    ends = np.flatnonzero(is_due)
    starts = found.starts[ends]
    first, last = _row_of(bars, market, starts), _row_of(bars, market, ends)
    cut = selection_start(market, panel)
    parts = {
        "train": starts[_inside(last, DayRange(split.train.start, cut))],
        "validation": starts[(first >= cut) & (last < split.train.stop)],
        "test": starts[(first >= split.train.stop) & _inside(last, split.validation)],
    }
    for name in ("train", "validation"):
        if len(parts[name]) == 0:
            raise DataError(
                f"no {name} window of {panel.window_length} sessions ends in the training span "
                f"{market.dates[split.train.start]} to {market.dates[split.train.stop - 1]} (the "
                f"last {panel.val_share:.0%} are validation); lower encoders.panel.window_length "
                "or collect a longer history"
            )
    incomplete = int((found.starts == NONE).sum())
    return Windows(**parts, length=panel.window_length, dropped={"incomplete": incomplete})


def selection_start(market: Market, panel: PanelConfig) -> int:
    """Return the market row from which the training span serves selection."""
    return market.split.train.stop - round(panel.val_share * len(market.split.train))


def window_table(bars: Bars, market: Market, windows: PanelWindows) -> Int[np.ndarray, "T A"]:
    """Place the first row of the window that ends at each day of each stock of a universe.

    Only stocks in a slot of the day count: nobody sees the features of others. -1 elsewhere, where
    the stock has no bar on the day, and where the window is incomplete.
    """
    column = np.full(len(bars.instruments), NONE)
    index = {symbol: number for number, symbol in enumerate(bars.instruments)}
    column[[index[symbol] for symbol in market.symbols]] = np.arange(market.n_assets)
    row, stock = _row_of(bars, market, np.arange(len(bars.instrument))), column[bars.instrument]
    here = (row >= 0) & (stock >= 0)
    table = np.full((market.n_days, market.n_assets), NONE, dtype=np.int64)
    table[row[here], stock[here]] = windows.starts[here]
    return np.where(market.eligible, table, NONE)


def _row_of(bars: Bars, market: Market, at: Int[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
    """Return the market row of bars; -1 before the market begins."""
    days: Shaped[np.ndarray, " W"] = bars.timestamps[at].astype(market.dates.dtype)
    return np.searchsorted(market.dates, days, side="right") - 1


def _inside(row: Int[np.ndarray, " W"], span: DayRange) -> Bool[np.ndarray, " W"]:
    return (row >= span.start) & (row < span.stop)


def _require_same_market(panel: PricePanel, market: Market, data_dir: Path) -> None:
    """Refuse bars whose returns are not the market's own."""
    column = {symbol: number for number, symbol in enumerate(panel.symbols)}
    missing = [symbol for symbol in market.symbols if symbol not in column]
    same = not missing and np.array_equal(panel.dates[-market.n_days :], market.dates)
    if same:
        chosen = [column[symbol] for symbol in market.symbols]
        rows: Float[np.ndarray, "T A"] = panel.overnight_return[-market.n_days :][:, chosen]
        same = np.array_equal(rows, market.overnight_return)
    if not same:
        raise DataError(
            f"{data_dir}: expected the bars that market {market.name} ({market.dates[0]} to "
            f"{market.dates[-1]}, {market.n_assets} stocks) was assembled from, found others; load "
            "the market from this folder with this configuration"
        )
