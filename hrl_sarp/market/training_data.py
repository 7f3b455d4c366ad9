"""Inputs and labels of supervised training: features of each row, and the returns that follow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from loguru import logger

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import DataError
from hrl_sarp.features.labels import (
    INVALID_CLASS,
    regime_label,
    sector_label,
    sector_label_between,
    stock_label,
    volatility_label,
)
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.market.sector_table import is_of_market, market_fingerprint, read_sector_table
from hrl_sarp.run.phases import PHASES

DATA_DIR, LOG_DIR = Path("data/raw"), Path("logs")
"""Where the commands write, seen from the folder in which they run."""


class NamedArrays(Mapping[str, Any]):
    """Arrays that can be read as attributes and by their names, as from a dictionary.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Days(NamedArrays):
        ...     returns: np.ndarray
        >>> days = Days(np.zeros(3))
        >>> list(days.keys()), days["returns"].shape
        (['returns'], (3,))
    """

    ALIASES: ClassVar[Mapping[str, str]] = {}
    """Other names of an array -> its name."""

    def __getitem__(self, name: str) -> Any:
        """Return an array by name; a name that is not one of `keys()` raises KeyError."""
        found = self.ALIASES.get(name, name)
        if found not in list(self):
            raise KeyError(f"{name!r}: expected one of {', '.join(self)}")
        return getattr(self, found)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return (field.name for field in fields(self))  # type: ignore[arg-type] # dataclasses derive

    def __len__(self) -> int:
        """Count the names."""
        return len(list(iter(self)))


@dataclass(frozen=True, eq=False)
class MacroTrainingData(NamedArrays):
    """One row per week end; everything but the labels is known at its close."""

    macro_states: Float[np.ndarray, "W M"]
    """Macro features, then those of the portfolio, which are 0 here: there is no portfolio."""
    sector_embeddings: Float[np.ndarray, "W S E"] | None
    """Of the sector graph that phase 1 trained; None until it has, or if it did on other data."""
    sector_returns: Float[np.ndarray, "W S"]
    """Simple return from the fill of this decision to the fill of the next week end's. Mean of the
    sector's eligible stocks; NaN for a sector without one."""
    regime_labels: Int[np.ndarray, " W"]
    """`Regime` of the 20 sessions after."""
    dates: Shaped[np.ndarray, " W"]


@dataclass(frozen=True, eq=False)
class MicroTrainingData(NamedArrays):
    """One row per session; everything but the returns is known at its close."""

    ALIASES: ClassVar[Mapping[str, str]] = {"masks": "stock_masks"}

    stock_features: Float[np.ndarray, "T A F"]
    stock_returns: Float[np.ndarray, "T A"]
    """Simple return from the fill of this row's decision (the next open) to that of the next."""
    stock_to_sector: Int[np.ndarray, " A"]
    stock_masks: Bool[np.ndarray, "T A"]
    """Stocks that may be bought: in the universe of the day, with a bar."""
    goals: Float[np.ndarray, "T G"]
    """Neutral goals: equal weights over sectors with such stocks, then the filtered regime."""
    dates: Shaped[np.ndarray, " T"]


