"""A forecaster from a folder, asked with arrays and tables of either kind; bad tables by name."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from hrl_sarp.errors import CheckpointError, ForecastError, MissingArtifactError, UsageError
from hrl_sarp.forecasters.api import (
    LoadedForecaster,
    first_unseen,
    load_forecaster,
    pick_symbols,
)
from hrl_sarp.forecasters.contract import LEVELS
from hrl_sarp.forecasters.evaluation.plan import Vintage
from hrl_sarp.forecasters.training.run import train_forecaster
from hrl_sarp.run.session import StopFlag
from tests.forecasters.training.test_run import bars_series, request


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs `toto` and `kronos` of a minute's fraction."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("toto", "kronos"):
        train_forecaster(request(model, folder / model), StopFlag())
    return folder


@pytest.fixture(scope="module")
def toto(runs: Path) -> LoadedForecaster:
    return load_forecaster(runs / "toto")


def long_table(n_rows: int = 40) -> pl.DataFrame:
    parts = []
    for seed, name in enumerate(["X", "Y"]):
        series = bars_series(name, seed, n_rows)
        columns = dict(
            zip(("open", "high", "low", "target", "volume"), series.bars.T[:5], strict=True)
        )
        parts.append(pl.DataFrame({"item_id": name, "timestamp": series.timestamps, **columns}))
    return pl.concat(parts)


def test_pandas_and_polars_give_the_same_table_in_the_names_of_chronos(
    toto: LoadedForecaster,
) -> None:
    frame = long_table().select("item_id", "timestamp", "target")
    found = toto.predict_df(frame, prediction_length=3)
    assert found.columns == [
        *("item_id", "timestamp", "target_name", "predictions"),
        *map(str, LEVELS),
    ]
    assert found["item_id"].to_list() == ["X"] * 3 + ["Y"] * 3
    last = frame.filter(pl.col("item_id") == "Y")["timestamp"].max()
    assert found["timestamp"].to_list()[3] - last == pd.Timedelta(days=1)
    assert found["predictions"].to_list() == found["0.5"].to_list()
    theirs = toto.predict_df(frame.to_pandas(), prediction_length=3)
    assert isinstance(theirs, pd.DataFrame)
    assert np.array_equal(theirs["predictions"], found["predictions"])
    shuffled = toto.predict_df(frame.sample(fraction=1.0, shuffle=True, seed=1), 3)
    assert shuffled.sort("item_id", "timestamp").equals(found)


def test_names_of_statsforecast_and_a_close_are_taken(toto: LoadedForecaster) -> None:
    frame = long_table().select("item_id", "timestamp", "target")
    expected = toto.predict_df(frame, 2)["predictions"].to_list()
    renamed = frame.rename({"item_id": "unique_id", "timestamp": "ds", "target": "y"})
    found = toto.predict_df(renamed, 2)
    assert found.columns[:2] == ["unique_id", "ds"]
    assert found["predictions"].to_list() == expected
    one = frame.filter(pl.col("item_id") == "X").drop("item_id").rename({"target": "close"})
    alone = toto.predict_df(one, 2)["predictions"].to_list()
    # sums of a network may differ in their last bits with the size of the batch
    assert alone == pytest.approx(expected[:2], rel=1e-6)


def test_kronos_reads_the_bars_of_a_table(runs: Path) -> None:
    kronos = load_forecaster(runs / "kronos", n_paths=8)
    frame = long_table()
    whole = kronos.predict_df(frame, 2, (0.2, 0.5))
    closes = kronos.predict_df(frame.select("item_id", "timestamp", "target"), 2, (0.2, 0.5))
    assert whole["predictions"].to_list() != closes["predictions"].to_list()
    assert whole.equals(kronos.predict_df(frame, 2, (0.2, 0.5)))


def test_arrays_of_any_lengths_give_quantiles_and_means(toto: LoadedForecaster) -> None:
    rows = [np.linspace(10.0, 11.0, 30), np.linspace(5.0, 4.0, 17)]
    quantiles, mean = toto.predict_quantiles(rows, 3, (0.1, 0.5, 0.9))
    assert quantiles.shape == (2, 3, 3)
    assert mean.shape == (2, 3)
    alone, _ = toto.predict_quantiles(rows[1:], 3, (0.1, 0.5, 0.9))
    assert alone[0] == pytest.approx(quantiles[1], rel=1e-5)


def _without_rows(frame: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    return frame.with_row_index().filter(~pl.col("index").is_between(first, last)).drop("index")


def _with_value(frame: pl.DataFrame, row: int, value: float | None) -> pl.DataFrame:
    values = frame["target"].to_list()
    values[row] = value
    return frame.with_columns(target=pl.Series(values, dtype=pl.Float64))


BAD: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "a hole": (lambda f: _without_rows(f, 70, 76), "Y: row 30: expected a time soon after"),
    "a missing value": (lambda f: _with_value(f, 75, None), r"Y: row .*finite value, found"),
    "an infinite value": (lambda f: _with_value(f, 30, np.inf), r"X: row .*finite value, found"),
    "a short history": (lambda f: f.head(2), "X: expected at least 4 rows"),
    "one row": (lambda f: f.head(1), "X: expected at least 2 rows"),
    "a time twice": (lambda f: pl.concat([f, f.tail(1)]), "Y: expected one row for each time"),
    "texts": (lambda f: f.with_columns(pl.col("target").cast(pl.String)), "X: column target"),
    "no times": (
        lambda f: f.with_columns(pl.col("timestamp").cast(pl.String)),
        "column timestamp: expected dates",
    ),
    "no target": (lambda f: f.drop("target"), "expected a column target"),
    "nothing": (lambda f: f.head(0), "at least one series"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_by_symbol_and_row(toto: LoadedForecaster, case: str) -> None:
    change, message = BAD[case]
    frame = long_table().select("item_id", "timestamp", "target")
    with pytest.raises(ForecastError, match=message):
        toto.predict_df(change(frame), 3)
    toto.predict_df(frame, 3)


def test_a_hole_that_no_context_reaches_is_no_matter(toto: LoadedForecaster) -> None:
    frame = long_table(60).select("item_id", "timestamp", "target")
    cut = _without_rows(frame, 5, 20)
    assert toto.predict_df(cut, 3).equals(toto.predict_df(frame, 3))


def test_published_weights_are_told_apart_by_their_tensors(runs: Path, tmp_path: Path) -> None:
    places = {"toto": "toto/model", "kronos": "kronos/model", "tokenizer": "kronos/tokenizer/model"}
    for name, place in places.items():
        shutil.copytree(runs / place, tmp_path / name)
    assert load_forecaster(tmp_path / "toto").vintage.stamp == "released on 2025-05-31"
    kronos = load_forecaster(tmp_path / "kronos", tokenizer=tmp_path / "tokenizer")
    assert kronos.vintage.stamp == "released on 2025-08-31"
    told = load_forecaster(tmp_path / "toto", pretrained_until=date(2024, 1, 31)).vintage
    assert told.stamp == "fitted on data up to 2024-01-31"
    with pytest.raises(CheckpointError, match="needs its tokenizer"):
        load_forecaster(tmp_path / "kronos")
    with pytest.raises(CheckpointError, match="holds a tokenizer of Kronos"):
        load_forecaster(tmp_path / "tokenizer")
    (tmp_path / "toto" / "model.safetensors").unlink()
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "toto" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"found tensors such as encoder\.weight"):
        load_forecaster(tmp_path / "toto")
    with pytest.raises(MissingArtifactError, match="nowhere"):
        load_forecaster(tmp_path / "nowhere")


@pytest.mark.parametrize("context", [1, 3])
def test_a_context_below_one_patch_is_refused_of_runs_and_of_published_weights(
    runs: Path, tmp_path: Path, context: int
) -> None:
    shutil.copytree(runs / "toto" / "model", tmp_path / "toto")
    for path in (runs / "toto", tmp_path / "toto"):
        with pytest.raises(ForecastError, match=f"one patch of 4 rows, found {context}"):
            load_forecaster(path, context=context)
        assert load_forecaster(path, context=5).forecaster.context_rows == 4


def test_tests_begin_after_all_that_models_have_seen() -> None:
    series = [bars_series("A", 0, 100)]
    times = series[0].timestamps
    seen = [Vintage("a", times[10], ""), Vintage("b", times[40], ""), Vintage("c", None, "")]
    assert first_unseen(series, seen) == times[41]
    assert first_unseen(series, seen[2:]) == times[80]
    with pytest.raises(ForecastError, match="--allow-contaminated"):
        first_unseen(series, [Vintage("a", times[-1], "")])


def test_symbols_are_picked_by_name_or_as_those_that_all_runs_left_out() -> None:
    series = [bars_series(name, 0, 20) for name in "ABCD"]
    assert [one.symbol for one in pick_symbols(series, "B,D", [])] == ["B", "D"]
    unseen = pick_symbols(series, "unseen", [frozenset("AB"), frozenset("BC")])
    assert [one.symbol for one in unseen] == ["B"]
    assert pick_symbols(series, None, []) == series
    with pytest.raises(UsageError, match="no X"):
        pick_symbols(series, "A,X", [])
    with pytest.raises(UsageError, match="left out the same symbols"):
        pick_symbols(series, "unseen", [frozenset("A"), frozenset("B")])
