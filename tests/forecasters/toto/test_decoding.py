"""Decoding: exact cache, paths drawn from what the network says, contexts of any length."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.toto import (
    forecast_mean,
    forecast_paths,
    forecast_quantiles,
    prepare,
)
from hrl_sarp.forecasters.toto.layers import Cache
from tests.forecasters.toto.small_models import SMALL, batch_of, toto, toto2, walks

SIZE = SMALL.patch_size
LEVELS = (0.1, 0.5, 0.9)


def uniforms(n_paths: int, n_rows: int, horizon: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n_paths, n_rows, 1, horizon, 3)
    return torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=1e-12)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("n_patches", [1, 2, 9])
def test_a_cache_equals_recomputation(n_patches: int, *, labels: bool) -> None:
    model = toto(labels=labels, spacewise_every_n_layers=2)
    batch = batch_of(walks(2, 1, SIZE * n_patches))
    draws = uniforms(3, 2, 4 * SIZE + 1)
    cached = forecast_paths(model, batch, draws)
    again = forecast_paths(model, batch, draws, cached=False)
    assert torch.allclose(cached, again, rtol=1e-12, atol=1e-12)


def test_a_centre_that_moves_with_the_cache_would_change_the_forecast() -> None:
    # what the makers' cache does: old keys keep the centre of their own step
    model, batch = toto(), batch_of(walks(1, 1, 3 * SIZE))
    cache = Cache(centre=1.0)
    first = model.next_patch(batch, cache).mean
    batch = batch.append(first)
    cache.centre = 2.0
    moved = model.next_patch(batch, cache).mean
    fixed = model.next_patch(batch).mean
    assert 1e-9 < (moved - fixed).abs().max() < 0.1
    assert torch.allclose(forecast_mean(model, batch.repeat(1), SIZE), fixed)


def test_the_context_is_read_once_and_only_the_last_patch_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch = toto(), batch_of(walks(2, 1, 5 * SIZE))
    read, opened = [], []
    hidden, distribution = model.hidden, model.distribution
    monkeypatch.setattr(
        model,
        "hidden",
        lambda b, x, c=None: (read.append(x.shape[0] * x.shape[2]), hidden(b, x, c))[1],
    )
    monkeypatch.setattr(
        model, "distribution", lambda x, n=None: (opened.append(x.shape[2]), distribution(x, n))[1]
    )
    forecast_paths(model, batch, uniforms(10, 2, 3 * SIZE))
    # two rows of five patches; then one new patch of 20 paths, twice
    assert read == [10, 20, 20]
    assert opened == [1, 1, 1]


def test_paths_are_drawn_from_the_distribution_of_each_step() -> None:
    model, batch = toto(), batch_of(walks(1, 1, 4 * SIZE))
    paths = forecast_paths(model, batch, uniforms(4000, 1, SIZE))
    mixture = model.next_patch(batch).repeat(4000)
    reached = mixture.cdf(paths[:, 0])[:, 0].detach()
    for step in range(SIZE):
        assert stats.kstest(reached[:, step].numpy(), "uniform").pvalue > 1e-3
    # steps of one patch are independent given the context
    assert np.abs(np.corrcoef(reached.T.numpy()) - np.eye(SIZE)).max() < 0.08


def test_later_patches_follow_the_path_that_was_drawn() -> None:
    model, batch = toto(), batch_of(walks(1, 1, 4 * SIZE))
    draws = uniforms(2, 1, 2 * SIZE)
    draws[1, ..., SIZE:, :] = draws[0, ..., SIZE:, :]
    paths = forecast_paths(model, batch, draws)
    assert not torch.allclose(paths[0, ..., SIZE:], paths[1, ..., SIZE:])
    for path in paths:
        longer = batch.append(path[..., :SIZE])
        again = model.next_patch(longer).draw(draws[0, ..., SIZE:, :])
        assert torch.allclose(path[..., SIZE:], again, atol=1e-9)


def test_the_known_future_of_exogenous_series_is_read_and_returned() -> None:
    model = toto(labels=True, spacewise_every_n_layers=1)
    batch = batch_of(walks(2, 3, 3 * SIZE), n_exogenous=2)
    horizon = 2 * SIZE + 1
    future = walks(2, 2, horizon, seed=5)
    found = forecast_mean(model, batch, horizon, future)
    assert torch.equal(found[:, 1:], future)
    other = future.clone()
    other[..., :SIZE] *= -1.0
    changed = forecast_mean(model, batch, horizon, other)
    assert torch.allclose(changed[:, 0, :SIZE], found[:, 0, :SIZE])
    assert not torch.allclose(changed[:, 0, SIZE:], found[:, 0, SIZE:])


def test_a_horizon_beyond_a_patch_has_no_closed_form() -> None:
    model, batch = toto(), batch_of(walks(1, 1, 2 * SIZE))
    assert forecast_quantiles(model, batch, SIZE, LEVELS).shape == (1, 1, SIZE, 3)
    with pytest.raises(ForecastError, match=r"at most a patch \(4 steps\), found 5"):
        forecast_quantiles(model, batch, SIZE + 1, LEVELS)
    whole = forecast_quantiles(model, batch, SIZE, LEVELS)
    assert torch.allclose(forecast_quantiles(model, batch, 2, LEVELS), whole[:, :, :2])


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_the_left_end_is_cut_to_whole_patches(cut: int) -> None:
    model, values = toto(), walks(2, 2, 4 * SIZE + cut)
    observed, groups = torch.ones_like(values, dtype=torch.bool), torch.zeros(2, 2).long()
    found = prepare(values, observed, groups, SIZE)
    assert torch.equal(found.values, values[..., cut:])
    wanted = forecast_mean(model, batch_of(values[..., cut:]), SIZE)
    assert torch.allclose(forecast_mean(model, found, SIZE), wanted)


def test_holes_are_filled_forward_and_count_in_no_statistic() -> None:
    values = walks(1, 1, 3 * SIZE)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[..., 5:7] = False
    values = torch.where(observed, values, 1e6)
    found = prepare(values, observed, torch.zeros(1, 1).long(), SIZE)
    assert found.starts is None
    assert found.values[0, 0, 5:7].tolist() == [values[0, 0, 4].item()] * 2
    kept = values[observed]
    scaled = toto().scale(found)
    assert scaled.loc[0, 0, -1].item() == pytest.approx(kept.mean().item())
    assert scaled.scale[0, 0, -1].item() == pytest.approx((kept.var() + 0.1).sqrt().item())
    assert scaled.values.abs().max() < 10.0


def test_a_hole_read_as_zero_would_be_a_jump() -> None:
    values = 1000.0 + walks(1, 1, 3 * SIZE)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[..., 5:7] = False
    groups = torch.zeros(1, 1).long()
    theirs = prepare(values, observed, groups, SIZE, padding="reference")
    assert toto().scale(theirs).values.min() < -100.0


def test_series_that_begin_late_are_forecast_as_if_cut_there() -> None:
    model, values = toto(), walks(3, 1, 5 * SIZE)
    first = torch.tensor([0, SIZE + 1, 3 * SIZE])
    observed = torch.arange(5 * SIZE) >= first[:, None, None]
    batch = prepare(values, observed, torch.zeros(3, 1).long(), SIZE)
    found = forecast_quantiles(model, batch, SIZE, LEVELS)
    for row, start in enumerate([0, 2 * SIZE, 3 * SIZE]):
        alone = batch_of(values[row : row + 1, :, start:])
        assert torch.allclose(found[row], forecast_quantiles(model, alone, SIZE, LEVELS)[0])


@pytest.mark.parametrize("padding", ["cut", "reference"])
def test_what_stands_where_nothing_was_observed_does_not_matter(padding: str) -> None:
    values = walks(2, 1, 3 * SIZE + 1)
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    observed[..., -2 * SIZE :: SIZE] = True
    groups = torch.zeros(2, 1).long()
    one = prepare(values, observed, groups, SIZE, padding=padding)
    other = prepare(torch.where(observed, values, -9e9), observed, groups, SIZE, padding=padding)
    model = toto()
    assert torch.equal(model.next_patch(one).mean, model.next_patch(other).mean)


def test_a_series_without_a_whole_patch_is_refused_by_row() -> None:
    values = walks(2, 3, 2 * SIZE)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[1, 2, : SIZE + 1] = False
    with pytest.raises(ForecastError, match=r"row 1, series 2: .* 4 steps .*, found 3"):
        prepare(values, observed, torch.zeros(2, 3).long(), SIZE)
    with pytest.raises(ForecastError, match="at least a patch of 4 steps, found 3"):
        prepare(values[..., :3], observed[..., :3], torch.zeros(2, 3).long(), SIZE)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_heads": 1, "num_layers": 1, "layer_group_size": 1, "num_variate_layers_per_group": 0},
        {"variate_layer_first": True, "layer_group_size": 2, "mlp_bias": True, "attn_bias": False},
        {"patch_size": 9, "qk_dim": 4, "v_dim": 12, "d_ff": 3},
    ],
)
def test_toto_2_of_any_size_reads_no_future_no_other_group_and_no_empty_patch(
    sizes: dict[str, object],
) -> None:
    model = toto2(**sizes)
    size = model.config.patch_size
    batch = replace(batch_of(walks(1, 3, 4 * size)), groups=torch.tensor([[0, 5, 0]]))
    found = model.forecast(batch, 2 * size + 1)
    assert found.shape == (1, 3, 2 * size + 1, 9)
    assert bool((found.diff(dim=-1) >= 0).all())
    # the distribution of a patch does not depend on how many follow
    assert torch.allclose(model.forecast(batch, size), found[:, :, :size], atol=1e-9)
    changed = batch.values.clone()
    changed[:, 1] *= -3.0
    other = model.forecast(replace(batch, values=changed), 2 * size + 1)
    assert torch.allclose(other[:, [0, 2]], found[:, [0, 2]], atol=1e-9)
    assert not torch.allclose(other[:, 1], found[:, 1])
    empty = batch.observed.clone()
    empty[..., :size] = False
    changed = batch.values.clone()
    changed[..., :size] = 1e5
    two = [
        model.forecast(replace(batch, values=values, observed=empty), size)
        for values in (batch.values, changed)
    ]
    assert torch.allclose(*two)


def test_few_first_values_borrow_the_statistics_of_the_first_eight() -> None:
    model = toto2()
    size = model.config.patch_size
    batch = batch_of(walks(1, 1, 4 * size))
    plain, borrowed = model.scale(batch), model.scale(batch, borrow=True)
    first = batch.values[0, 0, :8]
    assert borrowed[1][0, 0, 0].item() == pytest.approx(first.mean().item())
    assert borrowed[2][0, 0, 0].item() == pytest.approx(first.std().item())
    assert torch.equal(borrowed[1][..., 1:], plain[1][..., 1:])
    assert not torch.allclose(borrowed[1][..., 0], plain[1][..., 0])


def test_guarded_quantiles_stop_ten_thousand_scales_outside_the_context() -> None:
    model, batch = toto2(), batch_of(walks(1, 2, 12))
    scale = model.scale(batch)[2][..., -1]
    with torch.no_grad():
        head = model.output_head.get_submodule("param_projection.proj")
        head.skip_proj.bias.fill_(1e6)
    far = model.forecast(batch, 3, guarded=True)
    highest = batch.values.amax(dim=-1) + 1e4 * scale
    assert torch.allclose(far, highest[..., None, None].expand_as(far))
    assert bool((model.forecast(batch, 3) > far).all())
