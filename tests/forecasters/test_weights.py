"""Weights of forecasters are read as published, or refused by name."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.forecasters.weights import load_into, read_weights, write_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def test_what_is_written_is_read_back_and_has_no_key_of_ours(tmp_path: Path) -> None:
    write_weights(tmp_path, STATE, {"d_model": 3})
    found = read_weights(tmp_path)
    assert found.config == json.loads((tmp_path / "config.json").read_text()) == {"d_model": 3}
    assert found.state.keys() == STATE.keys()
    assert all(torch.equal(found.state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("layout", ["file", "parts", "index", "bare pt", "checkpoint pt"])
def test_every_published_layout_gives_the_same_tensors(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.safetensors"
    if layout == "file":
        save_file(STATE, path)
    elif layout.endswith("pt"):
        path = tmp_path / "weights.pt"
        torch.save(STATE if layout == "bare pt" else {"model_state_dict": STATE}, path)
    else:
        names = {name: f"model-{i}.safetensors" for i, name in enumerate(STATE)}
        for name, file in names.items():
            save_file({name: STATE[name]}, tmp_path / file)
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": names}))
        path = path if layout == "index" else tmp_path
    found = read_weights(path)
    assert all(torch.equal(found.state[name], STATE[name]) for name in STATE)
    assert found.config is None


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("ran",)


def _truncated(folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-5])
    return path


def _pickled(folder: Path) -> Path:
    path = folder / "weights.pt"
    path.write_bytes(pickle.dumps(_Code()))
    return path


def _other_values(folder: Path) -> Path:
    torch.save({"a": torch.zeros(2), "epoch": 3}, folder / "weights.pt")
    return folder / "weights.pt"


def _not_finite(folder: Path) -> Path:
    save_file({"a": torch.tensor([1.0, float("nan")])}, folder / "model.safetensors")
    return folder


def _config_is_text(folder: Path) -> Path:
    save_file(STATE, folder / "model.safetensors")
    (folder / "config.json").write_text("d_model: 3")
    return folder


def _part_elsewhere(folder: Path) -> Path:
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    "make", [_truncated, _pickled, _other_values, _not_finite, _config_is_text, _part_elsewhere]
)
def test_a_bad_file_is_one_typed_error_of_one_line(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises((CheckpointError, MissingArtifactError), match=path.name) as refused:
        read_weights(path)
    assert "\n" not in str(refused.value)


def test_a_tensor_that_does_not_fit_is_named_with_both_shapes(tmp_path: Path) -> None:
    layer = nn.ModuleDict({"a": nn.Linear(4, 2)})
    before = layer["a"].weight.clone()
    with pytest.raises(
        CheckpointError, match=r"a\.weight: expected shape \(2, 4\), found \(2, 3\)"
    ):
        load_into(layer, STATE, tmp_path)
    assert torch.equal(layer["a"].weight, before)
    state = {"a.weight": torch.zeros(2, 4), "b": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"expected the tensor a\.bias, found b instead"):
        load_into(layer, state, tmp_path)
