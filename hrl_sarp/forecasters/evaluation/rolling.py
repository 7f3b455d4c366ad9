"""Forecasts from origins that roll on: the same origins for every forecaster, block by block.

A forecaster gets the rows up to an origin and the times of the next ones. Each block of origins is
a file of its own, so a run that is killed goes on behind its last block.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from loguru import logger

from hrl_sarp.errors import ForecastError
from hrl_sarp.fitting.resume import RunState
from hrl_sarp.forecasters.contract import (
    LEVELS,
    Forecast,
    Forecaster,
    HasLevelRange,
    History,
)
from hrl_sarp.forecasters.evaluation.scores import path_crps, path_pit, quantile_pit
from hrl_sarp.forecasters.series import Series, content_hash
from hrl_sarp.reporting.table import counted
from hrl_sarp.run.files import read_json, to_plain, write_json, write_table
from hrl_sarp.run.session import derive_seed
from hrl_sarp.run.terminal import PhaseBar, phase_progress

INTERVALS = (0.5, 0.8, 0.9)
"""Probabilities of the central intervals whose coverage is measured."""
WIDE_LEVELS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
"""The usual levels and the ends of `INTERVALS`."""
PARTS, PLAN, MODEL = "parts", "plan.json", "model.json"
"""Folder of the blocks, and the files in it that say of what they are."""
SHOWN = 5
"""Symbols that a message names."""
FEWEST_PATHS = 2
"""Draws of a step from which they are scored."""


@dataclass(frozen=True)
class RollingPlan:
    """From which origins how far is forecast.

    Examples:
        >>> plan = RollingPlan(5, np.datetime64("2017-01-03"), season=1)
        >>> plan.every, plan.lags
        (5, 0)
    """

    horizon: int
    """Rows that are forecast."""
    start: np.datetime64
    """No origin is before it."""
    end: np.datetime64 | None = None
    """No row after it is forecast; None takes all there are."""
    step: int | None = None
    """Rows from one origin to the next, on the clock of all series of a kind; None takes the
    horizon, so that no row is forecast twice."""
    season: int = 1
    """Rows over which a series changes in the scale of MASE and of tests."""
    scale_rows: int = 252
    """Rows before an origin that the scale is measured on."""
    levels: tuple[float, ...] = WIDE_LEVELS
    """Quantiles that are asked for; the usual nine must be among them."""
    batch_size: int = 64
    """Histories that a forecaster gets at once."""
    block_origins: int = 16
    """Origins of a file."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no run can do."""
        counts = self.horizon, self.every, self.season, self.scale_rows, self.batch_size
        if min(*counts, self.block_origins) < 1:
            raise ForecastError(f"expected whole numbers from 1 in the plan, found {self}")
        if not set(LEVELS) <= set(self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ForecastError(
                f"expected ascending levels with {', '.join(map(str, LEVELS))} among them, found "
                f"{list(self.levels)}"
            )

    @property
    def every(self) -> int:
        """Rows from one origin to the next."""
        return self.horizon if self.step is None else self.step

    @property
    def lags(self) -> int:
        """Origins after one whose forecasts overlap with its own."""
        return -(-self.horizon // self.every) - 1


@dataclass(frozen=True)
class Vintage:
    """What a model has seen, and whether it may be tested on that.

    Examples:
        >>> seen = Vintage("toto", np.datetime64("2025-05-01"), "ab12", is_release=True)
        >>> seen.has_seen(np.datetime64("2024-01-02"))
        True
    """

    model: str
    """Name in tables."""
    fitted_to: np.datetime64 | None
    """Time of the last bar that chose anything of it; None if nothing was ever fitted."""
    identity: str
    """Tells its weights and settings from others, for example a hash."""
    is_release: bool = False
    """The time is that of its release, because its makers do not say more."""
    is_allowed: bool = False
    """The user asked to test it although it has seen the window."""

    def has_seen(self, start: np.datetime64) -> bool:
        """Say whether it was fitted on rows after the first origin.

        Args:
            start: the first origin.

        Returns:
            True if the test is contaminated.
        """
        return self.fitted_to is not None and bool(start < self.fitted_to)

    @property
    def stamp(self) -> str:
        """What it has seen, in words."""
        if self.fitted_to is None:
            return "never fitted"
        day = moment(self.fitted_to)
        return f"released on {day}" if self.is_release else f"fitted on data up to {day}"


@dataclass(frozen=True)
class Origin:
    """A time from which the series of a kind are forecast.

    Examples:
        >>> Origin("1-day bars in sessions", np.datetime64("2017-01-03"), ((0, 4310),)).rows
        ((0, 4310),)
    """

    kind: str
    time: np.datetime64
    rows: tuple[tuple[int, int], ...]
    """Series, as a place in their list, and its row of that time."""


def find_origins(series: Sequence[Series], plan: RollingPlan, least_rows: int) -> list[Origin]:
    """Choose the origins of every kind of series.

    The clock of a kind ticks wherever one of its series has a row. A series takes part where it has
    a row at the origin, enough rows before and all rows after it, and no hole among them.

    Args:
        series: with different symbols.
        plan: window and steps.
        least_rows: rows that a history must have, for all forecasters.

    Returns:
        Origins by kind, in the order of time.

    Raises:
        ForecastError: if symbols are not different, or no series takes part anywhere.
    """
    symbols = [one.symbol for one in series]
    if not symbols or len(set(symbols)) < len(symbols):
        raise ForecastError(f"expected series with different symbols, found {symbols}")
    found = []
    for kind in dict.fromkeys(one.kind for one in series):
        members = [i for i, one in enumerate(series) if one.kind == kind]
        clock = np.unique(np.concatenate([_window(series[i], plan) for i in members]))
        for at in clock[:: plan.every]:
            rows = [(i, _row_of(series[i], at, plan, least_rows)) for i in members]
            known = tuple((i, row) for i, row in rows if row is not None)
            if known:
                found.append(Origin(kind, at, known))
    if not found:
        spans = ", ".join(
            f"{one.symbol} {moment(one.timestamps[0])} to {moment(one.timestamps[-1])}"
            for one in series[:SHOWN]
        )
        raise ForecastError(
            f"no origin from {moment(plan.start)} on has {least_rows} rows up to it and "
            f"{plan.horizon} after it without a hole ({spans}); move the start, or give longer "
            "series"
        )
    return found


def moment(time: np.datetime64) -> str:
    """Write a time without what is 0.

    Args:
        time: in any unit.

    Returns:
        A date, with the time of day if that is not midnight.

    Examples:
        >>> moment(np.datetime64("2024-01-02T00:00")), moment(np.datetime64("2024-01-02T09:30"))
        ('2024-01-02', '2024-01-02 09:30')
    """
    return str(time.astype("datetime64[m]")).replace("T", " ").removesuffix(" 00:00")


def _window(series: Series, plan: RollingPlan) -> np.ndarray:
    times = series.timestamps
    inside = times >= plan.start
    return times[inside if plan.end is None else inside & (times < plan.end)]


def _row_of(series: Series, at: np.datetime64, plan: RollingPlan, least_rows: int) -> int | None:
    """Return the row of a time, if the series can be forecast from there."""
    times, stretch = series.timestamps, series.stretch
    row = int(np.searchsorted(times, at))
    last = row + plan.horizon
    if last >= len(times) or times[row] != at or stretch[last] != stretch[row]:
        return None
    if plan.end is not None and times[last] > plan.end:
        return None
    begin = int(np.searchsorted(stretch, stretch[row]))
    return row if row + 1 - begin >= least_rows else None


class Roller:
    """Forecasts all origins with one forecaster after the other.

    Args:
        series: what is forecast.
        plan: origins and steps.
        folder: of the run; blocks are kept below `parts`.

    Examples:
        >>> from tempfile import mkdtemp
        >>> from hrl_sarp.forecasters.evaluation.baselines import LastValue
        >>> days = np.datetime64("2024-01-01") + np.arange(40)
        >>> series = Series("A", days, np.linspace(1.0, 2.0, 40), None)
        >>> roller = Roller([series], RollingPlan(2, days[30]), Path(mkdtemp()))
        >>> roller.roll({"last value": LastValue()}, {"last value": "none"}).height
        8
    """

    def __init__(self, series: Sequence[Series], plan: RollingPlan, folder: Path) -> None:
        self.series, self.plan, self.parts = series, plan, folder / PARTS
        self.origins: list[Origin] = []

    def roll(
        self, forecasters: Mapping[str, Forecaster], identities: Mapping[str, str]
    ) -> pl.DataFrame:
        """Forecast with every forecaster, from the same origins.

        Args:
            forecasters: by their names in tables.
            identities: name -> what tells its weights and settings from others.

        Returns:
            A row for each model, series, origin and step, in that order: `model`, `kind`, `symbol`,
            `origin`, `step`, `time`, `last` (value at the origin), `scale`, `y` (what came),
            `mean`, a column for each level, `log_variance`, `crps_paths` and `pit`. What a
            forecaster does not give is NaN.

        Raises:
            ForecastError: if names are too alike, no origin is found, or a forecast is not finite.
            CheckpointError: if the folder holds blocks of another plan, other data or another
                model; names what differs.
        """
        folders = _folders(list(forecasters))
        least = max(forecaster.least_rows for forecaster in forecasters.values())
        self.origins = find_origins(self.series, self.plan, least)
        plan = to_plain({key: str(value) for key, value in asdict(self.plan).items()})
        whole = {"plan": plan, "data": content_hash(self.series), "rows before an origin": least}
        _claim(self.parts / PLAN, whole)
        for name in forecasters:
            own = {"model": name, "weights": identities[name]}
            _claim(self.parts / folders[name] / MODEL, own)
        blocks = self._blocks()
        n_each = sum(len(origin.rows) for origin in self.origins)
        logger.info(
            f"{counted(len(self.origins), 'origin')} from {moment(self.origins[0].time)} on, "
            f"{counted(n_each, 'forecast')} of {counted(self.plan.horizon, 'step')} by each of "
            f"{counted(len(forecasters), 'forecaster')}"
        )
        self._tell_left_out()
        total = n_each * len(forecasters)
        files = []
        with phase_progress("forecasts", total, unit="forecasts") as bar:
            for place, (name, forecaster) in enumerate(forecasters.items()):
                own_bar = bar.shifted(place * n_each)
                folder = self.parts / folders[name]
                files += self._roll_one(name, forecaster, folder, blocks, own_bar)
        return pl.concat([pl.read_parquet(file) for file in files])

    def left_out(self) -> dict[str, int]:
        """Count the origins of its kind at which a series does not take part.

        Returns:
            Symbol -> origins without a row, without enough rows around them, or beside a hole.
        """
        at = [sum(one.kind == origin.kind for origin in self.origins) for one in self.series]
        taken = np.bincount(
            [i for origin in self.origins for i, _ in origin.rows], minlength=len(self.series)
        )
        missing = zip(self.series, at, taken, strict=True)
        return {one.symbol: int(n - took) for one, n, took in missing if n > took}

    def _tell_left_out(self) -> None:
        missing = self.left_out()
        if missing:
            named = ", ".join(f"{symbol} {n}" for symbol, n in list(missing.items())[:SHOWN])
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            logger.info(
                f"left out at some origins, for lack of a row there, of rows before or after, or "
                f"beside a hole: {named}{more}"
            )

    def _blocks(self) -> list[list[Origin]]:
        """Cut the origins of each kind into files."""
        size = self.plan.block_origins
        found = []
        for kind in dict.fromkeys(origin.kind for origin in self.origins):
            own = [origin for origin in self.origins if origin.kind == kind]
            found += [own[i : i + size] for i in range(0, len(own), size)]
        return found

    def _roll_one(
        self,
        name: str,
        forecaster: Forecaster,
        folder: Path,
        blocks: list[list[Origin]],
        bar: PhaseBar,
    ) -> list[Path]:
        """Forecast the blocks that are not there yet."""
        files = [folder / f"{number:05}.parquet" for number in range(len(blocks))]
        sizes = [sum(len(origin.rows) for origin in block) for block in blocks]
        left = sum(n for n, file in zip(sizes, files, strict=True) if not file.is_file())
        tell = _Teller(name, left)
        done = 0
        for number, (file, block) in enumerate(zip(files, blocks, strict=True)):
            if not file.is_file():
                seed = derive_seed(self.plan.seed, number)
                count = partial(_count, bar, done, tell)
                frame = self._forecast_block(name, forecaster, block, seed, count)
                write_table(file, frame)
            done += sizes[number]
            bar.update(done)
        return files

    def _forecast_block(
        self,
        name: str,
        forecaster: Forecaster,
        block: list[Origin],
        seed: int,
        count: Callable[[int], None],
    ) -> pl.DataFrame:
        cells = [(origin, i, row) for origin in block for i, row in origin.rows]
        levels = known_levels(forecaster, self.plan)
        frames = []
        for first in range(0, len(cells), self.plan.batch_size):
            batch = cells[first : first + self.plan.batch_size]
            histories = [self._history(i, row, forecaster.context_rows) for _, i, row in batch]
            forecast = forecaster.forecast(histories, levels, derive_seed(seed, first))
            _require_sound(forecast, name, histories, levels)
            kinds = [origin.kind for origin, _, _ in batch]
            frames.append(self._frame(name, kinds, [(i, row) for _, i, row in batch], forecast))
            count(first + len(batch))
        return pl.concat(frames)

    def _history(self, place: int, row: int, most_rows: int) -> History:
        one = self.series[place]
        future = one.timestamps[row + 1 : row + 1 + self.plan.horizon]
        return one.until(row + 1, future, most_rows)

    def _frame(
        self, model: str, kinds: list[str], rows: list[tuple[int, int]], forecast: Forecast
    ) -> pl.DataFrame:
        """Put forecasts beside what came."""
        plan, steps = self.plan, np.arange(1, self.plan.horizon + 1)
        ahead = [(self.series[i], row + steps) for i, row in rows]
        came = np.concatenate([one.target[later] for one, later in ahead])
        lost = np.full(len(came), np.nan)
        quantiles = forecast.quantiles.reshape(len(came), -1)
        by_level = dict(zip(forecast.levels, quantiles.T, strict=True))
        variance = forecast.log_variance
        paths = None if forecast.paths is None else forecast.paths.reshape(-1, len(came))
        crps, pit = _density_scores(came, quantiles, forecast.levels, paths)
        each = [len(steps)] * len(rows)
        columns = {
            "kind": np.repeat(kinds, each),
            "symbol": np.repeat([self.series[i].symbol for i, _ in rows], each),
            "origin": np.repeat([_micros(self.series[i].timestamps[row]) for i, row in rows], each),
            "step": np.tile(steps.astype(np.int32), len(rows)),
            "time": np.concatenate([_micros(one.timestamps[later]) for one, later in ahead]),
            "last": np.repeat([self.series[i].target[row] for i, row in rows], each),
            "scale": np.repeat([self._scale(i, row) for i, row in rows], each),
            "y": came,
            "mean": forecast.mean.ravel(),
            **{str(level): by_level.get(level, lost) for level in plan.levels},
            "log_variance": lost if variance is None else variance.ravel(),
            "crps_paths": crps,
            "pit": pit,
        }
        return pl.DataFrame({"model": [model] * len(came), **columns})

    def _scale(self, place: int, row: int) -> float:
        """Measure the mean change over a season before an origin; 0 where there is none."""
        known = self._history(place, row, self.plan.scale_rows + self.plan.season).target
        changes = np.abs(known[self.plan.season :] - known[: -self.plan.season])
        return float(changes.mean()) if len(changes) else 0.0


def known_levels(forecaster: Forecaster, plan: RollingPlan) -> tuple[float, ...]:
    """Choose the levels of a plan that a forecaster knows.

    Args:
        forecaster: may have a `level_range`.
        plan: names the levels.

    Returns:
        Levels, ascending.
    """
    if not isinstance(forecaster, HasLevelRange):
        return plan.levels
    low, high = forecaster.level_range
    return tuple(level for level in plan.levels if low <= level <= high)


def _folders(names: list[str]) -> dict[str, str]:
    """Name a folder for each model."""
    folders = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()) for name in names}
    if len(set(folders.values())) < len(names) or not names:
        raise ForecastError(
            f"expected forecasters whose names differ in letters or digits, found {names}"
        )
    return folders


