"""`pretrain-encoder --panel`: what it writes, what it refuses, and that it resumes exactly."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from hrl_sarp.contracts import Market
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.networks.projection import load_projection
from hrl_sarp.encoders.pretrain.prepare import (
    panel_settings,
    prepare_panel,
)
from hrl_sarp.encoders.pretrain.run import pretrain_encoder
from hrl_sarp.encoders.stock_embeddings import encoder_folder
from hrl_sarp.encoders.transfer import read_description
from hrl_sarp.fitting.distributed import World
from hrl_sarp.run.files import read_json, sha256_file
from hrl_sarp.run.session import StopFlag
from tests import tiny_runs
from tests.command_line import Command, assert_refused
from tests.encoders import panels
from tests.fitting.kills import assert_kills_change_nothing

ALONE = World.alone(panels.CPU)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".log"}


@pytest.fixture
def own_config(tmp_path: Path) -> Path:
    """The small market's configuration as a file that a user may give."""
    values = panels.small_config().model_dump()
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({key: values[key] for key in ("market_profile", "encoders")}))
    return path


@pytest.mark.parametrize("kind", ["jade", "transformer"])
def test_a_panel_leaves_the_files_of_a_run_and_a_projection(
    kind: EncoderKind, panel_data: Path, panel_market: Market
) -> None:
    folder = encoder_folder(panel_data, "us", kind)
    assert folder == panel_data.parent / "encoders" / "us" / kind
    expected = {"encoder.safetensors", "encoder.json", "projection.safetensors"}
    expected |= {"checkpoint_best.pt", "checkpoint_latest.pt"}
    assert expected | {"training_results.json", "loss_curve.png"} <= files(folder)
    train = panel_market.split.train
    description = read_description(folder)
    assert description["kind"] == kind
    assert description["market"] == "us"
    assert description["fitted_from"] == str(panel_market.dates[train.start])
    assert description["fitted_to"] == str(panel_market.dates[train.stop - 1])
    results = read_json(folder / "training_results.json", "this test")
    assert {"model", "mean", "previous bar", "linear interpolation"} == results[
        "test_metrics"
    ].keys()


def test_the_command_pretrains_where_train_looks_for_it(
    command: Command, panel_data: Path, tmp_path: Path, own_config: Path
) -> None:
    data_dir = tmp_path / "data" / "raw"
    data_dir.parent.mkdir()
    data_dir.symlink_to(panel_data)
    options = ("--panel", "--data-dir", data_dir, "--market", "us", "--config", own_config)
    code, out, err = command("pretrain-encoder", *options, "--epochs", 1, "--device", "cpu")
    assert code == 0, err
    assert "test loss: model" in out
    assert "projection.safetensors" in files(encoder_folder(data_dir, "us", "jade"))


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        ((), "either --data FILE or --panel"),
        (("--panel", "--data", "bars.csv"), "found both"),
        (("--data", "bars.csv", "--encoder", "transformer"), "one of jade without --panel"),
        (("--panel", "--encoder", "gru"), "one of jade, transformer with --panel"),
        (
            ("--panel", "--encoder", "transformer", "--mask-strategy", "random"),
            "is masked by patches",
        ),
        (("--panel", "--data-dir", "nowhere"), "collect-data"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    options: tuple[str, ...], mentioned: str, command: Command
) -> None:
    assert_refused(command("pretrain-encoder", *options), mentioned)


def test_the_transformer_is_masked_by_patches_on_the_panels_schedule() -> None:
    encoders = panels.small_config().encoders
    settings = panel_settings("transformer", encoders)
    assert settings.mask_strategy == "patch"
    assert panel_settings("jade", encoders).mask_strategy == encoders.pretraining.mask_strategy
    assert (settings.epochs, settings.batch_size) == (1, 64)


@pytest.mark.parametrize("kind", ["jade", "transformer"])
def test_a_run_that_is_killed_at_random_batches_leaves_the_same_encoder_and_projection(
    kind: EncoderKind, panel_data: Path, tmp_path: Path
) -> None:
    config = tiny_runs.changed(
        panels.small_config(panel={"epochs": 2}), {"curriculum": {"checkpoint_seconds": 0.0}}
    )

    def run(folder: Path, *, resume: bool) -> None:
        prepared = prepare_panel(kind, panel_data, folder, config, resume=resume)
        pretrain_encoder(prepared, ALONE, StopFlag())

    def outcome(folder: Path) -> dict[str, bytes]:
        names = ("encoder.safetensors", "projection.safetensors")
        return {name: (folder / name).read_bytes() for name in names}

    assert_kills_change_nothing(run, outcome, tmp_path, seed=5)


def test_the_scaler_is_fitted_on_the_training_windows_alone(panel_data: Path) -> None:
    config = panels.small_config()
    prepared = prepare_panel("jade", panel_data, panel_data, config, resume=False)
    rows = prepared.windows.train[:, None] + np.arange(prepared.windows.length)
    known = prepared.features[np.unique(rows)]
    inside = np.abs(known).max(axis=0) < config.encoders.panel.clip  # clipped columns are off
    np.testing.assert_allclose(known.mean(axis=0)[inside], 0.0, atol=1e-3)
    np.testing.assert_allclose(known.std(axis=0)[inside], 1.0, atol=1e-3)


def test_a_finished_run_resumed_fits_another_projection_to_the_same_encoder(
    panel_data: Path, tmp_path: Path
) -> None:
    for size, resume in ((4, False), (3, True)):
        config = panels.small_config(panel={"embedding_size": size})
        prepared = prepare_panel("jade", panel_data, tmp_path, config, resume=resume)
        result = pretrain_encoder(prepared, ALONE, StopFlag())
    assert len(result.val_metrics) == 1
    projection, facts = load_projection(tmp_path / "projection.safetensors", "this test")
    assert projection.components.shape[1] == 3
    assert facts["encoder_hash"] == sha256_file(tmp_path / "encoder.safetensors")
