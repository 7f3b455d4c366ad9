"""Labelled windows of bars: labelling by the rule of `features.labels`, reading, and splitting.

Windows of different groups share no bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float32, Int, Shaped
from polars.exceptions import PolarsError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hrl_sarp.config.encoder_schema import ExpansionConfig, RelativityConfig, WindowedConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.cut import cut_stretches, number_stretches
from hrl_sarp.errors import DataError, MissingArtifactError
from hrl_sarp.features.labels import Expansions, expansion_label
from hrl_sarp.features.relativity import (
    POSITION,
    displacement_columns,
    relativity_features,
    table_columns,
)
from hrl_sarp.run.damage import UNREADABLE_TABLE
from hrl_sarp.run.files import sha256_file

CLASSES = ("consolidation", "retracement")
"""What came before the expansion. A class is an index into this tuple."""
COLUMNS = ("window_id", "features", "label", "expansion_start", "expansion_end")
"""Columns that a file must have; `group` is optional."""
OHLC = ("open", "high", "low", "close")
"""Prices of a bar."""
WRITER = "python scripts/label_expansions.py"
SHARED_BARS = 8
"""Windows with this many equal bars in a row count as overlapping."""
WINDOWS_AT_ONCE = 8192


@dataclass(frozen=True)
class LabelledWindows:
    """W windows of L bars, each with one expansion."""

    window_id: tuple[str, ...]
    ohlc: Float[np.ndarray, "W L 4"]
    label: Int[np.ndarray, " W"]
    """Index into `CLASSES`."""
    start: Int[np.ndarray, " W"]
    """First bar of the expansion."""
    end: Int[np.ndarray, " W"]
    """Its last bar."""
    group: Int[np.ndarray, " W"]
    """Group of each window. If the file has no groups, windows that share bars form one."""
    content_hash: str
    """SHA-256 of the file."""

    def __len__(self) -> int:
        return len(self.window_id)

    def rows(self, chosen: Int[np.ndarray, " K"]) -> "LabelledWindows":
        """Choose some of the windows."""
        columns = ("ohlc", "label", "start", "end", "group")
        kept: dict[str, Any] = {name: getattr(self, name)[chosen] for name in columns}
        return replace(self, window_id=tuple(self.window_id[row] for row in chosen), **kept)


@dataclass(frozen=True)
class GroupSplit:
    """Rows of each part; all windows of a group are in one part."""

    train: Int[np.ndarray, " A"]
    validation: Int[np.ndarray, " B"]
    test: Int[np.ndarray, " C"]


def read_labelled(path: Path, window_length: int) -> LabelledWindows:
    """Read a parquet file of labelled windows.

    Without a column `group`, windows that share bars become a group.
    """
    frame = _read_frame(path)
    ids = tuple(frame["window_id"].cast(pl.String).to_list())
    ohlc = _prices(path, frame, ids, window_length)
    names = frame["label"].cast(pl.String).str.to_lowercase().fill_null("nothing").to_list()
    numbers = {key: i for i, name in enumerate(CLASSES) for key in (name, str(i))}
    wrong = np.array([name not in numbers for name in names])
    _refuse(path, ids, wrong, f"label {' or '.join(CLASSES)} (0 or 1)", names)
    label = np.array([numbers[name] for name in names], np.int64)
    require_both_classes(label, str(path))
    start, end = (_positions(path, frame[f"expansion_{side}"], ids) for side in ("start", "end"))
    outside = (start < 0) | (end < start) | (end >= window_length)
    expected = f"0 <= expansion_start <= expansion_end < {window_length}"
    _refuse(path, ids, outside, expected, [f"{s} to {e}" for s, e in zip(start, end, strict=True)])
    if "group" in frame.columns:
        group = frame["group"].rank("dense").to_numpy().astype(np.int64) - 1
    else:
        group = overlap_groups(ohlc)
    return LabelledWindows(ids, ohlc, label, start, end, group, sha256_file(path))


def input_columns(features: Sequence[str], config: RelativityConfig) -> tuple[str, ...]:
    """Return a variant's columns, and after them the displacements that it does not name."""
    more = (name for name in displacement_columns(config) if name not in features)
    return (*features, *more)