class TrainingDataLoader:
    """Serves the training data of phases 1 and 2: labels by market row, or whole arrays by date.

    Labels reach past the last requested row. So purge the span if later data serve for validation.
    The splits of a market are purged already.

    Args:
        data_dir: `data/raw` as written by collect-data.
        market: name of the market profile; None takes that of the configuration.
        config: a merged configuration of that market; None reads the default one.
        log_dir: log folder of a run; the sector embeddings of its phase 1 are served.

    Examples:
        >>> from hrl_sarp.known_markets.reachable_goals import goal_market
        >>> loader = TrainingDataLoader.of(goal_market(20), load_config(market="us"))
        >>> days = loader.load_micro_training_data("1600-01-01", "1601-12-31")
        >>> days.stock_returns.shape == days.stock_masks.shape
        True
    """

    def __init__(
        self,
        data_dir: Path | str = DATA_DIR,
        market: str | None = None,
        config: RunConfig | None = None,
        log_dir: Path | str | None = LOG_DIR,
    ) -> None:
        self.config = config or load_config(market=market)
        self.market: Market = assembled_market(Path(data_dir), self.config)
        self.log_dir = None if log_dir is None else Path(log_dir)

    @classmethod
    def of(cls, market: Market, config: RunConfig) -> "TrainingDataLoader":
        """Serve a market in memory.

        Args:
            market: the arrays.
            config: its merged configuration.

        Returns:
            Its loader; no file is read.
        """
        loader = cls.__new__(cls)
        loader.market, loader.config, loader.log_dir = market, config, None
        return loader

    def macro_labels(
        self, horizon: int | None = None
    ) -> tuple[Float[np.ndarray, "T S"], Int[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
        """Compute what followed each weekly decision.

        Args:
            horizon: sessions that returns span; None: until the next decision is filled.

        Returns:
            Simple returns of the sectors (mean of the eligible stocks; NaN for a sector without
            and in rows without a label), `Regime` of the sessions after (-1 where not complete),
            and which rows are week ends with both labels complete.
        """
        market = self.market
        if horizon is None:
            week_ends = np.flatnonzero(market.is_week_end)
            following = np.append(week_ends[1:], market.n_days)
            returns = np.full((market.n_days, market.n_sectors), np.nan)
            is_complete = np.zeros(market.n_days, dtype=np.bool_)
            found = sector_label_between(market, week_ends, following)
            returns[week_ends], is_complete[week_ends] = found
        else:
            returns, is_complete = sector_label(market, horizon)
        regimes = head_label(market, self.config)
        usable = market.is_week_end & is_complete & (regimes != INVALID_CLASS)
        return returns, regimes, usable

    def micro_labels(
        self, horizon: int = 1
    ) -> tuple[Float[np.ndarray, "T A"], Bool[np.ndarray, " T"]]:
        """Compute what followed each daily decision.

        Args:
            horizon: sessions that returns span.

        Returns:
            Simple returns of the stocks, NaN in rows whose horizon is not complete, and the mask
            of complete rows.
        """
        return stock_label(self.market, horizon)

    def load_macro_training_data(self, start: str, end: str) -> MacroTrainingData:
        """Return the week ends between two dates whose labels are complete.

        Args:
            start: first date, YYYY-MM-DD.
            end: last date.

        Returns:
            One row per week end.

        Raises:
            DataError: if no complete week end lies between the dates; says which dates exist.
        """
        market = self.market
        returns, regimes, usable = self.macro_labels()
        rows = self._between(start, end, usable, "week ends with complete labels")
        embeddings = self._sector_embeddings()
        return MacroTrainingData(
            macro_states=np.pad(
                market.macro_features[rows], ((0, 0), (0, len(market.portfolio_names)))
            ),
            sector_embeddings=None if embeddings is None else embeddings[rows],
            sector_returns=returns[rows],
            regime_labels=regimes[rows],
            dates=market.dates[rows],
        )

    def load_micro_training_data(self, start: str, end: str) -> MicroTrainingData:
        """Return the sessions between two dates whose next-day return is complete.

        Goals are neutral: equal weights over the sectors that can be bought, then the filtered
        regime.

        Args:
            start: first date, YYYY-MM-DD.
            end: last date.

        Returns:
            One row per session.

        Raises:
            DataError: if no complete session lies between the dates; says which dates exist.
        """
        market = self.market
        returns, is_complete = self.micro_labels()
        rows = self._between(start, end, is_complete, "sessions with a next-day return")
        masks = (market.eligible & market.tradable)[rows]
        listed = masks.astype(np.float64) @ market.sector_member() > 0
        weights = listed / np.maximum(listed.sum(axis=1, keepdims=True), 1)
        return MicroTrainingData(
            stock_features=market.stock_features[rows],
            stock_returns=returns[rows],
            stock_to_sector=market.sector_of,
            stock_masks=masks,
            goals=np.concatenate([weights, market.filtered_regime[rows]], axis=1),
            dates=market.dates[rows],
        )

    def _sector_embeddings(self) -> Float[np.ndarray, "T S E"] | None:
        """Return those of the market, else those that phase 1 wrote for it."""
        market = self.market
        if market.sector_embeddings is not None or self.log_dir is None:
            return market.sector_embeddings
        files = PHASES[0]
        path = self.log_dir / files.folder / files.best[1]
        if not path.is_file():
            return None
        fingerprint = market_fingerprint(market)
        if is_of_market(path, fingerprint):
            return read_sector_table(path, market, fingerprint)
        logger.warning(f"no sector embeddings: those of {path} are of other data")
        return None

    def _between(
        self, start: str, end: str, usable: Bool[np.ndarray, " T"], what: str
    ) -> Int[np.ndarray, " Y"]:
        """Return the market rows that are usable and dated between start and end."""
        dates = self.market.dates
        first, last = _parse(start), _parse(end)
        rows = np.flatnonzero(usable & (dates >= first) & (dates <= last))
        if len(rows) == 0:
            known = dates[usable]
            cure = "the market is too short for any"
            if len(known):
                cure = f"choose dates between {known[0]} and {known[-1]}"
            raise DataError(
                f"no {what} of market {self.market.name} between {start} and {end}; {cure}"
            )
        return rows


def head_label(market: Market, config: RunConfig) -> Int[np.ndarray, " T"]:
    """Return the classes that the regime head learns; -1 where they are not complete.

    Under the objective `risk` they are terciles of the volatility to come, which can be predicted;
    else the regimes of the return to come, which prices do not show.
    """
    if config.objective.kind == "risk":
        return volatility_label(market, config.data.regime.label_horizon_days)
    return regime_label(market, config.data.regime)


def rows_within(usable: Bool[np.ndarray, " T"], span: DayRange) -> Int[np.ndarray, " Y"]:
    """Return the usable rows of a span."""
    return span.start + np.flatnonzero(usable[span.start : span.stop])


def _parse(day: str) -> np.datetime64:
    try:
        return np.datetime64(day, "D")
    except ValueError as error:
        raise DataError(f"date {day!r}: expected YYYY-MM-DD ({error})") from error
