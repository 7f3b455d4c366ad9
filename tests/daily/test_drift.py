"""Planted drifts are found, and a market that goes on as it was has none."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrl_sarp.config.loading import DAILY, DEFAULT_CONFIG_DIR, load_apart
from hrl_sarp.config.study_schema import DailyConfig, DriftConfig
from hrl_sarp.contracts import Market
from hrl_sarp.daily.drift import (
    LEVELS,
    MARKET,
    STOCKS,
    DriftMeter,
    InputDrift,
    drift_problem,
    drift_table,
    require_no_drift,
)
from hrl_sarp.errors import DataError
from tests import factories

N_DAYS, RECENT = 600, 60
SETTINGS = load_apart(DEFAULT_CONFIG_DIR / DAILY, DailyConfig, "the settings").drift
SHORT = SETTINGS.model_copy(update={"sessions": RECENT})
DAY = date(2024, 1, 2)
CLOSE, VOLUME = 3.7, 14.0
"""Logs of usual prices and volumes."""


def persistent(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw series with a standard deviation of 1 that keep 0.8 of their value from day to day."""
    noise = rng.normal(size=shape)
    values = noise.copy()
    for t in range(1, len(values)):
        values[t] = 0.8 * values[t - 1] + 0.6 * noise[t]
    return values


def slow_market(seed: int) -> tuple[Market, pl.DataFrame]:
    """Draw a market whose inputs move slowly and do not drift, and its bars."""
    rng = np.random.default_rng(seed)
    market = factories.with_risk(factories.random_market(rng, N_DAYS), seed)
    features = persistent(rng, market.stock_features.shape) * market.tradable[:, :, None]
    regime = np.exp(persistent(rng, (N_DAYS, 3)))
    market = replace(
        market,
        stock_features=features,
        macro_features=persistent(rng, market.macro_features.shape),
        filtered_regime=regime / regime.sum(axis=1, keepdims=True),
    )
    size = (N_DAYS, market.n_assets)
    level = CLOSE + 0.002 * np.arange(N_DAYS)[:, None] + 0.3 * rng.normal(size=size[1])
    volume = VOLUME + rng.normal(size=size)
    days, symbols = np.repeat(market.dates, size[1]), np.tile(market.symbols, N_DAYS)
    bars = pl.DataFrame(
        {
            "date": days,
            "symbol": symbols,
            "close": np.exp(level).ravel(),
            "volume": np.exp(volume).ravel(),
        }
    ).with_columns(pl.col("date").cast(pl.Date))
    return market, bars


def in_other_unit(bars: pl.DataFrame, market: Market, column: str, factor: float, rows: int) -> Any:
    """Change the unit of the last rows."""
    is_late = pl.col("date") >= market.dates[-rows].item()
    changed = pl.when(is_late).then(pl.col(column) * factor).otherwise(pl.col(column))
    return bars.with_columns(changed.alias(column))


def measure_drift(
    market: Market, bars: pl.DataFrame, settings: DriftConfig
) -> tuple[InputDrift, ...]:
    """Compare the last sessions of a market with its training span."""
    return DriftMeter(market, bars, settings).at(market.n_days - 1)


def first_rows(market: Market, n_rows: int) -> Market:
    """Return the market as if its data ended after so many rows."""

    def cut(holder: Any) -> dict[str, np.ndarray]:
        tables = {field.name: getattr(holder, field.name) for field in fields(holder)}
        return {
            name: table[:n_rows]
            for name, table in tables.items()
            if isinstance(table, np.ndarray) and name != "sector_of"
        }

    assert market.risk is not None
    return replace(market, **cut(market), risk=replace(market.risk, **cut(market.risk)))


def found_in(market: Market, bars: pl.DataFrame, settings: DriftConfig = SHORT) -> set[str]:
    """Name the inputs that have drifted."""
    return {d.source for d in measure_drift(market, bars, settings) if d.is_drifted}


