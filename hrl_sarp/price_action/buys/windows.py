"""Cuts, splits and scales windows of candles, labelled by whether a buy is worth it.

A window is stored as its first row in the table of candles. Prices are divided by the window's
last close when a batch is gathered, so that one table serves all windows.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from loguru import logger
from torch import Tensor

from hrl_sarp.config.encoder_schema import EncodersConfig, PriceActionConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.cut import cut_stretches, gather, inside_spans, number_stretches
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import DataError
from hrl_sarp.features import candles, labels

SPANS = ("train", "validation", "test")
HOURS = 24
_CLOSE = candles.COLUMNS.index("close")
_VOLUME = candles.COLUMNS.index("volume")
_PRICED = [candles.COLUMNS.index(name) for name in (*candles.LEVELS, "atr_14")]
_FITTED_AT_ONCE = 4096
"""Windows in memory at a time while means and deviations are computed."""

TARGET = "target"
"""Column of a file that says itself which buys are worth it: 1, 0, or nothing where not known."""
OWN_COLUMNS = (*candles.COLUMNS[candles.COLUMNS.index("rsi_14") :], TARGET)
"""Columns that a file of candles may bring itself; they replace what would be computed."""

Table = Float[Tensor, "N F"]
Starts = Int[np.ndarray, " W"]
Parts = dict[str, Int[np.ndarray, " _"]]
"""First rows by span."""


@dataclass(frozen=True)
class CandleWindows:
    """A file's candles, the label of each row, and the windows of each span."""

    bars: Bars
    table: Float[np.ndarray, "N F"]
    """Columns `candles.COLUMNS`, unscaled; NaN while an indicator warms up."""
    label: Int[np.ndarray, " N"]
    """1 for a buy that is worth it, 0 for one that is not, -1 where it is not known: the file's
    column `TARGET`, else the rule."""
    fall: Int[np.ndarray, " N"]
    """As the rule's label, for a fall as large as the rise of a buy."""
    first: Parts
    """First rows of the windows of each span, in the order of time."""
    to_target: int
    """Rows from a window's first row to the row whose label it predicts."""
    length: int
    dropped: dict[str, int]
    """Windows that were left out, by reason."""

    def targets(self, span: str) -> Int[np.ndarray, " W"]:
        """Find the rows whose labels the windows of a span predict, in the order of time."""
        return self.first[span] + self.to_target

    def hours(self, span: str) -> Int[np.ndarray, " W"]:
        """Tell the hour of the day, from 0 to 23, of each of those rows."""
        times = self.bars.timestamps[self.targets(span)]
        found: Int[np.ndarray, " W"] = times.astype("datetime64[h]").astype(np.int64) % HOURS
        return found

    def labels(self, span: str) -> Int[np.ndarray, " W"]:
        """Look up what the windows of a span should predict."""
        return self.label[self.targets(span)]


@dataclass(frozen=True)
class CandleScaling:
    """Turns gathered candles into inputs of the network.

    With relative levels, prices and ATR are divided by the window's last close and volume becomes
    log(1 + volume / mean volume of the window). Then every column is z-scored.
    """

    levels: Literal["relative", "raw"]
    scaler: Scaler
    """Means and deviations of all candles of the training windows."""

    def apply(self, windows: Float[Tensor, "B L F"]) -> Float[Tensor, "B L F"]:
        """Turn raw candles into inputs of the network."""
        return self.scaler.apply_to(self.relate(windows))

    def relate(self, windows: Float[Tensor, "B L F"]) -> Float[Tensor, "B L F"]:
        """Divide prices and volume by those of their window, if levels are relative."""
        return relate_to_last_close(windows) if self.levels == "relative" else windows


def relate_to_last_close(windows: Float[Tensor, "B L F"]) -> Float[Tensor, "B L F"]:
    """Divide prices and ATR by the last close; replace volume by log(1 + volume / its mean).

    Volume is 0 throughout a window without any.
    """
    factor = torch.ones_like(windows[:, 0])
    factor[:, _PRICED] = 1.0 / windows[:, -1, _CLOSE, None]
    mean_volume = windows[:, :, _VOLUME].mean(dim=1)
    traded = mean_volume > 0.0
    factor[:, _VOLUME] = torch.where(traded, 1.0 / torch.where(traded, mean_volume, 1.0), 0.0)
    related = windows * factor.unsqueeze(1)
    related[:, :, _VOLUME] = torch.log1p(related[:, :, _VOLUME])
    return related


def fit_scaling(
    table: Table, starts: Int[Tensor, " W"], length: int, levels: Literal["relative", "raw"]
) -> CandleScaling:
    """Compute means and deviations over all candles of the windows that begin at `starts`."""
    n_columns = table.shape[1]
    plain = CandleScaling(levels, Scaler.of(np.zeros(n_columns), np.ones(n_columns)))
    sums = torch.zeros(2, n_columns, dtype=torch.float64, device=table.device)
    # centred on the first window, because sums of squared raw prices would lose digits
    centre = plain.relate(gather(table, starts[:1], length)).double().mean(dim=(0, 1))
    for block in starts.split(_FITTED_AT_ONCE):
        values = plain.relate(gather(table, block, length)).double() - centre
        sums += torch.stack([values.sum(dim=(0, 1)), values.square().sum(dim=(0, 1))])
    mean, square = sums / (len(starts) * length)
    deviation = (square - mean.square()).clamp_min(0.0).sqrt()
    scaler = Scaler.of((centre + mean).cpu().numpy(), deviation.cpu().numpy())
    return CandleScaling(levels, scaler)


