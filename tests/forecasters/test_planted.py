"""Where there is something to learn, trained forecasters find it; on random walks nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.forecasters.api import LoadedForecaster, load_forecaster
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk
from hrl_sarp.forecasters.evaluation.plan import RollingPlan
from hrl_sarp.forecasters.evaluation.rolling import Roller
from hrl_sarp.forecasters.evaluation.summary import Group, summarise
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.run import train_forecaster
from hrl_sarp.forecasters.training.sources import SplitSeries
from hrl_sarp.forecasters.training.windows import split_by_time
from hrl_sarp.run.session import StopFlag
from tests.forecasters.training.test_run import request, tiny_settings

ROWS, SYMBOLS = 600, 8
SHARES = (0.7, 0.1)
SIZES: dict[str, dict[str, Any]] = {
    "toto": {"embed_dim": 32, "num_heads": 2, "mlp_hidden_dim": 64, "k_components": 3},
    "kronos-tokenizer": {"d_model": 32, "ff_dim": 64, "s1_bits": 4, "s2_bits": 4},
    "kronos": {"d_model": 32, "ff_dim": 64, "n_layers": 2},
}
Process = Callable[[np.random.Generator], np.ndarray]


def ar1(rng: np.random.Generator) -> np.ndarray:
    """Log prices that return halfway to their mean with each step."""
    moves, level = rng.normal(0, 0.01, ROWS), 0.0
    path = np.empty(ROWS)
    for row, move in enumerate(moves):
        level = 0.5 * level + move
        path[row] = level
    return path


def seasonal(rng: np.random.Generator) -> np.ndarray:
    """A random walk on top of a pattern of four steps."""
    pattern = 0.02 * np.sin(np.arange(ROWS) * np.pi / 2 + rng.integers(4) * np.pi / 2)
    return pattern + rng.normal(0, 0.005, ROWS).cumsum()


def garch(rng: np.random.Generator) -> np.ndarray:
    """A random walk whose variance depends on its last moves."""
    variance, move = 1e-4, 0.0
    path = np.empty(ROWS)
    for row in range(ROWS):
        variance = 1e-5 + 0.5 * move**2 + 0.4 * variance
        move = np.sqrt(variance) * rng.normal()
        path[row] = move
    return path.cumsum()


def walk(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 0.01, ROWS).cumsum()


def series_of_process(process: Process, seed: int) -> list[Series]:
    days = np.datetime64("2010-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "D")
    made = []
    for number in range(SYMBOLS):
        close = 100.0 * np.exp(process(np.random.default_rng([seed, number])))
        bars = np.column_stack([close] * 4 + [np.full(ROWS, 1e3), close * 1e3])
        made.append(Series(f"S{number}", days, close, bars))
    return made


def trained(folder: Path, model: str, process: Process, **changes: Any) -> LoadedForecaster:
    usual = {"epochs": 6, "batch_size": 32, "learning_rate": 3e-3, **changes}
    plain = tiny_settings(**usual).model_dump()
    for name, sizes in SIZES.items():
        plain["models"][name]["sizes"] |= sizes
    settings = ForecastersConfig(**plain | {"train_windows": 1000, "validation_windows": 200})
    series = series_of_process(process, seed=1)
    source = SplitSeries(series, split_by_time(series, SHARES, frozenset()), {})
    train_forecaster(request(model, folder, source=source, settings=settings), StopFlag())
    return load_forecaster(folder, n_paths=16)


def rolled(
    loaded: LoadedForecaster, series: list[Series], folder: Path, first: int
) -> pl.DataFrame:
    forecasters = {"model": loaded.forecaster, "last value": LastValue()}
    forecasters |= {EwmaWalk().name: EwmaWalk()}
    roller = Roller(series, plan_from(series, first), folder)
    return roller.roll(forecasters, dict.fromkeys(forecasters, "x"))


def plan_from(series: list[Series], first: int) -> RollingPlan:
    return RollingPlan(2, series[0].timestamps[first], None, 4)


def group_of(loaded: LoadedForecaster, series: list[Series], folder: Path, first: int) -> Group:
    table, seen = rolled(loaded, series, folder, first), replace(loaded.vintage, model="model")
    found = summarise(table, plan_from(series, first), [seen])
    (group,) = (each for each in found.groups if each.model == "model")
    return group


@pytest.mark.parametrize(("model", "process"), [("toto", ar1), ("kronos", seasonal)])
def test_a_trained_model_beats_the_last_value_where_prices_return(
    tmp_path: Path, model: str, process: Process
) -> None:
    loaded = trained(tmp_path / "run", model, process)
    group = group_of(loaded, series_of_process(process, seed=1), tmp_path, 500)
    assert group.errors.verdict == "significantly better"
    assert group.median("naive_ratio") < 0.9


def test_variances_of_a_trained_model_are_better_than_the_best_constant(tmp_path: Path) -> None:
    loaded = trained(tmp_path / "run", "toto", garch, context=24, epochs=12, patience=12)
    table = rolled(loaded, series_of_process(garch, seed=1), tmp_path, 480)
    gains = []
    for step in (1, 2):
        rows = table.filter((pl.col("model") == "model") & (pl.col("step") == step))
        squares = np.log(rows["y"] / rows["last"]).to_numpy() ** 2
        variances = rows["log_variance"].to_numpy()
        constant = np.log(squares.mean()) + 1.0  # of the variance that fits best in hindsight
        gains.append(constant - (np.log(variances) + squares / variances).mean())
    assert sum(gains) > 0.1


def test_on_random_walks_a_win_is_claimed_in_at_most_three_of_twenty_samples(
    tmp_path: Path,
) -> None:
    loaded = trained(tmp_path / "run", "toto", walk)
    found = [
        group_of(loaded, series_of_process(walk, seed), tmp_path / str(seed), 400)
        for seed in range(2, 22)
    ]
    assert sum(group.errors.verdict == "significantly better" for group in found) <= 3
