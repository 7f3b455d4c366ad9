"""AutoETS, AutoTheta and AutoARIMA of the library statsforecast as baselines.

Each is chosen and fitted anew at every origin, to the newest rows before it, on logs where all
values are positive. They need the extra `forecast`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrl_sarp.forecasters.contract import Forecast, Forecaster, History, require_histories
from hrl_sarp.forecasters.evaluation.baselines.points import Drift, LastValue, SeasonalNaive
from hrl_sarp.forecasters.evaluation.baselines.walks import (
    EwmaWalk,
    GarchWalk,
    HarWalk,
    levelled,
    newest,
    normal_forecast,
)
from hrl_sarp.run.session import require_extra

PERCENT_INSIDE, Z_INSIDE = 80, 1.2815515655446004
"""The interval that is asked of the library, and how many deviations its ends are away."""


@dataclass(frozen=True)
class Statistical:
    """One of the automatic models of statsforecast, with normal densities.

    Examples:
        >>> Statistical("AutoETS", season=1).least_rows
        30
    """

    name: str
    """Class of `statsforecast.models`."""
    season: int
    """Rows of a season; 1 has none."""
    context_rows: int = 252

    @property
    def least_rows(self) -> int:
        """Rows from which all three models can be fitted."""
        return max(30, 3 * self.season)

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Choose, fit and forecast each series alone.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: not used.

        Returns:
            Densities; points for series that did not move.
        """
        require_histories(histories, self.least_rows, levels)
        histories = newest(histories, self.context_rows)
        make, steps = self._maker(), len(histories[0].future)
        centre, deviation = np.empty((2, len(histories), steps))
        for i, history in enumerate(histories):
            values = levelled(history)
            if np.ptp(values) == 0.0:
                centre[i], deviation[i] = values[-1], 0.0
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # candidates that do not converge are dropped
                found = make().forecast(y=values, h=steps, level=[PERCENT_INSIDE])
            centre[i] = found["mean"]
            ends = found[f"hi-{PERCENT_INSIDE}"], found[f"lo-{PERCENT_INSIDE}"]
            deviation[i] = (ends[0] - ends[1]) / (2.0 * Z_INSIDE)
        return normal_forecast(histories, centre, deviation**2, levels)

    def _maker(self) -> Callable[[], Any]:
        from statsforecast import models  # here, because it is an extra and takes seconds

        return lambda: getattr(models, self.name)(season_length=self.season)


def statistical_baselines(season: int) -> list[Forecaster]:
    """List the three automatic models.

    Args:
        season: rows of a season; 1 has none.

    Returns:
        AutoETS, AutoTheta and AutoARIMA.

    Raises:
        HrlSarpError: if the extra `forecast` is not installed.
    """
    require_extra("statsforecast", "forecast")
    return [Statistical(name, season) for name in ("AutoETS", "AutoTheta", "AutoARIMA")]


def usual_baselines(season: int, statistical_season: int | None) -> list[Forecaster]:
    """List what every forecaster is shown beside.

    Args:
        season: rows of a season of the seasonal naive forecast: 5 for sessions, 24 for hours of a
            market that never closes.
        statistical_season: of AutoETS, AutoTheta and AutoARIMA; 1 has none, takes about 0.1 s a
            forecast and is five times as fast as 5. None leaves the three out.

    Returns:
        Baselines with different names, the last value first.

    Raises:
        HrlSarpError: if the extra `forecast` is needed and not installed.
    """
    simple: list[Forecaster] = [LastValue(), Drift(), SeasonalNaive(season), EwmaWalk()]
    simple += [HarWalk(), GarchWalk()]
    if statistical_season is None:
        return simple
    return [*simple, *statistical_baselines(statistical_season)]
