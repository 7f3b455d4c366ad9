"""Cuts bars into windows: their first rows, the borders they never cross, and their split.

A window is stored as its first row in a (N, F) table, because copies of overlapping windows would
multiply the data. Rows between two borders are a stretch (`number_stretches`). Windows begin every
`stride` rows of a stretch (`cut_stretches`). A window belongs to a split only if all bars that it
holds or predicts lie in it (`inside_spans`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, Shaped
from loguru import logger
from torch import Tensor

from hrl_sarp.config.encoder_schema import WindowedConfig
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import DataError

SPLITS = ("train", "validation", "test")
DROP_REASONS = (
    "reach the end of an instrument",
    "reach missing bars",
    "reach the end of a split",
    "lie between splits",
    "lie after the test",
)
"""Reasons for leaving out windows, as the log words them."""

_SPLIT_SPANS = (0, 2, 4)
"""Spans of the splits among the six of `_span_edges`; 1 and 3 lie between splits, 5 after them."""
_AFTER_SPAN = 5
_ONE_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Windows:
    """The windows of each split, as ascending first rows."""

    train: Int64[np.ndarray, " W"]
    validation: Int64[np.ndarray, " V"]
    test: Int64[np.ndarray, " U"]
    length: int
    """Bars of every window."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of windows left out, if there are any."""

    def counts(self) -> dict[str, int]:
        """Return the number of windows of each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}


@dataclass(frozen=True)
class WindowTable:
    """Scaled bars on a device, and the first rows of the windows of each split.

    Columns are in standard deviations of the training bars, so every column has the same weight in
    a loss.
    """

    table: Float[Tensor, "N F"]
    train: Int[Tensor, " W1"]
    validation: Int[Tensor, " W2"]
    test: Int[Tensor, " W3"]
    """May be empty."""
    length: int
    """Bars of a window."""

    @classmethod
    def place(
        cls, scaled: Float32[np.ndarray, "N F"], windows: Windows, device: torch.device
    ) -> "WindowTable":
        """Put scaled bars and the windows of all splits on a device."""
        parts = (scaled, *(getattr(windows, name) for name in SPLITS))
        table, train, validation, test = (torch.from_numpy(part).to(device) for part in parts)
        return cls(table, train, validation, test, windows.length)

    @property
    def n_features(self) -> int:
        """Columns of the table."""
        return self.table.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the table and the windows are."""
        return self.table.device


def number_stretches(
    ticks: Shaped[np.ndarray, " N"],
    keys: Sequence[Shaped[np.ndarray, " N"]],
    max_missing: int,
    spacing: np.timedelta64 | int | None = None,
) -> Int64[np.ndarray, " N"]:
    """Number the stretches: the runs of rows without a border, from 0.

    A border lies before a row at which a key changes (another instrument, a contract roll, a new
    group). It also lies before a row that follows more than `max_missing` missing ticks (a closed
    session, an outage). Only rows up to it decide whether a border lies before a row. Ticks ascend
    while the keys stay the same. The default of `spacing` is `bar_spacing`.

    Raises:
        DataError: if the spacing is unknown, because no row follows another.
    """
    step = bar_spacing(ticks) if spacing is None else spacing
    is_border = np.diff(ticks) > (max_missing + 1) * step
    for key in keys:
        is_border |= key[1:] != key[:-1]
    return np.concatenate([[0], np.cumsum(is_border)])


def cut_stretches(
    stretch: Int64[np.ndarray, " N"], length: int, stride: int
) -> tuple[Int64[np.ndarray, " C"], Bool[np.ndarray, " C"]]:
    """Begin a window at every `stride`-th row of each stretch, the first one included.

    `length` includes the rows that a window only predicts.

    Returns:
        Ascending first rows of all windows, and whether each ends inside its stretch.
    """
    first = np.flatnonzero(np.diff(stretch, prepend=-1))
    stop = np.append(first[1:], len(stretch))
    counts = -(-(stop - first) // stride)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(first, counts) + stride * nth
    return starts, starts + length <= np.repeat(stop, counts)


def inside_spans(
    begin: Shaped[np.ndarray, " W"],
    known: Shaped[np.ndarray, " W"],
    spans: Sequence[tuple[np.generic | int, np.generic | int]],
) -> list[Bool[np.ndarray, " W"]]:
    """Mark the windows that lie inside each span (first time, first time after it).

    A window begins at `begin`, and its last bar or label is known at `known`. A window that crosses
    a bound belongs to no span, so the spans are purged.
    """
    return [(begin >= start) & (known < stop) for start, stop in spans]


def cut_windows(
    bars_timestamps: Shaped[np.ndarray, " N"],
    bars_instrument: Int[np.ndarray, " N"],
    config: WindowedConfig,
) -> Windows:
    """Cut the windows of the three splits, log the dropped ones, and check the quality gates.

    The ends of splits are borders. At least `window_length` different times of the file lie between
    two splits.

    Raises:
        DataError: if a gate fails; names the gate, the splits and the values found.
    """
    _refuse_ratios(config)
    edges = _span_edges(bars_timestamps, config)
    span = np.searchsorted(edges, bars_timestamps, side="right")
    stretch = number_stretches(bars_timestamps, (bars_instrument, span), config.max_missing_bars)
    starts, is_whole = cut_stretches(stretch, config.window_length, config.stride)
    at = span[starts]
    train, validation, test = (starts[is_whole & (at == code)] for code in _SPLIT_SPANS)
    is_lost = ~(is_whole & np.isin(at, _SPLIT_SPANS))
    lost, at = starts[is_lost], at[is_lost]
    # the row after a stretch tells why it ends; after the last row the instrument ends, too
    stop = np.searchsorted(stretch, stretch[lost], side="right")
    after = np.minimum(stop, len(stretch) - 1)
    is_end = (stop == len(stretch)) | (bars_instrument[after] != bars_instrument[stop - 1])
    is_split_end = span[after] != span[stop - 1]
    longest = (config.max_missing_bars + 1) * bar_spacing(bars_timestamps)
    is_missing = bars_timestamps[after] - bars_timestamps[stop - 1] > longest
    causes = [is_end, is_missing, is_split_end, ~np.isin(at, _SPLIT_SPANS), at == _AFTER_SPAN]
    order = [4, 3, 0, 1, 2]  # a window outside the splits has that reason before any other
    reason = np.select([causes[code] for code in order], order)
    windows = Windows(
        train=train,
        validation=validation,
        test=test,
        length=config.window_length,
        dropped={DROP_REASONS[i]: int(n) for i, n in enumerate(np.bincount(reason)) if n},
    )
    found = ", ".join(f"{name} {count:,}" for name, count in windows.counts().items())
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in windows.dropped.items())
    logger.info("windows of {} bars: {}; dropped: {}", windows.length, found, left_out or "none")
    _refuse_few(windows, bars_timestamps, config)
    return windows


