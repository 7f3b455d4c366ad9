"""From where trainings of different settings are compared: fixed origins of validation."""

from dataclasses import dataclass

import numpy as np

from hrl_sarp.errors import DataError, MetricError
from hrl_sarp.forecasters.contract import LEVELS, Forecaster
from hrl_sarp.forecasters.evaluation.plan import RollingPlan, find_origins
from hrl_sarp.forecasters.evaluation.scores import quantile_crps
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.run import TrainingRequest
from hrl_sarp.forecasters.training.windows import Split
from hrl_sarp.run.session import derive_seed

PERCENT = 100.0
SCORED = 12
"""Role of the derived seed of draws."""


@dataclass(frozen=True)
class Origins:
    """From where every trial forecasts, and what came: the same whatever it reads.

    Examples:
        >>> from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
        >>> days = np.datetime64("2024-01-01") + np.arange(6)
        >>> series = Series("A", days, np.array([1.0, 1.0, 1.0, 1.0, 1.1, 1.1]), None)
        >>> round(Origins([series], [(0, 3)], horizon=2, seed=0).score(LastValue()), 6)
        10.0
    """

    series: list[Series]
    rows: list[tuple[int, int]]
    """Series, as a place in their list, and its last row that is read."""
    horizon: int
    seed: int
    """Of draws."""

    @classmethod
    def of_validation(cls, request: TrainingRequest, least_rows: int) -> "Origins":
        """Choose origins, spread evenly over time and symbols.

        Args:
            request: of the search, with the bars before the end of validation alone.
            least_rows: rows that a history must have.

        Returns:
            The origins. What is forecast lies in the validation span, a horizon after training.
        """
        settings, split = request.settings.tuning, request.source.split
        series, steps = request.source.series, settings.horizon
        plan = RollingPlan(steps, split.train_stop)
        found = [cell for each in find_origins(series, plan, least_rows) for cell in each.rows]
        rows = [(i, row) for i, row in found if row + 1 >= _first_row(series[i], split, steps)]
        if not rows:
            raise DataError(
                f"expected origins of {steps} bars in validation, from {split.train_stop} to "
                f"{split.validation_stop}, found none; give longer series, or lower "
                "`tuning.horizon` in forecasters.yaml"
            )
        kept = np.linspace(0, len(rows) - 1, min(settings.origins, len(rows))).round().astype(int)
        return cls(series, [rows[i] for i in kept], steps, derive_seed(request.seed, SCORED))

    def score(self, forecaster: Forecaster) -> float:
        """Forecast from all origins.

        Args:
            forecaster: any one.

        Returns:
            Mean ranked probability score over origins and steps, in % of the price at the origin,
            from the nine usual quantiles.

        Raises:
            MetricError: if the score is not finite.
        """
        ahead = np.arange(1, self.horizon + 1)
        most = forecaster.context_rows
        histories = [
            self.series[i].until(row + 1, self.series[i].timestamps[row + ahead], most)
            for i, row in self.rows
        ]
        found = forecaster.forecast(histories, LEVELS, self.seed)
        came = np.stack([self.series[i].target[row + ahead] for i, row in self.rows])
        quantiles = found.quantiles.reshape(-1, len(LEVELS))
        if not np.isfinite(quantiles).all():
            raise MetricError(f"{forecaster.name}: expected finite quantiles, found others")
        scores = quantile_crps(came.ravel(), quantiles, LEVELS).reshape(came.shape)
        last = np.array([[self.series[i].target[row]] for i, row in self.rows])
        return float((PERCENT * scores / last).mean())

    def days(self) -> tuple[str, str]:
        """Return the first origin and the last time that is forecast, as ISO dates."""
        times = np.concatenate(
            [self.series[i].timestamps[[row, row + self.horizon]] for i, row in self.rows]
        )
        return str(times.min().astype("datetime64[D]")), str(times.max().astype("datetime64[D]"))


def _first_row(one: Series, split: Split, embargo: int) -> int:
    """Return the first row that may be forecast."""
    return int(np.searchsorted(one.timestamps, split.train_stop)) + embargo
