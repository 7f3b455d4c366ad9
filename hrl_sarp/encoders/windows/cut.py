"""Windows of bars: where they start, which split they belong to, and how they are read.

A window is a first row of a (N, F) table; windows overlap, so copies would multiply the data. A
stretch is a longest run of bars without a border. Borders lie between two instruments (another
symbol, a contract roll), before a bar that follows more than `max_missing_bars` missing ones (a
closed session, an outage), and where a split begins or ends. Windows start every `stride` bars of a
stretch, from its first bar on; those that would run past its end are dropped and counted.

Validation and test begin one window after the split before them ends: at least `window_length`
different times of the file lie between.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from loguru import logger
from torch import Tensor

from hrl_sarp.config.encoder_schema import WindowedConfig
from hrl_sarp.errors import DataError

SPLITS = ("train", "validation", "test")
DROP_REASONS = (
    "reach the end of an instrument",
    "reach missing bars",
    "reach the end of a split",
    "lie between splits",
    "lie after the test",
)
"""Why windows are left out, as the log says it."""

_INSTRUMENT_ENDS, _BARS_MISSING, _SPLIT_ENDS, _BETWEEN, _AFTER = range(len(DROP_REASONS))
_SPLIT_SPANS = (0, 2, 4)
"""Of the spans that `_span_edges` divides time into; 1 and 3 lie between splits, 5 after them."""
_AFTER_SPAN = 5
_ONE_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Windows:
    """First rows of the windows of each split, ascending."""

    train: Int64[np.ndarray, " W"]
    validation: Int64[np.ndarray, " V"]
    test: Int64[np.ndarray, " U"]
    length: int
    """Bars of every window."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Windows left out, by `DROP_REASONS`; reasons that did not occur are not listed."""

    def counts(self) -> dict[str, int]:
        """Return the number of windows of each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}


def cut_windows(
    bars_timestamps: Shaped[np.ndarray, " N"],
    bars_instrument: Int[np.ndarray, " N"],
    config: WindowedConfig,
) -> Windows:
    """Cut the windows of the three splits, log what was dropped, and check the quality gates.

    Args:
        bars_timestamps: datetime64, sorted by instrument, then time, as in `Bars`.
        bars_instrument: index of each bar's instrument.
        config: lengths, splits and gates.

    Raises:
        DataError: if a gate is missed; names the gate, the splits, what was found.
    """
    _refuse_ratios(config)
    stretches = _find_stretches(bars_timestamps, bars_instrument, config)
    stretch, starts = _candidates(stretches, config.stride)
    span = stretches.span[stretch]
    is_whole = starts + config.window_length <= stretches.stop[stretch]
    lost = stretches.reason[stretch][~(is_whole & np.isin(span, _SPLIT_SPANS))]
    train, validation, test = (starts[is_whole & (span == code)] for code in _SPLIT_SPANS)
    windows = Windows(
        train=train,
        validation=validation,
        test=test,
        length=config.window_length,
        dropped={DROP_REASONS[i]: int(n) for i, n in enumerate(np.bincount(lost)) if n},
    )
    _log(windows)
    _refuse_few(windows, bars_timestamps, config)
    return windows


def gather(
    table: Float[Tensor, "N F"], starts: Int[Tensor, " B"], length: int
) -> Float[Tensor, "B L F"]:
    """Read windows from a table on the table's device, in one indexing operation."""
    rows = torch.arange(length, device=table.device)
    return table[starts.to(table.device).unsqueeze(1) + rows]


def append_position(windows: Float[Tensor, "B L F"]) -> Float[Tensor, "B L G"]:
    """Append `position_encoding`: 0 at the first bar of a window, 1 at the last."""
    n_windows, length, _ = windows.shape
    position = torch.linspace(0.0, 1.0, length, dtype=windows.dtype, device=windows.device)
    return torch.cat([windows, position.expand(n_windows, length).unsqueeze(-1)], dim=-1)


