"""Where training episodes start: week ends of a span, drawn by regime mix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from hrl_sarp.contracts import DayRange, Market, Regime
from hrl_sarp.errors import MarketError


class EpisodeStarts:
    """Draws start days such that a whole episode fits into the span.

    Args:
        market: the market; only its calendar and filtered regime are used.
        span: rows that an episode may touch.
        horizon: steps of an episode.
        weekly: horizon counts weeks, not sessions.
        seed: of the generator, whose state is part of a checkpoint.

    Raises:
        MarketError: if no episode fits.
    """

    def __init__(
        self, market: Market, span: DayRange, horizon: int, *, weekly: bool, seed: int
    ) -> None:
        week_ends = np.flatnonzero(market.is_week_end)
        week_ends = week_ends[(week_ends >= span.start) & (week_ends < span.stop)]
        last = _last_start(week_ends, span, horizon, weekly=weekly)
        self.days: Int[np.ndarray, " D"] = week_ends[week_ends <= last]
        if len(self.days) == 0:
            raise MarketError(
                f"no episode of {horizon} {'weeks' if weekly else 'sessions'} fits between "
                f"{market.dates[span.start]} and {market.dates[span.stop - 1]}: "
                "lengthen the span or shorten the horizon"
            )
        self.regime = market.filtered_regime[self.days].argmax(axis=1)
        self.rng = np.random.default_rng(seed)
        self.set_mix([1 / len(Regime)] * len(Regime))

    def set_mix(self, mix: Sequence[float]) -> None:
        """Set the shares of starts in bear, bull and sideways weeks.

        A regime without days gives its share to the others.
        """
        counts = np.bincount(self.regime, minlength=len(Regime))
        weights = np.where(counts > 0, np.asarray(mix) / np.maximum(counts, 1), 0.0)
        probabilities = weights[self.regime]
        if probabilities.sum() == 0:
            probabilities = np.ones(len(self.days))
        self.probabilities = probabilities / probabilities.sum()

    def draw(self, n: int) -> Int[np.ndarray, " n"]:
        """Return `n` start days."""
        return self.rng.choice(self.days, size=n, p=self.probabilities)

    def state_dict(self) -> dict[str, Any]:
        """Return generator state and mix as plain values."""
        return {"rng": self.rng.bit_generator.state, "probabilities": self.probabilities.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore generator state and mix."""
        self.rng.bit_generator.state = state["rng"]
        self.probabilities = np.asarray(state["probabilities"])


def _last_start(week_ends: np.ndarray, span: DayRange, horizon: int, *, weekly: bool) -> int:
    if not weekly:
        return span.stop - 1 - horizon
    return int(week_ends[-horizon - 1]) if len(week_ends) > horizon else -1
