"""What users call: a forecaster from a folder, and its forecasts of arrays and tables.

`load_forecaster(path).predict_df(table, prediction_length=5)` takes and gives the column names that
chronos and statsforecast use, as pandas or polars.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
from jaxtyping import Float

from hrl_sarp.errors import CheckpointError, ForecastError, UsageError
from hrl_sarp.forecasters.contract import (
    DEFAULT_PATHS,
    LEVELS,
    Forecast,
    Forecaster,
    History,
    require_histories,
)
from hrl_sarp.forecasters.evaluation.plan import Vintage
from hrl_sarp.forecasters.frames import (
    CLOSE,
    Names,
    as_table,
    find_columns,
    history_of,
    history_of_values,
    series_of_table,
)
from hrl_sarp.forecasters.kronos.bars import CLIP
from hrl_sarp.forecasters.kronos.files import load_kronos
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.kronos.sampling import Sampling
from hrl_sarp.forecasters.seen import run_of, seen_by, seen_by_all
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster, TotoForecaster
from hrl_sarp.forecasters.toto.model import load_toto
from hrl_sarp.forecasters.toto.second import load_toto2
from hrl_sarp.forecasters.training.run import (
    DESCRIPTION,
    MODEL,
    TOKENIZER_FOLDER,
    WRITER,
    hash_of_weights,
    tokenizer_inside,
)
from hrl_sarp.forecasters.weights import CONFIG, WEIGHTS, read_weights
from hrl_sarp.run.files import read_json, sha256_file

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
PUBLISHED_PATCHES = 16
"""Patches that published Totos read where nothing says otherwise."""
LATER = 0.8
"""Part of the bars after which baselines alone are tested."""
UNSEEN_SYMBOLS = "unseen"
"""Value of --symbols."""


@dataclass(frozen=True)
class LoadedForecaster:
    """A forecaster with what it has seen, and the ways to ask it.

    Examples:
        >>> from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
        >>> naive = LoadedForecaster(LastValue(), Vintage("last value", None, "rule"))
        >>> quantiles, mean = naive.predict_quantiles([np.array([1.0, 2.0, 4.0])], 2, (0.1, 0.9))
        >>> quantiles.shape, mean
        ((1, 2, 2), array([[4., 4.]]))
    """

    forecaster: Forecaster
    vintage: Vintage
    holdout: frozenset[str] = frozenset()
    """Symbols that its run has left out."""

    def predict_quantiles(
        self,
        context: Float[np.ndarray, "..."] | Sequence[Float[np.ndarray, "..."]],
        prediction_length: int,
        quantile_levels: Iterable[float] = LEVELS,
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
            ForecastError: if a series is too short, has not one axis, or holds a value that is not
                finite.
        """
        histories = [
            history_of_values(f"series {place}", values, prediction_length)
            for place, values in enumerate(context)
        ]
        found = self._forecast(histories, quantile_levels, seed)
        return found.quantiles, found.mean

    def predict_df(
        self,
        df: "Table",
        prediction_length: int,
        quantile_levels: Iterable[float] = LEVELS,
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
            the levels, else the mean) and a column for each level. Symbols and times have the types
            that they have in `df`. Times go on as `series.next_times` says.

        Raises:
            ForecastError: names the symbol and the row: a gap, a missing value, a short history.
        """
        given: Any = df
        is_polars = isinstance(given, pl.DataFrame)
        frame = given if is_polars else pl.from_pandas(given)
        names = find_columns(frame, Names(id_column, timestamp_column, target))
        series = series_of_table(frame, names)
        made = self._predicted(series, prediction_length, quantile_levels, names, seed, frame)
        result: Any = made if is_polars else made.to_pandas()
        return result

    def predict_series(
        self,
        series: Sequence[Series],
        prediction_length: int,
        quantile_levels: Iterable[float] = LEVELS,
        seed: int = 0,
    ) -> pl.DataFrame:
        """Forecast series that `read_series` has read.

        Args:
            series: any number of them.
            prediction_length: steps to forecast.
            quantile_levels: ascending, each in (0, 1).
            seed: of draws.

        Returns:
            The table of `predict_df`, with its usual names.
        """
        names = Names("item_id", "timestamp", CLOSE)
        return self._predicted(series, prediction_length, quantile_levels, names, seed)

    def _predicted(
        self,
        series: Sequence[Series],
        steps: int,
        levels: Iterable[float],
        names: Names,
        seed: int,
        given: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        most = self.forecaster.context_rows
        histories = [history_of(one, steps, most) for one in series]
        return as_table(series, histories, self._forecast(histories, levels, seed), names, given)

    def _forecast(
        self, histories: Sequence[History], levels: Iterable[float], seed: int
    ) -> Forecast:
        plain = tuple(float(level) for level in levels)
        require_histories(histories, self.forecaster.least_rows, plain)
        return self.forecaster.forecast(histories, plain, seed)


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
        path: folder of a run, also its `model/`, folder of published weights, or a file of them.
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
        ForecastError: if the context is shorter than what the model reads at least.
    """
    path = Path(path)
    run = run_of(path)
    if run is not None and path.absolute() in (run, run / MODEL, run / MODEL / WEIGHTS):
        return _of_run(run, context, n_paths)
    kind = kind_of_weights(path)
    if kind == "toto":
        model = load_toto(path)
        patches = _patches(context, PUBLISHED_PATCHES, model.config.patch_size)
        forecaster: Forecaster = TotoForecaster(model, patches, n_paths)
    elif kind == "toto2":
        second = load_toto2(path)
        patches = _patches(context, PUBLISHED_PATCHES, second.config.patch_size)
        forecaster = Toto2Forecaster(second, patches)
    else:
        if tokenizer is None:
            raise CheckpointError(f"{path}: Kronos needs its tokenizer; name it with --tokenizer")
        tokenizer = tokenizer_inside(tokenizer)
        forecaster = load_kronos(path, tokenizer, Sampling(n_paths), context=context)
    seen = seen_by_all([path, *([tokenizer] if tokenizer else [])], kind, pretrained_until)
    identity = _identity(path, tokenizer, forecaster)
    vintage = Vintage(
        forecaster.name, seen.until, identity, is_release=seen.is_release, symbols=seen.symbols
    )
    return LoadedForecaster(forecaster, vintage)


