"""What each encoder reads of the daily bars of a panel; every row reads its stock's rows <= t."""

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.features import candles
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS, relativity_features

CLOSE, VOLUME, RANGE = "close", "volume", "atr_14"
MEAN_VOLUME_BARS = 20


def panel_columns(kind: EncoderKind) -> tuple[str, ...]:
    """Name the columns of `panel_features`."""
    if kind == "jade":
        return tuple(PRETRAINING_COLUMNS)
    return tuple(_relative_name(name) for name in candles.COLUMNS)


def panel_features(kind: EncoderKind, bars: Bars, config: RunConfig) -> Float[np.ndarray, "N F"]:
    """Compute the inputs of an encoder, float32; NaN while an average has not seen enough bars.

    Jade reads relativity features. The transformer reads the columns of a chart without their
    levels, so that one table serves every window: prices, averages, bands and range over the bar's
    own close, the close over the one before, volume over its mean of 20 bars.
    """
    if kind == "jade":
        length = config.encoders.panel.window_length
        table = relativity_features(bars, config.windowed.feature_config, length)
        return np.ascontiguousarray(table[:, : len(PRETRAINING_COLUMNS)])
    return _relative_candles(bars)


def _relative_name(name: str) -> str:
    if name == CLOSE:
        return "log_return"
    if name == VOLUME:
        return "log_volume_over_mean"
    return f"{name}_over_close" if name in candles.LEVELS or name == RANGE else name


def _relative_candles(bars: Bars) -> Float[np.ndarray, "N 14"]:
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


def _log_over_mean(
    volume: Float[np.ndarray, " N"], is_first: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Return log(volume / mean of the last bars); 0 where it is 0, NaN before enough bars."""
    row = np.arange(len(volume))
    seen = row - np.maximum.accumulate(np.where(is_first, row, 0)) + 1
    # summed window by window: a running sum would carry one stock's later bars into the next stock
    padded = np.concatenate([np.zeros(MEAN_VOLUME_BARS - 1), volume])
    mean = sliding_window_view(padded, MEAN_VOLUME_BARS).mean(axis=1)
    ratio = np.where(volume > 0, volume, 1.0) / np.where(volume > 0, mean, 1.0)
    return np.where(seen >= MEAN_VOLUME_BARS, np.log(ratio), np.nan)