@pytest.mark.parametrize("seed", range(8))
def test_a_market_that_goes_on_as_it_was_has_no_drift(seed: int) -> None:
    market, bars = slow_market(seed)
    assert drift_problem(measure_drift(market, bars, SHORT), SHORT) is None


@given(
    seed=st.integers(0, 5),
    column=st.integers(0, factories.N_FEATURES - 1),
    kind=st.sampled_from(["times 3", "shuffled", "still"]),
)
def test_a_stock_feature_that_is_no_longer_itself_is_refused_by_name(
    seed: int, column: int, kind: str
) -> None:
    market, bars = slow_market(seed)
    rng = np.random.default_rng(seed)
    plant: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "times 3": lambda values: 3.0 * values,
        "shuffled": lambda values: rng.permuted(values, axis=1),
        "still": lambda values: np.broadcast_to(values[:1], values.shape),
    }
    features = market.stock_features.copy()
    features[-RECENT:, :, column] = plant[kind](features[-RECENT:, :, column])
    found = measure_drift(replace(market, stock_features=features), bars, SHORT)
    with pytest.raises(DataError, match=f"1 of 5 stock features: feature_{column}.*--accept-drift"):
        require_no_drift(found, SHORT, DAY)
    assert found[0].source == f"feature_{column}"


@given(
    seed=st.integers(0, 5),
    column=st.sampled_from(["close", "volume"]),
    factor=st.sampled_from([0.001, 0.01, 70.0, 100.0]),
    rows=st.sampled_from([1, 10, 200]),
)
def test_prices_or_volumes_in_another_unit_are_refused(
    seed: int, column: str, factor: float, rows: int
) -> None:
    market, bars = slow_market(seed)
    changed = in_other_unit(bars, market, column, factor, rows)
    assert found_in(market, changed) == {f"log {column}"}
    with pytest.raises(DataError, match=f"1 of 2 levels: log {column}"):
        require_no_drift(measure_drift(market, changed, SHORT), SHORT, DAY)


def test_market_series_are_refused_together_only() -> None:
    market, bars = slow_market(1)
    macro = market.macro_features.copy()
    macro[-RECENT:, 0] += 20.0
    one = measure_drift(replace(market, macro_features=macro), bars, SHORT)
    assert [d.name for d in one if d.is_drifted] == ["macro_0"]
    assert one[0].outside == 1.0
    assert drift_problem(one, SHORT) is None
    macro[-RECENT:] += 20.0
    all_of_them = measure_drift(replace(market, macro_features=macro), bars, SHORT)
    assert "4 of 10 market series: macro_1" in (drift_problem(all_of_them, SHORT) or "")


