"""Dated arrays for supervised training: what each row knew and what it earned afterwards."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.errors import DataError
from hrl_sarp.features.labels import (
    INVALID_CLASS,
    regime_label,
    sector_label_between,
    stock_label,
)
from hrl_sarp.market.cache import assembled_market


@dataclass(frozen=True)
class MacroTrainingData:
    """One row per week end; everything but the labels is known at its close."""

    macro_states: Float[np.ndarray, "W M"]
    sector_embeddings: Float[np.ndarray, "W S E"] | None
    """None until phase 1 has written them: there is no honest stand-in."""
    sector_returns: Float[np.ndarray, "W S"]
    """Simple return until the next week end's decision is filled, from this one's fill; mean of
    the sector's eligible stocks, NaN for a sector without."""
    regime_labels: Int[np.ndarray, " W"]
    """`Regime` of the 20 sessions after."""
    dates: Shaped[np.ndarray, " W"]


@dataclass(frozen=True)
class MicroTrainingData:
    """One row per session; everything but the returns is known at its close."""

    stock_features: Float[np.ndarray, "T A F"]
    stock_returns: Float[np.ndarray, "T A"]
    """Simple return from the fill of this row's decision (the next open) to that of the next."""
    stock_to_sector: Int[np.ndarray, " A"]
    stock_masks: Bool[np.ndarray, "T A"]
    """In the universe of the day, with a bar: may be bought."""
    goals: Float[np.ndarray, "T G"]
    """Neutral goals: equal weights over sectors with such stocks, then the filtered regime."""
    dates: Shaped[np.ndarray, " T"]


class TrainingDataLoader:
    """Serves training arrays of one market by date."""

    def __init__(self, data_dir: Path, market: str, config: RunConfig | None = None) -> None:
        """Load the market, assembling it if needed.

        Args:
            data_dir: `data/raw` as written by collect-data.
            market: name of the market profile.
            config: a merged configuration of that market; None reads the default one.
        """
        self.config = config or load_config(market=market)
        self.market: Market = assembled_market(Path(data_dir), self.config)

    def load_macro_training_data(self, start: str, end: str) -> MacroTrainingData:
        """Return the week ends between two dates (YYYY-MM-DD), both inclusive.

        Weeks whose labels reach past the data are left out. Labels do reach past `end`: purge the
        span first if something later is to be judged.

        Raises:
            DataError: if no complete week end lies between the dates; says which dates exist.
        """
        market = self.market
        week_ends = np.flatnonzero(market.is_week_end)
        following = np.append(week_ends[1:], market.n_days)
        returns, is_complete = sector_label_between(market, week_ends, following)
        regimes = regime_label(market, self.config.data.regime)[week_ends]
        usable = is_complete & (regimes != INVALID_CLASS)
        kept = self._between(start, end, week_ends, usable, "week ends with complete labels")
        rows = week_ends[kept]
        embeddings = market.sector_embeddings
        return MacroTrainingData(
            macro_states=market.macro_features[rows],
            sector_embeddings=None if embeddings is None else embeddings[rows],
            sector_returns=returns[kept],
            regime_labels=regimes[kept],
            dates=market.dates[rows],
        )

    def load_micro_training_data(self, start: str, end: str) -> MicroTrainingData:
        """Return the sessions between two dates (YYYY-MM-DD), both inclusive.

        Sessions whose next-day return is not complete are left out.

        Raises:
            DataError: if no complete session lies between the dates; says which dates exist.
        """
        market = self.market
        returns, is_complete = stock_label(market, horizon=1)
        sessions = np.arange(market.n_days)
        rows = self._between(start, end, sessions, is_complete, "sessions with a next-day return")
        masks = market.eligible & market.tradable
        return MicroTrainingData(
            stock_features=market.stock_features[rows],
            stock_returns=returns[rows],
            stock_to_sector=market.sector_of,
            stock_masks=masks[rows],
            goals=neutral_goals(market)[rows],
            dates=market.dates[rows],
        )

    def _between(
        self,
        start: str,
        end: str,
        rows: Int[np.ndarray, " X"],
        usable: Bool[np.ndarray, " X"],
        what: str,
    ) -> Int[np.ndarray, " Y"]:
        """Return the positions in `rows` that are usable and dated between start and end."""
        dates = self.market.dates[rows]
        first, last = _parse(start), _parse(end)
        kept = np.flatnonzero(usable & (dates >= first) & (dates <= last))
        if len(kept) == 0:
            known = dates[usable]
            span = f"{known[0]} to {known[-1]}" if len(known) else "nowhere: the market is short"
            raise DataError(
                f"no {what} of market {self.market.name} between {start} and {end}; they exist "
                f"from {span}; ask for dates in there"
            )
        return kept


def neutral_goals(market: Market) -> Float[np.ndarray, "T G"]:
    """Return equal weights over the sectors that can be bought, then the filtered regime."""
    may_buy = (market.eligible & market.tradable).astype(np.float64)
    listed = may_buy @ market.sector_member() > 0
    weights = listed / np.maximum(listed.sum(axis=1, keepdims=True), 1)
    return np.concatenate([weights, market.filtered_regime], axis=1)


def _parse(day: str) -> np.datetime64:
    try:
        return np.datetime64(day, "D")
    except ValueError as error:
        raise DataError(f"date {day!r}: expected YYYY-MM-DD ({error})") from error
