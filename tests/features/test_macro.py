"""Macro features by hand, and the registry's refusals."""

import dataclasses

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.errors import FeatureError
from hrl_sarp.features import macro
from hrl_sarp.features.macro import (
    MACRO_FEATURES,
    MacroSources,
    trailing_z,
)
from hrl_sarp.features.prices import PricePanel, build_panel
from tests import raw_data
from tests.features.test_stock import NOTHING_FOUND

N_DAYS = 500


@pytest.fixture(scope="module")
def inputs() -> MacroSources:
    rng = np.random.default_rng(7)
    raw = raw_data.random_raw(rng, N_DAYS)
    panel = build_panel(raw, NOTHING_FOUND, ["Alpha", "Beta", "Gamma"])
    level = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, N_DAYS)))
    return MacroSources(
        panel=panel,
        index_return=rng.normal(0, 0.01, N_DAYS),
        filtered_regime=rng.dirichlet(np.ones(3), N_DAYS),
        series={name: level.copy() for name in raw_data.SERIES},
    )


def _last(inputs: MacroSources, name: str) -> float:
    return float(MACRO_FEATURES[name].compute(inputs)[-1])


def test_index_features_by_slow_reference(inputs: MacroSources) -> None:
    log = np.log1p(inputs.index_return)
    for weeks, days in ((1, 5), (4, 20), (13, 65), (26, 126), (52, 252)):
        assert _last(inputs, f"index_return_{weeks}w") == pytest.approx(log[-days:].sum())
    assert _last(inputs, "index_volatility_4w") == pytest.approx(np.sqrt(252) * log[-20:].std())
    ratio = log[-20:].std() / log[-126:].std()
    assert _last(inputs, "volatility_ratio_4w_26w") == pytest.approx(ratio)
    level = np.cumsum(log)
    drawdown = level[-1] - level[-252:].max()
    assert _last(inputs, "index_drawdown_52w") == pytest.approx(drawdown)
    change = np.log(log[-20:].std() / log[-25:-5].std())
    assert _last(inputs, "volatility_change_1w") == pytest.approx(change)


def test_breadth_and_dispersion_count_stocks_with_a_bar(inputs: MacroSources) -> None:
    panel = inputs.panel
    gain = panel.log_level[-1] - panel.log_level[-21]
    counted = panel.tradable[-1] & np.isfinite(gain)
    assert _last(inputs, "breadth_20d") == pytest.approx((gain[counted] > 0).mean())
    spread = [np.nanstd(row) for row in panel.log_return[-20:]]
    assert _last(inputs, "cross_sectional_dispersion") == pytest.approx(np.mean(spread))


def test_published_levels_and_changes(inputs: MacroSources) -> None:
    vix = inputs.series["VIX"]
    assert _last(inputs, "implied_volatility") == vix[-1]
    change = np.log(vix[-1] / vix[-6])
    assert _last(inputs, "implied_volatility_change_1w") == pytest.approx(change)
    oil = np.log(vix[-1] / vix[-21])  # all series are equal here
    assert _last(inputs, "oil_momentum_20d") == pytest.approx(oil)


def test_flows_are_standardised_over_their_own_60_sessions(inputs: MacroSources) -> None:
    flow = np.random.default_rng(3).normal(100.0, 50.0, N_DAYS)
    flow[: N_DAYS - 61] *= 1e6  # rows before the window do not count
    both = dataclasses.replace(inputs, series={"FOREIGN_FLOW": flow, "DOMESTIC_FLOW": -flow})
    last = flow[-60:]
    expected = (last[-1] - last.mean()) / last.std()
    assert _last(both, "foreign_flow_60d") == pytest.approx(expected)
    assert _last(both, "domestic_flow_60d") == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("price", "step"), [(59.9, 0.0), (60.0, 1 / 3), (99.0, 2 / 3), (120.0, 1.0)]
)
def test_crude_regime_parts_at_60_80_and_100(
    inputs: MacroSources, price: float, step: float
) -> None:
    changed = dataclasses.replace(inputs, series={"DCOILWTICO": np.full(N_DAYS, price)})
    assert _last(changed, "crude_regime") == pytest.approx(step)


