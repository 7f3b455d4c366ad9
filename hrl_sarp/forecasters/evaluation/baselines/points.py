"""Baselines without a density: the last value and its kin.

Each is fitted anew at every origin, to the newest `context_rows` rows before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hrl_sarp.forecasters.contract import Forecast, History, require_histories


def point_forecast(points: Float[np.ndarray, "B h"], levels: Sequence[float]) -> Forecast:
    """Make a forecast without any density: all quantiles are the point.

    Args:
        points: one for each series and step.
        levels: of the quantiles.

    Returns:
        The forecast.
    """
    quantiles = np.repeat(points[..., None], len(levels), axis=2)
    return Forecast(tuple(levels), quantiles, points)


@dataclass(frozen=True)
class LastValue:
    """Repeats the last value: what every forecast is measured against.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(5)
        >>> history = History("A", days[:3], np.array([1.0, 2.0, 4.0]), days[3:])
        >>> LastValue().forecast([history], (0.5,), seed=0).mean
        array([[4., 4.]])
    """

    name: str = "last value"
    context_rows: int = 1
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Repeat the last value of each series.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: not used.

        Returns:
            Points.
        """
        require_histories(histories, self.least_rows, levels)
        last = np.array([history.target[-1] for history in histories])
        steps = len(histories[0].future)
        return point_forecast(np.repeat(last[:, None], steps, axis=1), levels)


@dataclass(frozen=True)
class Drift:
    """Goes on along the line from the first to the last value of the context.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(5)
        >>> history = History("A", days[:3], np.array([1.0, 2.0, 5.0]), days[3:])
        >>> Drift().forecast([history], (0.5,), seed=0).mean
        array([[7., 9.]])
    """

    name: str = "drift"
    context_rows: int = 252
    least_rows: int = 2

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Extend each line.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: not used.

        Returns:
            Points.
        """
        require_histories(histories, self.least_rows, levels)
        known = [history.last(self.context_rows).target for history in histories]
        slope = np.array([(values[-1] - values[0]) / (len(values) - 1) for values in known])
        ahead = np.arange(1, len(histories[0].future) + 1)
        last = np.array([values[-1] for values in known])
        return point_forecast(last[:, None] + slope[:, None] * ahead, levels)


@dataclass(frozen=True)
class SeasonalNaive:
    """Repeats the last season.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(6)
        >>> history = History("A", days[:3], np.array([1.0, 2.0, 5.0]), days[3:])
        >>> SeasonalNaive(2).forecast([history], (0.5,), seed=0).mean
        array([[2., 5., 2.]])
    """

    season: int
    """Rows of a season, at least 1."""

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"seasonal naive ({self.season})"

    @property
    def context_rows(self) -> int:
        """The last season."""
        return self.season

    @property
    def least_rows(self) -> int:
        """The last season."""
        return self.season

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Repeat the last season of each series.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: not used.

        Returns:
            Points.
        """
        require_histories(histories, self.least_rows, levels)
        place = np.arange(len(histories[0].future)) % self.season
        seasons = np.stack([history.target[-self.season :] for history in histories])
        return point_forecast(seasons[:, place], levels)
