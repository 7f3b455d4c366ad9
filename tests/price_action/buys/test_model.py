"""The files of a trained transformer: plain values, and a clear refusal of everything else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.encoders.networks.transformer import PriceActionTransformer
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.features.candles import COLUMNS
from hrl_sarp.price_action.buys.model import (
    MODEL,
    SCALER,
    PriceAction,
    load_price_action,
    save_price_action,
)
from hrl_sarp.price_action.buys.windows import CandleScaling
from hrl_sarp.run.files import read_json, write_json
from tests.price_action.buys.candle_factories import small_config

SIZES = small_config().encoders.transformer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    scaling = CandleScaling("raw", Scaler.of(np.arange(14.0), 1.0 + np.arange(14.0)))
    save_price_action(tmp_path, PriceAction(PriceActionTransformer(14, SIZES), scaling, 16))
    return tmp_path


def test_files_hold_what_is_described(saved: Path) -> None:
    payload = torch.load(saved / MODEL, weights_only=True)
    assert list(payload) == ["model_state_dict", "feature_columns", "window_size", "input_dim"]
    assert payload["feature_columns"] == list(COLUMNS)
    assert (payload["window_size"], payload["input_dim"]) == (16, 14)
    scaler = read_json(saved / SCALER, "train")
    assert (scaler["mean"][3], scaler["std"][3], scaler["levels"]) == (3.0, 4.0, "raw")
    assert scaler["feature_columns"] == list(COLUMNS)


def test_loaded_model_equals_the_saved_one(saved: Path) -> None:
    one, other = load_price_action(saved, SIZES), load_price_action(saved, SIZES)
    x = 10 * torch.randn(3, 16, 14)
    assert torch.equal(one.probabilities(x), other.probabilities(x))
    torch.testing.assert_close(one.scaling.apply(x), (x - torch.arange(14.0)) / torch.arange(1, 15))
    assert one.window_length == 16
    assert ((one.probabilities(x) > 0) & (one.probabilities(x) < 1)).all()


@pytest.mark.parametrize("name", [MODEL, SCALER])
def test_missing_file_names_the_command(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(MissingArtifactError, match=name):
        load_price_action(saved, SIZES)


@pytest.mark.parametrize("name", [MODEL, SCALER])
def test_truncated_file_is_refused(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name):
        load_price_action(saved, SIZES)


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(Path.cwd() / "made_by_a_hostile_file"),)


def test_file_with_code_is_refused_and_runs_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": Hostile()}, saved / MODEL)
    with pytest.raises(CheckpointError, match="code"):
        load_price_action(saved, SIZES)
    assert not (tmp_path / "made_by_a_hostile_file").exists()


def test_network_of_another_size_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="other shapes"):
        load_price_action(saved, SIZES.model_copy(update={"width": 32}))


def changed_model(saved: Path, **changes: Any) -> None:
    torch.save({**torch.load(saved / MODEL, weights_only=True), **changes}, saved / MODEL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_columns": ["open"] * 14}, "feature_columns"),
        ({"window_size": 64}, "window_size: expected 16, found 64"),
        ({"input_dim": 13}, "input_dim"),
        ({"model_state_dict": 3}, "model_state_dict"),
        ({"model_state_dict": {}}, "other shapes"),
    ],
)
def test_model_of_another_kind_is_refused(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    changed_model(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_price_action(saved, SIZES)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    state = torch.load(saved / MODEL, weights_only=True)["model_state_dict"]
    state["head.0.weight"][0, 0] = torch.nan
    changed_model(saved, model_state_dict=state)
    with pytest.raises(CheckpointError, match=r"head\.0\.weight holds values that are not finite"):
        load_price_action(saved, SIZES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.0]}, "mean must be 14 finite numbers"),
        ({"std": ["one"] * 14}, "std must be 14 finite numbers"),
        ({"mean": [None] * 14}, "mean must be 14 finite numbers"),
        ({"std": [0.0] * 14}, "above 0"),
        ({"levels": "other"}, "relative or raw"),
        ({"feature_columns": list(COLUMNS[::-1])}, "feature_columns"),
        ({"std": None}, "std"),
    ],
)
def test_scaler_that_does_not_fit_is_refused(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    scaler = read_json(saved / SCALER, "train")
    write_json(saved / SCALER, {**scaler, **changes})
    with pytest.raises(CheckpointError, match=message):
        load_price_action(saved, SIZES)