def window_features(
    ohlc: Float[np.ndarray, "W L 4"], columns: Sequence[str], config: RelativityConfig
) -> Float32[np.ndarray, "W L F"]:
    """Compute features of each window from its own bars.

    Swings and means restart with each window, because files of labelled windows hold no earlier
    bars. In pretraining they do not restart.
    """
    known = (*table_columns(config), POSITION)
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise DataError(
            f"no feature named {', '.join(unknown)}: expected {', '.join(known)}; change "
            "`features` of the variant in encoder_config.yaml, or displacement_bars"
        )
    n_windows, length, _ = ohlc.shape
    minutes = np.tile(np.arange(length), n_windows).astype("timedelta64[m]")
    prices: dict[str, Any] = {name: ohlc[..., i].flatten() for i, name in enumerate(OHLC)}
    bars = Bars(  # of as many instruments: state starts anew at each
        timestamps=np.datetime64(0, "us") + minutes,
        instrument=np.repeat(np.arange(n_windows, dtype=np.int32), length),
        instruments=tuple(str(number) for number in range(n_windows)),
        **prices,
        volume=None,
        content_hash="",
    )
    candles = relativity_features(bars, config, length).reshape(n_windows, length, -1)
    position = np.linspace(0.0, 1.0, length, dtype=np.float32)
    table = np.concatenate(
        [candles, np.broadcast_to(position[:, None], (n_windows, length, 1))], axis=2
    )
    return table[..., [known.index(name) for name in columns]]


def split_by_group(
    group: Int[np.ndarray, " W"], val_share: float, test_share: float, seed: int
) -> GroupSplit:
    """Shuffle whole groups and give them to test, validation and training.

    A part exceeds its share by less than a group. A part of share 0 may stay empty.
    """
    names, sizes = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(sizes[order]) - sizes[order]  # windows before each group
    n_test, n_held = test_share * len(group), (test_share + val_share) * len(group)
    part = np.where(before < n_test, 0, np.where(before < n_held, 1, 2))
    of_group = np.empty(len(names), np.int64)
    of_group[order] = part
    of_window = of_group[np.searchsorted(names, group)]
    test, validation, train = (np.flatnonzero(of_window == number) for number in range(3))
    wanted = ((train, 1.0), (validation, val_share), (test, test_share))
    if any(share > 0 and len(rows) == 0 for rows, share in wanted):
        raise DataError(
            f"{len(group)} labelled windows in {len(names)} groups cannot be split into training, "
            f"validation and test of shares {1 - val_share - test_share:g}, {val_share:g} and "
            f"{test_share:g}: label windows of more days"
        )
    return GroupSplit(train, validation, test)


def require_both_classes(label: Int[np.ndarray, " W"], where: str) -> None:
    """Refuse labels of one class only."""
    found = np.unique(label)
    if len(found) < len(CLASSES):
        raise DataError(
            f"{where}: expected windows of both classes, found {len(label)} of {CLASSES[found[0]]} "
            "only; label more windows"
        )