def gather(
    table: Float[Tensor, "N F"], starts: Int[Tensor, " B"], length: int
) -> Float[Tensor, "B L F"]:
    """Copy windows out of a table in one indexing operation, on its device."""
    rows = torch.arange(length, device=table.device)
    return table[starts.to(table.device).unsqueeze(1) + rows]


def fit_scaler(features: Float32[np.ndarray, "N F"], windows: Windows) -> Scaler:
    """Measure the columns over the bars of the training windows, each bar once."""
    edges = np.zeros(len(features) + 1, dtype=np.int64)
    np.add.at(edges, windows.train, 1)
    np.add.at(edges, windows.train + windows.length, -1)
    return Scaler.fit(features[edges.cumsum()[:-1] > 0])


def bar_spacing(timestamps: Shaped[np.ndarray, " N"]) -> np.timedelta64:
    """Return the most common positive step between neighbouring bars, the shortest of equals.

    Raises:
        DataError: if no bar follows another.
    """
    steps = np.diff(timestamps)
    steps, counts = np.unique(steps[steps > np.timedelta64(0)], return_counts=True)
    if not len(steps):
        raise DataError(
            f"expected at least two bars of different times to cut windows, found "
            f"{len(timestamps)} bars; give a longer file"
        )
    return steps[counts.argmax()]


def _span_edges(
    timestamps: Shaped[np.ndarray, " N"], config: WindowedConfig
) -> Shaped[np.ndarray, " 5"]:
    """Return five times: end of training, start and end of validation, start and end of test."""
    splits = config.splits
    days = np.array([splits.train_end, splits.val_end, splits.test_end], dtype="datetime64[D]")
    train_stop, val_stop, test_stop = (days + _ONE_DAY).astype(timestamps.dtype)
    val_start = _after_gap(timestamps, train_stop, val_stop, config.window_length)
    test_start = _after_gap(timestamps, val_stop, test_stop, config.window_length)
    return np.array([train_stop, val_start, val_stop, test_start, test_stop])


def _after_gap(
    timestamps: Shaped[np.ndarray, " N"], start: np.datetime64, stop: np.datetime64, n_bars: int
) -> np.datetime64:
    """Return the first time in [start, stop) after `n_bars` different ones, or stop."""
    times = np.sort(timestamps[(timestamps >= start) & (timestamps < stop)])
    is_new = np.diff(times, prepend=start - _ONE_DAY) > np.timedelta64(0)
    times = times[is_new]  # np.unique takes ten times as long
    return times[n_bars] if len(times) > n_bars else stop


def _refuse_ratios(config: WindowedConfig) -> None:
    """Refuse a mask ratio or a warm-up beyond the gates."""
    gates, length = config.gates, config.window_length
    valid = max(0, length - config.warmup_bars) / length
    problems = []
    if config.mask_ratio > gates.max_mask_ratio:
        problems.append(
            f"gate max_mask_ratio: expected at most {gates.max_mask_ratio:g} in train, validation "
            f"and test, found mask_ratio {config.mask_ratio:g}"
        )
    if valid < gates.min_valid_ratio:
        problems.append(
            f"gate min_valid_ratio: expected at least {gates.min_valid_ratio:g} in train, "
            f"validation and test, found {valid:.4g} ({config.warmup_bars} of {length} bars are "
            "warm-up)"
        )
    if problems:
        raise DataError(f"{'; '.join(problems)}; change these values or the gates (windowed.yaml)")


def _refuse_few(
    windows: Windows, timestamps: Shaped[np.ndarray, " N"], config: WindowedConfig
) -> None:
    least, counts = config.gates.min_windows, windows.counts()
    few = [f"{name} {count}" for name, count in counts.items() if count < least]
    if not few:
        return
    lost = ", ".join(f"{count} {reason}" for reason, count in windows.dropped.items())
    ends = config.splits
    raise DataError(
        f"gate min_windows: expected at least {least} windows of {windows.length} bars in each "
        f"split, found {', '.join(few)} (dropped: {lost or 'none'}) in {len(timestamps)} bars from "
        f"{timestamps.min()} to {timestamps.max()} with splits that end {ends.train_end}, "
        f"{ends.val_end}, {ends.test_end}; give more bars, or change splits, stride, "
        "max_missing_bars or the gate (windowed.yaml)"
    )
