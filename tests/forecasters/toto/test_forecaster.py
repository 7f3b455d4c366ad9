"""Forecasts of Toto in the unit of prices, of many series at once."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import LEVELS, Forecast, History
from hrl_sarp.forecasters.toto import (
    SeriesBatch,
    Toto2Forecaster,
    TotoForecaster,
    forecast_quantiles,
)
from hrl_sarp.forecasters.toto.forecaster import TRIMMED
from tests.forecasters.toto.small_models import SMALL, toto, toto2

SIZE = SMALL.patch_size
KINDS = ("toto", "toto2")


def history(symbol: str, n_rows: int, steps: int, *, level: float = 50.0) -> History:
    rng = np.random.default_rng([n_rows, *symbol.encode()])
    days = np.datetime64("2024-01-01") + np.arange(n_rows + steps)
    prices = level * np.exp(np.cumsum(0.01 * rng.normal(size=n_rows)))
    return History(symbol, days[:n_rows], prices, days[n_rows:])


def forecaster(kind: str, n_paths: int = 40) -> TotoForecaster | Toto2Forecaster:
    if kind == "toto":
        return TotoForecaster(toto(), context_patches=5, n_paths=n_paths)
    return Toto2Forecaster(toto2(), context_patches=5)


def require_close(one: Forecast, other: Forecast) -> None:
    assert np.allclose(one.quantiles, other.quantiles, rtol=1e-9)
    assert np.allclose(one.mean, other.mean, rtol=1e-9)
    for name in ("log_variance", "paths"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or np.allclose(ours, theirs, rtol=1e-8, equal_nan=True)


@pytest.mark.parametrize("steps", [1, SIZE, 2 * SIZE + 1])
@pytest.mark.parametrize("kind", KINDS)
def test_series_of_any_length_are_forecast_as_if_alone(kind: str, steps: int) -> None:
    ours = forecaster(kind)
    histories = [
        history(name, n, steps) for name, n in zip("ABCDE", (23, 4, 23, 7, 12), strict=True)
    ]
    together = ours.forecast(histories, LEVELS, seed=3)
    assert together.quantiles.shape == (5, steps, len(LEVELS))
    assert bool((np.diff(together.quantiles, axis=-1) >= 0).all())
    for row, one in enumerate(histories):
        alone = ours.forecast([one], LEVELS, seed=3)
        parts = (together.quantiles[[row]], together.mean[[row]])
        variance = None if together.log_variance is None else together.log_variance[[row]]
        paths = None if together.paths is None else together.paths[:, [row]]
        require_close(Forecast(LEVELS, *parts, variance, paths), alone)
    backwards = ours.forecast(histories[::-1], LEVELS, seed=3)
    assert np.allclose(backwards.quantiles[::-1], together.quantiles)


@pytest.mark.parametrize("steps", [SIZE, 2 * SIZE + 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_scales_with_the_price_and_reads_the_context_alone(
    kind: str, steps: int
) -> None:
    ours, one = forecaster(kind), history("A", 40, steps)
    found = ours.forecast([one], LEVELS, seed=1)
    scaled = ours.forecast([replace(one, target=7.0 * one.target)], LEVELS, seed=1)
    require_close(
        replace(
            scaled,
            quantiles=scaled.quantiles / 7.0,
            mean=scaled.mean / 7.0,
            paths=None if scaled.paths is None else scaled.paths / 7.0,
        ),
        found,
    )
    require_close(ours.forecast([one.last(ours.context_rows)], LEVELS, seed=1), found)
    changed = one.target.copy()
    changed[: -ours.context_rows] = 1.0
    require_close(ours.forecast([replace(one, target=changed)], LEVELS, seed=1), found)
    changed = one.target.copy()
    changed[-ours.context_rows] *= 1.5
    moved = ours.forecast([replace(one, target=changed)], LEVELS, seed=1)
    assert not np.allclose(moved.quantiles, found.quantiles, rtol=1e-6)


def test_quantiles_and_variance_are_those_of_100_log_returns() -> None:
    one = history("A", 20, 3)
    model = toto()
    found = TotoForecaster(model, 5, 10).forecast([one], (0.1, 0.5), seed=0)
    logs = torch.from_numpy(100.0 * np.log(one.target / one.target[-1]))[None]
    batch = SeriesBatch.alone(logs)
    ours = forecast_quantiles(model, batch, 3, (0.1, 0.5))[0, 0].numpy()
    assert np.allclose(found.quantiles[0], one.target[-1] * np.exp(ours / 100.0))
    variance = model.next_patch(batch).variance[0, 0, :3].detach().numpy() / 1e4
    assert np.allclose(found.log_variance[0], variance)
    inside = np.linspace(TRIMMED, 1 - TRIMMED, 1001)
    levels = ((inside[1:] + inside[:-1]) / 2).tolist()
    many = forecast_quantiles(model, batch, 3, levels)[0, 0].numpy()
    prices = one.target[-1] * np.exp(many / 100.0)
    assert np.allclose(found.mean[0], prices.mean(axis=-1), rtol=1e-5)
    assert found.paths is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_that_is_not_positive_is_read_as_it_is(kind: str) -> None:
    one = history("A", 20, 2 * SIZE + 1)
    one = replace(one, target=one.target - one.target.mean())
    beside = history("B", 20, 2 * SIZE + 1)
    ours = forecaster(kind)
    found = ours.forecast([one, beside], LEVELS, seed=0)
    assert bool((np.diff(found.quantiles, axis=-1) >= 0).all())
    if kind == "toto":
        assert bool(np.isnan(found.log_variance[0]).all())
        assert bool((found.log_variance[1] > 0).all())
        batch = SeriesBatch.alone(torch.from_numpy(one.target)[None])
        mixture = ours.model.next_patch(batch)
        assert np.allclose(found.mean[0, :SIZE], mixture.mean[0, 0].detach().numpy())
    require_close(
        ours.forecast([one], LEVELS, seed=0),
        Forecast(
            LEVELS,
            found.quantiles[:1],
            found.mean[:1],
            None if found.log_variance is None else found.log_variance[:1],
            None if found.paths is None else found.paths[:, :1],
        ),
    )


def test_the_first_patch_is_exact_whatever_the_horizon_and_the_seed() -> None:
    ours = forecaster("toto")
    near = ours.forecast([history("A", 20, SIZE)], LEVELS, seed=0)
    far = ours.forecast([history("A", 20, 3 * SIZE)], LEVELS, seed=1)
    assert np.allclose(far.quantiles[:, :SIZE], near.quantiles)
    assert np.allclose(far.log_variance[:, :SIZE], near.log_variance)
    assert far.paths.shape == (40, 1, 3 * SIZE)
    assert np.allclose(far.at(0.5)[0, SIZE:], np.median(far.paths[:, 0, SIZE:], axis=0))


def test_draws_depend_on_seed_symbol_and_origin_alone() -> None:
    ours, one = forecaster("toto"), history("A", 20, SIZE + 1)
    first = ours.forecast([one], LEVELS, seed=0)
    assert np.array_equal(ours.forecast([one], LEVELS, seed=0).paths, first.paths)
    others = [
        ours.forecast([one], LEVELS, seed=1),
        ours.forecast([replace(one, symbol="B")], LEVELS, seed=0),
        ours.forecast(
            [replace(one, timestamps=one.timestamps - 7, future=one.future - 7)], LEVELS, seed=0
        ),
    ]
    for other in others:
        assert not np.allclose(other.paths, first.paths)
        assert np.allclose(other.quantiles[:, :SIZE], first.quantiles[:, :SIZE])


def test_paths_agree_with_the_closed_form_where_both_exist() -> None:
    ours = forecaster("toto", n_paths=4000)
    found = ours.forecast([history("A", 20, SIZE + 1)], LEVELS, seed=0)
    for at, level in enumerate(LEVELS):
        below = (found.paths[:, 0, :SIZE] <= found.quantiles[0, :SIZE, at]).mean(axis=0)
        assert np.allclose(below, level, atol=4.5 * (level * (1 - level) / 4000) ** 0.5)


def test_toto_2_interpolates_between_its_knots_and_refuses_what_it_does_not_know() -> None:
    ours, one = forecaster("toto2"), history("A", 20, 3)
    knots = ours.forecast([one], LEVELS, seed=0).quantiles
    asked = (0.1, 0.125, 0.15, 0.5, 0.87, 0.9)
    found = ours.forecast([one], asked, seed=9).quantiles
    logs = np.log(knots)
    assert np.allclose(found[..., [0, 3, 5]], knots[..., [0, 4, 8]])
    assert np.allclose(np.log(found[..., 2]), (logs[..., 0] + logs[..., 1]) / 2)
    assert np.allclose(np.log(found[..., 4]), 0.3 * logs[..., 7] + 0.7 * logs[..., 8])
    for levels in ((0.05, 0.5), (0.5, 0.95)):
        with pytest.raises(ForecastError, match=r"levels from 0.1 to 0.9.*0\.[09]5"):
            ours.forecast([one], levels, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_shorter_than_a_patch_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ForecastError, match=r"B: expected at least 4 rows .* found 3"):
        forecaster(kind).forecast([history("A", 9, 2), history("B", 3, 2)], LEVELS, seed=0)


def test_weights_that_explode_are_no_forecast() -> None:
    model = toto()
    with torch.no_grad():
        model.output_distribution.scale_proj.bias.fill_(1e9)
    with pytest.raises(ForecastError, match="A: expected finite quantiles"):
        TotoForecaster(model, 5, 10).forecast([history("A", 9, 2)], LEVELS, seed=0)


def test_batches_split_by_rows_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = forecaster("toto", n_paths=8)
    histories = [history(name, 12, SIZE + 2) for name in "ABCDE"]
    whole = ours.forecast(histories, LEVELS, seed=0)
    monkeypatch.setattr("hrl_sarp.forecasters.toto.forecaster._ROWS_AT_ONCE", 16)
    require_close(ours.forecast(histories, LEVELS, seed=0), whole)


def test_wider_levels_give_wider_intervals() -> None:
    found = forecaster("toto").forecast([history("A", 20, 3)], (0.01, *LEVELS, 0.99), seed=0)
    widths = found.quantiles[..., -1:-6:-1] - found.quantiles[..., :5]
    assert all(bool((wide > narrow).all()) for wide, narrow in pairwise(np.moveaxis(widths, -1, 0)))
