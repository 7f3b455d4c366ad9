"""What users call: a forecaster from a folder, and its forecasts of arrays and tables.

`load_forecaster(path).predict_df(table, prediction_length=5)` takes and gives the column names that
chronos and statsforecast use, as pandas or polars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from hrl_sarp.errors import CheckpointError, ForecastError
from hrl_sarp.forecasters.contract import (
    BAR_COLUMNS,
    LEVELS,
    Forecaster,
    History,
    require_histories,
)
from hrl_sarp.forecasters.evaluation.rolling import Vintage
from hrl_sarp.forecasters.kronos.files import load_kronos
from hrl_sarp.forecasters.kronos.sampling import Sampling
from hrl_sarp.forecasters.series import Series, next_times
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster, TotoForecaster
from hrl_sarp.forecasters.toto.model import load_toto
from hrl_sarp.forecasters.toto.second import load_toto2
from hrl_sarp.forecasters.training.run import (
    DESCRIPTION,
    MODEL,
    TOKENIZER_FOLDER,
    WRITER,
    hash_of_weights,
)
from hrl_sarp.forecasters.weights import CONFIG, read_weights
from hrl_sarp.run.files import read_json

if TYPE_CHECKING:
    import pandas as pd

    Table = TypeVar("Table", pd.DataFrame, pl.DataFrame)

KEYS = {
    "toto": "model.patch_embed.projection.weight",
    "toto2": "patch_proj.linear1.weight",
    "kronos": "embedding.emb_s1.weight",
    "kronos-tokenizer": "quant_embed.weight",
}
"""Kind of a model -> a tensor that only its files have."""
RELEASED = {"toto": "2025-05-31", "kronos": "2025-08-31", "toto2": "2026-06-30"}
"""Last day of the month in which published weights came out. They may have seen all before it."""
PUBLISHED_PATCHES = 16
"""Patches that published Totos read where nothing says otherwise."""
DEFAULT_PATHS = 256
ALIASES = {"item_id": "unique_id", "timestamp": "ds", "target": "y"}
"""Usual column names here -> those of statsforecast."""
CLOSE = "close"


@dataclass(frozen=True)
class LoadedForecaster:
    """A forecaster with what it has seen, and the ways to ask it.

    Examples:
        >>> from hrl_sarp.forecasters.evaluation.baselines import LastValue
        >>> naive = LoadedForecaster(LastValue(), Vintage("last value", None, "rule"))
        >>> quantiles, mean = naive.predict_quantiles([np.array([1.0, 2.0, 4.0])], 2, (0.1, 0.9))
        >>> quantiles.shape, mean
        ((1, 2, 2), array([[4., 4.]]))
    """

    forecaster: Forecaster
    vintage: Vintage

    def predict_quantiles(
        self,
        context: Float[np.ndarray, "B T"] | Sequence[Float[np.ndarray, " _"]],
        prediction_length: int,
        quantile_levels: Sequence[float] = LEVELS,
        seed: int = 0,
    ) -> tuple[Float[np.ndarray, "B h Q"], Float[np.ndarray, "B h"]]:
        """Forecast values that stand at equal distances.

        Args:
            context: one series a row, or arrays of any lengths. They have no times, so days are
                made up, which only Kronos reads.
            prediction_length: h, steps to forecast.
            quantile_levels: ascending, each in (0, 1).
            seed: of draws.

        Returns:
            Quantiles and means, in the unit of the series.

        Raises:
            ForecastError: if a series is too short or holds a value that is not finite.
        """
        histories = []
        for place, values in enumerate(context):
            days = np.datetime64("2000-01-01") + np.arange(len(values) + prediction_length)
            times = days[: len(values)], days[len(values) :]
            target = np.asarray(values, dtype=np.float64)
            histories.append(History(f"series {place}", times[0], target, times[1]))
        require_histories(histories, self.forecaster.least_rows, quantile_levels)
        found = self.forecaster.forecast(histories, quantile_levels, seed)
        return found.quantiles, found.mean

    def predict_df(
        self,
        df: "Table",
        prediction_length: int,
        quantile_levels: Sequence[float] = LEVELS,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str = "target",
        seed: int = 0,
    ) -> "Table":
        """Forecast every series of a long table.

        Args:
            df: pandas or polars. Columns of symbol, time and target; `unique_id`, `ds` and `y` are
                taken for the usual names, and `close` for the target, where those are absent. With
                columns open, high, low and close, Kronos reads bars.
            prediction_length: steps to forecast.
            quantile_levels: ascending, each in (0, 1).
            id_column: column of the symbol; a table without it is one series.
            timestamp_column: column of the time, which rows need not be sorted by.
            target: column to forecast.
            seed: of draws.

        Returns:
            As `df` came: symbol, time, `target_name`, `predictions` (the median, where 0.5 is among
            the levels, else the mean) and a column for each level. Times go on as
            `series.next_times` says.

        Raises:
            ForecastError: names the symbol and the row: a gap, a missing value, a short history.
        """
        given: Any = df
        is_polars = isinstance(given, pl.DataFrame)
        frame = given if is_polars else pl.from_pandas(given)
        names = _columns(frame, id_column, timestamp_column, target)
        histories = [
            _history(series, prediction_length, self.forecaster.context_rows)
            for series in _series_of(frame, *names)
        ]
        require_histories(histories, self.forecaster.least_rows, quantile_levels)
        found = self.forecaster.forecast(histories, quantile_levels, seed)
        point = found.at(0.5) if 0.5 in found.levels else found.mean
        rows = {
            names[0] or id_column: np.repeat([one.symbol for one in histories], prediction_length),
            names[1]: np.concatenate([one.future for one in histories]),
            "target_name": [names[2]] * point.size,
            "predictions": point.ravel(),
            **{
                str(level): found.quantiles[..., place].ravel()
                for place, level in enumerate(found.levels)
            },
        }
        made = pl.DataFrame(rows)
        made = made if names[0] else made.drop(id_column)
        result: Any = made if is_polars else made.to_pandas()
        return result


def load_forecaster(
    path: Path | str,
    *,
    tokenizer: Path | None = None,
    context: int | None = None,
    n_paths: int = DEFAULT_PATHS,
    pretrained_until: date | None = None,
) -> LoadedForecaster:
    """Read a forecaster: a run of `train-forecaster`, or published weights on this disk.

    Args:
        path: folder of a run, folder of published weights, or a file of weights.
        tokenizer: of published Kronos weights.
        context: rows that it reads at most; None takes those of its training, 16 patches for
            published Totos, and 512 rows less the horizon for published Kronos.
        n_paths: paths that are drawn where quantiles need draws.
        pretrained_until: last day of the data that published weights were fitted to; None takes
            the end of the month of their release.

    Returns:
        The forecaster, and what it has seen.

    Raises:
        MissingArtifactError: if there is nothing at the path.
        CheckpointError: if the weights are damaged or of no model that is known.
    """
    path = Path(path)
    if (path / DESCRIPTION).is_file():
        return _of_run(path, context, n_paths)
    kind = kind_of_weights(path)
    if kind == "toto":
        model = load_toto(path)
        rows = context or PUBLISHED_PATCHES * model.config.patch_size
        forecaster: Forecaster = TotoForecaster(model, rows // model.config.patch_size, n_paths)
    elif kind == "toto2":
        second = load_toto2(path)
        rows = context or PUBLISHED_PATCHES * second.config.patch_size
        forecaster = Toto2Forecaster(second, rows // second.config.patch_size)
    else:
        if tokenizer is None:
            raise CheckpointError(f"{path}: Kronos needs its tokenizer; name it with --tokenizer")
        forecaster = load_kronos(path, tokenizer, Sampling(n_paths), context=context)
    until = np.datetime64(pretrained_until or RELEASED[kind])
    is_release = pretrained_until is None
    seen = Vintage(forecaster.name, until, hash_of_weights(path), is_release=is_release)
    return LoadedForecaster(forecaster, seen)


def seen_until(path: Path, model: str) -> str:
    """Say what weights that are trained further have seen.

    Args:
        path: folder of weights, or of a run.
        model: value of --model.

    Returns:
        The time of the last bar of their run; for published ones, the end of the month of their
        release.
    """
    for folder in (path, path.parent):
        if (folder / DESCRIPTION).is_file():
            return str(read_json(folder / DESCRIPTION, WRITER)["fitted_to"])
    return RELEASED[model.removesuffix("-tokenizer")]


def kind_of_weights(path: Path) -> str:
    """Tell which model a file of weights belongs to.

    Args:
        path: folder or file.

    Returns:
        `toto`, `toto2` or `kronos`.

    Raises:
        CheckpointError: if it is none of them; a tokenizer alone forecasts nothing.
    """
    state = read_weights(path).state
    for kind, name in KEYS.items():
        if name in state and kind != "kronos-tokenizer":
            return kind
    if KEYS["kronos-tokenizer"] in state:
        raise CheckpointError(
            f"{path}: holds a tokenizer of Kronos, which forecasts nothing alone; name the "
            "predictor, and this as --tokenizer"
        )
    raise CheckpointError(
        f"{path}: expected weights of Toto 1.0, Toto 2.0 or Kronos, found tensors such as "
        f"{', '.join(sorted(state)[:3]) or 'none'}; name the folder of the model with {CONFIG}"
    )


def _of_run(folder: Path, context: int | None, n_paths: int) -> LoadedForecaster:
    description = read_json(folder / DESCRIPTION, WRITER)
    found, wanted = hash_of_weights(folder / MODEL), description["weights_sha256"]
    if found != wanted:
        raise CheckpointError(
            f"{folder / MODEL}: expected the weights that {DESCRIPTION} describes, found others; "
            "restore both or train again"
        )
    rows = context or int(description["context"])
    forecaster: Forecaster
    if description["model"] == "toto":
        model = load_toto(folder / MODEL)
        forecaster = TotoForecaster(model, max(rows // model.config.patch_size, 1), n_paths)
    elif description["model"] == "kronos":
        sampling = Sampling(n_paths, s2_positions="trained")
        parts = folder / MODEL, folder / TOKENIZER_FOLDER / MODEL
        forecaster = load_kronos(*parts, sampling, context=rows)
    else:
        raise CheckpointError(f"{folder}: holds a tokenizer, which forecasts nothing alone")
    until = np.datetime64(description["fitted_to"])
    return LoadedForecaster(forecaster, Vintage(forecaster.name, until, found))


def _columns(
    frame: pl.DataFrame, id_column: str, timestamp_column: str, target: str
) -> tuple[str | None, str, str]:
    """Find the columns of symbol, time and target; the symbol may be absent."""
    found = []
    for name in (id_column, timestamp_column, target):
        choices = [name, ALIASES.get(name, name)]
        found.append(next((choice for choice in choices if choice in frame.columns), None))
    if found[2] is None and target == "target" and CLOSE in frame.columns:
        found[2] = CLOSE
    for name, column in zip((timestamp_column, target), found[1:], strict=True):
        if column is None:
            raise ForecastError(
                f"expected a column {name} ({ALIASES.get(name, name)} is taken for it), found "
                f"{', '.join(frame.columns)}; name yours by id_column, timestamp_column or target"
            )
    return found[0], str(found[1]), str(found[2])


def _series_of(frame: pl.DataFrame, symbol: str | None, time: str, target: str) -> list[Series]:
    """Take a long table apart, one series for each symbol, in the order of their first rows."""
    if not frame[time].dtype.is_temporal():
        raise ForecastError(
            f"column {time}: expected dates or times, found {frame[time].dtype}; convert it first"
        )
    parts = [frame] if symbol is None else frame.partition_by(symbol, maintain_order=True)
    made = []
    for part in parts:
        name = "the series" if symbol is None else str(part[symbol][0])
        rows = part.sort(time)
        times = rows[time].cast(pl.Datetime("us")).to_numpy()
        values = _numbers(rows, target, name)
        made.append(Series(name, times, values, _bars(rows, target, values, name)))
    return made


def _bars(
    rows: pl.DataFrame, target: str, values: Float[np.ndarray, " T"], name: str
) -> Float[np.ndarray, "T 6"] | None:
    prices = BAR_COLUMNS[:4]
    if not set(prices[:3]) <= set(rows.columns) or target not in (CLOSE, "target", "y"):
        return None
    columns = [_numbers(rows, price, name) for price in prices[:3]]
    volume = _numbers(rows, "volume", name) if "volume" in rows.columns else np.zeros(len(values))
    mean = np.mean([*columns, values], axis=0)
    return np.column_stack([*columns, values, volume, volume * mean])


def _numbers(rows: pl.DataFrame, column: str, name: str) -> Float[np.ndarray, " T"]:
    if not rows[column].dtype.is_numeric():
        raise ForecastError(
            f"{name}: column {column}: expected numbers, found {rows[column].dtype}"
        )
    return rows[column].cast(pl.Float64).to_numpy()


def _history(series: Series, steps: int, most_rows: int) -> History:
    """Cut the newest rows; a hole among them is refused."""
    times = series.timestamps
    is_back = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if len(is_back):
        raise ForecastError(
            f"{series.symbol}: expected one row for each time, found two at {times[is_back[0]]}; "
            "keep one of them"
        )
    if len(times) < 2:
        raise ForecastError(
            f"{series.symbol}: expected at least 2 rows, found {len(times)}; give a longer history"
        )
    first = max(0, len(times) - most_rows)
    holes = np.flatnonzero(np.diff(series.stretch[first:]))
    if len(holes):
        row = first + int(holes[-1])
        raise ForecastError(
            f"{series.symbol}: row {row + 1}: expected a time soon after {times[row]}, found "
            f"{times[row + 1]}; fill the hole, or give the rows after it alone"
        )
    return series.until(len(series), _future(series, steps), most_rows)


def _future(series: Series, steps: int) -> Shaped[np.ndarray, " h"]:
    if steps < 1:
        raise ForecastError(f"expected a prediction_length of at least 1, found {steps}")
    return next_times(series, steps)
