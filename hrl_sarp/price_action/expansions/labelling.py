"""Labelled windows from bars, by the rule of `features.labels`."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Shaped

from hrl_sarp.config.encoder_schema import ExpansionConfig, WindowedConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.cut import cut_stretches, number_stretches
from hrl_sarp.errors import DataError
from hrl_sarp.features.labels import Expansions, expansion_label
from hrl_sarp.price_action.expansions.windows import CLASSES

WINDOWS_AT_ONCE = 8192
ONLY_ONE = 1
"""Expansions that a labelled window holds."""


def label_bars(
    bars: Bars, windowed: WindowedConfig, rule: ExpansionConfig
) -> tuple[pl.DataFrame, dict[str, int | float]]:
    """Label every window with exactly one expansion.

    A window lies in one stretch of bars and in one block of `block_days`, counted from 1970-01-01;
    the windows of a block are a group, whatever their instrument. Windows with several expansions
    are left out: bars of an expansion would be called outside. So are those without.
    """
    length = windowed.window_length
    days = bars.timestamps.astype("datetime64[D]").astype(np.int64)
    block = (days // rule.block_days * rule.block_days).astype("datetime64[D]")
    keys = (bars.instrument, block)
    stretch = number_stretches(bars.timestamps, keys, windowed.max_missing_bars)
    starts, is_whole = cut_stretches(stretch, length, windowed.stride)
    starts = starts[is_whole]
    if not len(starts):
        raise DataError(
            f"expected windows of {length} bars inside blocks of {rule.block_days} days, found "
            f"none in {len(bars)} bars; raise encoders.expansion.block_days"
        )
    prices = (bars.open, bars.high, bars.low, bars.close)
    frames, counts = [], []
    for place in range(0, len(starts), WINDOWS_AT_ONCE):
        part = starts[place : place + WINDOWS_AT_ONCE]
        rows = part[:, None] + np.arange(length)
        ohlc = np.stack([price[rows] for price in prices], axis=2)
        found = expansion_label(ohlc, rule)
        frames.append(_frame(bars, block, part, ohlc, found))
        counts.append(found.count)
    frame, count = pl.concat(frames), np.concatenate(counts)
    if frame.is_empty():
        raise DataError(
            f"expected windows with one expansion, found none among {len(starts)}; change "
            "encoders.expansion or give more bars"
        )
    inside = (frame["expansion_end"] - frame["expansion_start"] + 1).to_numpy()
    return frame.drop("rising"), {
        "scanned": len(count),
        "without": int((count == 0).sum()),
        "several": int((count > ONLY_ONE).sum()),
        "labelled": frame.height,
        "share_inside": float(inside.mean() / length),
        "mean_bars": float(inside.mean()),
        "share_retracement": float((frame["label"] == CLASSES[1]).to_numpy().mean()),
        "share_rising": float(frame["rising"].to_numpy().mean()),
        "groups": frame["group"].n_unique(),
    }


def between(bars: Bars, first: date | None, last: date | None) -> Bars:
    """Choose the bars of some days."""
    day = bars.timestamps.astype("datetime64[D]")
    kept = np.ones(len(bars), dtype=bool)
    if first is not None:
        kept &= day >= np.datetime64(first)
    if last is not None:
        kept &= day <= np.datetime64(last)
    if not kept.any():
        raise DataError(
            f"expected bars between {first} and {last}, found {day.min()} to {day.max()}; change "
            "the days"
        )
    volume = None if bars.volume is None else bars.volume[kept]
    columns = ("timestamps", "instrument", "open", "high", "low", "close")
    parts = {name: getattr(bars, name)[kept] for name in columns}
    return replace(bars, volume=volume, **parts)


def draw(frame: pl.DataFrame, n_windows: int, seed: int) -> pl.DataFrame:
    """Draw some of the labelled windows."""
    if n_windows >= frame.height:
        return frame
    chosen = np.random.default_rng(seed).choice(frame.height, n_windows, replace=False)
    return frame[np.sort(chosen)]


def _frame(
    bars: Bars,
    block: Shaped[np.ndarray, " N"],
    starts: Int[np.ndarray, " P"],
    ohlc: Float[np.ndarray, "P L 4"],
    found: Expansions,
) -> pl.DataFrame:
    """Return a row for each window with one expansion, and whether it rises."""
    chosen = np.flatnonzero(found.count == ONLY_ONE)
    first = starts[chosen]
    times = bars.timestamps[first]
    names = [bars.instruments[number] for number in bars.instrument[first]]
    return pl.DataFrame(
        {
            "window_id": [f"{name} {time}" for name, time in zip(names, times, strict=True)],
            "group": block[first].astype(str),
            "time": times,
            "features": pl.Series(ohlc[chosen]).cast(pl.List(pl.List(pl.Float64))),
            "label": [CLASSES[int(after)] for after in found.is_retracement[chosen]],
            "expansion_start": found.start[chosen],
            "expansion_end": found.end[chosen],
            "rising": found.direction[chosen] > 0,
        }
    )