def test_mean_pairwise_correlation_finds_the_planted_one() -> None:
    rng = np.random.default_rng(0)
    n_days, n_assets = 300, 200
    common, own = rng.normal(0, 0.01, (n_days, 1)), rng.normal(0, 0.01, (n_days, n_assets))
    panel = _panel_of(np.sqrt(0.3) * common + np.sqrt(0.7) * own)
    found = macro.mean_pairwise_correlation(panel, 240)
    expected = np.corrcoef(panel.log_return[-240:].T)
    mean = expected[~np.eye(n_assets, dtype=bool)].mean()
    assert found[-1] == pytest.approx(mean, abs=0.01)  # 0.3 up to sampling; log against simple


def _panel_of(log_return: np.ndarray) -> PricePanel:
    n_days, n_assets = log_return.shape
    everything = np.ones(log_return.shape, dtype=bool)
    return PricePanel(
        dates=np.arange(n_days).astype("datetime64[D]"),
        symbols=tuple(f"S{index:03d}" for index in range(n_assets)),
        sector_of=np.zeros(n_assets, dtype=np.int64),
        n_sectors=1,
        overnight_return=np.expm1(log_return),
        intraday_return=np.zeros_like(log_return),
        printed=everything,
        tradable=everything,
        listed=everything,
        high_to_close=np.zeros_like(log_return),
        low_to_close=np.zeros_like(log_return),
        dollar_volume=np.ones_like(log_return),
        columns=frozenset({"close"}),
    )


def test_features_are_trailing_z_scores_and_zero_before_their_series(inputs: MacroSources) -> None:
    late = inputs.series["GOLD"].copy()
    late[:200] = np.nan
    changed = dataclasses.replace(inputs, series={**inputs.series, "GOLD": late})
    names = ["index_return_4w", "gold_momentum_20d", "previous_regime_probability"]
    table = macro.compute_macro_features(changed, names, 252, 3.0)
    raw = MACRO_FEATURES["index_return_4w"].compute(changed)
    np.testing.assert_allclose(table[:, 0], trailing_z(raw, 252, 3.0), rtol=1e-6)
    assert not table[:220, 1].any()
    assert np.abs(table[260:, 1]).min() > 0
    np.testing.assert_allclose(table[:, 2], inputs.filtered_regime[:, 0], rtol=1e-6)


@pytest.mark.parametrize("market", ["us", "nse", "sample", "synthetic"])
def test_every_profile_lists_known_features(market: str) -> None:
    names = load_config(market=market).market_profile.macro_features
    assert macro.find_macro_problems(names, frozenset(macro.needed_series(names))) == []


def test_what_the_portfolio_contributes_is_parted_and_stands_last() -> None:
    names = ["index_return_4w", "portfolio_drawdown"]
    assert macro.split_names(names) == (("index_return_4w",), ("portfolio_drawdown",))
    assert macro.find_macro_problems(names, frozenset()) == []
    (problem,) = macro.find_macro_problems(names[::-1], frozenset())
    assert "portfolio_drawdown come from the portfolio" in problem


def test_missing_series_and_unknown_names_are_listed_together(inputs: MacroSources) -> None:
    bare = dataclasses.replace(inputs, series={})
    with pytest.raises(FeatureError) as error:
        macro.compute_macro_features(bare, ["policy_rate", "put_call", "credit_spread"], 252, 3.0)
    message = str(error.value)
    assert "'policy_rate' needs the series FEDFUNDS" in message
    assert "'credit_spread' needs the series BAMLH0A0HYM2" in message
    assert "'put_call' is not in the registry" in message


def test_trailing_z_by_hand() -> None:
    z = trailing_z(np.array([np.nan, 1.0, 3.0, 3.0, 6.0]), 3, 3.0)
    # row 2: mean 2, deviation 1; row 4: values 3 3 6, mean 4, deviation sqrt 2
    np.testing.assert_allclose(z, [0, 0, 1.0, 2 / 3 / np.sqrt(8 / 9), 2 / np.sqrt(2)])


def test_trailing_z_of_a_constant_is_zero() -> None:
    assert not trailing_z(np.full(30, 0.1), 10, 3.0).any()
