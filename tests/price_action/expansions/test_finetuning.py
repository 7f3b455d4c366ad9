"""The command finetune-encoder: what it writes, how it resumes and what it refuses."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.errors import CheckpointError, ConfigError
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS
from hrl_sarp.price_action.expansions.finetuning import (
    FinetuneRequest,
    finetune,
    load_finetuned,
    prepare,
)
from hrl_sarp.price_action.expansions.tables import COLUMNS
from hrl_sarp.price_action.expansions.windows import read_labelled, window_features
from hrl_sarp.run import session
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.session import StopFlag
from tests.command_line import Command, assert_refused
from tests.fitting.kills import assert_kills_change_nothing
from tests.price_action.expansions.labelled_factories import (
    LENGTH,
    as_frame,
    labelled,
    small_config,
    write,
)
from tests.price_action.expansions.test_model import export

OWN = """
threads: 1
encoders:
  jade: {hidden: 8, layers: 1}
  panel: {embedding_size: 8}
"""
EPOCHS = 2
SUMMARY = "mean,std,min,max,median"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("labelled") / "w.parquet", labelled(24))


@pytest.fixture
def options(tmp_path: Path, data: Path) -> list[object]:
    own = tmp_path / "own.yaml"
    own.write_text(OWN)
    return ["--data", data, "--config", own, "--epochs", EPOCHS, "--device", "cpu"]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    sizes = small_config().encoders.jade
    torch.manual_seed(2)
    module = JadeEncoder(len(PRETRAINING_COLUMNS), sizes)
    return export(tmp_path / "encoder", module, sizes=sizes.model_dump())


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def header(folder: Path, name: str) -> str:
    return (folder / f"{name}.csv").read_text().splitlines()[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_payload(folder / "best_model.pt")["model_state_dict"]


def test_run_leaves_model_tables_figure_and_measures_beside_baselines(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, shown, err = command(
        "finetune-encoder", "--variant", "position", *options, "--output", out
    )
    assert code == 0, err
    written = {path.name for path in out.iterdir() if path.suffix != ".log"}
    tables = {f"{name}.csv" for name in COLUMNS}
    assert written == {"best_model.pt", "metadata.json", "convergence.png", *tables}
    metadata = json.loads((out / "metadata.json").read_text())
    assert set(metadata["test"]) == set(metadata["baselines"])
    assert sum(metadata["windows"].values()) == 24
    for name, value in metadata["test"].items():
        line = next(line for line in shown.splitlines() if f" {name} " in line)
        numbers = [float(number) for number in re.findall(r"-?\d\.\d{3}", line)]
        rules = [found[name] for found in metadata["rules"].values() if name in found]
        expected = [value, *rules, metadata["baselines"][name]]
        assert numbers == pytest.approx(expected, abs=5e-4)
    assert set(metadata["rules"]) == {"fixed interval", "largest move"}
    assert set(metadata["run_bars"]) == {"model", "fixed interval", "largest move"}
    assert "detection" in metadata["what"]


def test_tables_have_the_documented_columns(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command("finetune-encoder", "--variant", "position", *options, "--output", out)
    assert header(out, "epoch_metrics") == (
        "epoch,train_loss,val_loss,span_f1,span_precision,span_recall,epoch_time"
    )
    assert header(out, "loss_components") == (
        "epoch,phase,loss_type,loss_ptr,loss_span,loss_countdown,total_loss"
    )
    assert header(out, "uncertainty_params") == (
        "epoch,sigma_ptr,sigma_type,sigma_span,sigma_countdown,"
        "weight_ptr,weight_type,weight_span,weight_countdown"
    )
    assert header(out, "probability_stats") == (
        "epoch,phase,in_span_mean,in_span_std,in_span_min,in_span_max,in_span_median,"
        "out_span_mean,out_span_std,out_span_min,out_span_max,out_span_median,separation"
    )
    assert header(out, "feature_stats") == f"epoch,phase,feature_name,{SUMMARY}"
    found = header(out, "gradient_stats").split(",")
    assert found[:2] == ["epoch", "total_grad_norm"]
    assert set(found[2:]) == {*weights(out)}


def test_tables_agree_with_each_other(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command("finetune-encoder", "--variant", "baseline", *options, "--output", out)
    epochs, parts = rows(out, "epoch_metrics"), rows(out, "loss_components")
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert [(row["epoch"], row["phase"]) for row in parts] == [
        ("1", "train"), ("1", "val"), ("2", "train"), ("2", "val")
    ]  # fmt: skip
    for epoch, row in zip(epochs, parts[1::2], strict=True):
        summed = sum(float(row[f"loss_{task}"]) for task in ("type", "ptr", "span", "countdown"))
        assert float(epoch["val_loss"]) == pytest.approx(summed)
    (sigmas,) = rows(out, "uncertainty_params")
    shares = [float(value) for name, value in sigmas.items() if name.startswith("weight_")]
    assert sum(shares) == pytest.approx(1.0)
    for row in rows(out, "probability_stats"):
        apart = float(row["in_span_mean"]) - float(row["out_span_mean"])
        assert float(row["separation"]) == pytest.approx(apart)
    features = rows(out, "feature_stats")
    assert len(features) == 2 * 12
    # inputs are scaled by the training windows
    for row in features[:12]:
        assert float(row["mean"]) == pytest.approx(0.0, abs=1e-5), row["feature_name"]


def test_variant_without_countdown_leaves_its_cells_empty(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, err = command("finetune-encoder", "--variant", "stones", *options, "--output", out)
    assert code == 0, err
    assert {row["loss_countdown"] for row in rows(out, "loss_components")} == {""}
    assert {row["sigma_countdown"] for row in rows(out, "uncertainty_params")} == {""}


def test_run_that_is_killed_within_epochs_ends_as_one_that_is_not(
    data: Path, encoder: Path, tmp_path: Path
) -> None:
    config = small_config(epochs=3, variants={"position": {"batch_size": 4}})
    at_every_batch = config.curriculum.model_copy(update={"checkpoint_seconds": 0.0})
    config = config.model_copy(update={"curriculum": at_every_batch})

    def run(folder: Path, *, resume: bool) -> None:
        device = torch.device("cpu")
        request = FinetuneRequest(
            variant="position",
            data=data,
            output=folder,
            pretrained=encoder,
            is_frozen=False,
            device=device,
            config=config,
            resume=resume,
        )
        finetune(prepare(request), StopFlag())

    def outcome(folder: Path) -> dict[str, object]:
        found: dict[str, object] = {name: rows(folder, name) for name in COLUMNS}
        untimed = [{**row, "epoch_time": ""} for row in rows(folder, "epoch_metrics")]
        return {**found, "epoch_metrics": untimed, "weights": weights(folder)}

    assert_kills_change_nothing(run, outcome, tmp_path, seed=2)


def test_stopped_run_says_so_and_resumes(
    command: Command, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["finetune-encoder", "--variant", "position", *options, "--output", out]
    with monkeypatch.context() as patch:
        patch.setattr(StopFlag, "is_set", True)
        assert command(*arguments)[0] == 130
    assert (out / "running.pt").is_file()
    assert not (out / "metadata.json").exists()
    code, _, err = command(*arguments, "--resume")
    assert code == 0, err
    assert "continues at epoch" in err
    assert not (out / "running.pt").exists()


def test_finished_run_is_not_trained_again(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    arguments = ["finetune-encoder", "--variant", "stones", *options, "--output", tmp_path / "out"]
    _, first, _ = command(*arguments)
    changed = (tmp_path / "out" / "best_model.pt").stat().st_mtime_ns
    code, again, err = command(*arguments, "--resume")
    assert (code, again) == (0, first), err
    assert (tmp_path / "out" / "best_model.pt").stat().st_mtime_ns == changed


def test_resuming_another_run_is_refused(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command("finetune-encoder", "--variant", "stones", *options, "--output", out, "--seed", 1)
    result = command(
        "finetune-encoder", "--variant", "stones", *options, "--output", out, "--resume"
    )
    code, _, err = result
    assert code == 1
    assert "metadata.json" in err
    assert "another" in err


def test_pretrained_encoder_is_reported_and_frozen(
    command: Command, options: list[object], encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pretrained = ["--pretrained-encoder", encoder, "--freeze-encoder"]
    code, _, err = command(
        "finetune-encoder", "--variant", "position", *options, *pretrained, "--output", out
    )
    assert code == 0, err
    new = ["input consolidation_proxy", "input position_encoding"]
    assert "missing input consolidation_proxy, input position_encoding" in err
    metadata = json.loads((out / "metadata.json").read_text())
    assert (metadata["missing_weights"], metadata["unexpected_weights"]) == (new, [])
    # the scaling of pretraining (see test_pretrained), by name
    place = metadata["columns"].index("range_z")
    assert metadata["scaling"]["mean"][place] == pytest.approx(0.5)
    assert metadata["scaling"]["std"][place] == pytest.approx(6.0)
    found = weights(out)["encoder.lstm.weight_ih_l0"]
    assert bool((found[:, 11:] == 0).all())


def test_saved_model_says_what_the_trained_one_said(
    command: Command, options: list[object], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command("finetune-encoder", "--variant", "position", *options, "--output", out)
    saved = load_finetuned(out / "best_model.pt")
    windows = read_labelled(data, LENGTH)
    config = small_config().windowed.feature_config
    table = window_features(windows.ohlc, saved.columns, config)
    inputs = (table - np.float32(saved.mean)) / np.float32(saved.std)
    with torch.no_grad():
        logits = saved.model(torch.from_numpy(inputs)).span_logits
    payload = load_payload(out / "best_model.pt")
    stats = rows(out, "probability_stats")[payload["epoch"] - 1]
    assert logits is not None
    inside = logits.sigmoid().numpy()
    # validation windows lie among all of them, so their extremes do
    assert inside.min() <= float(stats["out_span_min"]) + 1e-6
    assert inside.max() >= float(stats["in_span_max"]) - 1e-6
    assert saved.window_length == LENGTH


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = save_payload(tmp_path / "best_model.pt", {"kind": "macro"})
    with pytest.raises(CheckpointError, match="macro"):
        load_finetuned(path)


def test_refusals_are_one_line_and_leave_nothing(
    command: Command, options: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = ["finetune-encoder", *options, "--output", out]
    assert_refused(command(*run, "--variant", "jewel"), "jewel", "baseline, stones, position")
    given = ("--variant", "jewel", "--batch-size", 4)
    assert_refused(command(*run, *given), "no variant 'jewel'", "baseline, stones, position")
    assert_refused(command(*run, "--variant", "stones", "--freeze-encoder"), "--pretrained-encoder")
    missing = tmp_path / "none" / "encoder.safetensors"
    assert_refused(
        command(*run, "--variant", "stones", "--pretrained-encoder", missing), "pretrain-encoder"
    )
    assert not out.exists()


def test_a_processor_without_bfloat16_is_named_with_the_setting(
    command: Command, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "cpu_has_bfloat16", lambda: False)
    own = tmp_path / "own.yaml"
    own.write_text(
        OWN + "  pretraining: {cpu_bfloat16: true}\n  finetuning: {cpu_bfloat16: true}\n"
    )
    out = tmp_path / "out"
    given = ("--config", own, "--output", out, "--device", "cpu")
    told = ("cpu_bfloat16 is true", "set it to false")
    assert_refused(
        command("finetune-encoder", *options, "--variant", "stones", "--output", out),
        "encoders.finetuning.",
        *told,
    )
    assert_refused(
        command("pretrain-encoder", "--data", "bars.csv", *given), "encoders.pretraining.", *told
    )
    assert not out.exists()


def test_unusable_labels_are_refused_before_anything_is_made(
    command: Command, options: list[object], data: Path, tmp_path: Path
) -> None:
    windows = read_labelled(data, LENGTH)
    frame = as_frame(windows).with_columns(expansion_end=-1)
    path = tmp_path / "bad.parquet"
    frame.write_parquet(path)
    out = tmp_path / "out"
    given = [path if option == data else option for option in options]
    result = command("finetune-encoder", "--variant", "stones", *given, "--output", out)
    assert_refused(result, str(path), windows.window_id[0], "expansion_end")
    assert not out.exists()


def test_heads_that_learn_alone_for_longer_than_patience_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads_first_epochs: expected at most patience"):
        small_config(heads_first_epochs=4, patience=3)
