"""The windows that a forecaster is trained, validated and tested on.

A window is a context and the bars to forecast after it, stored as its first row in one table. It
never crosses a hole or leaves its series. All forecast bars of a training window lie before any of
a validation window, and these before any of a test window, with an embargo of one horizon between.
A context may reach back into the span before: it was known at its origin.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from loguru import logger

from hrl_sarp.errors import DataError, UsageError
from hrl_sarp.forecasters.series import Series

TRAIN, VALIDATION, TEST, UNSEEN = SPANS = ("train", "validation", "test", "unseen")
"""`unseen` is the test span of the symbols that were left out."""
Starts = Int[np.ndarray, " W"]


@dataclass(frozen=True)
class Split:
    """When training and validation end, and which symbols are left out.

    Examples:
        >>> split = Split(np.datetime64("2018-01-01"), np.datetime64("2019-01-01"), frozenset())
        >>> split.stops
        {'train': '2018-01-01', 'validation': '2019-01-01'}
    """

    train_stop: np.datetime64
    """First time that is not trained on."""
    validation_stop: np.datetime64
    """First time that chooses nothing."""
    holdout: frozenset[str]
    """Symbols that train and choose nothing."""

    @property
    def stops(self) -> dict[str, str]:
        """Both times, as texts."""
        return {TRAIN: str(self.train_stop), VALIDATION: str(self.validation_stop)}


@dataclass(frozen=True)
class ForecastWindows:
    """A table of bars, and the first rows of the windows of each span."""

    table: Float[np.ndarray, "N 6"]
    """Bars of all series, one after the other."""
    timestamps: Shaped[np.ndarray, " N"]
    symbol: Int[np.ndarray, " N"]
    """Index into `symbols`."""
    symbols: tuple[str, ...]
    first: dict[str, Starts]
    """Ascending first rows of the windows of each of `SPANS`."""
    context: int
    """Bars that a window begins with and that a forecast reads."""
    horizon: int
    """Bars after them."""

    @property
    def length(self) -> int:
        """Bars of a window."""
        return self.context + self.horizon

    def describe(self, rows: Starts) -> str:
        """Name windows: their symbols and first times."""
        symbols = sorted({self.symbols[i] for i in self.symbol[rows]})
        times = self.timestamps[rows]
        return f"windows of {', '.join(symbols[:3])} that begin {times.min()} to {times.max()}"


def choose_holdout(
    symbols: Sequence[str], wanted: int | Sequence[str], seed: int
) -> frozenset[str]:
    """Choose the symbols that are left out of training and validation.

    Args:
        symbols: all symbols.
        wanted: how many, which a hash of seed and symbol picks; none if there are fewer than twice
            as many symbols. Or the symbols by name.
        seed: changes the pick.

    Returns:
        The symbols. A symbol's rank does not depend on the others.

    Raises:
        UsageError: if a named symbol is unknown, or all symbols are named.
    """
    if isinstance(wanted, int):
        ranked = sorted(symbols, key=lambda symbol: _rank(symbol, seed))
        if len(symbols) < 2 * wanted:
            logger.warning(
                f"no symbol is left out: {len(symbols)} symbols are fewer than twice the {wanted} "
                "of --holdout or holdout_symbols; name a smaller number to see unseen ones"
            )
            return frozenset()
        return frozenset(ranked[:wanted])
    unknown = sorted(set(wanted) - set(symbols))
    if unknown or not set(symbols) - set(wanted):
        found = f"no {', '.join(unknown)}" if unknown else "no other symbol to train on"
        raise UsageError(f"--holdout: expected some of the {len(symbols)} symbols, found {found}")
    return frozenset(wanted)


def split_by_time(
    series: Sequence[Series], shares: tuple[float, float], holdout: frozenset[str]
) -> Split:
    """Split at the times before which given shares of all bars lie.

    Args:
        series: all series; those of the holdout do not count.
        shares: of training and validation.
        holdout: symbols that are left out.

    Returns:
        The split.
    """
    times = np.sort(np.concatenate([one.timestamps for one in series if one.symbol not in holdout]))
    stops = [times[int(share * len(times))] for share in (shares[0], sum(shares))]
    return Split(stops[0], stops[1], holdout)


def join_roots(
    train: Sequence[Series], validation: Sequence[Series], shares: tuple[float, float]
) -> tuple[list[Series], tuple[np.datetime64, np.datetime64] | None]:
    """Join the series of two roots.

    Args:
        train: of the training root.
        validation: of the validation root; later than all of `train`, or of other symbols.
        shares: of training and validation, where one root has both.

    Returns:
        The joined series, and the ends of training and of validation if the roots say them: the
        validation root begins where training ends, and is divided into validation and test.

    Raises:
        UsageError: if a symbol has bars of both roots over the same time.
    """
    began = min(one.timestamps[0] for one in validation)
    if began <= max(one.timestamps[-1] for one in train):
        twice = sorted({one.symbol for one in train} & {one.symbol for one in validation})
        if twice:
            raise UsageError(
                f"--val-root: expected bars after those of --train-root or other symbols, found "
                f"bars of {', '.join(twice[:3])} from {began} in both; give one root for both, "
                "which is split by time, or files that follow each other"
            )
        logger.warning(
            "both roots cover the same time: all symbols are split by time, so that validation "
            "shows other symbols at later times"
        )
        return [*train, *validation], None
    earlier = {one.symbol: one for one in train}
    later = [_joined(earlier.pop(one.symbol, None), one) for one in validation]
    times = np.sort(np.concatenate([one.timestamps for one in validation]))
    share = shares[1] / (1 - shares[0])
    return [*earlier.values(), *later], (began, times[int(share * len(times))])


def cut_forecast_windows(
    series: Sequence[Series], split: Split, context: int, horizon: int, most: dict[str, int]
) -> ForecastWindows:
    """Cut the windows of all spans.

    Args:
        series: with bars.
        split: times and symbols.
        context: bars before the origin.
        horizon: bars after it.
        most: span -> number of windows that are kept, spread evenly over symbols and time.

    Returns:
        The windows.

    Raises:
        DataError: if training or validation has no window.
    """
    length = context + horizon
    first: dict[str, list[Starts]] = {span: [] for span in SPANS}
    offset = 0
    for one in series:
        for span, starts in _windows_of(one, split, context, horizon).items():
            first[span].append(starts + offset)
        offset += len(one)
    joined = {
        span: np.concatenate(parts) if parts else np.empty(0, np.int64)
        for span, parts in first.items()
    }
    for span in (TRAIN, VALIDATION):
        if not len(joined[span]):
            raise DataError(
                f"expected windows of {length} bars without a hole in {span} (training ends "
                f"{split.train_stop}, validation {split.validation_stop}), found none in "
                f"{len(series)} series of at most {max(map(len, series))} bars; give longer "
                "series, or lower `context` in forecasters.yaml"
            )
    kept = {span: _spread(starts, most.get(span)) for span, starts in joined.items()}
    counts = ", ".join(f"{span} {len(kept[span]):,} of {len(joined[span]):,}" for span in SPANS)
    logger.info(f"{len(series)} series, windows of {context} + {horizon} bars: {counts}")
    return ForecastWindows(
        table=np.concatenate([_bars(one) for one in series]),
        timestamps=np.concatenate([one.timestamps for one in series]),
        symbol=np.repeat(np.arange(len(series)), [len(one) for one in series]),
        symbols=tuple(one.symbol for one in series),
        first=kept,
        context=context,
        horizon=horizon,
    )


def _windows_of(one: Series, split: Split, context: int, horizon: int) -> dict[str, Starts]:
    """Find the first rows of a series' windows, by span."""
    length = context + horizon
    starts = np.arange(max(0, len(one) - length + 1))
    starts = starts[one.stretch[starts] == one.stretch[starts + length - 1]]
    target, stop = starts + context, starts + length  # first and last + 1 of the forecast bars
    ends = [
        int(np.searchsorted(one.timestamps, t)) for t in (split.train_stop, split.validation_stop)
    ]
    parts = {
        TRAIN: stop <= ends[0],
        VALIDATION: (target >= ends[0] + horizon) & (stop <= ends[1]),
        TEST: target >= ends[1] + horizon,
    }
    if one.symbol in split.holdout:
        parts = {UNSEEN: parts[TEST]}
    return {span: starts[inside] for span, inside in parts.items()}


def _spread(starts: Starts, most: int | None) -> Int[np.ndarray, " kept"]:
    if most is None or len(starts) <= most:
        return starts
    return starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]


def _joined(earlier: Series | None, later: Series) -> Series:
    if earlier is None:
        return later
    parts = [(one.timestamps, one.target, _bars(one)) for one in (earlier, later)]
    return Series(later.symbol, *(np.concatenate(both) for both in zip(*parts, strict=True)))


def _bars(one: Series) -> Float[np.ndarray, "T 6"]:
    if one.bars is None:
        raise DataError(f"{one.symbol}: expected bars to train on, found values alone")
    return one.bars


def _rank(symbol: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {symbol}".encode()).hexdigest()
