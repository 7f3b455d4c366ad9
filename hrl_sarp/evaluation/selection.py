"""When a baseline trades and which stocks it may choose from; no weights yet."""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market

Days = Int[np.ndarray, " D"]


def decision_days(
    market: Market, span: DayRange, rebalance: Literal["weekly", "monthly"]
) -> Int[np.ndarray, " D"]:
    """List the rows at whose close a baseline decides: the first of the span, then by the clock.

    Monthly is the first session of each month: that a session is the last of its month is only
    known on the next. Weekly is the published end of the exchange week.
    """
    rows = np.arange(span.start, span.stop - 1)
    if rebalance == "weekly":
        is_due = market.is_week_end[rows].copy()
    else:
        months = market.dates[rows].astype("datetime64[M]")
        is_due = np.concatenate([[True], months[1:] != months[:-1]])
    is_due[0] = True
    return rows[is_due]


def usable_slots(market: Market, days: Days) -> Bool[np.ndarray, "D N"]:
    """Mark the slots that are filled with a stock that printed a bar on the day."""
    return (market.slots[days] >= 0) & slot_values(market, days, market.tradable[days])


def slot_values(market: Market, days: Days, values: np.ndarray) -> np.ndarray:
    """Pick the day's slots from (D, A) values; empty slots repeat some stock: mask them."""
    return np.take_along_axis(values, np.maximum(market.slots[days], 0), axis=1)


def equal_shares(mask: Bool[np.ndarray, "D N"]) -> Float[np.ndarray, "D N"]:
    """Spread 1 evenly over each row's marked slots; a row without any is all 0, which is cash."""
    return mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)


def normalise(values: Float[np.ndarray, "D N"]) -> Float[np.ndarray, "D N"]:
    """Divide each row of nonnegative values by its sum; all 0 stays all 0."""
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def top_slots(
    scores: Float[np.ndarray, "D N"], candidates: Bool[np.ndarray, "D N"], n_positions: int
) -> Bool[np.ndarray, "D N"]:
    """Mark the candidates with the highest scores; the slot order breaks ties."""
    ordered = np.argsort(np.where(candidates, -scores, np.inf), axis=1, kind="stable")
    chosen = np.zeros_like(candidates)
    np.put_along_axis(chosen, ordered[:, :n_positions], values=True, axis=1)
    return chosen & candidates


def n_selected(config: RunConfig, wanted: int, market: Market, days: Days) -> int:
    """Lower the positions of a selection in a small universe, where it would become 1/N by name.

    At most `max_universe_share` of the usable slots, but never so few that the stock cap leaves
    cash.
    """
    counts = usable_slots(market, days).sum(axis=1)
    universe = int(counts.max(initial=0))
    fills = math.ceil(1.0 / config.risk.stock_cap) if config.risk.stock_cap > 0 else 1
    share = math.ceil(config.evaluation.max_universe_share * universe)
    return min(wanted, max(share, fills))


def trailing(values: np.ndarray, day: int, n_days: int) -> np.ndarray:
    """View the rows of the last `n_days` sessions up to and including `day`."""
    return values[max(0, day + 1 - n_days) : day + 1]