def _patches(context: int | None, usual: int, size: int) -> int:
    """Return how many whole patches a context has."""
    if context is None:
        return usual
    if context < size:
        raise ForecastError(
            f"--context: expected at least one patch of {size} rows, found {context}; give more"
        )
    return context // size


def _identity(path: Path, tokenizer: Path | None, forecaster: Forecaster) -> str:
    """Tell apart all that forecasts depend on: blocks of one are never taken for another's."""
    parts = [hash_of_weights(path), *([hash_of_weights(tokenizer)] if tokenizer else [])]
    draws = ""
    if isinstance(forecaster, TotoForecaster):
        draws = f", {forecaster.n_paths} paths"
    elif isinstance(forecaster, KronosForecaster):
        draws = f", {forecaster.sampling}, clip {forecaster.clip}"
    return f"{' with '.join(parts)}, context {forecaster.context_rows}{draws}"


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
    # runs of early versions name no files
    for name, digest in description.get("files", {}).items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise CheckpointError(
                f"{folder / name}: expected the file that {DESCRIPTION} describes, found another; "
                "restore both or train again"
            )
    tokenizer = folder / TOKENIZER_FOLDER / MODEL if description["model"] == "kronos" else None
    rows = context or int(description["context"])
    forecaster: Forecaster
    if description["model"] == "toto":
        model = load_toto(folder / MODEL)
        forecaster = TotoForecaster(model, _patches(rows, 1, model.config.patch_size), n_paths)
    elif tokenizer is not None:
        # a run of an early version says nothing of both, and had the published values
        clip, chosen = description.get("clip", CLIP), description.get("sampling", {})
        sampling = Sampling(n_paths, s2_positions="trained", **chosen)
        forecaster = load_kronos(folder / MODEL, tokenizer, sampling, context=rows, clip=clip)
    else:
        raise CheckpointError(f"{folder}: holds a tokenizer, which forecasts nothing alone")
    seen = seen_by(folder, description["model"])
    identity = _identity(folder / MODEL, tokenizer, forecaster)
    vintage = Vintage(forecaster.name, seen.until, identity, symbols=seen.symbols)
    return LoadedForecaster(forecaster, vintage, frozenset(description["holdout"]))


def first_unseen(series: Sequence[Series], vintages: Sequence[Vintage]) -> np.datetime64:
    """Choose the first time at which models may be tested.

    Args:
        series: to test on.
        vintages: of the models.

    Returns:
        The first bar after all that the models have seen; without models, the first of the last
        fifth of all bars.

    Raises:
        ForecastError: if the models have seen all bars.
    """
    times = np.sort(np.concatenate([one.timestamps for one in series]))
    seen = [vintage.fitted_to for vintage in vintages if vintage.fitted_to is not None]
    if not seen:
        return times[int(LATER * len(times))]
    later = times[np.searchsorted(times, max(seen), side="right") :]
    if not len(later):
        raise ForecastError(
            f"the models have seen bars up to {max(seen)}, and the series end {times[-1]}: give "
            "later bars, or test on them all the same with --start and --allow-contaminated"
        )
    return later[0]


def pick_symbols(
    series: Sequence[Series], given: str | None, holdouts: Sequence[frozenset[str]]
) -> list[Series]:
    """Pick series by symbol.

    Args:
        series: all of them.
        given: symbols with commas; `unseen` picks those that every run has left out; None all.
        holdouts: symbols that each run has left out.

    Returns:
        The series that were picked.

    Raises:
        UsageError: if a symbol is not there, or no symbol was left out by all runs.
    """
    if given is None:
        return list(series)
    wanted = set(given.split(","))
    if given == UNSEEN_SYMBOLS:
        wanted = set.intersection(*map(set, holdouts)) if holdouts else set()
        if not wanted:
            raise UsageError(
                "--symbols unseen: expected models that have left out the same symbols, found none"
            )
    lacking = sorted(wanted - {one.symbol for one in series})
    if lacking:
        raise UsageError(f"--symbols: the data have no {', '.join(lacking)}")
    return [one for one in series if one.symbol in wanted]
