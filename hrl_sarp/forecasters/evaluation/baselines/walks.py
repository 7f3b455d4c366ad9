"""Densities of random walks whose variance changes: EWMA, HAR and GARCH.

Each is fitted anew at every origin, to the newest `context_rows` rows before it, on logs where all
values are positive, else on the values themselves.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from hrl_sarp.forecasters.contract import Forecast, History, require_histories
from hrl_sarp.run.session import derive_seed

EWMA_DECAY = 0.94
"""Decay of RiskMetrics for daily variances."""
HAR_ROWS = (1, 5, 22)
"""Rows that the averages of HAR reach back: a day, a week and a month of sessions."""
PARKINSON = 4.0 * np.log(2.0)
"""Squared log range over this is the variance of a row."""
HIGH, LOW = 1, 2
"""Columns of `History.bars`."""


def normal_forecast(
    histories: Sequence[History],
    centre: Float[np.ndarray, "B h"],
    variance: Float[np.ndarray, "B h"],
    levels: Sequence[float],
) -> Forecast:
    """Make normal densities: of logs for positive series, of values for others.

    Args:
        histories: one for each row.
        centre: of the log, or of the value.
        variance: in the same unit, squared; 0 gives a point.
        levels: of the quantiles.

    Returns:
        The forecast. Its variances of logs are NaN for series that are not positive, and where
        they are 0.
    """
    from scipy.special import ndtri

    is_log = np.array([is_positive(history) for history in histories])[:, None]
    quantiles = centre[..., None] + np.sqrt(variance)[..., None] * ndtri(np.array(levels))
    quantiles = _unlevelled(quantiles, is_log[..., None])
    mean = _unlevelled(np.where(is_log, centre + 0.5 * variance, centre), is_log)
    known = np.where(is_log & (variance > 0.0), variance, np.nan)
    return Forecast(tuple(levels), quantiles, mean, known)


def newest(histories: Sequence[History], n_rows: int) -> list[History]:
    """Keep the newest rows of each history.

    Args:
        histories: of any length.
        n_rows: rows that a forecaster reads at most.

    Returns:
        The histories, cut.
    """
    return [history.last(n_rows) for history in histories]


def is_positive(history: History) -> bool:
    """Say whether a series has logs.

    Args:
        history: a series.

    Returns:
        True if all its values are above 0.
    """
    return bool((history.target > 0.0).all())


def levelled(history: History) -> Float[np.ndarray, " T"]:
    """Return the logs of a positive series, or the values of another.

    Args:
        history: a series.

    Returns:
        One number a row.
    """
    return np.log(history.target) if is_positive(history) else history.target


def _unlevelled(
    values: Float[np.ndarray, "*shape"], is_log: Bool[np.ndarray, "..."]
) -> Float[np.ndarray, "*shape"]:
    """Return from logs to values where they are logs."""
    return np.where(is_log, np.exp(np.where(is_log, values, 0.0)), values)


@dataclass(frozen=True)
class EwmaWalk:
    """A random walk without drift: normal, its variance an average that forgets.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(42)
        >>> history = History("A", days[:40], np.exp(np.arange(40) % 2 * 0.1), days[40:])
        >>> forecast = EwmaWalk().forecast([history], (0.5,), seed=0)
        >>> forecast.quantiles.round(3).ravel(), forecast.log_variance.round(3)
        (array([1.105, 1.105]), array([[0.01, 0.02]]))
    """

    name: str = "random walk, EWMA variance"
    decay: float = EWMA_DECAY
    context_rows: int = 252
    least_rows: int = 21

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Forecast normal densities around the last value, which grow with the root of time.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: not used.

        Returns:
            Densities.
        """
        require_histories(histories, self.least_rows, levels)
        histories = newest(histories, self.context_rows)
        ahead = np.arange(1, len(histories[0].future) + 1)
        centre, variance = np.empty(len(histories)), np.empty(len(histories))
        for i, history in enumerate(histories):
            values = levelled(history)
            squared = np.diff(values) ** 2
            weights = self.decay ** np.arange(len(squared))[::-1]
            centre[i], variance[i] = values[-1], weights @ squared / weights.sum()
        flat = np.repeat(centre[:, None], len(ahead), axis=1)
        return normal_forecast(histories, flat, variance[:, None] * ahead, levels)


