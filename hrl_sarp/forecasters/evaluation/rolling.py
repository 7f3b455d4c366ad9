"""Forecasts from origins that roll on: the same origins for every forecaster, block by block.

A forecaster gets the rows up to an origin and the times of the next ones. Each block of origins is
a file of its own, so a run that is killed goes on behind its last block.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from loguru import logger

from hrl_sarp.errors import CheckpointError, ForecastError
from hrl_sarp.fitting.resume import RunState
from hrl_sarp.forecasters.contract import Forecast, Forecaster, HasLevelRange, History
from hrl_sarp.forecasters.evaluation.plan import SHOWN, Origin, RollingPlan, find_origins, moment
from hrl_sarp.forecasters.evaluation.scores import path_crps, path_pit, quantile_pit
from hrl_sarp.forecasters.series import Series, content_hash
from hrl_sarp.reporting.table import counted
from hrl_sarp.run.damage import UNREADABLE_TABLE
from hrl_sarp.run.files import read_json, source_hash, to_plain, write_json, write_table
from hrl_sarp.run.session import derive_seed
from hrl_sarp.run.terminal import PhaseBar, phase_progress

PARTS, PLAN, MODEL = "parts", "plan.json", "model.json"
"""Folder of the blocks, and the files in it that say of what they are."""
CODE = tuple(
    f"forecasters/evaluation/{part}" for part in ("plan.py", "rolling.py", "scores.py", "baselines")
)
"""Source of what stands in a block, apart from models."""
FEWEST_PATHS = 2
"""Draws of a step from which they are scored."""


class Roller:
    """Forecasts all origins with one forecaster after the other.

    Args:
        series: what is forecast.
        plan: origins and steps.
        folder: of the run; blocks are kept below `parts`.

    Examples:
        >>> from tempfile import mkdtemp
        >>> from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
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
            A row for each model, origin, series and step, in that order: `model`, `kind`, `symbol`,
            `origin`, `step`, `time`, `last` (value at the origin), `scale`, `y` (what came),
            `mean`, a column for each level, `log_variance`, `crps_paths` and `pit`. What a
            forecaster does not give is NaN.

        Raises:
            ForecastError: if names are too alike, no origin is found, or a forecast is not finite.
            CheckpointError: if the folder holds blocks of another plan, other data or another
                model (names what differs), or one that is damaged.
        """
        folders = _folders(list(forecasters))
        least = max(forecaster.least_rows for forecaster in forecasters.values())
        self.origins = find_origins(self.series, self.plan, least)
        plan = to_plain({key: str(value) for key, value in asdict(self.plan).items()})
        whole = {
            "plan": plan,
            "data": content_hash(self.series),
            "rows before an origin": least,
            "code_version": source_hash(*CODE),
        }
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
        return pl.concat([_read_block(file) for file in files])

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


def _read_block(file: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(file)
    except UNREADABLE_TABLE as error:
        raise CheckpointError(
            f"{file}: expected forecasts, found an unreadable file; remove it and repeat the "
            "command, which makes it anew"
        ) from error


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
