"""The commands of forecasters, as a user calls them: trained, evaluated, asked, refused."""

import json
from datetime import datetime
from inspect import signature
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from hrl_sarp.cli import forecasters as cli
from hrl_sarp.forecasters.contract import DEFAULT_PATHS
from tests.command_line import Command, assert_refused
from tests.forecasters.training.test_run import TINY, bars_series

SYMBOLS = "ABCD"


def write_bars(folder: Path, n_rows: int = 420, symbols: str = SYMBOLS, first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(symbols):
        series = bars_series(name, seed, first + n_rows)
        columns = dict(
            zip(("open", "high", "low", "close", "volume"), series.bars.T[:5], strict=True)
        )
        frame = pl.DataFrame({"date": series.timestamps, **columns})
        frame[first:].write_csv(folder / f"{name}.csv")
    return folder


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Options of a training that takes a second."""
    models = {name: {**values, "epochs": 2, "batch_size": 8} for name, values in TINY.items()}
    settings = tmp_path / "settings.yaml"
    plain = {"models": models, "train_windows": 30, "validation_windows": 10, "holdout_symbols": 1}
    settings.write_text(yaml.safe_dump(plain))
    return [
        *("train-forecaster", "--train-root", str(write_bars(tmp_path / "bars"))),
        *("--settings", str(settings), "--output", str(tmp_path / "run")),
    ]


@pytest.mark.parametrize("model", ["toto", "kronos"])
def test_a_run_trains_is_measured_evaluated_and_asked(
    command: Command, options: list[str], tmp_path: Path, model: str
) -> None:
    run, bars = tmp_path / "run", tmp_path / "bars"
    code, out, err = command(*options, "--model", model)
    assert code == 0, err
    assert "validation loss" in out
    assert "medians over symbols" in out
    final = json.loads((run / "final_metrics.json").read_text())
    assert final["val"]["symbols"] == final["test"]["symbols"] == 3
    assert final["unseen"]["symbols"] == 1
    assert final["test"]["naive_ratio"] > 0
    assert "about" in (run / "training.log").read_text()
    test = json.loads((run / "metrics" / "evaluation.json").read_text())
    assert set(test["per_symbol"]) == set(SYMBOLS)
    # evaluated on what it has left out
    code, out, err = command(
        "evaluate-forecaster", "--model", f"mine={run}", "--data", bars, "--symbols", "unseen",
        "--horizon", 2, "--quick", "--paths", 4, "--output", tmp_path / "evaluated",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    (measured,) = found["per_symbol"].values()
    assert {"mine", "last value"} <= set(measured)
    # and asked
    code, out, err = command(
        "forecast", "--model", run, "--data", bars / "A.csv", "--prediction-length", 2,
        "--levels", "0.1,0.5", "--paths", 4, "--output", tmp_path / "next.csv",
    )  # fmt: skip
    assert code == 0, err
    table = pl.read_csv(tmp_path / "next.csv")
    assert table.columns == ["item_id", "timestamp", "target_name", "predictions", "0.1", "0.5"]
    assert len(table) == 2
    assert_refused(
        command("forecast", "--model", run, "--data", bars, "--output", tmp_path / "next.csv"),
        *("exists", "--overwrite"),
        code=2,
    )
    assert_refused(
        command("forecast", "--model", run, "--data", bars, "--output", tmp_path / "next.xlsx"),
        *("--output", ".csv or .parquet", "next.xlsx"),
        code=2,
    )
    # nothing is begun anew by accident
    assert_refused(command(*options, "--model", model), "--resume", "--overwrite", code=2)
    code, _, err = command(*options, "--model", model, "--resume")
    assert code == 0, err
    code, _, err = command(*options, "--model", model, "--overwrite", "--seed", 3)
    assert code == 0, err
    assert json.loads((run / "final_metrics.json").read_text())["test"] != final["test"]


def test_commands_draw_as_many_paths_as_the_functions() -> None:
    for command in (cli.evaluate_forecaster, cli.forecast):
        assert signature(command).parameters["paths"].default == DEFAULT_PATHS


def test_roots_that_follow_each_other_train_and_validate(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    later = write_bars(tmp_path / "later", n_rows=80, first=420)
    code, _, err = command(*options, "--val-root", later)
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "forecaster.json").read_text())
    begin = bars_series("A", 0, 421).timestamps[420]
    assert found["split"]["train"] == str(begin)


def test_a_model_is_not_tested_on_what_it_has_seen(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    assert command(*options)[0] == 0
    asked = [
        *("evaluate-forecaster", "--model", tmp_path / "run", "--data", tmp_path / "bars"),
        *("--symbols", "A", "--horizon", 2),
        *("--start", "2020-10-01", "--quick", "--output", tmp_path / "evaluated"),
    ]
    assert_refused(command(*asked), "fitted on data up to", "--allow-contaminated")
    code, _, err = command(*asked, "--allow-contaminated")
    assert code == 0, err
    assert "CONTAMINATED" in err


def test_the_last_day_counts_whole_and_folders_may_have_any_name(
    command: Command, tmp_path: Path
) -> None:
    begin = np.datetime64("2024-03-04", "m")
    times = begin + np.arange(24 * 12) * np.timedelta64(60, "m")
    prices = dict.fromkeys(("open", "high", "low", "close"), 10.0 + np.arange(len(times)) % 7)
    place = tmp_path / "lr=0.1"
    place.mkdir()
    pl.DataFrame({"date": times.astype("datetime64[us]"), **prices}).write_csv(place / "A.csv")
    code, _, err = command(
        "evaluate-forecaster", "--data", place, "--quick", "--horizon", 1, "--season", 1,
        "--start", "2024-03-13", "--end", "2024-03-14", "--output", place / "found",
    )  # fmt: skip
    assert code == 0, err
    found = pl.read_parquet(place / "found" / "forecasts.parquet")["time"]
    assert found.max() == datetime(2024, 3, 14, 23)  # noqa: DTZ001 -- bars have no zone
    assert_refused(
        command("evaluate-forecaster", "--data", place, "--model", f"{place}/no=model"), "no=model"
    )


REFUSED: dict[str, tuple[list[str], list[str], int]] = {
    "an unknown model": (["--model", "chronos"], ["--model", "toto", "chronos"], 2),
    "both sources": (["--panel"], ["--train-root", "--panel", "both"], 2),
    "an unknown symbol": (["--holdout", "XYZ"], ["--holdout", "XYZ"], 2),
    "seen what": (["--pretrained-until", "2020-01-01"], ["--weights"], 2),
    "a way without weights": (["--lora-rank", "2"], ["--lora-rank", "--weights"], 2),
    "no weights": (["--weights", "nowhere"], ["nowhere"], 1),
    "no settings": (["--settings", "nowhere.yaml"], ["nowhere.yaml"], 1),
    "no bars": (["--train-root", "nowhere"], ["nowhere"], 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options_are_refused_in_one_line_and_nothing_is_written(
    command: Command, options: list[str], tmp_path: Path, case: str
) -> None:
    given, words, code = REFUSED[case]
    assert_refused(command(*options, *given), *words, code=code)
    assert not (tmp_path / "run").exists()


def test_runs_of_all_seeds_leave_out_the_same_symbols(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    found = []
    for seed in (0, 7):
        run = tmp_path / str(seed)
        code, _, err = command(*options, "--seed", seed, "--output", run)
        assert code == 0, err
        found.append(json.loads((run / "forecaster.json").read_text())["holdout"])
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_epochs_hold_for_the_tokenizer_that_is_trained_first(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    code, _, err = command(*options, "--model", "kronos", "--epochs", 1)
    assert code == 0, err
    for folder in (tmp_path / "run", tmp_path / "run" / "tokenizer"):
        assert json.loads((folder / "forecaster.json").read_text())["epochs"] == 1