def test_a_stretch_as_the_training_span_had_is_no_drift() -> None:
    # the feature stood high in one half of the training span and low in the other, as it does now
    market, bars = slow_market(0)
    features = market.stock_features.copy()
    features[: len(market.split.train) // 2, :, 0] += 5.0
    found = measure_drift(replace(market, stock_features=features), bars, SHORT)
    (feature,) = (drift for drift in found if drift.name == "feature_0")
    assert feature.psi > SHORT.least_psi
    assert not feature.is_drifted
    assert drift_problem(found, SHORT) is None


def test_a_rising_series_has_left_its_span_when_all_of_it_is_above() -> None:
    # any stretch of a rising series is far from the rest, so that its index tells nothing
    market, bars = slow_market(0)
    macro = market.macro_features.copy()
    macro[:, 0] = np.arange(N_DAYS) / 100.0
    found = measure_drift(replace(market, macro_features=macro), bars, SHORT)
    (series,) = (drift for drift in found if drift.name == "macro_0")
    assert series.psi < SHORT.market_factor * series.worst
    assert series.outside == 1.0
    assert series.is_drifted


def test_the_index_is_that_of_the_book() -> None:
    market, bars = slow_market(0)
    train, macro = market.split.train, market.macro_features.copy()
    # in the training span each of ten values is as frequent as the others; later five of them are
    whole = len(train) // 10 * 10
    macro[:, 0] = np.arange(len(macro)) % 10
    macro[-RECENT:, 0] = np.arange(RECENT) % 5
    macro[train.start + whole : train.stop, 0] = 4.5
    split = replace(market.split, train=replace(train, stop=train.start + whole))
    changed = replace(market, macro_features=macro, split=split)
    by_name = {d.name: d for d in measure_drift(changed, bars, SHORT)}
    # five deciles of 0.2 against 0.1, five empty ones that count as 0.001
    expected = 5 * 0.1 * np.log(2) + 5 * 0.099 * np.log(100)
    assert by_name["macro_0"].psi == pytest.approx(expected, abs=1e-9)
    assert by_name["macro_0"].worst == pytest.approx(0.0, abs=1e-9)
    assert by_name["macro_0"].outside == 0.0


def test_what_is_outside_is_a_share_of_the_last_values() -> None:
    market, bars = slow_market(2)
    macro = market.macro_features.copy()
    macro[-15:, 1] = 50.0
    by_name = {d.name: d for d in measure_drift(replace(market, macro_features=macro), bars, SHORT)}
    assert by_name["macro_1"].outside == pytest.approx(15 / RECENT)


def test_rows_after_the_last_sessions_of_the_training_do_not_calibrate() -> None:
    # what lies between the training span and the last sessions belongs to neither
    market, bars = slow_market(3)
    features = market.stock_features.copy()
    features[market.split.train.stop : -RECENT] = 77.0
    expected = {d.name: d for d in measure_drift(market, bars, SHORT)}
    found = {
        d.name: d for d in measure_drift(replace(market, stock_features=features), bars, SHORT)
    }
    assert found["feature_0"] == expected["feature_0"]
    assert found["feature_0, change"].worst == expected["feature_0, change"].worst


def test_a_market_without_risk_tables_and_volumes_is_measured_as_well() -> None:
    market, bars = slow_market(4)
    none = pl.lit(None, dtype=pl.Float64).alias("volume")
    found = measure_drift(replace(market, risk=None), bars.with_columns(none), SHORT)
    names = {d.source for d in found}
    assert "log close" in names
    assert "log volume" not in names
    assert not any(name.startswith(("risk", "sectors")) for name in names)
    assert {d.kind for d in found} == {STOCKS, MARKET, LEVELS}


def test_the_table_shows_the_farthest_ten() -> None:
    market, bars = slow_market(5)
    found = measure_drift(market, bars, SHORT)
    table = drift_table(found)
    assert [row[0] for row in table.rows] == [d.name for d in found[:10]]
    far = [d.psi / max(d.worst, 1e-3) for d in found]
    assert far == sorted(far, reverse=True)
    assert isinstance(found[0], InputDrift)


@given(seed=st.integers(0, 3), row=st.integers(500, N_DAYS - 2), column=st.sampled_from([0, 3]))
def test_a_row_is_compared_as_if_the_market_ended_with_it(seed: int, row: int, column: int) -> None:
    """So that a session which is caught up is asked what it would have been asked on time."""
    market, bars = slow_market(seed)
    features, macro = market.stock_features.copy(), market.macro_features.copy()
    features[row - 5 :, :, column] *= 3.0
    macro[row + 1 :] += 50.0
    market = replace(market, stock_features=features, macro_features=macro)
    bars = in_other_unit(bars, market, "volume", 100.0, N_DAYS - row - 1)
    meter = DriftMeter(market, bars, SHORT)
    cut = first_rows(market, row + 1)
    known = bars.filter(pl.col("date") <= market.dates[row].item())
    assert meter.at(row) == measure_drift(cut, known, SHORT)
    assert meter.at(N_DAYS - 1) != meter.at(row)
