"""Series and forecasters whose worth is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrl_sarp.forecasters.contract import Forecast, History, require_histories
from hrl_sarp.forecasters.evaluation.baselines.points import point_forecast
from hrl_sarp.forecasters.evaluation.baselines.walks import normal_forecast
from hrl_sarp.forecasters.evaluation.plan import Vintage
from hrl_sarp.forecasters.series import Series

START = 60
"""First row from which tests forecast."""


def days(n_rows: int) -> np.ndarray:
    return np.datetime64("2020-01-01") + np.arange(n_rows)


def series(symbol: str, target: np.ndarray) -> Series:
    return Series(symbol, days(len(target)), target, None)


def walks(seed: int, n_series: int = 3, n_rows: int = 160) -> list[Series]:
    rng = np.random.default_rng(seed)
    moves = rng.normal(0.0, 0.01, (n_series, n_rows))
    return [series(f"W{i}", 50.0 * np.exp(each.cumsum())) for i, each in enumerate(moves)]


def reverting(seed: int, persistence: float = 0.5, n_series: int = 3) -> list[Series]:
    """AR(1) around 10."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 0.1, (n_series, 220))
    made = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        made[:, t] = persistence * made[:, t - 1] + noise[:, t]
    return [series(f"A{i}", 10.0 + each) for i, each in enumerate(made)]


@dataclass(frozen=True)
class Oracle:
    """Knows the AR(1) of `reverting`."""

    persistence: float = 0.5
    name: str = "oracle"
    context_rows: int = 1
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        require_histories(histories, 1, levels)
        ahead = np.arange(1, len(histories[0].future) + 1)
        last = np.array([history.target[-1] for history in histories])[:, None]
        return point_forecast(10.0 + self.persistence**ahead * (last - 10.0), levels)


@dataclass(frozen=True)
class Noisy:
    """The last value with normal noise on it, of a seed."""

    size: float = 0.01
    name: str = "noisy"
    context_rows: int = 5
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        last = np.array([history.target[-1] for history in histories])[:, None]
        shape = len(histories), len(histories[0].future)
        noise = np.random.default_rng(seed).normal(0.0, self.size, shape)
        return point_forecast(last * np.exp(noise), levels)


@dataclass(frozen=True)
class TrueWalk:
    """Knows the deviation of `walks`."""

    deviation: float = 0.01
    name: str = "true walk"
    context_rows: int = 1
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        steps = np.arange(1, len(histories[0].future) + 1)
        last = np.log([history.target[-1] for history in histories])[:, None]
        centre = np.repeat(last, len(steps), axis=1)
        variance = np.repeat(self.deviation**2 * steps[None], len(histories), axis=0)
        return normal_forecast(histories, centre, variance, levels)


def unfitted(model: Oracle | Noisy | TrueWalk) -> tuple[Oracle | Noisy | TrueWalk, Vintage]:
    return model, Vintage(model.name, None, repr(model))
