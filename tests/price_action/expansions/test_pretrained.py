"""Encoders pretrained on 11 columns, read into models of 12 and 13."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.encoders.transfer import export_encoder
from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.features.relativity import CANDLE_COLUMNS, POSITION, PRETRAINING_COLUMNS
from hrl_sarp.price_action.expansions.pretrained import load_pretrained, rearranged

SIZES = JadeConfig(hidden=6, layers=2, dropout=0.1)
THIRTEEN = [*CANDLE_COLUMNS, POSITION]
SCALER = {"mean": [0.1 * k for k in range(11)], "std": [1.0 + k for k in range(11)]}


def export(folder: Path, encoder: JadeEncoder, **changes: Any) -> Path:
    description = {
        "kind": "jade",
        "n_features": 11,
        "columns": list(PRETRAINING_COLUMNS),
        "window_length": 105,
        "sizes": SIZES.model_dump(),
        "scaler": SCALER,
        "fitted_from": "2016-01-01T00:00:00",
        "fitted_to": "2018-06-30T23:59:00",
        "data_hash": "d",
        "config_hash": "c",
        "code_version": "v",
        "seed": 17,
        **changes,
    }
    return export_encoder(folder, encoder, description)


@pytest.fixture
def source() -> JadeEncoder:
    torch.manual_seed(3)
    return JadeEncoder(11, SIZES).eval()


def target(columns: list[str]) -> JadeEncoder:
    torch.manual_seed(4)
    return JadeEncoder(len(columns), SIZES).eval()


def test_encoder_says_what_it_said_whatever_the_new_columns_hold(
    source: JadeEncoder, tmp_path: Path
) -> None:
    encoder = target(THIRTEEN)
    load_pretrained(export(tmp_path, source), encoder, THIRTEEN, SIZES)
    bars = torch.randn(2, 30, 13)
    torch.testing.assert_close(encoder(bars), source(bars[..., :11]))


def test_columns_are_matched_by_name_and_not_by_place(source: JadeEncoder, tmp_path: Path) -> None:
    backwards = [POSITION, *CANDLE_COLUMNS[::-1]]
    encoder = target(backwards)
    load_pretrained(export(tmp_path, source), encoder, backwards, SIZES)
    bars = torch.randn(2, 30, 13)
    torch.testing.assert_close(encoder(bars), source(bars.flip(2)[..., :11]))


def test_new_columns_can_be_learned(source: JadeEncoder, tmp_path: Path) -> None:
    encoder = target(THIRTEEN)
    load_pretrained(export(tmp_path, source), encoder, THIRTEEN, SIZES)
    encoder(torch.randn(2, 30, 13)).sum().backward()
    gradient = encoder.lstm.weight_ih_l0.grad
    assert gradient is not None
    assert bool((gradient[:, 11:].abs().sum(dim=0) > 0).all())


def test_report_names_columns_on_one_side_only(source: JadeEncoder, tmp_path: Path) -> None:
    columns = [*CANDLE_COLUMNS[1:], POSITION]
    report = load_pretrained(export(tmp_path, source), target(columns), columns, SIZES).report
    assert report.missing == ("input consolidation_proxy", "input position_encoding")
    assert report.unexpected == ("input open_norm",)


def test_scaling_of_pretraining_comes_by_name(source: JadeEncoder, tmp_path: Path) -> None:
    pretrained = load_pretrained(export(tmp_path, source), target(THIRTEEN), THIRTEEN, SIZES)
    assert pretrained.scaling["range_z"] == (0.5, 6.0)
    assert set(pretrained.scaling) == set(PRETRAINING_COLUMNS)
    raw = load_pretrained(
        export(tmp_path / "raw", source, scaler=None), target(THIRTEEN), THIRTEEN, SIZES
    )
    assert set(raw.scaling.values()) == {(0.0, 1.0)}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "transformer"},
        {"columns": [f"x{k}" for k in range(11)]},
        {"scaler": {"mean": [0.0], "std": [1.0]}},
        {"scaler": {"mean": [0.0] * 11, "std": [0.0] * 11}},
    ],
)
def test_encoder_of_something_else_is_refused(
    source: JadeEncoder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    encoder = target(THIRTEEN)
    before = {name: weights.clone() for name, weights in encoder.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_pretrained(export(tmp_path, source, **changes), encoder, THIRTEEN, SIZES)
    assert all(torch.equal(before[name], new) for name, new in encoder.state_dict().items())


def test_encoder_of_other_sizes_is_refused(source: JadeEncoder, tmp_path: Path) -> None:
    wider = JadeConfig(hidden=7, layers=2, dropout=0.1)
    with pytest.raises(CheckpointError, match="shape"):
        load_pretrained(export(tmp_path, source), JadeEncoder(13, wider), THIRTEEN, wider)


def test_missing_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError):
        load_pretrained(tmp_path / "encoder.safetensors", target(THIRTEEN), THIRTEEN, SIZES)


def test_rearranged_weights_by_hand() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = rearranged(weights, ["a", "b"], ["b", "c", "a"])
    assert found.tolist() == [[2.0, 0.0, 1.0], [4.0, 0.0, 3.0]]