def bar_spacing(timestamps: Shaped[np.ndarray, " N"]) -> np.timedelta64:
    """Return the most common positive step between neighbouring bars; of equals the shortest.

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


@dataclass(frozen=True)
class _Stretches:
    """Runs of bars without a border."""

    first: Int64[np.ndarray, " S"]
    stop: Int64[np.ndarray, " S"]
    span: Int64[np.ndarray, " S"]
    reason: Int64[np.ndarray, " S"]
    """Code of `DROP_REASONS` of the windows that do not fit."""


def _find_stretches(
    timestamps: Shaped[np.ndarray, " N"], instrument: Int[np.ndarray, " N"], config: WindowedConfig
) -> _Stretches:
    changes = np.diff(instrument) != 0
    is_missing = _is_after_missing(timestamps, changes, config.max_missing_bars)
    span = np.searchsorted(_span_edges(timestamps, config), timestamps, side="right")
    borders = np.flatnonzero(changes | is_missing | (np.diff(span) != 0)) + 1
    first, stop = np.append(0, borders), np.append(borders, len(timestamps))
    # what ends a stretch stands at its last bar; the file ends where its last instrument does
    ends = [np.append(changes, True)[stop - 1], np.append(is_missing, False)[stop - 1]]
    reason = np.select(ends, [_INSTRUMENT_ENDS, _BARS_MISSING], default=_SPLIT_ENDS)
    span = span[first]
    outside = [span == _AFTER_SPAN, ~np.isin(span, _SPLIT_SPANS)]
    return _Stretches(first, stop, span, np.select(outside, [_AFTER, _BETWEEN], default=reason))


def _candidates(
    stretches: _Stretches, stride: int
) -> tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " C"]]:
    """Return the stretch and first row of every window that starts in a stretch."""
    counts = -(-(stretches.stop - stretches.first) // stride)
    stretch = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(len(stretch)) - (np.cumsum(counts) - counts)[stretch]
    return stretch, stretches.first[stretch] + stride * nth


def _is_after_missing(
    timestamps: Shaped[np.ndarray, " N"], changes: Bool[np.ndarray, " M"], most: int
) -> Bool[np.ndarray, " M"]:
    """Tell where more than `most` bars of the file's spacing are missing within an instrument."""
    return (np.diff(timestamps) > (most + 1) * bar_spacing(timestamps)) & ~changes


def _span_edges(
    timestamps: Shaped[np.ndarray, " N"], config: WindowedConfig
) -> Shaped[np.ndarray, " 5"]:
    """Return when training stops, validation starts and stops, the test starts and stops."""
    splits = config.splits
    days = np.array([splits.train_end, splits.val_end, splits.test_end], dtype="datetime64[D]")
    train_stop, val_stop, test_stop = (days + _ONE_DAY).astype(timestamps.dtype)
    val_start = _after_gap(timestamps, train_stop, val_stop, config.window_length)
    test_start = _after_gap(timestamps, val_stop, test_stop, config.window_length)
    return np.array([train_stop, val_start, val_stop, test_start, test_stop])


def _after_gap(
    timestamps: Shaped[np.ndarray, " N"], start: np.datetime64, stop: np.datetime64, n_bars: int
) -> np.datetime64:
    """Return the first time of [start, stop) that has `n_bars` others before it; stop if none."""
    times = np.sort(timestamps[(timestamps >= start) & (timestamps < stop)])
    is_new = np.diff(times, prepend=start - _ONE_DAY) > np.timedelta64(0)
    times = times[is_new]  # np.unique takes ten times as long
    return times[n_bars] if len(times) > n_bars else stop


def _log(windows: Windows) -> None:
    found = ", ".join(f"{name} {count:,}" for name, count in windows.counts().items())
    lost = ", ".join(f"{count:,} {reason}" for reason, count in windows.dropped.items())
    logger.info("windows of {} bars: {}; dropped: {}", windows.length, found, lost or "none")


def _refuse_ratios(config: WindowedConfig) -> None:
    """Refuse windows that are masked, or warm up, too long; the same holds for every split."""
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
