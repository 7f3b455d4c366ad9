"""Labelled windows from bars, by the rule of `features.labels`."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int, Shaped

from hrl_sarp.config.encoder_schema import ExpansionConfig, WindowedConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.cut import cut_stretches, number_stretches
from hrl_sarp.errors import DataError
from hrl_sarp.features.labels import Expansions, expansion_label
from hrl_sarp.price_action.expansions.windows import CLASSES

WINDOWS_AT_ONCE = 8192
ONLY_ONE = 1
"""Expansions that a labelled window holds."""


@dataclass(frozen=True)
class BaseRates:
    """What the rule found among the windows it looked at."""

    scanned: int
    without: int
    """Windows without an expansion."""
    several: int
    """With more than one that do not overlap."""
    labelled: int
    share_inside: float
    """Of the bars of labelled windows: those of expansions."""
    mean_bars: float
    """Of an expansion."""
    share_retracement: float
    share_rising: float
    groups: int

    def as_plain(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)


def label_bars(
    bars: Bars, windowed: WindowedConfig, rule: ExpansionConfig
) -> tuple[pl.DataFrame, BaseRates]:
    """Label every window with exactly one expansion.

    A window lies in one stretch of bars and in one block of `block_days`, counted from 1970-01-01;
    the windows of a block are a group, whatever their instrument. Windows with several expansions
    are left out: bars of an expansion would be called outside. So are those without.

    Returns:
        window_id, group, time (of the first bar), features (open, high, low, close of each bar),
        label, expansion_start, expansion_end; and what was found.

    Raises:
        DataError: if no window fits into a block, or none has exactly one expansion.
    """
    block = _blocks(bars.timestamps, rule.block_days)
    keys = (bars.instrument, block)
    stretch = number_stretches(bars.timestamps, keys, windowed.max_missing_bars)
    starts, is_whole = cut_stretches(stretch, windowed.window_length, windowed.stride)
    starts = starts[is_whole]
    if not len(starts):
        raise DataError(
            f"expected windows of {windowed.window_length} bars inside blocks of {rule.block_days} "
            f"days, found none in {len(bars)} bars; raise encoders.expansion.block_days"
        )
    length = windowed.window_length
    found = [_look(bars, part, length, rule) for part in _parts(starts)]
    frame = pl.concat([part for part, _ in found])
    if frame.is_empty():
        raise DataError(
            f"expected windows with one expansion, found none among {len(starts)}; change "
            "encoders.expansion or give more bars"
        )
    count = np.concatenate([expansions.count for _, expansions in found])
    return frame.drop("rising"), _rates(frame, count, length)


def between(bars: Bars, first: date | None, last: date | None) -> Bars:
    """Return the bars of the days from `first` to `last`; None is open.

    Raises:
        DataError: if there are none.
    """
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
    """Return that many of the windows, drawn by the seed and in their order; all if fewer."""
    if n_windows >= frame.height:
        return frame
    chosen = np.random.default_rng(seed).choice(frame.height, n_windows, replace=False)
    return frame[np.sort(chosen)]


def _blocks(timestamps: Shaped[np.ndarray, " N"], days: int) -> Shaped[np.ndarray, " N"]:
    """Return the first day of each bar's block."""
    day = timestamps.astype("datetime64[D]").astype(np.int64)
    return (day // days * days).astype("datetime64[D]")


def _parts(starts: Int[np.ndarray, " W"]) -> Iterator[Int[np.ndarray, " P"]]:
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        yield starts[first : first + WINDOWS_AT_ONCE]


def _look(
    bars: Bars, starts: Int[np.ndarray, " P"], length: int, rule: ExpansionConfig
) -> tuple[pl.DataFrame, Expansions]:
    rows = starts[:, None] + np.arange(length)
    prices = (bars.open, bars.high, bars.low, bars.close)
    ohlc = np.stack([price[rows] for price in prices], axis=2)
    found = expansion_label(ohlc, rule)
    chosen = np.flatnonzero(found.count == ONLY_ONE)
    first = starts[chosen]
    times = bars.timestamps[first]
    names = [bars.instruments[number] for number in bars.instrument[first]]
    features = pl.Series(ohlc[chosen]).cast(pl.List(pl.List(pl.Float64)))
    frame = pl.DataFrame(
        {
            "window_id": [f"{name} {time}" for name, time in zip(names, times, strict=True)],
            "group": _blocks(times, rule.block_days).astype(str),
            "time": times,
            "features": features,
            "label": [CLASSES[int(after)] for after in found.is_retracement[chosen]],
            "expansion_start": found.start[chosen],
            "expansion_end": found.end[chosen],
            "rising": found.direction[chosen] > 0,
        }
    )
    return frame, found


def _rates(frame: pl.DataFrame, count: Int[np.ndarray, " W"], length: int) -> BaseRates:
    bars = (frame["expansion_end"] - frame["expansion_start"] + 1).to_numpy()
    return BaseRates(
        scanned=len(count),
        without=int((count == 0).sum()),
        several=int((count > ONLY_ONE).sum()),
        labelled=frame.height,
        share_inside=float(bars.mean() / length),
        mean_bars=float(bars.mean()),
        share_retracement=float((frame["label"] == CLASSES[1]).to_numpy().mean()),
        share_rising=float(frame["rising"].to_numpy().mean()),
        groups=frame["group"].n_unique(),
    )
