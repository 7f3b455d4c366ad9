"""finetune-encoder --variant price-action as a user runs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from hrl_sarp.run.files import read_json
from tests.command_line import assert_refused
from tests.price_action.buys.candle_factories import noise_bars

Command = Callable[..., tuple[int, str, str]]

SIZES = {"width": 64, "heads": 2, "layers": 1, "feedforward": 16, "head": 8}
TASK = {"min_windows": 20, "min_calls": 5}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Return the options of a small run: a file of candles and a configuration."""
    bars = noise_bars(1500)
    columns = ("open", "high", "low", "close", "volume")
    table = {"timestamp": bars.timestamps, **{name: getattr(bars, name) for name in columns}}
    data, config = tmp_path / "candles.parquet", tmp_path / "own.yaml"
    pl.DataFrame(table).write_parquet(data)
    own = {"encoders": {"transformer": SIZES, "price_action": TASK}}
    config.write_text(yaml.safe_dump(own), encoding="utf-8")
    return {
        "--variant": "price-action",
        "--data": data,
        "--config": config,
        "--output": tmp_path / "checkpoints",
        "--epochs": 1,
        "--device": "cpu",
    }


def flat(options: dict[str, Any]) -> list[Any]:
    return [word for pair in options.items() for word in pair]


def test_run_prints_the_table_and_writes_the_described_files(
    command: Command, given: dict[str, Any]
) -> None:
    code, out, err = command("finetune-encoder", *flat(given))
    assert code == 0, err
    for words in ("base rate", "F1 of calling all", "accuracy of the majority", "best_model.pth"):
        assert words in out
    folder = given["--output"]
    names = {"best_model.pth", "scaler.json", "encoder.safetensors", "encoder.json"}
    assert {path.name for path in folder.iterdir()} >= {
        *names,
        "price_action_results.json",
        "price_action_convergence.png",
    }
    assert read_json(folder / "price_action_results.json", "train")["epochs_run"] == 1


def test_options_lie_over_the_configuration(command: Command, given: dict[str, Any]) -> None:
    more = {"--learning-rate": 0.002, "--batch-size": 16, "--seed": 3}
    code, _, err = command("finetune-encoder", *flat({**given, **more}))
    assert code == 0, err
    results = read_json(given["--output"] / "price_action_results.json", "train")
    assert (results["config"]["learning_rate"], results["config"]["batch_size"]) == (0.002, 16)
    assert results["seed"] == 3


def test_bad_candles_are_left_out_and_never_reach_a_loss(
    command: Command, given: dict[str, Any]
) -> None:
    table = pl.read_parquet(given["--data"])
    broken = table.with_row_index().with_columns(
        close=pl.when(pl.col("index") == 300).then(0.0).otherwise("close"),
        high=pl.when(pl.col("index") == 310).then(pl.col("low") / 2).otherwise("high"),
    )
    pl.concat([broken, broken[400:410]]).sample(fraction=1.0, shuffle=True, seed=1).drop(
        "index"
    ).write_parquet(given["--data"])
    code, _, err = command("finetune-encoder", *flat(given))
    assert code == 0, err
    results = read_json(given["--output"] / "price_action_results.json", "train")
    assert sum(results["excluded_bars"].values()) == 12
    assert all(row["total_loss"] is not None for row in results["history"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--data": "nowhere.parquet"}, ["MissingArtifactError", "nowhere.parquet"]),
        ({"--symbol": "OTHER"}, ["DataError", "OTHER"]),
        ({"--epochs": 0}, ["ConfigError", "epochs"]),
        ({"--device": "tpu"}, ["device must be one of"]),
        ({"--pretrained-encoder": "x.safetensors"}, ["--pretrained-encoder", "leave them out"]),
        ({"--variant": "other"}, ["other"]),
    ],
)
def test_wrong_option_is_refused_and_nothing_is_written(
    command: Command, given: dict[str, Any], changes: dict[str, Any], words: list[str]
) -> None:
    assert_refused(command("finetune-encoder", *flat({**given, **changes})), *words)
    assert not given["--output"].exists()


def test_too_few_candles_are_refused_and_nothing_is_written(
    command: Command, given: dict[str, Any]
) -> None:
    pl.read_parquet(given["--data"])[:270].write_parquet(given["--data"])
    code, out, err = command("finetune-encoder", *flat(given))
    assert (code, out) == (1, "")
    assert "270 candles: expected at least 20 windows of 64" in err
    assert not given["--output"].exists()


def test_symbol_beside_labelled_windows_is_refused(command: Command, given: dict[str, Any]) -> None:
    options = {**given, "--variant": "baseline", "--symbol": "ONE"}
    assert_refused(command("finetune-encoder", *flat(options)), "--symbol", "price-action")