def overlap_groups(ohlc: Float[np.ndarray, "W L 4"]) -> Int[np.ndarray, " W"]:
    """Number the sets of windows that are linked by shared bars.

    Two windows are linked if `SHARED_BARS` bars in a row are equal in all four prices.
    """
    n_windows, length, _ = ohlc.shape
    run = min(SHARED_BARS, length)
    runs = np.lib.stride_tricks.sliding_window_view(ohlc, run, axis=1)
    rows = np.ascontiguousarray(runs).reshape(n_windows * (length - run + 1), len(OHLC) * run)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, key = np.unique(keys, return_inverse=True)
    window = np.repeat(np.arange(n_windows), length - run + 1)
    ones = np.ones(len(key), np.int8)
    links = coo_array((ones, (window, n_windows + key)), shape=(n_windows + key.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][:n_windows].astype(np.int64)


def _read_frame(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; run `{WRITER}` to label windows")
    try:
        frame = pl.read_parquet(path)
    except UNREADABLE_TABLE as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: expected labelled windows as parquet, found {reason}") from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path}: columns {', '.join(missing)} are missing, found {', '.join(frame.columns)}; "
            f"expected {', '.join(COLUMNS)}, as `{WRITER}` writes"
        )
    if frame.is_empty():
        raise DataError(f"{path}: expected labelled windows, found no row; label more bars")
    unclear = frame["window_id"].is_duplicated() | frame["window_id"].is_null()
    if unclear.any():
        first = frame.filter(unclear)["window_id"][0]
        raise DataError(
            f"{path}: expected a window_id of its own for each window, found {unclear.sum()} rows "
            f"with duplicate or empty ones, the first {first!r}; number the windows"
        )
    return frame


def _prices(
    path: Path, frame: pl.DataFrame, ids: tuple[str, ...], window_length: int
) -> Float[np.ndarray, "W L 4"]:
    try:
        bars = frame["features"].cast(pl.List(pl.List(pl.Float64)))
    except PolarsError as error:
        raise DataError(
            f"{path}: expected in `features` a list of bars of four prices, found "
            f"{frame['features'].dtype}; see `{WRITER}`"
        ) from error
    lengths = bars.list.len().fill_null(0).to_numpy()
    _refuse(path, ids, lengths != window_length, f"{window_length} bars", lengths)
    flat = bars.explode()
    widths = flat.list.len().fill_null(0).to_numpy().reshape(len(ids), window_length)
    wrong = (widths != len(OHLC)).any(axis=1)
    _refuse(path, ids, wrong, "open, high, low and close in each bar", widths.min(axis=1))
    ohlc = flat.explode().to_numpy().astype(np.float64).reshape(len(ids), window_length, len(OHLC))
    high, low = ohlc[..., 1], ohlc[..., 2]
    crossed = (ohlc.max(axis=2) > high) | (ohlc.min(axis=2) < low)
    for expected, is_wrong in (
        ("positive prices", np.asarray(~(np.isfinite(ohlc) & (ohlc > 0)).all(axis=2))),
        ("no price above the high or below the low", np.asarray(crossed)),
    ):
        first = [f"another in bar {bar}" for bar in is_wrong.argmax(axis=1)]
        _refuse(path, ids, np.asarray(is_wrong.any(axis=1)), expected, first)
    return ohlc


def _positions(path: Path, column: pl.Series, ids: tuple[str, ...]) -> Int[np.ndarray, " W"]:
    numbers = column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    wrong = ~(np.isfinite(numbers) & (numbers == np.round(numbers)))
    _refuse(path, ids, wrong, f"a bar's number in {column.name}", column.to_list())
    return numbers.astype(np.int64)


def _refuse(
    path: Path,
    ids: tuple[str, ...],
    is_wrong: Bool[np.ndarray, " W"],
    expected: str,
    found: Sequence[object] | np.ndarray,
) -> None:
    if is_wrong.any():
        first = int(is_wrong.argmax())
        raise DataError(
            f"{path}: window {ids[first]}: expected {expected}, found {found[first]} "
            f"({is_wrong.sum()} of {len(ids)} windows); correct or remove them"
        )


def label_bars(
    bars: Bars, windowed: WindowedConfig, rule: ExpansionConfig
) -> tuple[pl.DataFrame, dict[str, int | float]]:
    """Label every window with exactly one expansion.

    A window lies in one stretch of bars and in one block of `block_days`, counted from 1970-01-01.
    The windows of a block form a group, whatever their instrument. Windows without an expansion
    are left out. So are those with several, because bars of the others would count as outside.

    Returns a row for each window, with the columns `COLUMNS`, its group and the time of its first
    bar. Also returns counts and shares of what was found.
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
        "several": int((count > 1).sum()),
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
    chosen = np.flatnonzero(found.count == 1)
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
