"""Daily windows of all stocks of a market: their bars, features and first rows."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped
from numpy.lib.stride_tricks import sliding_window_view

from hrl_sarp.config.encoder_schema import PanelConfig, RelativityConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.data.quality.validation import read_validated
from hrl_sarp.data.store import RawData
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.windows.cut import (
    SPLITS,
    Windows,
    cut_stretches,
    inside_spans,
    number_stretches,
)
from hrl_sarp.errors import DataError
from hrl_sarp.features import candles
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.features.relativity import (
    pretraining_columns,
    pretraining_table,
    relativity_features,
)
from hrl_sarp.market.cache import data_hash

NONE = -1
"""Row of an incomplete window, and column of a stock that the market lacks."""
CLOSE, VOLUME, RANGE = "close", "volume", "atr_14"
MEAN_VOLUME_BARS = 20


def read_panel_bars(data_dir: Path, market: Market, config: RunConfig) -> Bars:
    """Rebuild the bars of a market from its raw data, because it holds no highs and lows.

    They include stocks that were never eligible: pretraining must not know the later universe.

    Raises:
        DataError: if the returns of the bars are not those of the market.
    """
    raw, report = read_validated(data_dir, config)
    return bars_of_market(raw, report.table, market, data_dir)


def bars_of_market(
    raw: RawData, findings: pl.DataFrame, market: Market, data_dir: Path, halted_at_end: int = 0
) -> Bars:
    """Arrange the bars of raw data that a market was assembled from.

    `findings` are those of the validation; `halted_at_end` is that of the market.

    Raises:
        DataError: if the returns of the bars are not those of the market.
    """
    sectors = list(market.sector_names)
    panel = build_panel(raw, findings, sectors, market.sessions, halted_at_end)
    _require_same_market(panel, market, data_dir)
    return panel_bars(panel, data_hash(data_dir))


def panel_bars(panel: PricePanel, content_hash: str) -> Bars:
    """Arrange the good bars of a panel stock by stock, in units of each stock's first close.

    Returns, dividends included, are compounded forwards, so later splits and dividends do not
    change earlier bars. Without opens in the data, a bar opens at the close before it. An unknown
    high, low or open is replaced by other prices of its bar.
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
    if "volume" in panel.columns:  # dollars over the adjusted price: a split does not change it
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
    bars: Bars, usable: Bool[np.ndarray, " N"], config: PanelConfig, stride: int
) -> Int[np.ndarray, " W"]:
    """Find the first rows of the complete windows, every `stride` bars of a stretch.

    A complete window holds no unusable bar (with an unknown feature) and no gap of more than
    `max_missing_sessions` sessions. A session is a day on which any stock has a bar.
    """
    _, session = np.unique(bars.timestamps, return_inverse=True)
    keys = (bars.instrument, usable)
    stretch = number_stretches(session, keys, config.max_missing_sessions, spacing=1)
    starts, is_whole = cut_stretches(stretch, config.window_length, stride)
    return starts[is_whole & usable[starts]]


def pretraining_windows(
    bars: Bars, usable: Bool[np.ndarray, " N"], market: Market, panel: PanelConfig
) -> Windows:
    """Choose the training, validation and test windows of an encoder.

    Training and validation windows end inside the market's training span. Validation is the last
    `val_share` of that span, and its windows share no bar with training. Test windows lie in the
    market's validation span and serve the report only. `dropped` counts the bars at which no window
    ends.

    Raises:
        DataError: if training or validation has no window.
    """
    split = market.split
    starts = complete_windows(bars, usable, panel, panel.stride)
    first = _row_of(bars, market, starts)
    last = _row_of(bars, market, starts + panel.window_length - 1)
    cut = split.train.stop - round(panel.val_share * len(split.train))
    bounds = ((NONE, cut), (cut, split.train.stop), (split.train.stop, split.validation.stop))
    ends_from = (split.train.start, NONE, split.validation.start)  # windows may begin earlier
    inside = inside_spans(first, last, bounds)
    parts = {
        name: starts[here & (last >= least)]
        for name, here, least in zip(SPLITS, inside, ends_from, strict=True)
    }
    for name in ("train", "validation"):
        if len(parts[name]) == 0:
            raise DataError(
                f"no {name} window of {panel.window_length} sessions ends in the training span "
                f"{market.dates[split.train.start]} to {market.dates[split.train.stop - 1]} (the "
                f"last {panel.val_share:.0%} are validation); lower encoders.panel.window_length "
                "or collect a longer history"
            )
    incomplete = len(usable) - len(complete_windows(bars, usable, panel, stride=1))
    return Windows(**parts, length=panel.window_length, dropped={"incomplete": incomplete})


