"""What Kronos reads of a history: six columns in units of its context, and the parts of times."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from hrl_sarp.forecasters.contract import BAR_COLUMNS, CLOSE, History

CLIP = 5.0
"""Normalised values of published weights are cut to +-5."""
SCALE_FLOOR = 1e-5
"""Added to deviations, so that a constant column becomes 0."""
SMALL_PRICE = 0.1
"""Closes below it on average are told in a unit in which they are above it: the floor would hide
how they move. Published weights read all others as their makers do."""
VOLUME, AMOUNT = BAR_COLUMNS.index("volume"), BAR_COLUMNS.index("amount")
N_PRICES = CLOSE + 1
THURSDAY = 3
"""Weekday of 1 January 1970, where Monday is 0."""


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of each column of a context.

    Examples:
        >>> scale = scale_of(np.array([[1.0] * 6, [3.0] * 6], dtype=np.float32))
        >>> scale.mean[0], scale.deviation[0]
        (np.float32(2.0), np.float32(1.0))
    """

    mean: Float[np.ndarray, " columns"]
    deviation: Float[np.ndarray, " columns"]
    """Of the population (ddof 0)."""

    @property
    def unit(self) -> Float[np.ndarray, " columns"]:
        """What bars are divided by: deviations, and the floor, which is less for small prices."""
        floor = np.full_like(self.mean, SCALE_FLOOR)
        if 0 < self.mean[CLOSE] < SMALL_PRICE:
            floor[:N_PRICES] *= 10.0 ** np.floor(np.log10(self.mean[CLOSE] / SMALL_PRICE))
        return self.deviation + floor

    def normalise(
        self, bars: Float[np.ndarray, "*rows columns"], clip: float = CLIP
    ) -> Float[np.ndarray, "*rows columns"]:
        """Measure bars in units of the context, cut to plus and minus `clip`."""
        return np.clip((bars - self.mean) / self.unit, -clip, clip)

    def restore(
        self, bars: Float[np.ndarray, "*rows columns"]
    ) -> Float[np.ndarray, "*rows columns"]:
        """Return normalised bars to prices and volumes."""
        return bars * self.unit + self.mean


def bars_of(history: History) -> Float[np.ndarray, "T 6"]:
    """Return the columns that Kronos reads.

    Args:
        history: its bars, where it has them. Without amounts but with volumes, an amount is the
            volume times the mean of the four prices. Without bars, the target stands for open,
            high, low and close, and volume and amount are 0.

    Returns:
        Columns `BAR_COLUMNS` in float32, as published: all that follows is computed in it.
    """
    bars = np.zeros((len(history.target), len(BAR_COLUMNS)), dtype=np.float32)
    if history.bars is None:
        bars[:, :N_PRICES] = history.target[:, None]
        return bars
    bars[:] = history.bars
    if not bars[:, AMOUNT].any():
        bars[:, AMOUNT] = bars[:, VOLUME] * bars[:, :N_PRICES].mean(axis=1)
    return bars


def scale_of(context: Float[np.ndarray, "T columns"]) -> Scale:
    """Return the unit of a context.

    Args:
        context: rows up to the origin; what follows them has no influence.

    Returns:
        Mean and deviation of each column.
    """
    return Scale(context.mean(axis=0), context.std(axis=0))


def stamps_of(times: Shaped[np.ndarray, " T"]) -> Int[np.ndarray, "T 5"]:
    """Split times into minute, hour, weekday (Monday is 0), day of the month and month.

    Args:
        times: `datetime64` of any unit, in the time zone of the exchange.

    Returns:
        One row for each time.
    """
    minutes = times.astype("datetime64[m]")
    days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
    of_day = (minutes - days).astype(np.int64)
    parts = (
        of_day % 60,
        of_day // 60,
        (days.astype(np.int64) + THURSDAY) % 7,
        (days - months).astype(np.int64) + 1,
        months.astype(np.int64) % 12 + 1,
    )
    return np.stack(parts, axis=-1)
