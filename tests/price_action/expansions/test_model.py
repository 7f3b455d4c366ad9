"""The heads on Jade: shapes, ranges, and that everything can be learned at once."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.encoders.transfer import export_encoder, read_description
from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.features.relativity import CANDLE_COLUMNS, POSITION, PRETRAINING_COLUMNS
from hrl_sarp.price_action.expansions.model import (
    TASKS,
    JadeMultiTask,
    MultiTaskOutput,
    load_pretrained,
    rearranged,
)

SMALL = JadeConfig(hidden=8, layers=1, dropout=0.0)
WINDOWS, BARS, FEATURES = 3, 12, 5


def model(tasks: tuple[str, ...] = TASKS) -> JadeMultiTask:
    torch.manual_seed(0)
    return JadeMultiTask(FEATURES, SMALL, tasks, dropout=0.3)


@pytest.fixture
def bars() -> torch.Tensor:
    return torch.randn(WINDOWS, BARS, FEATURES, generator=torch.Generator().manual_seed(1))


def test_every_head_speaks_of_every_window(bars: torch.Tensor) -> None:
    output = model()(bars)
    shapes = [tuple(part.shape) for part in output if part is not None]
    assert shapes == [(WINDOWS, 2), (WINDOWS, 2), (WINDOWS, BARS), (WINDOWS, BARS)]
    assert bool(((output.pointers >= 0) & (output.pointers <= 1)).all())


def test_tasks_that_are_not_taught_have_no_head(bars: torch.Tensor) -> None:
    stones = model(("type", "pointers", "span"))
    assert stones(bars).countdown is None
    assert stones.tasks == ("type", "pointers", "span")
    assert "countdown_head" not in stones.heads
    assert list(stones.log_sigmas()) == ["type", "pointers", "span"]


def test_parameters_are_those_of_encoder_heads_and_sigmas() -> None:
    encoder = sum(weights.numel() for weights in JadeEncoder(FEATURES, SMALL).parameters())
    # heads on 16 columns: type 2 x 17, place, length, span and countdown 17 each; 4 sigmas
    expected = encoder + 2 * 17 + 4 * 17 + 4
    assert sum(weights.numel() for weights in model().parameters()) == expected


def test_center_is_the_mean_place_under_the_weights_of_the_bars(bars: torch.Tensor) -> None:
    found = model().eval()
    with torch.no_grad():
        for weights in found.heads["place_head"].parameters():
            weights.zero_()
        # equal weights: the middle
        torch.testing.assert_close(found(bars).pointers[:, 0], torch.full((WINDOWS,), 0.5))
        per_bar = torch.zeros(1, BARS, 16)
        per_bar[0, 7] = 1.0
        found.heads["place_head"].weight.fill_(3.0)  # bar 7 alone gets 48, the others 0
        torch.testing.assert_close(found.decode(per_bar).pointers[0, 0], torch.tensor(7 / 11))
        found.heads["length_head"].weight.fill_(0.0)
        found.heads["length_head"].bias.fill_(math.log(3.0))
        torch.testing.assert_close(found.decode(per_bar).pointers[0, 1], torch.tensor(0.75))


def test_heads_start_at_a_constant_answer(bars: torch.Tensor) -> None:
    found = model().eval()
    with torch.no_grad():
        for head in found.heads.values():
            head.weight.zero_()
    constant = MultiTaskOutput(
        torch.tensor([[-0.2, -1.7]]).expand(WINDOWS, 2),
        torch.tensor([[0.6, 0.08]]).expand(WINDOWS, 2),
        torch.full((WINDOWS, BARS), -0.4),
        torch.full((WINDOWS, BARS), 0.3),
    )
    found.start_at(constant)
    said = found(bars)
    # but for the center, which starts in the middle
    torch.testing.assert_close(said.pointers[:, 0], torch.full((WINDOWS,), 0.5))
    torch.testing.assert_close(said.pointers[:, 1], constant.pointers[:, 1])
    for name in ("type_logits", "span_logits", "countdown"):
        torch.testing.assert_close(getattr(said, name), getattr(constant, name), msg=name)


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


def test_weights_alone_are_loaded_with_a_warning_and_no_scaling(
    source: JadeEncoder, tmp_path: Path
) -> None:
    whole = {f"encoder.{name}": part for name, part in source.state_dict().items()}
    whole["mask_token"] = torch.zeros(11)
    loaded = []
    for name, state in (("whole.pt", whole), ("bare.pt", dict(source.state_dict()))):
        torch.save(state, tmp_path / name)
        encoder = target(list(PRETRAINING_COLUMNS))
        found = load_pretrained(tmp_path / name, encoder, PRETRAINING_COLUMNS, SIZES)
        assert (found.scaling, found.fitted_to, found.report.missing) == ({}, "unknown", ())
        loaded.append(encoder.state_dict())
    for state in loaded:
        assert all(torch.equal(state[name], part) for name, part in source.state_dict().items())
    with pytest.raises(CheckpointError, match=r"bare\.pt: holds weights alone"):
        read_description(tmp_path / "bare.pt")
    torch.save({"linear.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: no weight matches"):
        load_pretrained(tmp_path / "other.pt", target(THIRTEEN), THIRTEEN, SIZES)


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
