"""Toto as a forecaster of single series: prices in, quantiles of prices out.

A positive series is read as y = 100 log(value / last value). Toto 1.0 adds 0.1 to every variance,
which would hide returns of 1 %, but not 100 times them. Quantiles map back exactly.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import Forecast, History, require_histories
from hrl_sarp.forecasters.toto.decoding import forecast_paths, next_steps
from hrl_sarp.forecasters.toto.model import Toto
from hrl_sarp.forecasters.toto.scaler import SeriesBatch
from hrl_sarp.forecasters.toto.second import KNOTS, Toto2
from hrl_sarp.run.session import derive_seed

TRIMMED = 0.01
"""Probability at each end that a mean of prices leaves out: the exponential of a Student's t has no
mean."""
_NODES, _SHARES = np.polynomial.legendre.leggauss(16)
MEAN_LEVELS, MEAN_SHARES = 0.5 + (0.5 - TRIMMED) * _NODES, _SHARES / 2
"""Levels and weights by which quantiles sum to that mean (Gauss and Legendre)."""
_PERCENT = 100.0
_LEAST_UNIFORM = 2.0**-53
"""In place of 0, which no draw may come from."""
_ROWS_AT_ONCE = 512
"""Series, or paths of series, that one pass of the network reads at most."""


@dataclass(frozen=True)
class _Reading:
    """A history as the network reads it."""

    place: int
    """Among the histories that were asked for."""
    history: History
    values: Float[np.ndarray, " T"]
    last: float | None
    """Value at the origin that y is relative to; None where the values are read as they are."""

    def back(self, values: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
        """Return values in the unit of the target."""
        if self.last is None:
            return values
        with np.errstate(over="ignore"):
            return self.last * np.exp(values / _PERCENT)


@dataclass(frozen=True)
class _Found:
    """The forecast of one history, in the unit of the target."""

    quantiles: Float[np.ndarray, "h Q"]
    mean: Float[np.ndarray, " h"]
    log_variance: Float[np.ndarray, " h"] | None
    paths: Float[np.ndarray, "S h"] | None = None


class TotoForecaster:
    """Forecasts with Toto 1.0.

    Up to one patch ahead, quantiles and variances come from the network's distribution itself.
    Beyond, they come from paths that are drawn patch by patch; the first patch stays exact.

    The mean of positive series leaves the lowest and the highest 1 % out. A series that is not
    positive is read as it is; its log variance is NaN.

    Args:
        model: Toto 1.0; it is put into evaluation mode.
        context_patches: patches that are read at most.
        n_paths: paths that are drawn beyond one patch.

    Examples:
        >>> from hrl_sarp.forecasters.toto.model import TotoConfig
        >>> small = {"patch_size": 4, "embed_dim": 8, "num_heads": 2, "mlp_hidden_dim": 8}
        >>> config = TotoConfig.base().model_copy(update=small)
        >>> days = np.datetime64("2024-01-01") + np.arange(11)
        >>> history = History("A", days[:9], np.linspace(10.0, 11.0, 9), days[9:])
        >>> forecaster = TotoForecaster(Toto(config), context_patches=8, n_paths=10)
        >>> forecaster.forecast([history], (0.1, 0.5, 0.9), seed=0).quantiles.shape
        (1, 2, 3)
    """

    def __init__(self, model: Toto, context_patches: int, n_paths: int) -> None:
        self.model, self.context_patches, self.n_paths = model.eval(), context_patches, n_paths

    @property
    def name(self) -> str:
        """Name in tables."""
        return "toto"

    @property
    def context_rows(self) -> int:
        """Rows of a history that it reads at most, the newest ones."""
        return self.context_patches * self.least_rows

    @property
    def least_rows(self) -> int:
        """One patch; it reads whole patches."""
        return self.model.config.patch_size

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Forecast the steps `future` of each history.

        Args:
            histories: any lengths of at least one patch, with one number of steps.
            levels: ascending quantile levels.
            seed: seed of the paths. The draws of a history depend on it, on the symbol and on the
                origin, not on the histories beside it.

        Returns:
            The forecast of all histories, in their order. Paths are None up to one patch.

        Raises:
            ForecastError: if a history is too short, or a forecast is not finite.
        """
        require_histories(histories, self.least_rows, levels)
        steps = len(histories[0].future)
        found: dict[int, _Found] = {}
        rows = _ROWS_AT_ONCE if steps <= self.least_rows else max(_ROWS_AT_ONCE // self.n_paths, 1)
        for readings in _alike(histories, self.context_rows, self.least_rows, rows):
            forecasts = self._forecast(readings, steps, levels, seed)
            found |= {
                reading.place: forecast
                for reading, forecast in zip(readings, forecasts, strict=True)
            }
        return _together(histories, levels, found)

    @torch.no_grad()
    def _forecast(
        self, readings: Sequence[_Reading], steps: int, levels: Sequence[float], seed: int
    ) -> list[_Found]:
        """Forecast series of the same length."""
        batch = _batch(self.model, readings)
        near = min(steps, self.least_rows)
        mixture = next_steps(self.model, batch, near)
        asked, middle = mixture.quantiles(levels)[:, 0].numpy(), None
        if any(reading.last is not None for reading in readings):
            middle = mixture.quantiles(MEAN_LEVELS.tolist())[:, 0].numpy()
        moments = [part[:, 0].double().cpu().numpy() for part in (mixture.mean, mixture.variance)]
        paths = None
        if steps > near:
            uniforms = torch.stack([self._uniforms(r.history, steps, seed) for r in readings], 1)
            drawn = forecast_paths(self.model, batch, uniforms.to(batch.values.device))
            paths = drawn[:, :, 0].double().cpu().numpy()
        found = []
        for row, reading in enumerate(readings):
            mean, variance = (moment[row] for moment in moments)
            if reading.last is None or middle is None:
                exact = _Found(asked[row], mean, np.full(near, np.nan))
            else:
                exact = _Found(
                    reading.back(asked[row]),
                    reading.back(middle[row]) @ MEAN_SHARES,
                    variance / _PERCENT**2,
                )
            if paths is not None:
                exact = _extended(exact, reading, paths[:, row], levels)
            found.append(exact)
        return found

    def _uniforms(self, history: History, steps: int, seed: int) -> Float[Tensor, "S 1 h 3"]:
        """Draw what all paths of a history are made of."""
        text = f"{history.symbol} {history.origin}".encode()
        role = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
        generator = torch.Generator().manual_seed(derive_seed(seed, role))
        drawn = torch.rand((self.n_paths, 1, steps, 3), generator=generator, dtype=torch.float64)
        return drawn.clamp(min=_LEAST_UNIFORM)


class Toto2Forecaster:
    """Forecasts with Toto 2.0: one pass for any horizon, without draws.

    The network gives quantiles at 0.1, 0.2, ... 0.9. Levels between them are interpolated in a
    line; levels outside are refused, because the network says nothing about them. The mean is that
    of the nine quantiles. It has no log variance.

    Args:
        model: Toto 2.0; it is put into evaluation mode.
        context_patches: patches that are read at most.

    Examples:
        >>> from hrl_sarp.forecasters.toto.second import Toto2Config
        >>> small = {"patch_size": 4, "d_model": 8, "d_ff": 8, "qk_dim": 4, "v_dim": 4}
        >>> config = Toto2Config.smallest().model_copy(update=small)
        >>> days = np.datetime64("2024-01-01") + np.arange(15)
        >>> history = History("A", days[:9], np.linspace(10.0, 11.0, 9), days[9:])
        >>> forecaster = Toto2Forecaster(Toto2(config), context_patches=8)
        >>> forecaster.forecast([history], (0.25, 0.5, 0.75), seed=0).quantiles.shape
        (1, 6, 3)
    """

    def __init__(self, model: Toto2, context_patches: int) -> None:
        self.model, self.context_patches = model.eval(), context_patches

    @property
    def name(self) -> str:
        """Name in tables."""
        return "toto2"

    @property
    def context_rows(self) -> int:
        """Rows of a history that it reads at most, the newest ones."""
        return self.context_patches * self.least_rows

    @property
    def least_rows(self) -> int:
        """One patch; it reads whole patches."""
        return self.model.config.patch_size

    @property
    def level_range(self) -> tuple[float, float]:
        """Levels of its outermost quantiles."""
        return KNOTS[0], KNOTS[-1]

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Forecast the steps `future` of each history.

        Args:
            histories: any lengths of at least one patch, with one number of steps.
            levels: ascending quantile levels from 0.1 to 0.9.
            seed: without effect; nothing is drawn.

        Returns:
            The forecast of all histories, in their order.

        Raises:
            ForecastError: if a level lies outside 0.1 to 0.9, a history is too short, or a forecast
                is not finite.
        """
        require_histories(histories, self.least_rows, levels)
        outside = [level for level in levels if not KNOTS[0] <= level <= KNOTS[-1]]
        if outside:
            raise ForecastError(
                f"expected levels from {KNOTS[0]} to {KNOTS[-1]}, which are all that Toto 2.0 "
                f"knows, found {outside[0]}; use other levels or Toto 1.0"
            )
        steps = len(histories[0].future)
        found: dict[int, _Found] = {}
        for readings in _alike(histories, self.context_rows, self.least_rows, _ROWS_AT_ONCE):
            knots = self.model.forecast(_batch(self.model, readings), steps, guarded=True)
            for reading, quantiles in zip(
                readings, knots[:, 0].double().cpu().numpy(), strict=True
            ):
                asked = np.stack([_between(quantiles, level) for level in levels], axis=-1)
                mean = reading.back(quantiles).mean(axis=-1)
                found[reading.place] = _Found(reading.back(asked), mean, None)
        return _together(histories, levels, found)


def _alike(
    histories: Sequence[History], context_rows: int, patch_size: int, rows: int
) -> Iterator[list[_Reading]]:
    """Yield histories of the same number of whole patches together, at most `rows` at once.

    So nothing is padded, and no history can change the forecast of another.
    """
    groups: dict[int, list[_Reading]] = {}
    for place, history in enumerate(histories):
        kept = min(len(history.target), context_rows) // patch_size * patch_size
        values = np.asarray(history.target[-kept:], dtype=float)
        last = float(values[-1]) if bool((values > 0).all()) else None
        if last is not None:
            values = _PERCENT * np.log(values / last)
        groups.setdefault(kept, []).append(_Reading(place, history, values, last))
    for readings in groups.values():
        for start in range(0, len(readings), rows):
            yield readings[start : start + rows]


def _batch(model: nn.Module, readings: Sequence[_Reading]) -> SeriesBatch:
    values = torch.from_numpy(np.stack([reading.values for reading in readings]))
    return SeriesBatch.alone(values.to(next(model.parameters()).device))


def _extended(
    exact: _Found,
    reading: _Reading,
    drawn: Float[np.ndarray, "S h"],
    levels: Sequence[float],
) -> _Found:
    """Add the steps beyond the first patch, as the paths say."""
    paths = reading.back(drawn)
    near = len(exact.mean)
    far = paths[:, near:]
    if reading.last is None:
        mean, variance = far.mean(axis=0), np.full(far.shape[1], np.nan)
    else:
        mean = MEAN_SHARES @ np.quantile(far, MEAN_LEVELS, axis=0)
        variance = drawn[:, near:].var(axis=0) / _PERCENT**2
    return _Found(
        np.concatenate([exact.quantiles, np.quantile(far, levels, axis=0).T]),
        np.concatenate([exact.mean, mean]),
        np.concatenate([np.asarray(exact.log_variance), variance]),
        paths,
    )


def _between(knots: Float[np.ndarray, "h 9"], level: float) -> Float[np.ndarray, " h"]:
    """Interpolate the knots of each step at a level, in a line."""
    right = int(np.clip(np.searchsorted(KNOTS, level), 1, len(KNOTS) - 1))
    share = (level - KNOTS[right - 1]) / (KNOTS[right] - KNOTS[right - 1])
    return (1.0 - share) * knots[:, right - 1] + share * knots[:, right]


def _together(
    histories: Sequence[History], levels: Sequence[float], found: dict[int, _Found]
) -> Forecast:
    """Put forecasts in the order of their histories; refuse what is not finite."""
    in_order = [found[place] for place in range(len(histories))]
    for history, forecast in zip(histories, in_order, strict=True):
        if not (np.isfinite(forecast.quantiles).all() and np.isfinite(forecast.mean).all()):
            raise ForecastError(
                f"{history.symbol}: expected finite quantiles, found some that are not; check the "
                "weights and the scale of the series"
            )
    variances = [f.log_variance for f in in_order if f.log_variance is not None]
    paths = [f.paths for f in in_order if f.paths is not None]
    return Forecast(
        tuple(levels),
        np.stack([forecast.quantiles for forecast in in_order]),
        np.stack([forecast.mean for forecast in in_order]),
        np.stack(variances) if variances else None,
        np.stack(paths, axis=1) if paths else None,
    )
