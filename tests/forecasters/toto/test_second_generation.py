"""Toto 2.0 forecasts what its makers' code forecasts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hrl_sarp.forecasters.toto import SeriesBatch, Toto2, Toto2Config, load_toto2, save_toto2
from tests.forecasters.published import PublishedSet, sets_of

every_set = pytest.mark.parametrize("found", sets_of("toto2"))


def _inputs(found: PublishedSet) -> SeriesBatch:
    return SeriesBatch(found["series"], found["mask"], found["series_ids"])


@every_set
def test_every_array_is_theirs(found: PublishedSet, tmp_path: Path) -> None:
    model, batch, horizon = (
        load_toto2(found.folder(tmp_path)),
        _inputs(found),
        found.shapes["horizon"],
    )
    size = model.config.patch_size
    n_weights = sum(part.numel() for part in model.parameters())
    assert n_weights == found.about["parameters"]
    scaled, loc, scale = model.scale(batch)
    found.require_equal("loc", loc.repeat_interleave(size, -1))
    found.require_equal("scale", scale.repeat_interleave(size, -1))
    has_values = batch.observed.unflatten(-1, (-1, size)).any(dim=-1)
    knots = model(scaled, batch.observed, batch.groups, has_values)
    found.require_equal("quantiles_scaled", knots.permute(4, 0, 1, 2, 3))
    for name, guarded in (("forecast", False), ("forecast_guarded", True)):
        forecast = model.forecast(batch, horizon, guarded=guarded)
        found.require_equal(name, forecast.permute(3, 0, 1, 2))
        # the largest series hides the others in the measure above
        off = (forecast.permute(3, 0, 1, 2) - found[name]).abs() / scale[..., -1:]
        assert off.max() < 1e-4


@every_set
def test_our_file_has_their_names_and_shapes_and_loads_back(
    found: PublishedSet, tmp_path: Path
) -> None:
    model = load_toto2(found.folder(tmp_path))
    path = save_toto2(tmp_path / "ours", model)
    assert {name: list(part.shape) for name, part in load_file(path).items()} == found.about["keys"]
    again = load_toto2(path.parent)
    assert again.config == model.config
    batch = _inputs(found)
    assert torch.equal(again.forecast(batch, 5), model.forecast(batch, 5))


def test_the_smallest_published_model_has_four_million_weights() -> None:
    with torch.device("meta"):
        model = Toto2(Toto2Config.smallest())
    n_weights = sum(part.numel() for part in model.parameters())
    assert round(n_weights / 1e6, 2) == 4.14
