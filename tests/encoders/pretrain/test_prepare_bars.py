from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders import JadeEncoder, load_encoder, read_description
from hrl_sarp.encoders.pretrain.prepare import prepare_bars
from hrl_sarp.encoders.pretrain.reconstruction import BASELINES
from hrl_sarp.encoders.pretrain.run import Prepared, pretrain_encoder
from hrl_sarp.encoders.pretrain.task import MODEL, PretrainingResult
from hrl_sarp.errors import DataError
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS
from hrl_sarp.fitting.distributed import World
from hrl_sarp.run.checkpoints import load_payload
from hrl_sarp.run.files import read_json
from hrl_sarp.run.session import StopFlag
from tests.encoders.bar_files import write_bars, write_config

ALONE = World.alone(torch.device("cpu"))
DOCUMENTED_KEYS = (
    *("epoch", "model_state_dict", "optimizer_state_dict", "metrics"),
    *("config", "windowed_config", "seed"),
)
DOCUMENTED_RESULTS = (
    "best_val_loss",
    "total_time",
    "config",
    "train_metrics",
    "val_metrics",
    "seed",
)


def prepared(
    folder: Path, symbol: str | None = None, min_windows: int = 20, n_symbols: int = 1
) -> Prepared:
    config = load_config(own_file=write_config(folder, min_windows))
    data = write_bars(folder, ("X", "Y")[:n_symbols])
    return prepare_bars(data, symbol, folder / "out", config, resume=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jade")


@pytest.fixture(scope="module")
def result(folder: Path) -> PretrainingResult:
    return pretrain_encoder(prepared(folder), ALONE, StopFlag())


def test_documented_files_are_written(result: PretrainingResult, folder: Path) -> None:
    names = {path.name for path in (folder / "out").iterdir()}
    losses = [row["val_loss"] for row in result.val_metrics]
    epochs = {f"checkpoint_epoch_{i}_loss_{loss:.6f}.pt" for i, loss in enumerate(losses)}
    assert names == epochs | {
        *("checkpoint_best.pt", "checkpoint_latest.pt", "training_results.json"),
        "checkpoint_top_1.pt",
        *("loss_curve.png", "encoder.safetensors", "encoder.json"),
    }
    png = (folder / "out" / "loss_curve.png").read_bytes()
    assert png.startswith(b"\x89PNG")


def test_checkpoints_hold_the_documented_keys(result: PretrainingResult, folder: Path) -> None:
    best = load_payload(folder / "out" / "checkpoint_best.pt")
    assert set(DOCUMENTED_KEYS) <= best.keys()
    assert (best["epoch"], best["seed"]) == (result.best_epoch, 0)
    assert best["metrics"]["val_loss"] == result.best_val_loss
    assert best["metrics"]["lr"] == result.train_metrics[result.best_epoch]["train_lr"]
    assert load_payload(folder / "out" / "checkpoint_top_1.pt")["epoch"] == result.best_epoch
    assert best["windowed_config"]["window_length"] == 20
    assert best["config"]["batch_size"] == 32


def test_results_stand_beside_the_baselines(result: PretrainingResult, folder: Path) -> None:
    found = read_json(folder / "out" / "training_results.json", "-")
    assert set(DOCUMENTED_RESULTS) <= found.keys()
    assert set(found["test_metrics"]) == {MODEL, *BASELINES}
    for part in found["test_metrics"].values():
        assert set(part["loss_by_column"]) == set(PRETRAINING_COLUMNS)
        assert part["loss"] == pytest.approx(np.mean(list(part["loss_by_column"].values())))
    best = min(BASELINES, key=lambda name: found["test_metrics"][name]["loss"])
    assert found["best_baseline"] == best
    assert found["beats_best_baseline"] == result.beats_baselines
    assert found["windows"] == {"train": 144, "validation": 71, "test": 71}
    assert len(found["train_metrics"]) == len(found["val_metrics"]) == 3
    assert found["train_metrics"][0]["train_lr"] == pytest.approx(5e-3)  # one epoch of rise


def test_export_is_the_encoder_of_the_best_epoch(result: PretrainingResult, folder: Path) -> None:
    assert result.best_epoch >= 0
    config = load_config(own_file=folder / "small.yaml")
    exported = JadeEncoder(11, config.encoders.jade)
    checkpointed = JadeEncoder(11, config.encoders.jade)
    for path, module in (("out", exported), ("out/checkpoint_best.pt", checkpointed)):
        report = load_encoder(folder / path, module)
        assert (report.missing, report.unexpected) == ((), ())
    for name, weights in exported.state_dict().items():
        assert torch.equal(weights, checkpointed.state_dict()[name])


@pytest.mark.usefixtures("result")
def test_description_carries_what_the_encoder_was_fitted_on(folder: Path) -> None:
    found = read_description(folder / "out")
    assert found["columns"] == list(PRETRAINING_COLUMNS)
    assert (found["kind"], found["window_length"], found["n_features"]) == ("jade", 20, 11)
    # the epoch is chosen on validation: its last window ends 20 x 71 + 20 bars into 3 January
    assert found["fitted_from"] == "2018-01-01T00:00:00.000000"
    assert found["fitted_to"] == "2018-01-03T23:59:00.000000"
    assert len(found["scaler"]["mean"]) == len(found["scaler"]["std"]) == 11
    assert found == read_description(folder / "out" / "checkpoint_best.pt") | {
        "weights_sha256": found["weights_sha256"]
    }


def test_symbol_picks_the_bars(tmp_path: Path) -> None:
    one = prepared(tmp_path, symbol="Y", n_symbols=2)
    both = prepared(tmp_path, n_symbols=2)
    assert (len(one.features), len(both.features)) == (6000, 12_000)
    assert (len(one.windows.train), len(both.windows.train)) == (144, 2 * 144)


def test_too_few_windows_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"min_windows.*144"):
        prepared(tmp_path, min_windows=1000)
    assert not (tmp_path / "out").exists()


def test_features_of_a_file_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(tmp_path).features

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("hrl_sarp.features.relativity.relativity_features", refuse)
    np.testing.assert_array_equal(prepared(tmp_path).features, first)
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_bitcoin_of_2016_to_2018_fills_all_gates(data_folder: Path, tmp_path: Path) -> None:
    data = data_folder / "crypto_1m" / "BTCUSD_2016_2018.parquet"
    if not data.is_file():
        pytest.skip("the data folder has no crypto_1m/BTCUSD_2016_2018.parquet")
    found = prepare_bars(data, "BTCUSD", tmp_path / "out", load_config(), resume=False)
    assert min(found.windows.counts().values()) > 1000
    assert np.isfinite(found.features).all()
    assert found.features.shape == (1_318_938, 11)
