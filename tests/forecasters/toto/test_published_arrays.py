"""Toto 1.0 computes what its makers' code computes, and differs where that has known defects."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hrl_sarp.fitting.schedule import warmup_stable_decay
from hrl_sarp.forecasters.toto import (
    SeriesBatch,
    Toto,
    forecast_mean,
    forecast_quantiles,
    load_toto,
    prepare,
    save_toto,
    toto_loss,
)
from hrl_sarp.forecasters.toto.learning import NLL_WEIGHT, stepwise_losses
from hrl_sarp.forecasters.toto.mixture import TINY
from tests.forecasters.published import PublishedSet, sets_of

every_set = pytest.mark.parametrize("found", sets_of("toto"))


def _model(found: PublishedSet, place: Path) -> Toto:
    return load_toto(found.folder(place))


def _inputs(found: PublishedSet) -> SeriesBatch:
    """The context as it is: zeros are read where nothing was observed."""
    context = found.shapes["context"]
    values, observed = found["series"][..., :context], found["padding_mask"][..., :context]
    return SeriesBatch(values, observed, _groups(found), found.about["exogenous_variates"])


def _groups(found: PublishedSet) -> torch.Tensor:
    return found["id_mask"][..., 0]


def _targets(found: PublishedSet) -> tuple[torch.Tensor, torch.Tensor]:
    at = slice(found.shapes["patch"], found.shapes["context"] + found.shapes["patch"])
    return found["series"][..., at], found["padding_mask"][..., at]


@every_set
def test_every_array_of_a_pass_is_theirs(found: PublishedSet, tmp_path: Path) -> None:
    model, batch, size = _model(found, tmp_path), _inputs(found), found.shapes["patch"]
    assert model.config.layer_axes == tuple(found.about["layer_axes"])
    assert sum(part.numel() for part in model.parameters()) == found.about["parameters"]
    mixture, scaled = model(batch)
    loc, scale = (part.repeat_interleave(size, -1) for part in (scaled.loc, scaled.scale))
    embedded = model.embed(scaled.values)
    alone = SeriesBatch(batch.values[:, :1], batch.observed[:, :1], batch.groups[:, :1])
    aims = (_targets(found)[0] - loc) / (scale + TINY)
    ours = {
        "scaled": scaled.values,
        "loc": loc,
        "scale": scale,
        "patch_embeddings": embedded,
        "hidden": model.hidden(batch, embedded),
        "hidden_first_variate_alone": model.hidden(alone, model.embed(model.scale(alone).values)),
        "df": mixture.df,
        "component_loc": mixture.loc,
        "component_scale": mixture.scale,
        "mixture_probs": mixture.weights,
        "distribution_mean_scaled": mixture.mean,
        "target": _targets(found)[0],
        "scaled_target": aims,
        "nll": -mixture.log_prob(aims),
    }
    for name, array in ours.items():
        found.require_equal(name, array)


@every_set
def test_loss_and_gradients_are_theirs(found: PublishedSet, tmp_path: Path) -> None:
    model, batch, (targets, observed) = _model(found, tmp_path), _inputs(found), _targets(found)
    nll, robust = stepwise_losses(model, batch, targets)
    found.require_equal("robust", robust)
    found.require_equal("combined", NLL_WEIGHT * nll + (1 - NLL_WEIGHT) * robust)
    loss = toto_loss(model, batch, targets, observed)
    found.require_equal("loss", loss)
    loss.backward()
    gradients = {name: part.grad for name, part in model.named_parameters()}
    found.require_equal("grad_patch_projection", gradients["patch_embed.projection.weight"])
    first = "transformer.layers.0.attention.wQKV.weight"
    found.require_equal("grad_wqkv_first", gradients[first])
    norms = {f"model.{name}": part.norm().item() for name, part in gradients.items()}
    assert norms == pytest.approx(found.about["gradient_norms"], rel=1e-3)


@every_set
def test_exogenous_series_are_masked_and_not_the_last_steps(
    found: PublishedSet, tmp_path: Path
) -> None:
    n_exogenous = found.about["exogenous_variates"]
    if not n_exogenous:
        pytest.skip("this set has no exogenous series")
    model, batch, (targets, observed) = _model(found, tmp_path), _inputs(found), _targets(found)
    counts = observed.clone()
    counts[:, -n_exogenous:] = False
    assert torch.equal(counts, found["target_mask"])
    # the makers' loss drops the last steps of every series and keeps exogenous ones
    nll, robust = stepwise_losses(model, batch, targets)
    wrong = observed.clone()
    wrong[..., -n_exogenous:] = False
    each = NLL_WEIGHT * nll + (1 - NLL_WEIGHT) * robust
    theirs = (each * wrong).sum() / (wrong.sum() + TINY)
    found.require_equal("loss_reference_mask_bug", theirs)
    ours = toto_loss(model, batch, targets, observed)
    assert abs(ours - theirs) > 1e-3 * abs(theirs)
    changed = targets.clone()
    changed[:, -n_exogenous:] += 5.0
    assert torch.equal(toto_loss(model, batch, changed, observed), ours)


@every_set
@pytest.mark.parametrize("cached", [True, False])
def test_means_are_those_of_full_recomputation(
    found: PublishedSet, *, cached: bool, tmp_path: Path
) -> None:
    model, batch, horizon = _model(found, tmp_path), _inputs(found), found.shapes["horizon"]
    future = found.arrays.get("future_exogenous")
    means = forecast_mean(model, batch, horizon, future, cached=cached)
    found.require_equal("mean_forecast", means)
    # their cache moves the centre of the rotation at each step
    theirs = found["mean_forecast_reference_cache"]
    off = (found["mean_forecast"] - theirs).abs().max().item()
    assert (means - theirs).abs().max().item() == pytest.approx(off, rel=0.02)
    assert off == pytest.approx(found.about["max_abs_difference_of_reference_cache"], rel=0.02)


@every_set
def test_left_padding_with_zeros_is_theirs_and_not_our_default(
    found: PublishedSet, tmp_path: Path
) -> None:
    model, horizon, size = _model(found, tmp_path), found.shapes["horizon"], found.shapes["patch"]
    kept = slice(
        found.shapes["context"] - found.shapes["unaligned_context"], found.shapes["context"]
    )
    values, observed = found["series"][..., kept], found["padding_mask"][..., kept]
    n_exogenous = found.about["exogenous_variates"]
    future = found.arrays.get("future_exogenous")
    forecasts = {}
    for padding in ("reference", "cut"):
        batch = prepare(
            values, observed, _groups(found), size, n_exogenous=n_exogenous, padding=padding
        )
        forecasts[padding] = forecast_mean(model, batch, horizon, future)
    found.require_equal("mean_forecast_unaligned", forecasts["reference"])
    assert not torch.allclose(forecasts["cut"], forecasts["reference"], rtol=1e-4)


@every_set
def test_closed_form_quantiles_are_where_their_draws_lie(
    found: PublishedSet, tmp_path: Path
) -> None:
    model, batch, levels = _model(found, tmp_path), _inputs(found), (0.1, 0.25, 0.5, 0.75, 0.9)
    n_targets = batch.values.shape[1] - found.about["exogenous_variates"]
    mixture = model.next_patch(batch)
    drawn = found["first_patch_sample_quantiles"].permute(1, 2, 3, 0)
    size = found.shapes["patch"]
    assert forecast_quantiles(model, batch, size, levels).shape == drawn.shape
    for at, level in enumerate(levels):
        reached = mixture.cdf(drawn[..., at].double())[:, :n_targets]
        # 2,000 draws: the share below a quantile has a deviation of sqrt(p (1 - p) / 2000)
        z = (reached - level) / (level * (1 - level) / 2000) ** 0.5
        assert z.abs().max() < 5.0
        assert z.square().mean() < 3.0


@every_set
def test_rate_of_learning_is_theirs(found: PublishedSet) -> None:
    plan = {"total": 23, "warmup": 10 / 23, "decay": 8 / 23, "last_share": 0.25}
    rates = [4e-5 * warmup_stable_decay(step, **plan) for step in range(len(found["wsd_lr"]))]
    found.require_equal("wsd_lr", torch.tensor(rates, dtype=torch.float64))


@every_set
def test_both_spellings_of_the_gated_layers_give_the_same_model(
    found: PublishedSet, tmp_path: Path
) -> None:
    folder = found.folder(tmp_path)
    one = load_toto(folder)
    state = load_file(folder / "model.safetensors")
    fused = {".mlp.0.w12.": ".mlp.0.", ".mlp.0.w3.": ".mlp.2."}
    if not found.about["fused_swiglu_key_names"]:
        fused = {ours: theirs for theirs, ours in fused.items()}
    for old, new in fused.items():
        state = {name.replace(old, new): part for name, part in state.items()}
    assert state.keys() != load_file(folder / "model.safetensors").keys()
    save_file(state, folder / "model.safetensors")
    other = load_toto(folder)
    for name, part in one.state_dict().items():
        assert torch.equal(part, other.state_dict()[name]), name


@every_set
def test_our_file_has_their_names_and_shapes_and_loads_back(
    found: PublishedSet, tmp_path: Path
) -> None:
    model = _model(found, tmp_path)
    (tmp_path / "ours").mkdir()
    path = save_toto(tmp_path / "ours", model)
    plain = {
        name.replace("mlp.0.w12", "mlp.0").replace("mlp.0.w3", "mlp.2"): shape
        for name, shape in found.about["keys"].items()
    }
    assert {name: list(part.shape) for name, part in load_file(path).items()} == plain
    again = load_toto(path.parent)
    assert again.config == model.config
    assert torch.equal(again(_inputs(found))[0].mean, model(_inputs(found))[0].mean)
