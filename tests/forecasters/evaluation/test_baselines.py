"""Baselines forecast what their names say, from the rows before the origin alone."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import LEVELS, Forecast, Forecaster, History
from hrl_sarp.forecasters.evaluation.baselines.points import Drift, LastValue, SeasonalNaive
from hrl_sarp.forecasters.evaluation.baselines.statistical import Statistical, usual_baselines
from hrl_sarp.forecasters.evaluation.baselines.walks import (
    EwmaWalk,
    GarchWalk,
    HarWalk,
    row_variances,
)

STEPS = 4
ALL: dict[str, Callable[[], Forecaster]] = {
    "last": LastValue,
    "drift": Drift,
    "seasonal": lambda: SeasonalNaive(5),
    "ewma": EwmaWalk,
    "har": HarWalk,
    "garch": lambda: GarchWalk(context_rows=300, n_paths=200),
    "ets": lambda: Statistical("AutoETS", 1, 60),
    "theta": lambda: Statistical("AutoTheta", 1, 60),
    "arima": lambda: Statistical("AutoARIMA", 1, 60),
}
DENSITIES = ("ewma", "har", "garch", "ets", "theta", "arima")


def walk(seed: int, n_rows: int = 320, deviation: float = 0.01, symbol: str = "A") -> History:
    moves = np.random.default_rng(seed).normal(0.0, deviation, n_rows)
    days = np.datetime64("2020-01-01") + np.arange(n_rows + STEPS)
    return History(symbol, days[:n_rows], 50.0 * np.exp(moves.cumsum()), days[n_rows:])


def with_target(history: History, target: np.ndarray) -> History:
    return History(history.symbol, history.timestamps, target, history.future)


def forecast(name: str, *histories: History, seed: int = 0) -> Forecast:
    if name in ("ets", "theta", "arima"):
        pytest.importorskip("statsforecast")
    return ALL[name]().forecast(histories, LEVELS, seed)


@pytest.mark.parametrize("name", ALL)
def test_forecasts_have_the_form_of_the_contract(name: str) -> None:
    found = forecast(name, walk(0), walk(1, 300, symbol="B"))
    assert found.quantiles.shape == (2, STEPS, len(LEVELS))
    assert np.isfinite(found.quantiles).all()
    assert np.isfinite(found.mean).all()
    assert (np.diff(found.quantiles, axis=2) >= 0.0).all()
    assert (found.quantiles[..., -1] > found.quantiles[..., 0]).all() == (name in DENSITIES)


@pytest.mark.parametrize("name", ALL)
def test_a_forecast_depends_on_its_own_series_seed_and_context_alone(name: str) -> None:
    first, second = walk(0), walk(1, symbol="B")
    alone = forecast(name, second)
    beside = forecast(name, first, second)
    np.testing.assert_allclose(beside.quantiles[1], alone.quantiles[0], rtol=1e-12)
    rows = ALL[name]().context_rows
    older = second.target.copy()
    older[:-rows] *= 7.0
    changed = forecast(name, with_target(second, older))
    np.testing.assert_allclose(changed.quantiles, alone.quantiles, rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_a_forecast_scales_with_its_series(name: str, factor: float) -> None:
    history = walk(2)
    found = forecast(name, with_target(history, factor * history.target))
    expected = factor * forecast(name, history).quantiles
    np.testing.assert_allclose(found.quantiles, expected, rtol=2e-3)


@pytest.mark.parametrize("name", ALL)
def test_a_series_that_does_not_move_is_forecast_to_stay(name: str) -> None:
    history = walk(0)
    found = forecast(name, with_target(history, np.full(len(history.target), 50.0)))
    np.testing.assert_allclose(found.quantiles, 50.0, rtol=1e-9)
    assert found.log_variance is None or np.isnan(found.log_variance).all()


@pytest.mark.parametrize("name", ALL)
def test_a_series_that_crosses_zero_has_no_variance_of_logs(name: str) -> None:
    history = walk(0)
    series = np.random.default_rng(3).normal(0.0, 1.0, len(history.target))
    found = forecast(name, with_target(history, series))
    assert np.isfinite(found.quantiles).all()
    assert found.log_variance is None or np.isnan(found.log_variance).all()


@pytest.mark.parametrize("name", ALL)
def test_a_history_that_is_too_short_is_refused(name: str) -> None:
    least = ALL[name]().least_rows
    if least > 1:
        with pytest.raises(ForecastError, match=f"at least {least} rows"):
            forecast(name, walk(0).last(least - 1))
    assert np.isfinite(forecast(name, walk(0).last(least)).mean).all()


def test_ewma_is_the_weighted_mean_of_squared_returns() -> None:
    # weights of 20 returns 0.94^k, newest first: all are 0 but the newest, 0.1, and the one before
    target = np.exp(np.array([*np.zeros(19), 0.2, 0.3]))
    history = walk(0).last(21)
    found = EwmaWalk().forecast([with_target(history, target)], LEVELS, 0)
    weights = 0.94 ** np.arange(20)
    variance = (0.1**2 + 0.94 * 0.2**2) / weights.sum()
    assert found.log_variance is not None
    np.testing.assert_allclose(found.log_variance[0], variance * np.arange(1, 5))
    upper = target[-1] * np.exp(norm.ppf(0.9) * np.sqrt(variance))
    assert found.at(0.9)[0, 0] == pytest.approx(upper)
    assert found.mean[0, 0] == pytest.approx(target[-1] * np.exp(variance / 2))


def test_row_variances_follow_ranges_with_the_mean_of_squared_returns() -> None:
    history = walk(0)
    assert history.bars is None
    squared = row_variances(history)
    np.testing.assert_allclose(squared, np.diff(np.log(history.target)) ** 2)
    spread = np.random.default_rng(1).uniform(0.001, 0.02, len(history.target))
    close = history.target
    bars = np.column_stack([close, close * np.exp(spread), close, close, close, close])
    found = row_variances(History("A", history.timestamps, close, history.future, bars))
    assert found.mean() == pytest.approx(squared.mean())
    np.testing.assert_allclose(found / found.mean(), spread[1:] ** 2 / (spread[1:] ** 2).mean())


@pytest.mark.parametrize("name", ["har", "garch"])
def test_variance_forecasts_follow_the_state_of_the_series(name: str) -> None:
    rng = np.random.default_rng(5)
    calm, wild = rng.normal(0.0, 0.005, 200), rng.normal(0.0, 0.03, 100)
    history = walk(0, 300)
    found = {}
    for key, moves in {"wild last": [calm, wild], "calm last": [wild, calm]}.items():
        target = 50.0 * np.exp(np.concatenate(moves).cumsum())
        variance = forecast(name, with_target(history, target)).log_variance
        assert variance is not None
        assert (np.diff(variance[0]) > 0.0).all()  # it adds up over steps
        found[key] = variance[0, 0]
    assert found["wild last"] > 4.0 * found["calm last"]


def test_garch_finds_the_variance_of_a_planted_garch() -> None:
    rng = np.random.default_rng(7)
    variance, moves = 1e-4, []
    for _ in range(1000):
        moves.append(np.sqrt(variance) * rng.standard_t(6) * np.sqrt(4 / 6))
        variance = 2e-6 + 0.1 * moves[-1] ** 2 + 0.88 * variance
    series = 50.0 * np.exp(np.cumsum(moves))
    history = walk(0, 1000)
    model = GarchWalk(context_rows=700, n_paths=50)
    found = model.forecast([with_target(history, series)], LEVELS, 0)
    assert found.log_variance is not None
    assert found.log_variance[0, 0] == pytest.approx(variance, rel=0.35)


def test_garch_draws_follow_the_seed_the_symbol_and_the_origin() -> None:
    history = walk(0)
    same = [forecast("garch", history).paths for _ in range(2)]
    np.testing.assert_array_equal(*same)
    others = forecast("garch", history, seed=1), forecast("garch", walk(0, symbol="B"))
    assert all((other.paths != same[0]).any() for other in others)
    assert forecast("garch", history).at(0.5) == pytest.approx(history.target[-1], rel=1e-9)


@pytest.mark.parametrize("name", ["ewma", "har", "garch"])
def test_coverage_of_densities_is_right_on_a_random_walk(name: str) -> None:
    # 100 walks: the last row of each came one step after the rest
    histories, came = [], []
    for seed in range(100):
        whole = walk(seed, 320)
        histories.append(
            History(f"S{seed}", whole.timestamps[:-1], whole.target[:-1], whole.timestamps[-1:])
        )
        came.append(whole.target[-1])
    found = ALL[name]().forecast(histories, LEVELS, 0)
    inside = (found.at(0.1)[:, 0] <= came) & (came <= found.at(0.9)[:, 0])
    # 4 binomial errors of 0.8 of 100 are 0.16
    assert inside.mean() == pytest.approx(0.8, abs=0.16)


def test_usual_baselines_have_different_names_and_start_with_the_last_value() -> None:
    pytest.importorskip("statsforecast")
    names = [model.name for model in usual_baselines(5, 1)]
    assert names[0] == "last value"
    assert len(set(names)) == len(names) == 9
    assert [model.name for model in usual_baselines(5, None)] == names[:6]