@dataclass(frozen=True)
class HarWalk:
    """A random walk whose variance follows HAR: averages over 1, 5 and 22 rows.

    The variance of a row is its squared change. Where the series has bars, it is the squared log
    range of the row instead, scaled to the mean squared change of the context, because a range
    tells more of a day than its close.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(152)
        >>> history = History("A", days[:150], np.exp(np.arange(150) % 2 * 0.1), days[150:])
        >>> HarWalk().forecast([history], (0.5,), seed=0).log_variance.round(3)
        array([[0.01, 0.02]])

    Source:
        Corsi (2009), "A simple approximate long-memory model of realized volatility".
    """

    name: str = "random walk, HAR variance"
    context_rows: int = 1000
    least_rows: int = 100

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Forecast normal densities around the last value.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: not used.

        Returns:
            Densities.
        """
        require_histories(histories, self.least_rows, levels)
        histories = newest(histories, self.context_rows)
        steps = len(histories[0].future)
        variance = np.array([self._variances(each, steps) for each in histories])
        last = np.array([levelled(each)[-1] for each in histories])
        flat = np.repeat(last[:, None], steps, axis=1)
        return normal_forecast(histories, flat, variance.cumsum(axis=1), levels)

    def _variances(self, history: History, steps: int) -> Float[np.ndarray, " h"]:
        """Forecast the variance of each of the next rows."""
        rows = row_variances(history)
        if not rows.any():
            return np.zeros(steps)
        longest = max(HAR_ROWS)
        sums = np.concatenate([[0.0], rows.cumsum()])
        ends = np.arange(longest, len(rows))
        inputs = [np.ones(len(ends)), *((sums[ends] - sums[ends - n]) / n for n in HAR_ROWS)]
        design = np.column_stack(inputs)
        slopes = np.linalg.lstsq(design, rows[longest:], rcond=None)[0]
        # a regression may leave what was ever seen, even fall below 0
        low, high = rows[rows > 0.0].min(), rows.max()
        known = list(rows[-longest:])
        for _ in range(steps):
            averages = [1.0, *(float(np.mean(known[-n:])) for n in HAR_ROWS)]
            known.append(float(np.clip(slopes @ averages, low, high)))
        return np.array(known[longest:])


def row_variances(history: History) -> Float[np.ndarray, " rows"]:
    """Measure the variance of each row after the first.

    Args:
        history: a series; its bars are used if they have ranges and the values are positive.

    Returns:
        Squared changes, or squared log ranges with the same mean.
    """
    squared = np.diff(levelled(history)) ** 2
    if history.bars is None or not is_positive(history):
        return squared
    high, low = history.bars[1:, HIGH], history.bars[1:, LOW]
    if not (low > 0.0).all():
        return squared
    ranges = np.log(high / low) ** 2 / PARKINSON
    return ranges * (squared.mean() / ranges.mean()) if ranges.any() else squared


@dataclass(frozen=True)
class GarchWalk:
    """A random walk with GARCH(1,1) variance and Student's t, drawn as paths with a seed.

    Examples:
        >>> days = np.datetime64("2024-01-01") + np.arange(302)
        >>> moves = np.random.default_rng(0).normal(0.0, 0.01, 300)
        >>> history = History("A", days[:300], np.exp(moves.cumsum()), days[300:])
        >>> forecast = GarchWalk(n_paths=50).forecast([history], (0.1, 0.9), seed=0)
        >>> forecast.paths.shape, bool(5e-5 < forecast.log_variance[0, 0] < 2e-4)
        ((50, 1, 2), True)

    Source:
        Bollerslev (1987); library `arch`.
    """

    name: str = "random walk, GARCH-t"
    context_rows: int = 1000
    least_rows: int = 250
    n_paths: int = 500

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Draw paths from the last value on.

        Args:
            histories: checked by `require_histories`.
            levels: ascending quantile levels.
            seed: of the draws; those of a series follow from it, its symbol and its origin alone.

        Returns:
            Densities with paths. Quantiles and means take the mirrored paths in, too, which the
            model holds for as likely.
        """
        require_histories(histories, self.least_rows, levels)
        histories = newest(histories, self.context_rows)
        n, steps = len(histories), len(histories[0].future)
        moves, variance = np.zeros((self.n_paths, n, steps)), np.zeros((n, steps))
        for i, history in enumerate(histories):
            changes = np.diff(levelled(history))
            if np.ptp(changes) > 0.0:
                moves[:, i], variance[i] = self._drawn(changes, steps, history, seed)
        last = np.array([levelled(history)[-1] for history in histories])[:, None]
        is_log = np.array([is_positive(history) for history in histories])[:, None]
        mirrored = np.concatenate([moves, -moves])
        values = _unlevelled(last + mirrored, is_log)
        ends = np.moveaxis(np.quantile(mirrored, levels, axis=0), 0, -1)
        quantiles = _unlevelled(last[..., None] + ends, is_log[..., None])
        known = np.where(is_log & (variance > 0.0), variance, np.nan)
        mean = values.mean(axis=0)
        return Forecast(tuple(levels), quantiles, mean, known, values[: self.n_paths])

    def _drawn(
        self, changes: Float[np.ndarray, " rows"], steps: int, history: History, seed: int
    ) -> tuple[Float[np.ndarray, "S h"], Float[np.ndarray, " h"]]:
        """Fit one series; draw its summed changes, and forecast their variance."""
        from arch import arch_model  # here, because it takes a second to import

        unit = float(np.sqrt((changes**2).mean()))
        model = arch_model(changes / unit, mean="Zero", vol="GARCH", dist="t", rescale=False)
        # where it does not converge, its last values still are a variance that is stationary
        fitted = model.fit(disp="off", show_warning=False)
        omega, alpha, beta, freedom = fitted.params.to_numpy()
        newest = float(fitted.conditional_volatility[-1]) ** 2
        first = omega + alpha * (changes[-1] / unit) ** 2 + beta * newest
        stream = zlib.crc32(f"{history.symbol} {history.origin}".encode())
        rng = np.random.default_rng(derive_seed(seed, stream))
        scale = np.sqrt((freedom - 2.0) / freedom)
        draws = scale * rng.standard_t(freedom, (steps, self.n_paths))
        variance, expected = np.full(self.n_paths, first), np.full(steps, first)
        moves = np.empty((self.n_paths, steps))
        for step in range(steps):
            moves[:, step] = np.sqrt(variance) * draws[step]
            variance = omega + alpha * moves[:, step] ** 2 + beta * variance
            if step:
                expected[step] = omega + (alpha + beta) * expected[step - 1]
        return unit * moves.cumsum(axis=1), unit**2 * expected.cumsum()
