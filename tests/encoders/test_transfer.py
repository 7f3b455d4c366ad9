import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders import JadeEncoder, export_encoder, load_encoder, read_description
from hrl_sarp.encoders.networks.transformer import CandleEncoder
from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.run.checkpoints import save_payload
from tests.encoders.masked_windows import FEATURES, small_jade


def description(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "jade",
        "n_features": FEATURES,
        "columns": ["a", "b", "c"],
        "window_length": 20,
        "sizes": {"hidden": 12, "layers": 2, "dropout": 0.1},
        "scaler": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
        "fitted_from": "2016-01-01T00:00:00",
        "fitted_to": "2018-06-30T23:59:00",
        "data_hash": "d",
        "config_hash": "c",
        "code_version": "v",
        "seed": 17,
        **changes,
    }


@pytest.fixture
def encoder() -> JadeEncoder:
    return small_jade().encoder


@pytest.fixture
def export(tmp_path: Path, encoder: JadeEncoder) -> Path:
    return export_encoder(tmp_path / "out", encoder, description()).parent


def empty_encoder(n_features: int = FEATURES, hidden: int = 12) -> JadeEncoder:
    module = small_jade(n_features, hidden=hidden).encoder
    for weights in module.parameters():
        nn.init.zeros_(weights)
    return module


def assert_same(module: nn.Module, expected: nn.Module) -> None:
    for name, weights in expected.state_dict().items():
        assert torch.equal(module.state_dict()[name], weights), name


def assert_untouched(module: nn.Module) -> None:
    assert all(not weights.any() for weights in module.parameters())


@pytest.mark.parametrize("name", ["", "encoder.safetensors", "encoder.json"])
def test_export_loads_to_the_same_weights(export: Path, encoder: JadeEncoder, name: str) -> None:
    module = empty_encoder()
    report = load_encoder(export / name, module)
    assert (report.missing, report.unexpected) == ((), ())
    assert_same(module, encoder)
    assert read_description(export / name)["fitted_to"] == "2018-06-30T23:59:00"


def test_checkpoint_of_pretraining_loads_without_its_decoder(tmp_path: Path) -> None:
    autoencoder, module = small_jade(), empty_encoder()
    payload = {
        "kind": "encoder pretraining",
        "model_state_dict": autoencoder.state_dict(),
        "encoder": description(),
    }
    path = save_payload(tmp_path / "checkpoint_best.pt", payload)
    report = load_encoder(path, module)
    assert (report.missing, report.unexpected) == ((), ())
    assert_same(module, autoencoder.encoder)
    assert read_description(path)["seed"] == 17


def test_what_does_not_match_is_reported(export: Path) -> None:
    module = nn.ModuleDict({"lstm": empty_encoder().lstm, "more": nn.Linear(1, 1, bias=False)})
    assert load_encoder(export, module).missing == ("more.weight",)
    part = nn.ModuleDict({"lstm": nn.ParameterDict({"bias_hh_l0": torch.zeros(48)})})
    found = load_encoder(export, part).unexpected
    assert len(found) == 15  # 2 layers x 2 directions x 4 weights, less the one that matches
    assert "lstm.weight_ih_l1_reverse" in found


def test_encoder_of_another_kind_is_refused(export: Path) -> None:
    module = CandleEncoder(FEATURES, load_config().encoders.transformer)
    with pytest.raises(CheckpointError, match=r"no weight matches.*found lstm\."):
        load_encoder(export, module)


@pytest.mark.parametrize("sizes", [{"n_features": 4}, {"hidden": 16}])
def test_other_shapes_are_refused_before_anything_is_loaded(
    export: Path, sizes: dict[str, int]
) -> None:
    module = empty_encoder(**sizes)
    with pytest.raises(CheckpointError, match=r"lstm\.\S+ has another shape: expected \("):
        load_encoder(export, module)
    assert_untouched(module)


def test_truncated_weights_are_refused(export: Path) -> None:
    path = export / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="describes other weights"):
        load_encoder(export, empty_encoder())
    with pytest.raises(CheckpointError, match="describes other weights"):
        read_description(export)


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (Path("hostile_code_ran"),))


@pytest.mark.parametrize("name", ["encoder.safetensors", "checkpoint_best.pt"])
def test_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save({"kind": "encoder pretraining", "model_state_dict": Hostile()}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError):
        load_encoder(path, empty_encoder())
    assert not Path("hostile_code_ran").exists()


@pytest.mark.parametrize("state", [None, [1, 2], {"encoder.lstm": 3}, {"encoder.x": "text"}])
def test_checkpoint_without_weights_is_refused(tmp_path: Path, state: object) -> None:
    path = save_payload(tmp_path / "c.pt", {"kind": "phase 3", "model_state_dict": state})
    with pytest.raises(CheckpointError, match=r"model_state_dict|no weight matches"):
        load_encoder(path, empty_encoder())


@pytest.mark.parametrize("name", ["", "encoder.safetensors", "checkpoint_best.pt"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingArtifactError, match=r"pretrain-encoder|no checkpoint"):
        load_encoder(tmp_path / name, empty_encoder())


def test_description_of_a_missing_path_names_that_path_not_its_neighbours(export: Path) -> None:
    with pytest.raises(MissingArtifactError, match="typo"):
        read_description(export / "typo")


def test_description_does_not_vouch_for_other_weights_in_its_folder(export: Path) -> None:
    other = export_encoder(export.parent / "other", empty_encoder(), description())
    beside = export / "mine.safetensors"
    beside.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match=r"other weights than mine\.safetensors"):
        read_description(beside)


def test_weights_that_are_not_numbers_are_neither_written_nor_loaded(tmp_path: Path) -> None:
    autoencoder = small_jade()
    nn.init.constant_(autoencoder.encoder.lstm.bias_ih_l0, float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        export_encoder(tmp_path / "out", autoencoder.encoder, description())
    assert not (tmp_path / "out").exists()
    payload = {"kind": "encoder pretraining", "model_state_dict": autoencoder.state_dict()}
    module = empty_encoder()
    with pytest.raises(CheckpointError, match="not finite"):
        load_encoder(save_payload(tmp_path / "c.pt", payload), module)
    assert_untouched(module)


@pytest.mark.parametrize("changes", [{"fitted_to": None}, {"columns": "a"}, {"seed": "x"}])
def test_description_that_lacks_something_is_refused(
    tmp_path: Path, encoder: JadeEncoder, changes: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=f"`{next(iter(changes))}` of the encoder's"):
        export_encoder(tmp_path, encoder, description(**changes))


def test_description_that_is_no_json_is_refused(export: Path) -> None:
    (export / "encoder.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="expected JSON"):
        read_description(export)
