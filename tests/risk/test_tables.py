"""Risk tables of small markets: shares, exposure and inputs worked out by hand; no later rows."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, RiskTables
from hrl_sarp.risk import risk_tables
from hrl_sarp.risk.inputs import LEAST_VARIANCE, har_forecast, trailing_mean
from hrl_sarp.risk.priors import (
    equal_weight_return,
    held_rows,
    neutral_exposure,
    normal_variance,
    prior_days,
    variance_forecast,
)
from hrl_sarp.risk.tables import shares_inside_sectors
from tests import factories

ROWS = ("inputs", "sector_inputs", "sector_prior", "stock_prior", "prior_exposure")


def config_with(objective: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    values = {"objective": objective or {}, "risk_model": {"min_history_days": 5, **model}}
    return load_config(market="sample", overrides=values)


def market_of(seed: int = 0, n_days: int = 120, **given: Any) -> Market:
    market = factories.random_market(np.random.default_rng(seed), n_days, **given)
    rng = np.random.default_rng(seed + 100)
    return replace(
        market,
        range_variance=np.where(market.tradable, rng.uniform(1e-4, 4e-4, market.tradable.shape), 0),
        implied_volatility=rng.uniform(0.1, 0.5, n_days),
        feature_names=("volatility_20d", *market.feature_names[1:]),
    )


@pytest.mark.parametrize("prior", ["minimum_variance_ridge", "maximum_diversification"])
@pytest.mark.parametrize("seed", range(3))
def test_shares_sum_to_one_wherever_there_are_stocks(seed: int, prior: str) -> None:
    market = market_of(seed)
    found = risk_tables(market, config_with(sector_prior=prior, stock_prior=prior))
    filled = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1)
    inside = found.stock_prior.reshape(filled.shape)
    np.testing.assert_allclose(inside.sum(axis=2), filled.any(axis=2))
    np.testing.assert_allclose(found.sector_prior.sum(axis=1), filled.any(axis=(1, 2)))
    assert found.stock_prior.min() >= 0
    assert (inside[~filled] == 0).all()
    assert (found.sector_prior[~filled.any(axis=2)] == 0).all()
    for field in fields(found):
        value = getattr(found, field.name)
        assert not isinstance(value, np.ndarray) or np.isfinite(value).all(), field.name


def test_equal_weights_are_the_counts_of_slots() -> None:
    market = market_of()
    found = risk_tables(
        market, config_with(sector_prior="equal_weight", stock_prior="equal_weight")
    )
    filled = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1)
    counts = filled.sum(axis=2)
    np.testing.assert_allclose(found.sector_prior, counts / counts.sum(axis=1, keepdims=True))
    even = filled / np.maximum(counts, 1)[:, :, None]
    np.testing.assert_allclose(found.stock_prior, even.reshape(market.slots.shape))


def test_priors_change_at_week_ends_and_with_the_slots_only() -> None:
    market = market_of()
    found = risk_tables(market, config_with())
    days = prior_days(market)
    moved = np.flatnonzero((np.diff(found.stock_prior, axis=0) != 0).any(axis=1)) + 1
    assert set(moved.tolist()) <= set(days.tolist())
    for day in days.tolist():
        assert (
            day == 0
            or market.is_week_end[day]
            or (market.slots[day] != market.slots[day - 1]).any()
        )
    np.testing.assert_array_equal(held_rows(np.array([0, 3]), 5), [0, 0, 0, 1, 1])


@pytest.mark.parametrize("seed", range(3))
def test_rows_up_to_t_ignore_everything_later(seed: int) -> None:
    market = market_of(seed)
    day = 90  # after the training span, which scales the inputs
    assert market.split.train.stop <= day
    order = np.concatenate(
        [np.arange(day + 1), np.random.default_rng(2).permutation(np.arange(day + 1, 120))]
    )
    names = (
        *("overnight_return", "intraday_return", "tradable", "listed", "eligible", "slots"),
        *("stock_features", "range_variance", "implied_volatility"),
    )
    changed = replace(market, **{name: getattr(market, name)[order] for name in names})
    for kind, prior in (
        ("half_life", "equal_weight"),
        ("expanding_median", "maximum_diversification"),
    ):
        objective = {"normal_variance": kind, "normal_variance_years": 0.1}
        config = config_with(objective, sector_prior=prior, stock_prior=prior)
        first, second = risk_tables(market, config), risk_tables(changed, config)
        for name in (*ROWS, "normal_variance"):
            left, right = getattr(first, name), getattr(second, name)
            assert left[: day + 1].tobytes() == right[: day + 1].tobytes(), name
        assert (first.prior_exposure != second.prior_exposure).any()
        assert (first.inputs != second.inputs).any(axis=0)[:-1].all()  # cash may lie at its bound


def test_a_later_listing_moves_no_earlier_bit() -> None:
    # the assembled market has a column for every stock that is ever eligible
    market = market_of(4, delistings=False, halts=False)
    more = {
        name: np.concatenate([getattr(market, name), getattr(market, name)[:, :1]], axis=1)
        for name in ("overnight_return", "intraday_return", "range_variance", "stock_features")
    }
    late = np.arange(market.n_days) > 90
    masks = {
        name: np.concatenate([getattr(market, name), late[:, None]], axis=1)
        for name in ("tradable", "listed", "eligible")
    }
    wider = replace(
        market,
        symbols=(*market.symbols, "LATE"),
        sector_of=np.append(market.sector_of, 0),
        dollar_volume=np.zeros((market.n_days, market.n_assets + 1)),
        **more,
        **masks,
    )
    first, second = risk_tables(market, config_with()), risk_tables(wider, config_with())
    for name in ROWS:
        assert getattr(first, name)[:91].tobytes() == getattr(second, name)[:91].tobytes(), name


def test_the_forecast_applies_present_weights_to_past_returns() -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 0.01, (40, 2))
    market = factories.market_with(returns * 0, returns, [0, 1])
    weights = np.array([[0.5, 0.5], [0.9, 0.1]])
    found = variance_forecast(market, np.array([0, 30]), weights, 0.97)
    age = 0.97 ** np.arange(35)[::-1]
    squares = (returns[1:36] @ [0.9, 0.1]) ** 2  # the first bar has no close before it
    assert found[35] == pytest.approx(252 * (age * squares).sum() / age.sum())
    assert found[0] == 0
    halved = variance_forecast(market, np.array([0, 30]), weights / 2, 0.97)
    np.testing.assert_allclose(halved, found)


def test_weights_of_missing_bars_are_spread_and_thin_sessions_left_out() -> None:
    returns = np.full((4, 2), [0.01, 0.03])
    tradable = np.array([[True, True], [True, True], [False, True], [True, False]])
    market = factories.market_with(
        returns * 0, np.where(tradable, returns, 0.0), [0, 1], tradable=tradable
    )
    weights = np.array([[0.6, 0.4]])
    found = variance_forecast(market, np.array([0]), weights, 0.5)
    whole = (0.6 * 0.01 + 0.4 * 0.03) ** 2
    # 40 % of the weight moves on row 2, too little; 60 % on row 3
    expected = (0.5 * whole + 0.01**2) / 1.5
    assert found[3] == pytest.approx(252 * expected)
    assert found[2] == pytest.approx(252 * whole)


def test_normal_variance_by_half_life_and_by_expanding_median() -> None:
    daily = np.array([9.0, 1.0, 2.0, 3.0, 10.0])  # row 0 holds no return
    values = {"normal_variance": "half_life", "normal_variance_years": 2 / 252}
    objective = config_with(values).objective
    found = normal_variance(daily, objective)
    age = 0.5 ** (np.arange(4)[::-1] / 2)
    assert found[-1] == pytest.approx(252 * (age * daily[1:] ** 2).sum() / age.sum())
    assert found[0] == 0
    median = objective.model_copy(update={"normal_variance": "expanding_median"})
    # means of the last two rows, as far as there are: 1, 2.5, 6.5, 54.5
    np.testing.assert_allclose(normal_variance(daily, median) / 252, [0, 1, 1.75, 2.5, 4.5])


def test_exposure_falls_with_variance_above_normal_and_never_rises_above_the_share() -> None:
    objective = config_with().objective
    variance = np.array([0.04, 0.0, 0.02, 0.04, 0.08])
    found = neutral_exposure(variance, np.full(5, 0.04), objective, min_history_days=1)
    np.testing.assert_allclose(found / objective.invested_share, [1, 1, 1, 1, 0.5])


def test_inputs_keep_their_level_and_are_scaled_by_the_training_span() -> None:
    market = market_of()
    found = risk_tables(market, config_with())
    train = slice(market.split.train.start, market.split.train.stop)
    np.testing.assert_allclose(found.inputs[train].mean(axis=0), 0, atol=0.1)
    moving = np.array([name != "log_prior_cash" for name in found.input_names])
    np.testing.assert_allclose(found.inputs[train][:, moving].std(axis=0), 1, atol=0.1)
    column = found.input_names.index("log_volatility_5d")
    squares = trailing_mean(equal_weight_return(market) ** 2, 5)
    raw = 0.5 * np.log(np.maximum(squares, LEAST_VARIANCE))
    expected = (raw - np.nanmean(raw[train])) / np.nanstd(raw[train])
    np.testing.assert_allclose(found.inputs[1:, column], expected[1:].clip(-6, 6), atol=1e-5)
    assert (found.inputs[0, :5] == 0).all()  # the first row has no return


def test_missing_data_leave_their_columns_out() -> None:
    full = risk_tables(market_of(), config_with())
    ranges = {"log_range_volatility_5d", "log_range_volatility_22d", "log_range_over_close"}
    implied = {"log_implied_volatility", "log_implied_over_realised"}
    assert ranges | implied < set(full.input_names)
    bare = replace(market_of(), range_variance=None, implied_volatility=None)
    found = risk_tables(bare, config_with())
    assert set(full.input_names) - set(found.input_names) == ranges | implied
    assert found.inputs.shape[1] == len(found.input_names)
    unpublished = replace(market_of(), implied_volatility=np.zeros(120))
    assert not implied & set(risk_tables(unpublished, config_with()).input_names)
    assert "mean_volatility_20d" in full.sector_input_names


def test_implied_volatility_that_begins_late_is_the_mean_before() -> None:
    market = market_of()
    assert market.implied_volatility is not None
    level = np.where(np.arange(120) < 40, 0.0, market.implied_volatility)
    found = risk_tables(replace(market, implied_volatility=level), config_with())
    column = found.inputs[:, found.input_names.index("log_implied_volatility")]
    assert (column[:40] == 0).all()
    assert (column[40:] != 0).all()


def test_sectors_share_one_scale() -> None:
    market = market_of(halts=False, delistings=False)
    found = risk_tables(market, config_with())
    order = [2, 0, 1]
    per_sector = market.n_slots // market.n_sectors
    slots = market.slots.reshape(market.n_days, 3, per_sector)[:, order].reshape(market.slots.shape)
    places = np.argsort(order)
    moved = replace(market, slots=slots, sector_of=places[market.sector_of])
    other = risk_tables(moved, config_with())
    np.testing.assert_allclose(other.sector_inputs, found.sector_inputs[:, order], atol=1e-4)
    np.testing.assert_allclose(other.sector_prior, found.sector_prior[:, order], atol=1e-9)


def test_har_expects_a_mean_between_today_and_the_past() -> None:
    # log variance follows an autoregression, so forecasts are pulled to its mean
    rng = np.random.default_rng(0)
    level, levels = 0.0, []
    for _ in range(3000):
        level = 0.97 * level + rng.normal(0, 0.1)
        levels.append(level)
    daily = 0.01 * np.exp(np.array(levels)) * rng.normal(size=3000)
    forecast, coefficients = har_forecast(daily, factories.three_way_split(3000).train)
    assert 0.2 < coefficients[1:].sum() < 1.0
    span = slice(1810, 2990)  # after the training span
    ahead = np.log([np.mean(daily[t + 1 : t + 6] ** 2) for t in range(span.start, span.stop)])
    naive = np.log(trailing_mean(daily**2, 5)[span])
    assert np.mean((forecast[span] - ahead) ** 2) < 0.8 * np.mean((naive - ahead) ** 2)


def test_har_reads_the_span_only() -> None:
    daily = np.random.default_rng(0).normal(0, 0.01, 300)
    span = factories.three_way_split(300).train
    changed = daily.copy()
    changed[span.stop :] *= 3.0
    np.testing.assert_array_equal(har_forecast(daily, span)[1], har_forecast(changed, span)[1])
    changed[span.stop - 1] *= 3.0  # the last target reads it
    assert (har_forecast(daily, span)[1] != har_forecast(changed, span)[1]).all()


def test_a_sector_that_the_portfolio_leaves_out_is_held_evenly() -> None:
    market = factories.market_with(np.zeros((1, 5)), np.zeros((1, 5)), [0, 0, 1, 1, 1])
    weights = np.array([[0.0, 0.0, 0.0, 0.3, 0.6, 0.1]])  # the last slot of the first is empty
    found = shares_inside_sectors(weights, market.slots >= 0, market)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.0, 0.3, 0.6, 0.1]])
    halved = shares_inside_sectors(weights / 2, market.slots >= 0, market)
    np.testing.assert_allclose(halved, found)


def test_tables_of_the_contract_are_complete() -> None:
    found = risk_tables(market_of(), config_with())
    assert isinstance(found, RiskTables)
    assert found.inputs.dtype == found.sector_inputs.dtype == np.float32
    assert found.stock_prior.dtype == found.prior_exposure.dtype == np.float64
    assert len(found.sector_input_names) == found.sector_inputs.shape[2]
