"""Makes policies from the rules of baselines: decision days, usable stocks, weights."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from hrl_sarp.config.own_code import summary_line
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.envs.rollout import HOLD, Decision, DecisionView
from hrl_sarp.market.tensors import MarketTensors

Days = Int[np.ndarray, " D"]
"""Rows of the market at whose close a rule decides."""
Weights = Float[np.ndarray, "D N"]
"""Target weights of each day's slots."""
WeightRule = Callable[[Market, Days, RunConfig], Weights]
"""Computes the weights of each day from the rows up to it."""


class ScheduledPolicy:
    """A policy whose targets depend on the market alone and are computed before the rollout.

    Args:
        name: in tables and legends.
        rule: computes the weights of each day from the rows up to it.
        config: settings of the rule, and how often it decides.
        knows_until: last row that the rule reads. Decisions on later days repeat that row's.
        only_once: buys on the first day and never trades again.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> def half_cash(market, days, config):
        ...     return np.full((len(days), market.n_slots), 0.5 / market.n_slots)
        >>> ScheduledPolicy("half cash", half_cash, load_config(market="sample")).name
        'half cash'
    """

    def __init__(
        self,
        name: str,
        rule: WeightRule,
        config: RunConfig,
        knows_until: int | None = None,
        *,
        only_once: bool = False,
    ) -> None:
        self.name, self.description = name, summary_line(rule)
        self._rule, self._config, self._knows_until = rule, config, knows_until
        self._only_once = only_once
        self._orders: dict[int, Decision] = {}

    def prepare(self, tensors: MarketTensors, spans: Sequence[DayRange]) -> None:
        """Compute the weights of all decision days.

        Args:
            tensors: the market.
            spans: of the rollout.
        """
        market = tensors.market
        by_step: dict[int, dict[int, torch.Tensor]] = {}
        for position, span in enumerate(spans):
            days = decision_days(market, span, self._config.evaluation.rebalance)
            days = days[:1] if self._only_once else days
            known = days if self._knows_until is None else np.minimum(days, self._knows_until)
            asked, row_of = np.unique(known, return_inverse=True)
            weights = torch.as_tensor(self._rule(market, asked, self._config))
            for day, row in zip(days.tolist(), weights[row_of], strict=True):
                by_step.setdefault(day - span.start, {})[position] = row
        nothing = torch.zeros(tensors.n_slots, dtype=torch.float64)
        self._orders = {
            step: Decision(
                torch.stack([rows.get(i, nothing) for i in range(len(spans))]),
                hold=torch.tensor([i not in rows for i in range(len(spans))]),
            )
            for step, rows in by_step.items()
        }

    def decide(self, view: DecisionView) -> Decision:
        """Trade on decision days, hold on all others.

        Args:
            view: only its step is used.

        Returns:
            The weights of the day, the same in all variants.
        """
        orders = self._orders.get(view.step, HOLD)
        if orders.slot_weights is None or orders.hold is None:
            return orders
        n_variants = len(view.days) // len(orders.hold)
        weights = torch.as_tensor(orders.slot_weights).repeat(n_variants, 1)
        return Decision(weights, hold=orders.hold.repeat(n_variants))


def decision_days(
    market: Market, span: DayRange, rebalance: Literal["weekly", "monthly"]
) -> Int[np.ndarray, " D"]:
    """List the rows at whose close a baseline decides: the first of the span, then by schedule.

    Monthly is the first session of each month, because the last one is only known on the next
    session. Weekly is the published end of the exchange week.
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
    """Mark the slots whose stock has a bar on the day."""
    return (market.slots[days] >= 0) & slot_values(market, days, market.tradable[days])


def slot_values(market: Market, days: Days, values: np.ndarray) -> np.ndarray:
    """Pick the day's slots from (D, A) values. Mask the empty slots: they repeat some stock."""
    return np.take_along_axis(values, np.maximum(market.slots[days], 0), axis=1)


def equal_shares(mask: Bool[np.ndarray, "D N"]) -> Float[np.ndarray, "D N"]:
    """Spread 1 evenly over each row's marked slots; a row without any is cash, all 0."""
    return mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)


def normalise(values: Float[np.ndarray, "D N"]) -> Float[np.ndarray, "D N"]:
    """Divide each row of nonnegative values by its sum; all 0 stays all 0."""
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def top_slots(
    scores: Float[np.ndarray, "D N"], candidates: Bool[np.ndarray, "D N"], n_positions: int
) -> Bool[np.ndarray, "D N"]:
    """Mark the `n_positions` candidates with the highest scores; the slot order breaks ties."""
    ordered = np.argsort(np.where(candidates, -scores, np.inf), axis=1, kind="stable")
    chosen = np.zeros_like(candidates)
    np.put_along_axis(chosen, ordered[:, :n_positions], values=True, axis=1)
    return chosen & candidates


def n_selected(config: RunConfig, wanted: int, market: Market, days: Days) -> int:
    """Limit the positions of a selection in a small universe, where it would equal 1/N.

    The limit is `max_universe_share` of the usable slots, but not so few that the stock cap leaves
    cash.
    """
    counts = usable_slots(market, days).sum(axis=1)
    universe = int(counts.max(initial=0))
    fills = math.ceil(1.0 / config.risk.stock_cap) if config.risk.stock_cap > 0 else 1
    share = math.ceil(config.evaluation.max_universe_share * universe)
    return min(wanted, max(share, fills))


def trailing(values: np.ndarray, day: int, n_days: int) -> np.ndarray:
    """View the rows of the last `n_days` sessions up to and including `day`, fewer at the start."""
    return values[max(0, day + 1 - n_days) : day + 1]
