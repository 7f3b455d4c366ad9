"""What every forecaster takes and gives.

A forecaster reads histories up to their last row and says how the next steps are distributed. It
never sees a row after the last one, and what it fits to a series it fits to that history alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from hrl_sarp.errors import ForecastError

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "amount")
"""Columns of `History.bars`. `amount` is the traded value in the currency of the prices."""
CLOSE = BAR_COLUMNS.index("close")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Usual quantile levels."""
DEFAULT_PATHS = 100
"""Paths that are drawn of a forecast where nothing else is asked for."""


@dataclass(frozen=True)
class History:
    """One series up to its origin, the last row, and the times of the steps to forecast.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(5)
        >>> History("A", days[:3], np.array([1.0, 2.0, 3.0]), days[3:]).origin
        np.datetime64('2024-01-03')
    """

    symbol: str
    timestamps: Shaped[np.ndarray, " times"]
    """Ascending `datetime64`, one for each value."""
    target: Float[np.ndarray, " T"]
    """The values to continue, for example closes; all finite."""
    future: Shaped[np.ndarray, " h"]
    """Times of the steps to forecast."""
    bars: Float[np.ndarray, "T 6"] | None = None
    """Columns `BAR_COLUMNS`, where the series has them; the close is the target."""

    @property
    def origin(self) -> np.datetime64:
        """Time of the last row that may be read."""
        return self.timestamps[-1]

    def last(self, n_rows: int) -> "History":
        """Keep the newest rows.

        Args:
            n_rows: how many rows to keep; all if there are fewer.

        Returns:
            The shorter history.
        """
        bars = None if self.bars is None else self.bars[-n_rows:]
        shorter = self.timestamps[-n_rows:], self.target[-n_rows:]
        return History(self.symbol, *shorter, self.future, bars)


@dataclass(frozen=True)
class Forecast:
    """How the next h steps of B series are distributed, in the unit of the target.

    Examples:
        >>> quantiles = np.array([[[9.0, 10.0, 11.0]]])
        >>> forecast = Forecast((0.1, 0.5, 0.9), quantiles, np.array([[10.0]]))
        >>> forecast.at(0.5)
        array([[10.]])
    """

    levels: tuple[float, ...]
    """Ascending levels of the quantiles, each in (0, 1)."""
    quantiles: Float[np.ndarray, "B h Q"]
    """Quantiles of each step alone; they ascend along the last axis."""
    mean: Float[np.ndarray, "B h"]
    log_variance: Float[np.ndarray, "B h"] | None = None
    """Variance of log(target / last target). None where a forecaster has none; NaN for series
    that are not positive."""
    paths: Float[np.ndarray, "S B h"] | None = None
    """Joint draws of all steps, where the forecaster made any."""

    def at(self, level: float) -> Float[np.ndarray, "B h"]:
        """Return the quantiles of one level.

        Args:
            level: one of `levels`.

        Returns:
            The quantiles.

        Raises:
            ForecastError: if the forecast has no such level.
        """
        if level not in self.levels:
            raise ForecastError(
                f"expected one of the levels {', '.join(map(str, self.levels))}, found {level}; "
                "ask for it when forecasting"
            )
        return self.quantiles[..., self.levels.index(level)]


@runtime_checkable
class Forecaster(Protocol):
    """Anything that forecasts: a network, or a baseline."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def context_rows(self) -> int:
        """Rows of a history that it reads at most, the newest ones."""
        ...

    @property
    def least_rows(self) -> int:
        """Rows that a history must have."""
        ...

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Forecast the steps `future` of each history, which all have the same number of steps.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: seed of draws. The same histories, levels and seed give the same forecast, and
                a history's forecast does not depend on those beside it beyond rounding.

        Returns:
            The forecast of all histories, in their order.
        """
        ...


@runtime_checkable
class HasLevelRange(Protocol):
    """A forecaster that knows nothing of the outer levels, and refuses them."""

    @property
    def level_range(self) -> tuple[float, float]:
        """Lowest and highest level that it knows."""
        ...


def require_histories(
    histories: Sequence[History], least_rows: int, levels: Sequence[float]
) -> None:
    """Refuse what cannot be forecast.

    Args:
        histories: the histories of one batch.
        least_rows: rows that each must have.
        levels: quantile levels.

    Raises:
        ForecastError: names the symbol, what was expected and found, and the cure.
    """
    if not histories:
        raise ForecastError("expected at least one series to forecast, found none")
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise ForecastError(f"expected quantile levels between 0 and 1, found {list(levels)}")
    if list(levels) != sorted(set(levels)):
        raise ForecastError(f"expected ascending, different quantile levels, found {list(levels)}")
    steps = len(histories[0].future)
    for history in histories:
        _require_history(history, least_rows, steps)


def _require_history(history: History, least_rows: int, steps: int) -> None:
    name, found = history.symbol, len(history.target)
    if found < least_rows:
        raise ForecastError(
            f"{name}: expected at least {least_rows} rows before the forecast, found {found}; "
            "give a longer history or a forecaster with a shorter context"
        )
    if not steps or len(history.future) != steps:
        raise ForecastError(
            f"{name}: expected the same number of steps (at least 1) to forecast as the other "
            f"series, found {len(history.future)} beside {steps}"
        )
    if len(history.timestamps) != found:
        raise ForecastError(f"{name}: found {found} values at {len(history.timestamps)} times")
    times = np.concatenate([history.timestamps, history.future])
    backwards = np.flatnonzero(~(np.diff(times) > np.timedelta64(0)))
    if len(backwards):
        at = int(backwards[0]) + 1
        raise ForecastError(
            f"{name}: row {at}: expected a time after {times[at - 1]}, found {times[at]}; sort the "
            "rows and remove duplicates"
        )
    values = history.target[:, None] if history.bars is None else history.bars
    wrong = np.flatnonzero(~np.isfinite(np.column_stack([history.target, values])).all(axis=1))
    if len(wrong):
        at = int(wrong[0])
        raise ForecastError(
            f"{name}: row {at} ({history.timestamps[at]}): expected a finite value, found "
            f"{history.target[at] if history.bars is None else history.bars[at].tolist()}; "
            "remove or fill the row"
        )
