"""Toto of any size: no future, no padding, no other group is read; bad files are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hrl_sarp.errors import CheckpointError
from hrl_sarp.forecasters.toto import (
    SeriesBatch,
    Toto,
    TotoConfig,
    forecast_mean,
    forecast_quantiles,
    load_toto,
    load_toto2,
    save_toto,
    save_toto2,
)
from tests.forecasters.toto.small_models import SMALL, batch_of, toto, toto2, walks

SIZES = {
    "one head, one component": {"num_heads": 1, "k_components": 1},
    "every layer across series": {"spacewise_every_n_layers": 1},
    "across series first": {"spacewise_first": True, "spacewise_every_n_layers": 2},
    "never across series": {"spacewise_every_n_layers": -1},
    "patches of one step": {"patch_size": 1},
    "wide patches": {"patch_size": 12, "embed_dim": 8},
    "one layer, more components": {"num_layers": 1, "k_components": 9, "mlp_hidden_dim": 1},
}


def test_the_published_model_has_its_number_of_weights() -> None:
    with torch.device("meta"):
        model = Toto(TotoConfig.base())
    assert sum(part.numel() for part in model.parameters()) == 151_306_080
    assert model.config.layer_axes == ("time",) * 11 + ("space",)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("case", SIZES)
def test_every_size_forecasts_saves_and_loads(case: str, *, labels: bool, tmp_path: Path) -> None:
    model = toto(labels=labels, **SIZES[case])
    batch = batch_of(walks(2, 5, 3 * model.config.patch_size), n_exogenous=2)
    horizon = 2 * model.config.patch_size + 1
    ours = forecast_mean(model, batch, horizon)
    assert ours.shape == (2, 5, horizon)
    assert torch.allclose(forecast_mean(model, batch, horizon, cached=False), ours, atol=1e-12)
    save_toto(tmp_path, model)
    again = load_toto(tmp_path)
    assert again.config == model.config
    assert torch.allclose(forecast_mean(again.double(), batch, horizon), ours, atol=1e-4)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("case", SIZES)
def test_the_future_changes_nothing(case: str, *, labels: bool) -> None:
    model = toto(labels=labels, **SIZES[case])
    size = model.config.patch_size
    batch = batch_of(walks(2, 3, 5 * size), n_exogenous=1)
    changed = batch.values.clone()
    changed[..., 3 * size :] = 1e4 * walks(2, 3, 2 * size, seed=9)
    cut = replace(
        batch, values=batch.values[..., : 3 * size], observed=batch.observed[..., : 3 * size]
    )
    until = slice(None, 3 * size)
    wanted = model(batch)[0].mean[..., until]
    assert torch.allclose(model(replace(batch, values=changed))[0].mean[..., until], wanted)
    assert torch.allclose(model(cut)[0].mean, wanted)
    assert not torch.allclose(
        model(replace(batch, values=changed))[0].mean[..., -1], wanted[..., -1]
    )


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("case", SIZES)
def test_padding_is_not_read(case: str, *, labels: bool) -> None:
    model = toto(labels=labels, **SIZES[case])
    size, levels = model.config.patch_size, (0.1, 0.5, 0.9)
    values = walks(3, 1, 4 * size)
    starts = torch.tensor([[0], [1], [3]])
    observed = torch.arange(4 * size) >= size * starts[..., None]
    groups = torch.zeros_like(starts)
    padded = SeriesBatch(torch.where(observed, values, 77.0), observed, groups, 0, starts)
    together = forecast_quantiles(model, padded, size, levels)
    far = forecast_mean(model, padded, 2 * size + 1)
    assert torch.allclose(forecast_mean(model, padded, 2 * size + 1, cached=False), far, atol=1e-12)
    for row, start in enumerate(starts[:, 0].tolist()):
        alone = batch_of(values[row : row + 1, :, start * size :])
        found = forecast_quantiles(model, alone, size, levels)
        assert torch.allclose(found, together[row : row + 1], atol=1e-9)
        assert torch.allclose(forecast_mean(model, alone, 2 * size + 1), far[row : row + 1])


def test_padding_of_a_series_is_not_read_by_the_series_beside_it() -> None:
    for labels in (False, True):
        model, size = toto(labels=labels, spacewise_every_n_layers=1), SMALL.patch_size
        batch = batch_of(walks(2, 3, 4 * size))
        starts = torch.tensor([[0, 2, 0], [1, 0, 3]])
        observed = torch.arange(4 * size) >= size * starts[..., None]
        found = []
        for filler in (0.0, 50.0):
            values = torch.where(observed, batch.values, filler)
            padded = replace(batch, values=values, observed=observed, starts=starts)
            found.append(model.hidden(padded, model.embed(model.scale(padded).values)))
        is_real = observed[..., ::size]
        assert torch.allclose(found[0][is_real], found[1][is_real], atol=1e-12)
        assert not torch.allclose(found[0][~is_real], found[1][~is_real])


def test_only_series_of_the_same_group_see_each_other() -> None:
    model = toto(spacewise_every_n_layers=1)
    values, size = walks(1, 3, 12), SMALL.patch_size
    batch = replace(batch_of(values), groups=torch.tensor([[7, 2, 7]]))
    found = forecast_mean(model, batch, size)
    others = values.clone()
    others[:, 1] += walks(1, 1, 12, seed=3)[:, 0]
    changed = forecast_mean(model, replace(batch, values=others), size)
    assert torch.allclose(changed[:, [0, 2]], found[:, [0, 2]], atol=1e-12)
    others = values.clone()
    others[:, 2] *= -1.0
    changed = forecast_mean(model, replace(batch, values=others), size)
    assert not torch.allclose(changed[:, 0], found[:, 0])
    assert torch.allclose(changed[:, 1], found[:, 1], atol=1e-12)


def test_a_head_that_repeats_the_last_patch_is_persistence() -> None:
    model = toto(embed_dim=8, num_heads=2)
    size, width = SMALL.patch_size, 8
    for part in model.parameters():
        nn.init.zeros_(part)
    with torch.no_grad():
        # hidden = the patch itself; step j of the next patch reads its value j
        model.patch_embed.get_submodule("projection").weight.copy_(torch.eye(width, size))
        for step in range(size):
            model.unembed.weight[step * width, step] = 1.0
        model.output_distribution.loc_proj.weight[:, 0] = 1.0
        model.output_distribution.scale_proj.bias.fill_(-100.0)
    batch = batch_of(100.0 + walks(2, 2, 12))
    repeated = batch.values[..., -size:]
    assert torch.allclose(forecast_mean(model, batch, size), repeated, atol=1e-9)
    far = forecast_mean(model, batch, 2 * size)
    assert torch.allclose(far, torch.cat([repeated, repeated], -1), atol=1e-9)
    quantiles = forecast_quantiles(model, batch, size, (0.1, 0.9))
    assert torch.allclose(quantiles, repeated[..., None].expand_as(quantiles), atol=1e-4)


Change = Callable[[dict[str, torch.Tensor], dict[str, object]], object]
LAYER = "model.transformer.layers.0."
BAD: dict[str, tuple[Change, str]] = {
    "missing tensor": (lambda t, c: t.pop("model.unembed.bias"), "unembed.bias"),
    "unknown tensor": (lambda t, c: t.update({"model.extra": torch.zeros(1)}), "extra"),
    "one label": (
        lambda t, c: t.update({"model.target_variate_label": torch.ones(16)}),
        "exogenous",
    ),
    "other shape": (
        lambda t, c: t.update({LAYER + "attention.wO.bias": torch.zeros(3)}),
        r"wO\.bias: expected shape \(16,\), found \(3,\)",
    ),
    "other sizes": (lambda t, c: c.update(num_layers=4), r"layers\.3"),
    "heads": (lambda t, c: c.update(num_heads=5), "5 heads"),
    "no patch size": (lambda t, c: c.pop("patch_size"), "patch_size"),
    "no heads": (lambda t, c: c.update(num_heads=0), "num_heads"),
    "text": (lambda t, c: c.update(embed_dim="16"), "embed_dim"),
    "every zero layers": (lambda t, c: c.update(spacewise_every_n_layers=0), "spacewise"),
    "stride": (lambda t, c: c.update(stride=2), "stride: expected 4, found 2"),
    "scaler": (lambda t, c: c.update(scaler_cls="<class 'm.StdMeanScaler'>"), "scaler_cls"),
    "head": (lambda t, c: c.update(output_distribution_classes=["StudentTOutput"]), "classes"),
    "two heads": (
        lambda t, c: c.update(output_distribution_kwargs={"k_components": 3, "beta": 1}),
        "output_distribution_kwargs",
    ),
    "clamp": (lambda t, c: c.update(scale_factor_exponent=2.0), "scale_factor_exponent"),
    "unknown switch": (lambda t, c: c.update(use_rope_2d=True), "use_rope_2d"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_toto_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    path = save_toto(tmp_path, toto())
    change, message = BAD[case]
    tensors, config = load_file(path), json.loads((tmp_path / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_toto(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_buffers_of_the_rotation_in_a_file_are_left_out(tmp_path: Path) -> None:
    path = save_toto(tmp_path, toto())
    extra = {"model.transformer.rotary_emb.freqs": torch.zeros(4)}
    save_file(load_file(path) | extra, path)
    assert load_toto(tmp_path).config == SMALL


def test_without_a_configuration_only_the_published_sizes_are_taken(tmp_path: Path) -> None:
    save_toto(tmp_path, toto())
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="sizes of Toto-Open-Base"):
        load_toto(tmp_path)


BAD2: dict[str, tuple[Change, str]] = {
    "missing tensor": (lambda t, c: t.pop("patch_proj.skip_proj.bias"), "skip_proj.bias"),
    "other knots": (
        lambda t, c: t.update({"output_head.param_projection.proj.skip_proj.bias": torch.ones(28)}),
        r"expected shape \(36,\), found \(28,\)",
    ),
    "norm of keys": (lambda t, c: c.update(qk_norm=True), "qk_norm: expected False, found True"),
    "no growth": (lambda t, c: c.update(use_xpos=False), "use_xpos"),
    "shared keys": (lambda t, c: c.update(num_groups=1), "num_groups: expected 2, found 1"),
    "unknown switch": (lambda t, c: c.update(moe=2), "moe"),
    "two patches": (lambda t, c: c.update(num_output_patches=2), "num_output_patches"),
    "norm after": (lambda t, c: c.update(pre_norm=False), "pre_norm"),
    "weights of norms": (lambda t, c: c.update(norm_include_weight=True), "norm_include_weight"),
    "no width": (lambda t, c: c.update(d_ff=None), "d_ff"),
    "odd heads": (lambda t, c: c.update(qk_dim=6), "qk_dim"),
}


@pytest.mark.parametrize("case", BAD2)
def test_a_file_that_is_not_toto_2_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    path = save_toto2(tmp_path, toto2())
    change, message = BAD2[case]
    tensors, config = load_file(path), json.loads((tmp_path / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_toto2(tmp_path)
    assert "\n" not in str(refused.value)


def test_each_generation_refuses_the_files_of_the_other(tmp_path: Path) -> None:
    save_toto(tmp_path / "one", toto())
    save_toto2(tmp_path / "two", toto2())
    with pytest.raises(CheckpointError, match="output_distribution_kwargs"):
        load_toto(tmp_path / "two")
    with pytest.raises(CheckpointError, match="expected the sizes of a Toto2Config"):
        load_toto2(tmp_path / "one")
    (tmp_path / "two" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="expected a config"):
        load_toto2(tmp_path / "two")


def test_switches_that_change_no_forecast_may_stand_in_the_file(tmp_path: Path) -> None:
    save_toto2(tmp_path, toto2())
    path = tmp_path / "config.json"
    found = json.loads(path.read_text())
    more = {
        "dropout_p": 0.0,
        "qk_norm_include_weight": False,
        "quantiles": [i / 10 for i in range(1, 10)],
    }
    path.write_text(json.dumps(found | more | {"num_groups": None, "heads_per_group": None}))
    assert load_toto2(tmp_path).config == toto2().config