def _claim(path: Path, identity: Mapping[str, object]) -> None:
    """Refuse blocks of another run, or say of what the new ones will be."""
    if path.is_file():
        state = RunState(path.parent, "rolling forecasts", identity, resume=True)
        state.require_same(read_json(path, "evaluate-forecaster"), str(path.parent))
    else:
        write_json(path, identity)


class _Teller:
    """Says once what the forecasts of a model will take, after its first batch."""

    def __init__(self, model: str, left: int) -> None:
        self._model, self._left, self._began = model, left, time.monotonic()

    def __call__(self, done: int) -> None:
        if self._left:
            spent = time.monotonic() - self._began
            logger.info(
                f"{self._model}: {counted(self._left, 'forecast')} to make; the first {done} took "
                f"{spent:.2f} s, so about {spent / done * self._left:.0f} s"
            )
            self._left = 0


def _count(bar: PhaseBar, before: int, tell: _Teller, done: int) -> None:
    tell(done)
    bar.update(before + done)


def _density_scores(
    came: Float[np.ndarray, " n"],
    quantiles: Float[np.ndarray, "n Q"],
    levels: tuple[float, ...],
    paths: Float[np.ndarray, "S n"] | None,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Score draws while they are there: the table keeps quantiles alone."""
    if paths is None or len(paths) < FEWEST_PATHS:
        return np.full(len(came), np.nan), quantile_pit(came, quantiles, levels)
    return path_crps(came, paths), path_pit(came, paths)


def _micros(times: np.datetime64 | np.ndarray) -> np.datetime64 | np.ndarray:
    """Bring times to one unit, so that kinds of series fit into one table."""
    return times.astype("datetime64[us]")


def _require_sound(
    forecast: Forecast, model: str, histories: Sequence[History], levels: tuple[float, ...]
) -> None:
    """Refuse a forecast of another form, or one that is not finite, by symbol and origin."""
    shape = len(histories), len(histories[0].future), len(levels)
    if forecast.quantiles.shape != shape or forecast.levels != levels:
        raise ForecastError(
            f"{model}: expected quantiles of shape {shape} at the levels of the plan, found "
            f"{forecast.quantiles.shape} at {forecast.levels}"
        )
    wrong = _is_wrong(forecast)
    if wrong.any():
        history = histories[int(np.argmax(wrong))]
        raise ForecastError(
            f"{model}: expected finite, ascending quantiles, found others for {history.symbol} "
            f"from {history.origin} on; look at its values before that time"
        )


def _is_wrong(forecast: Forecast) -> Bool[np.ndarray, " B"]:
    finite = np.isfinite(forecast.quantiles).all(axis=2) & np.isfinite(forecast.mean)
    rising = (np.diff(forecast.quantiles, axis=2) >= 0.0).all(axis=2)
    return ~(finite & rising).all(axis=1)
