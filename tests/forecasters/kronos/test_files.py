"""Files of published names are read with and without config.json, and bad ones are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.forecasters.kronos import (
    KronosForecaster,
    Sampling,
    load_kronos,
    load_predictor,
    load_tokenizer,
    save_kronos,
)
from tests.forecasters.kronos.tiny import every_shape, history, networks
from tests.forecasters.published import KRONOS, every_kronos_set, kronos_set

SHAPE = "coarse bits rule, fixed times"
FEW = Sampling(n_paths=3)


@every_shape
@pytest.mark.parametrize("has_config", [True, False])
def test_what_is_saved_is_loaded_with_the_same_sizes_and_forecasts(
    tmp_path: Path, shape: str, *, has_config: bool
) -> None:
    tokenizer, predictor = networks(shape)
    save_kronos(tmp_path, tokenizer, predictor)
    if not has_config:
        for file in tmp_path.glob("*/config.json"):
            file.unlink()
    loaded = load_kronos(tmp_path, None, FEW, max_context=32)
    assert loaded.tokenizer.size == tokenizer.size
    assert loaded.predictor.size == predictor.size
    before = KronosForecaster(tokenizer, predictor, FEW, max_context=32)
    given = [history(20, 4)]
    assert np.array_equal(loaded.draw_bars(given, seed=1), before.draw_bars(given, seed=1))
    apart = load_kronos(tmp_path / "model", tmp_path / "tokenizer", FEW, max_context=32)
    assert np.array_equal(apart.draw_bars(given, seed=1), before.draw_bars(given, seed=1))


@every_kronos_set
def test_our_files_have_the_keys_shapes_kinds_and_settings_of_the_published_ones(
    tmp_path: Path, name: str
) -> None:
    given = kronos_set(name)
    save_kronos(tmp_path, given.tokenizer, given.predictor)
    for folder, about in (("tokenizer", "tokenizer"), ("model", "model")):
        written = load_file(tmp_path / folder / "model.safetensors")
        shapes = {key: list(tensor.shape) for key, tensor in written.items()}
        assert shapes == given.about[f"{about}_keys"]
        published = load_file(_published(name, folder))
        for key, tensor in published.items():
            assert written[key].dtype == tensor.dtype
            assert torch.equal(written[key], tensor)
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config == given.about[f"{about}_config"]


@every_kronos_set
def test_fresh_networks_have_the_buffers_of_the_published_files(name: str) -> None:
    given = kronos_set(name)
    for network, folder in ((given.tokenizer, "tokenizer"), (given.predictor, "model")):
        fresh = type(network)(network.size)  # type: ignore[arg-type]
        published = load_file(_published(name, folder))
        for key, buffer in fresh.named_buffers():
            assert torch.allclose(buffer.double(), published[key].double(), rtol=1e-6)


def _published(name: str, folder: str) -> Path:
    return KRONOS / f"{name}_{folder}.safetensors"


def test_weights_of_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    tokenizer, predictor = networks(SHAPE)
    save_kronos(tmp_path, tokenizer, predictor.half())
    assert load_predictor(tmp_path / "model").head.proj_s1.weight.dtype == torch.float32


def _without(prefix: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]

    return change


def _with(key: str, *shape: int) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda state: state.update({key: torch.zeros(shape)})


BAD_PREDICTORS = {
    "a block less": (_without("transformer.0.norm2.weight"), r"transformer\.0\.norm2\.weight"),
    "a foreign tensor": (_with("extra.weight", 2), r"found extra\.weight"),
    "another width": (
        _with("head.proj_s1.weight", 32, 20),
        r"head\.proj_s1\.weight: expected shape \(32, 24\), found \(32, 20\)",
    ),
    "no power of two": (_with("embedding.emb_s2.weight", 3, 24), "power of two of rows, found 3"),
    "a table without rows": (_with("embedding.emb_s1.weight", 0, 24), "power of two"),
    "no norm": (_without("norm.weight"), r"expected the tensor norm\.weight"),
    "no axis": (_with("norm.weight"), "at least 1 axes"),
    "other frequencies": (
        _with("transformer.0.self_attn.rotary.inv_freq", 5),
        r"transformer\.0\.self_attn\.rotary\.inv_freq: expected shape \(6,\), found \(5,\)",
    ),
    "no blocks": (
        _without("transformer"),
        r"transformer\.0\.self_attn\.rotary\.inv_freq",
    ),
}


@pytest.mark.parametrize("case", BAD_PREDICTORS)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, case: str) -> None:
    change, message = BAD_PREDICTORS[case]
    state = dict(networks(SHAPE)[1].state_dict())
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as refused:
        load_predictor(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "no multiple of twice its 5 heads"),
        ({"d_model": 20}, "head|shape|multiple"),
        ({"n_layers": 2}, r"transformer\.1"),
        ({"learn_te": True}, r"time_emb\.day_embed\.weight"),
        ({"n_layers": "1"}, "n_layers: .*integer"),
        ({"ffn_dropout_p": 1.0}, "ffn_dropout_p: .*less than 1"),
        ({"s1_bits": 40}, "s1_bits: .*less than or equal to 20"),
        ({"window": 3}, "window: Extra"),
        ({"ff_dim": None}, "ff_dim"),
    ],
)
def test_settings_that_do_not_fit_the_tensors_are_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    save_kronos(tmp_path, *networks(SHAPE))
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_kronos(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("has_config", [True, False])
def test_a_predictor_is_no_tokenizer_and_the_other_way_round(
    tmp_path: Path, *, has_config: bool
) -> None:
    save_kronos(tmp_path, *networks(SHAPE))
    if not has_config:
        for file in tmp_path.glob("*/config.json"):
            file.unlink()
    for load, folder in ((load_tokenizer, "model"), (load_predictor, "tokenizer")):
        with pytest.raises(CheckpointError, match=folder) as refused:
            load(tmp_path / folder)
        assert "\n" not in str(refused.value)


def test_networks_of_different_tokens_are_refused_with_both_files(tmp_path: Path) -> None:
    save_kronos(tmp_path / "a", *networks(SHAPE))
    save_kronos(tmp_path / "b", *networks("even bits, learned times"))
    with pytest.raises(CheckpointError, match=r"a/model with .*b/tokenizer: .*4 \+ 4.*5 \+ 2"):
        load_kronos(tmp_path / "a" / "model", tmp_path / "b" / "tokenizer")


def test_a_folder_that_holds_one_network_only_names_what_is_missing(tmp_path: Path) -> None:
    save_kronos(tmp_path, *networks(SHAPE))
    with pytest.raises(MissingArtifactError, match=r"model/tokenizer"):
        load_kronos(tmp_path / "model")


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    tokenizer, predictor = networks(SHAPE)
    with torch.no_grad():
        predictor.norm.weight[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"norm\.weight is not finite"):
        save_kronos(tmp_path, tokenizer, predictor)
    assert list(tmp_path.iterdir()) == []  # not the tokenizer alone either