def window_table(
    bars: Bars, usable: Bool[np.ndarray, " N"], market: Market, panel: PanelConfig
) -> Int[np.ndarray, "T A"]:
    """Return the first row of the window that ends at each day of each stock.

    It is -1 for a stock without a slot, without a bar on the day or with an incomplete window.
    """
    starts = complete_windows(bars, usable, panel, stride=1)
    ending_at = np.full(len(usable), NONE)
    ending_at[starts + panel.window_length - 1] = starts
    rows = bar_rows(bars, market)
    return np.where(market.eligible & (rows >= 0), ending_at[rows], NONE)


def bar_rows(bars: Bars, market: Market) -> Int[np.ndarray, "T A"]:
    """Return the row of the bar of each day and stock of a market; -1 without a bar."""
    column = np.full(len(bars.instruments), NONE)
    index = {symbol: number for number, symbol in enumerate(bars.instruments)}
    column[[index[symbol] for symbol in market.symbols]] = np.arange(market.n_assets)
    day, stock = _row_of(bars, market, np.arange(len(bars.instrument))), column[bars.instrument]
    here = np.flatnonzero((day >= 0) & (stock >= 0))
    table = np.full((market.n_days, market.n_assets), NONE, dtype=np.int64)
    table[day[here], stock[here]] = here
    return table


def panel_columns(kind: EncoderKind, config: RelativityConfig) -> tuple[str, ...]:
    """Name the columns of `panel_features`."""
    if kind == "jade":
        return pretraining_columns(config)
    return tuple(_relative_name(name) for name in candles.COLUMNS)


def panel_features(kind: EncoderKind, bars: Bars, config: RunConfig) -> Float[np.ndarray, "N F"]:
    """Compute the inputs of an encoder, float32; NaN until an average has enough bars.

    Jade reads relativity features. The transformer reads the columns of `candles.COLUMNS` made
    relative, so that one table serves every window: prices, averages, bands and ATR over the bar's
    close, the close over the one before, and volume over its mean of 20 bars.
    """
    if kind == "jade":
        length = config.encoders.panel.window_length
        settings = config.windowed.feature_config
        return pretraining_table(relativity_features(bars, settings, length), settings)
    raw = candles.candle_table(bars)
    close = raw[:, candles.COLUMNS.index(CLOSE)]
    is_first = np.diff(bars.instrument, prepend=-1) != 0
    table = np.empty(raw.shape, dtype=np.float32)
    for index, name in enumerate(candles.COLUMNS):
        values = raw[:, index]
        if name == CLOSE:
            values = np.where(is_first, 0.0, np.diff(np.log(close), prepend=np.log(close[:1])))
        elif name == VOLUME:
            values = _log_over_mean(values, is_first)
        elif _relative_name(name) != name:
            values = values / close
        table[:, index] = values
    return table


def _row_of(bars: Bars, market: Market, at: Int[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
    """Return the market row of bars; -1 before the market begins."""
    days: Shaped[np.ndarray, " W"] = bars.timestamps[at].astype(market.dates.dtype)
    return np.searchsorted(market.dates, days, side="right") - 1


def _require_same_market(panel: PricePanel, market: Market, data_dir: Path) -> None:
    """Refuse bars whose returns differ from those of the market."""
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


def _relative_name(name: str) -> str:
    if name == CLOSE:
        return "log_return"
    if name == VOLUME:
        return "log_volume_over_mean"
    return f"{name}_over_close" if name in candles.LEVELS or name == RANGE else name


def _log_over_mean(
    volume: Float[np.ndarray, " N"], is_first: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Return log(volume / mean of the last bars); 0 where it is 0, NaN before enough bars."""
    row = np.arange(len(volume))
    seen = row - np.maximum.accumulate(np.where(is_first, row, 0)) + 1
    # summed window by window, because a running sum would mix the stocks
    padded = np.concatenate([np.zeros(MEAN_VOLUME_BARS - 1), volume])
    mean = sliding_window_view(padded, MEAN_VOLUME_BARS).mean(axis=1)
    ratio = np.where(volume > 0, volume, 1.0) / np.where(volume > 0, mean, 1.0)
    return np.where(seen >= MEAN_VOLUME_BARS, np.log(ratio), np.nan)
