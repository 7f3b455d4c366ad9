"""Histories in, paths and their quantiles out; a forecast depends on its own past alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import LEVELS, History
from hrl_sarp.forecasters.kronos import (
    PREDICTORS,
    TOKENIZER_BASE,
    KronosForecaster,
    KronosPredictor,
    KronosTokenizer,
    Sampling,
)
from hrl_sarp.forecasters.kronos import forecaster as module
from tests.forecasters.kronos.tiny import every_shape, history, networks, tokenizer_size

SHAPE = "even bits, learned times"
FEW = Sampling(n_paths=5)


def _forecaster(shape: str = SHAPE, sampling: Sampling = FEW, **changes: Any) -> KronosForecaster:
    return KronosForecaster(*networks(shape), sampling, **{"max_context": 32, **changes})


def _changed(given: History, bars: np.ndarray) -> History:
    return replace(given, bars=bars, target=bars[:, 3])


@every_shape
def test_quantiles_mean_and_variance_are_those_of_the_closes_of_the_paths(shape: str) -> None:
    forecaster = _forecaster(shape, Sampling(n_paths=20))
    histories = [history(20, 4, seed=i, symbol=str(i)) for i in range(3)]
    found = forecaster.forecast(histories, LEVELS, seed=1)
    paths = forecaster.draw_bars(histories, seed=1)[..., 3]
    assert found.paths is not None
    assert found.log_variance is not None
    assert np.array_equal(found.paths, paths)
    assert found.quantiles.shape == (3, 4, len(LEVELS))
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    assert np.allclose(found.at(0.5), np.median(found.paths, axis=0))
    assert np.allclose(found.mean, found.paths.mean(axis=0))
    last = np.array([given.target[-1] for given in histories])[:, None]
    logs = np.log(found.paths / last)
    assert np.allclose(found.log_variance, logs.var(axis=0, ddof=1))
    assert found.paths.std(axis=0).min() > 0


def test_the_same_seed_gives_the_same_paths_and_another_seed_others() -> None:
    forecaster, given = _forecaster(), [history(20, 3)]
    first, again = (forecaster.draw_bars(given, seed=1) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, forecaster.draw_bars(given, seed=2))
    renamed = [replace(given[0], symbol="B")]
    assert not np.array_equal(first, forecaster.draw_bars(renamed, seed=1))


@every_shape
@pytest.mark.parametrize("is_cached", [True, False])
def test_a_forecast_does_not_depend_on_the_histories_beside_it(
    shape: str, *, is_cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster = _forecaster(shape, is_cached=is_cached)
    lengths = (25, 3, 14, 25, 60)
    histories = [history(n, 4, seed=i, symbol=str(i)) for i, n in enumerate(lengths)]
    together = forecaster.draw_bars(histories, seed=1)
    for i, given in enumerate(histories):
        alone = forecaster.draw_bars([given], seed=1)
        assert np.allclose(together[:, i], alone[:, 0], rtol=1e-4)
    monkeypatch.setattr(module, "MEMORY_BYTES", 1)
    assert np.allclose(forecaster.draw_bars(histories, seed=1), together, rtol=1e-4)


@every_shape
def test_cached_and_recomputed_forecasts_are_equal(shape: str) -> None:
    given = [history(20, 6)]
    cached = _forecaster(shape).draw_bars(given, seed=1)
    recomputed = _forecaster(shape, is_cached=False).draw_bars(given, seed=1)
    assert np.allclose(cached, recomputed, rtol=1e-4)


def test_fewer_steps_give_the_first_of_the_same_paths() -> None:
    forecaster, long = _forecaster(context=16), history(20, 6)
    short = replace(long, future=long.future[:3])
    whole, first = (forecaster.draw_bars([given], seed=1) for given in (long, short))
    assert np.allclose(whole[:, :, :3], first, rtol=1e-5)


def test_rows_before_the_context_are_not_read() -> None:
    long = history(40, 4)
    assert long.bars is not None
    changed = long.bars.copy()
    changed[:12] *= 3
    for forecaster, n_read in ((_forecaster(), 28), (_forecaster(context=10), 10)):
        assert forecaster.context_rows >= n_read
        whole = forecaster.draw_bars([long], seed=1)
        assert np.array_equal(whole, forecaster.draw_bars([long.last(n_read)], seed=1))
        assert np.array_equal(whole, forecaster.draw_bars([_changed(long, changed)], seed=1))
        assert not np.array_equal(whole, forecaster.draw_bars([long.last(n_read - 1)], seed=1))


def test_a_context_beyond_the_window_is_its_unit_and_the_window_slides() -> None:
    forecaster = _forecaster(context=50)
    long = history(60, 4)
    assert long.bars is not None
    assert forecaster.context_rows == 50
    whole = forecaster.draw_bars([long], seed=1)
    assert np.isfinite(whole).all()
    changed = long.bars.copy()
    changed[:20] *= 3  # in the unit, but no longer in the window
    other = forecaster.draw_bars([_changed(long, changed)], seed=1)
    assert not np.array_equal(whole, other)


@every_shape
@pytest.mark.parametrize("factors", [(7.0, 3.0), (0.125, 1024.0)])
def test_a_scaled_history_has_the_forecast_scaled_alike(
    shape: str, factors: tuple[float, float]
) -> None:
    price, volume = factors
    given, units = history(24, 5), np.array([price] * 4 + [volume, price * volume])
    assert given.bars is not None
    plain = _forecaster(shape).draw_bars([given], seed=1)
    scaled = _forecaster(shape).draw_bars([_changed(given, given.bars * units)], seed=1)
    assert np.allclose(scaled, plain * units, rtol=2e-3)
    bare = (replace(given, bars=None), replace(given, bars=None, target=given.target * price))
    plain, scaled = (_forecaster(shape).draw_bars([history], seed=1) for history in bare)
    assert np.allclose(scaled[..., :4], plain[..., :4] * price, rtol=2e-3)


def test_a_history_without_bars_is_that_of_flat_bars() -> None:
    given = history(20, 3)
    flat = np.zeros((20, 6))
    flat[:, :4] = given.target[:, None]
    forecaster = _forecaster()
    without = forecaster.forecast([replace(given, bars=None)], LEVELS, seed=1)
    assert np.array_equal(
        without.mean, forecaster.forecast([_changed(given, flat)], LEVELS, 1).mean
    )


def test_series_that_are_not_positive_have_no_variance_of_logs() -> None:
    given = history(20, 3)
    below = replace(given, bars=None, target=given.target - given.target.mean())
    found = _forecaster().forecast([below, given], LEVELS, seed=1)
    assert found.log_variance is not None
    assert np.isfinite(found.quantiles).all()
    assert np.isnan(found.log_variance[0]).all() == bool(below.target[-1] <= 0)
    assert np.isfinite(found.log_variance[1]).all()
    alone = _forecaster(sampling=Sampling(n_paths=1)).forecast([given], LEVELS, seed=1)
    assert alone.log_variance is None


def test_dropout_is_off_while_forecasting_and_on_again_afterwards() -> None:
    tokenizer, predictor = networks(SHAPE)
    for dropout in (part for part in predictor.modules() if isinstance(part, torch.nn.Dropout)):
        dropout.p = 0.5
    forecaster = KronosForecaster(tokenizer, predictor, FEW, max_context=32)
    given = [history(20, 3)]
    quiet = forecaster.draw_bars(given, seed=1)
    predictor.train()
    assert np.array_equal(forecaster.draw_bars(given, seed=1), quiet)
    assert predictor.training
    assert predictor.token_drop.training
    assert not tokenizer.training


def test_published_sizes_know_their_name_and_their_context() -> None:
    with torch.device("meta"):
        tokenizer = KronosTokenizer(TOKENIZER_BASE)
        predictors = {name: KronosPredictor(size) for name, size in PREDICTORS.items()}
    found = {name: KronosForecaster(tokenizer, network) for name, network in predictors.items()}
    contexts = {name: forecaster.max_context for name, forecaster in found.items()}
    assert contexts == {"mini": 2048, "small": 512, "base": 512}
    assert found["small"].name == "kronos-small"
    assert _forecaster().name == "kronos"


@pytest.mark.parametrize(
    ("n_rows", "n_steps", "wanted"),
    [(1, 3, "at least 2 rows"), (20, 31, "at most 30 steps"), (20, 0, "at least 1")],
)
def test_what_cannot_be_forecast_is_refused_by_name(n_rows: int, n_steps: int, wanted: str) -> None:
    with pytest.raises(ForecastError, match=f"XYZ: expected {wanted}|XYZ.*{wanted}"):
        _forecaster().forecast([history(n_rows, n_steps, symbol="XYZ")], LEVELS, seed=1)


def test_values_beyond_float32_are_refused_by_name() -> None:
    given = history(20, 3, symbol="XYZ")
    assert given.bars is not None
    bars = given.bars.copy()
    bars[:, 4] *= 1e20
    with pytest.raises(ForecastError, match=r"XYZ: .*larger units"):
        _forecaster().forecast([_changed(given, bars)], LEVELS, seed=1)


@every_shape
def test_what_the_model_draws_itself_falls_evenly_into_its_quantiles(shape: str) -> None:
    forecaster, given = _forecaster(shape, Sampling(n_paths=300)), [history(12, 2)]
    paths, truths = (forecaster.draw_bars(given, seed)[:, 0, :, 3] for seed in (1, 2))
    below = (paths[:, None] < truths).mean(axis=0)
    ranks = below + (paths[:, None] == truths).mean(axis=0) / 2  # tokens are few, so many are alike
    assert np.abs(ranks.mean(axis=0) - 0.5).max() < 0.06  # 3.5 standard errors of 300 ranks
    outer = np.quantile(paths, [0.1, 0.9], axis=0)
    inside = ((truths >= outer[0]) & (truths <= outer[1])).mean(axis=0)
    assert inside.min() > 0.72
    assert paths.std() > 0


def test_as_many_steps_as_fit_are_forecast() -> None:
    assert _forecaster().forecast([history(20, 30)], LEVELS, seed=1).mean.shape == (1, 30)


def test_networks_that_do_not_go_together_are_refused() -> None:
    _, predictor = networks(SHAPE)
    other, _ = networks("coarse bits rule, fixed times")
    with pytest.raises(ForecastError, match=r"5 \+ 2 bits.*found 4 \+ 4"):
        KronosForecaster(other, predictor)
    five = KronosTokenizer(tokenizer_size(SHAPE).model_copy(update={"d_in": 5}))
    with pytest.raises(ForecastError, match=r"6 columns .*found 5"):
        KronosForecaster(five, predictor)


@pytest.mark.parametrize("changes", [{"context": 1}, {"max_context": 2}, {"context": 0}])
def test_a_context_without_room_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ForecastError, match="expected a context of at least 2 rows"):
        _forecaster(**changes)
