"""Rules that find expansions without a network; a model is worth something if it beats them.

`fixed_interval` says the same bars of every window. `largest_move` reads the closes, but no label:
only its number of bars is chosen on labels.
"""

import numpy as np
from jaxtyping import Float, Int

from hrl_sarp.features.relativity import average_true_range
from hrl_sarp.price_action.expansions.measures import RUN_BARS, Found
from hrl_sarp.price_action.expansions.windows import LabelledWindows

RULES = ("fixed interval", "largest move")
"""What `answers` gives."""


def answers(
    labels: LabelledWindows, windows: LabelledWindows, atr_bars: int
) -> dict[str, tuple[Found, int]]:
    """Ask every rule of `RULES` about some windows.

    Args:
        labels: windows whose labels the rules may read.
        windows: windows that are asked about.
        atr_bars: bars of the ATR that moves are measured in.

    Returns:
        Rule -> its answers, and how many bars it says.
    """
    first, n_bars = choose_interval(labels)
    of_move = choose_bars(labels, atr_bars)
    starts = largest_move(windows.ohlc, of_move, atr_bars)
    length = windows.ohlc.shape[1]
    return {
        RULES[0]: (as_found(np.full(len(windows), first), n_bars, length), n_bars),
        RULES[1]: (as_found(starts, of_move, length), of_move),
    }


def largest_move(
    ohlc: Float[np.ndarray, "W L 4"], n_bars: int, atr_bars: int
) -> Int[np.ndarray, " W"]:
    """Find the `n_bars` over which the close moves farthest, up or down, in each window.

    The unit is the ATR of the bar before them. They begin where that ATR is complete.

    Args:
        ohlc: windows of bars.
        n_bars: length of the run of bars.
        atr_bars: bars of the ATR.

    Returns:
        The first bar of the run, from the start of the window.
    """
    n_windows, length, _ = ohlc.shape
    window = np.repeat(np.arange(n_windows, dtype=np.int32), length)
    high, low, close = (np.ascontiguousarray(ohlc[..., k]).ravel() for k in (1, 2, 3))
    atr = average_true_range(high, low, close, window, atr_bars).reshape(n_windows, length)
    base = np.arange(atr_bars, length - n_bars)
    moves = np.abs(ohlc[:, base + n_bars, 3] - ohlc[:, base, 3])
    unit = atr[:, base]
    # where nothing has moved, a move has no unit
    far = np.divide(moves, unit, out=np.zeros_like(moves), where=unit > 0.0)
    return base[far.argmax(axis=1)] + 1


def choose_bars(labels: LabelledWindows, atr_bars: int) -> int:
    """Choose the length for which `largest_move` has the best mean span F1 on labels.

    Args:
        labels: windows whose labels may be read.
        atr_bars: bars of the ATR.

    Returns:
        One of `RUN_BARS`, the shortest of equals.
    """
    scores = [
        span_f1(largest_move(labels.ohlc, n, atr_bars), n, labels).mean()
        for n in RUN_BARS
        if n < labels.ohlc.shape[1] - atr_bars
    ]
    return RUN_BARS[int(np.argmax(scores))]


def choose_interval(labels: LabelledWindows) -> tuple[int, int]:
    """Choose the interval that has the best mean span F1 if it is said of every window.

    Args:
        labels: windows whose labels may be read.

    Returns:
        Its first bar and its number of bars.
    """
    length = labels.ohlc.shape[1]
    choices = [(first, n) for n in RUN_BARS for first in range(length - n + 1)]
    scores = [span_f1(np.full(len(labels), first), n, labels).mean() for first, n in choices]
    return choices[int(np.argmax(scores))]


def span_f1(
    first: Int[np.ndarray, " W"], n_bars: int, labels: LabelledWindows
) -> Float[np.ndarray, " W"]:
    """Measure a run of bars in each window against the bars of its expansion.

    Args:
        first: first bar of the run.
        n_bars: its length.
        labels: where the expansions are.

    Returns:
        F1 of each window, as `measures.span_scores` averages it.
    """
    last = np.minimum(first + n_bars - 1, labels.end)
    shared = np.clip(last - np.maximum(first, labels.start) + 1, 0, None)
    return 2.0 * shared / (n_bars + labels.end - labels.start + 1)


def as_found(first: Int[np.ndarray, " W"], n_bars: int, length: int) -> Found:
    """Say a run of bars in the words of a model that has no answer for the type.

    Args:
        first: first bar of the run in each window.
        n_bars: its length.
        length: bars of a window.

    Returns:
        Probability 1 on the bars of the run, and its center and length.
    """
    bars = np.arange(length)
    inside = (bars >= first[:, None]) & (bars < first[:, None] + n_bars)
    center = (first + (n_bars - 1) / 2) / (length - 1)
    pointers = np.stack([center, np.full(len(first), n_bars / length)], axis=1)
    return Found(None, pointers, inside.astype(np.float64))