def cut_candle_windows(bars: Bars, config: EncodersConfig) -> CandleWindows:
    """Compute features and labels, cut windows at every candle and split them by time.

    Training labels end before the first candle of any validation window, and validation labels
    before the first of any test window. A span with too few windows, or with labels of one class,
    is refused.

    Columns of `OWN_COLUMNS` in the file replace those that would be computed, and a column
    `TARGET` the labels. They are taken to be known `horizon` candles after their row.
    """
    task, length = config.price_action, config.transformer.window_length
    table = candles.candle_table(bars)
    for name in bars.own.keys() & set(candles.COLUMNS):
        table[:, candles.COLUMNS.index(name)] = bars.own[name]
    horizon_stretch, window_stretch = (
        number_stretches(bars.timestamps, (bars.instrument,), most)
        for most in (task.max_missing_in_horizon, task.max_missing_in_window)
    )
    true_range = table[:, candles.COLUMNS.index("atr_14")]
    label, fall = (
        labels.buy_label(price, true_range, horizon_stretch, task.horizon, task.threshold_atr)
        for price in (bars.close, -bars.close)
    )
    if TARGET in bars.own:
        label = _own_label(bars, task.horizon)
    _tell_own_columns(bars, task)
    to_target = length - 1 + task.target_offset
    usable, dropped = _usable_windows(table, label, window_stretch, length, to_target)
    first = _split(bars, usable, to_target, task)
    dropped["between the spans or by train_stride"] = len(usable) - sum(map(len, first.values()))
    windows = CandleWindows(bars, table, label, fall, first, to_target, length, dropped)
    _require_enough(windows, task)
    return windows


def _own_label(bars: Bars, horizon: int) -> Int[np.ndarray, " N"]:
    """Read the file's labels; anything but 0, 1 and a missing value is refused.

    Those of the last candles, which are known after the file ends, are left out.
    """
    target = bars.own[TARGET]
    known = np.isfinite(target)
    wrong = known & (target != 0.0) & (target != 1.0)  # exact: they are written as 0 and 1
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{bars.file}: column {TARGET}: expected 1 for a buy that is worth it, 0 for others, "
            f"found {target[row]:g} in {int(wrong.sum())} bars, the first at "
            f"{bars.timestamps[row]}; correct the column, or rename it to have labels computed"
        )
    known[max(0, len(known) - horizon) :] = False
    return np.where(known, target, labels.INVALID_CLASS).astype(np.int64)


def _tell_own_columns(bars: Bars, task: PriceActionConfig) -> None:
    indicators = [name for name in OWN_COLUMNS if name in bars.own and name != TARGET]
    if indicators:
        logger.info(f"indicators of the file: {', '.join(indicators)}; the others are computed")
    if TARGET in bars.own:
        logger.info(
            f"labels of the file: column {TARGET}, taken to be known {task.horizon} candles after "
            "their row (encoders.price_action.horizon)"
        )


def _usable_windows(
    table: Float[np.ndarray, "N F"],
    label: Int[np.ndarray, " N"],
    stretch: Int[np.ndarray, " N"],
    length: int,
    to_target: int,
) -> tuple[Starts, dict[str, int]]:
    """Return first rows of the complete windows, and counts of the others by reason."""
    first, is_whole = cut_stretches(stretch, to_target + 1, stride=1)
    dropped = {"across a border": int((~is_whole).sum())}
    first = first[is_whole]
    incomplete = np.concatenate([[0], np.cumsum(~np.isfinite(table).all(axis=1))])
    problems = {
        "indicators warming up": incomplete[first + length] > incomplete[first],
        "label ends across a border": label[first + to_target] == labels.INVALID_CLASS,
    }
    usable = np.ones(len(first), dtype=bool)
    for reason, found in problems.items():
        dropped[reason] = int((usable & found).sum())
        usable &= ~found
    return first[usable], dropped


def _split(bars: Bars, usable: Starts, to_target: int, task: PriceActionConfig) -> Parts:
    """Split by time, and leave out windows that reach across a boundary."""
    empty = dict.fromkeys(SPANS, usable[:0])
    if not len(usable):
        return empty
    usable = usable[np.argsort(bars.timestamps[usable + to_target], kind="stable")]
    begin = bars.timestamps[usable]
    known = bars.timestamps[usable + to_target + task.horizon]  # when the label is
    target = bars.timestamps[usable + to_target]
    shares = (task.train_share, task.train_share + task.validation_share)
    bounds = [target[int(share * len(target))] for share in shares]
    spans = ((begin.min(), bounds[0]), (bounds[0], bounds[1]), (bounds[1], known.max() + 1))
    parts = {
        span: usable[inside]
        for span, inside in zip(SPANS, inside_spans(begin, known, spans), strict=True)
    }
    # by row: by order in time, a stride of 2 would leave out one of two instruments
    parts["train"] = parts["train"][parts["train"] % task.train_stride == 0]
    return parts


def _require_enough(windows: CandleWindows, task: PriceActionConfig) -> None:
    """Log what each span holds; refuse too few windows, and labels of one class."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in windows.dropped.items())
    logger.info(f"windows left out: {left_out}")
    for span in SPANS:
        found = windows.labels(span)
        if len(found) < task.min_windows:
            raise DataError(
                f"{len(windows.label)} candles: expected at least {task.min_windows} windows of "
                f"{windows.length} in {span}, found {len(found)} (left out: {left_out}); give a "
                "longer file, or lower encoders.price_action.min_windows"
            )
        if found.min() == found.max():
            raise DataError(
                f"{span}: expected buys that are worth it and others, found {int(found.sum())} of "
                f"{len(found)}; change encoders.price_action.threshold_atr or give a longer file"
            )
        times = windows.bars.timestamps[windows.targets(span)]
        logger.info(
            f"{span}: {len(found)} windows, {found.mean():.2%} buys, targets {times[0]} to "
            f"{times[-1]}"
        )
