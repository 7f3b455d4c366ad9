"""Stock features against slow references on raw prices, and the registry's refusals."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.errors import FeatureError
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.features.stock import (
    PLANTED_NAMES,
    STOCK_FEATURES,
    compute_stock_features,
    find_stock_problems,
    longest_lookback,
    robust_z,
)
from tests import raw_data

NOTHING_FOUND = pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date, "rule": pl.String})
N_DAYS = 400
PRICE_FEATURES = sorted(set(STOCK_FEATURES) - set(PLANTED_NAMES))
STOCK = "A0"
"""Trades every day, with a split and two dividends."""


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    raw = raw_data.random_raw(np.random.default_rng(5), 700).bars
    return raw.filter(pl.col("symbol") == STOCK).sort("date").head(N_DAYS)


@pytest.fixture(scope="module")
def panel() -> PricePanel:
    raw = raw_data.random_raw(np.random.default_rng(5), 700)
    return build_panel(raw, NOTHING_FOUND, ["Alpha", "Beta", "Gamma"])


@pytest.fixture(scope="module")
def log_return(bars: pl.DataFrame) -> np.ndarray:
    return np.diff(np.log(bars["adj_close"].to_numpy()))


def _last(panel: PricePanel, name: str) -> float:
    raw = STOCK_FEATURES[name].compute(panel)
    return float(raw[N_DAYS - 1, panel.symbols.index(STOCK)])


def _market(panel: PricePanel, days: int) -> np.ndarray:
    """Return the mean simple return of the day over all stocks, from single bars."""
    simple = np.expm1(panel.log_return[N_DAYS - days : N_DAYS])
    return np.log1p(np.nanmean(simple, axis=1))


def test_returns_and_momentum_are_ratios_of_adjusted_closes(
    panel: PricePanel, bars: pl.DataFrame
) -> None:
    price = bars["adj_close"].to_numpy()
    for days in (1, 5, 20, 60):
        assert _last(panel, f"return_{days}d") == pytest.approx(
            np.log(price[-1] / price[-1 - days])
        )
    assert _last(panel, "momentum_12_1") == pytest.approx(np.log(price[-22] / price[-253]))
    year = price[-252:]
    assert _last(panel, "distance_to_52w_high") == pytest.approx(np.log(price[-1] / year.max()))
    assert _last(panel, "distance_to_52w_low") == pytest.approx(np.log(price[-1] / year.min()))


def test_volatilities_are_annual_deviations(panel: PricePanel, log_return: np.ndarray) -> None:
    month, loss = log_return[-20:], np.minimum(log_return[-20:], 0)
    assert _last(panel, "volatility_20d") == pytest.approx(np.sqrt(252) * month.std())
    assert _last(panel, "volatility_60d") == pytest.approx(np.sqrt(252) * log_return[-60:].std())
    ratio = month.std() / log_return[-120:].std()
    assert _last(panel, "volatility_ratio_20_120") == pytest.approx(ratio)
    expected = np.sqrt(252 * (loss**2).mean())
    assert _last(panel, "downside_volatility_20d") == pytest.approx(expected)
    assert _last(panel, "max_return_20d") == pytest.approx(month.max())
    past, now = log_return[-61:-1], log_return[-60:]
    assert _last(panel, "autocorrelation_60d") == pytest.approx(np.corrcoef(past, now)[0, 1])


def test_bollinger_position_is_one_at_the_upper_band(panel: PricePanel, bars: pl.DataFrame) -> None:
    month = bars["adj_close"].to_numpy()[-20:]
    lower, upper = month.mean() - 2 * month.std(), month.mean() + 2 * month.std()
    expected = (month[-1] - lower) / (upper - lower)
    assert _last(panel, "bb_position") == pytest.approx(expected)


def test_dollar_features_use_raw_price_times_raw_volume(
    panel: PricePanel, bars: pl.DataFrame, log_return: np.ndarray
) -> None:
    dollars = (bars["close"] * bars["volume"]).to_numpy()[-20:]
    assert _last(panel, "dollar_volume_log") == pytest.approx(np.log(dollars.mean()))
    assert _last(panel, "volume_ratio_20d") == pytest.approx(dollars[-1] / dollars.mean())
    expected = np.log((np.abs(log_return[-20:]) / dollars).mean())
    assert _last(panel, "amihud_20d") == pytest.approx(expected)


def test_overnight_and_intraday_averages_add_up_to_the_whole_move(
    panel: PricePanel, bars: pl.DataFrame, log_return: np.ndarray
) -> None:
    intraday = np.log((bars["close"] / bars["open"]).to_numpy()[-20:]).mean()
    assert _last(panel, "intraday_return_20d") == pytest.approx(intraday)
    whole = log_return[-20:].mean()
    assert _last(panel, "overnight_return_20d") == pytest.approx(whole - intraday)


def test_true_range_spans_the_night_and_ignores_the_split(
    panel: PricePanel, bars: pl.DataFrame
) -> None:
    factor = bars["adj_close"] / bars["close"]
    high, low = ((bars[name] * factor).to_numpy() for name in ("high", "low"))
    past = bars["adj_close"].to_numpy()[:-1]
    true_range = np.maximum(high[1:], past) - np.minimum(low[1:], past)
    mean = true_range[:14].mean()
    for value in true_range[14:]:
        mean += (value - mean) / 14
    assert _last(panel, "atr_pct_14") == pytest.approx(mean / bars["adj_close"][-1])


def test_market_features_regress_on_the_mean_return(
    panel: PricePanel, log_return: np.ndarray
) -> None:
    market = _market(panel, 120)
    beta = np.cov(log_return[-120:], market, bias=True)[0, 1] / market.var()
    assert _last(panel, "beta_120d") == pytest.approx(beta)
    own, market = log_return[-60:], market[-60:]
    correlation = np.corrcoef(own, market)[0, 1]
    assert _last(panel, "market_correlation_60d") == pytest.approx(correlation)
    residual = own.std() * np.sqrt(1 - correlation**2)
    assert _last(panel, "residual_volatility_60d") == pytest.approx(np.sqrt(252) * residual)


def test_sector_features_compare_with_the_sectors_mean_return(
    panel: PricePanel, log_return: np.ndarray
) -> None:
    peers = np.expm1(panel.log_return[:N_DAYS, panel.sector_of == 0])
    sector = np.log1p(np.nanmean(peers[-65:], axis=1))
    expected = log_return[-65:].sum() - sector.sum()
    assert _last(panel, "sector_relative_strength_65d") == pytest.approx(expected)
    correlation = np.corrcoef(log_return[-60:], sector[-60:])[0, 1]
    assert _last(panel, "sector_correlation_60d") == pytest.approx(correlation)


@pytest.mark.parametrize("name", PRICE_FEATURES)
def test_rescaled_adjusted_prices_change_no_feature(name: str, panel: PricePanel) -> None:
    # a later split or dividend rescales adj_close: its level must not be in any feature
    raw = raw_data.random_raw(np.random.default_rng(5), 700)
    scaled = dataclasses.replace(
        raw, bars=raw.bars.with_columns(pl.col("adj_close") * 2.0**-5)
    )  # a power of two: exact
    found = build_panel(scaled, NOTHING_FOUND, ["Alpha", "Beta", "Gamma"])
    feature = STOCK_FEATURES[name]
    np.testing.assert_array_equal(feature.compute(found), feature.compute(panel))


@pytest.mark.parametrize("name", PRICE_FEATURES)
def test_no_value_before_the_lookback_and_one_right_after(name: str, panel: PricePanel) -> None:
    feature = STOCK_FEATURES[name]
    values = feature.compute(panel)[:, panel.symbols.index(STOCK)]
    assert np.isfinite(values[feature.lookback_days : N_DAYS]).all()
    assert np.isfinite(values).sum() > N_DAYS - 253


def test_features_of_a_stock_without_a_bar_are_zero(panel: PricePanel) -> None:
    names = load_config(market="us").market_profile.stock_features
    table = compute_stock_features(panel, names, 3.0)
    assert np.isfinite(table).all()
    assert np.abs(table).max() == 3.0
    assert not table[~panel.tradable].any()
    assert (~panel.tradable).any()


@pytest.mark.parametrize("market", ["us", "sample", "synthetic"])
def test_every_profile_lists_known_features(market: str) -> None:
    names = load_config(market=market).market_profile.stock_features
    columns = frozenset.union(*(STOCK_FEATURES[name].columns for name in names))
    assert find_stock_problems(names, columns) == []
    assert longest_lookback(names) <= 252


def test_missing_columns_and_unknown_names_are_listed_together(panel: PricePanel) -> None:
    bare = dataclasses.replace(panel, columns=frozenset({"close"}))
    with pytest.raises(FeatureError) as error:
        compute_stock_features(bare, ["atr_pct_14", "return_1d", "pe_zscore", "amihud_20d"], 3.0)
    message = str(error.value)
    assert "'atr_pct_14' needs high, low" in message
    assert "'amihud_20d' needs volume" in message
    assert "'pe_zscore' is not in the registry" in message
    assert "return_1d" not in message


def test_robust_z_of_five_stocks_by_hand() -> None:
    values = np.array([[1.0, 2.0, 3.0, 5.0, 100.0]])
    z = robust_z(values, np.ones((1, 5), dtype=bool), 3.0)
    # median 3, deviations 2 1 0 2 97: MAD 2, scale 2.9652
    np.testing.assert_allclose(z[0, :4], [-2 / 2.9652, -1 / 2.9652, 0.0, 2 / 2.9652], rtol=1e-6)
    assert z[0, 4] == 3.0


@pytest.mark.parametrize("n_assets", [2, 3, 10, 41])
def test_robust_z_equals_a_slow_reference(n_assets: int) -> None:
    rng = np.random.default_rng(n_assets)
    values = rng.normal(size=(50, n_assets)).round(1).astype(np.float32)
    # on every fifth day most stocks are equal, so that the median deviation is 0
    values[::5] = np.where(rng.random(values[::5].shape) < 0.75, 0.3, values[::5])
    present = rng.random(values.shape) < 0.8
    values[rng.random(values.shape) < 0.1] = np.nan
    found = robust_z(values.astype(np.float64), present, 3.0)
    for t in range(len(values)):
        usable = present[t] & np.isfinite(values[t])
        row = values[t, usable].astype(np.float64)
        expected = np.zeros(n_assets)
        if len(row) >= 2:
            gap = np.abs(row - np.median(row))
            scale = 1.4826 * np.median(gap) or 1.2533 * gap.mean()
            if scale > 1e-6:
                expected[usable] = np.clip((row - np.median(row)) / scale, -3, 3)
        np.testing.assert_allclose(found[t], expected, atol=2e-5)


def test_robust_z_ignores_stocks_without_a_bar() -> None:
    values = np.array([[1.0, 2.0, 3.0, 50.0]])
    present = np.array([[True, True, True, False]])
    alone = robust_z(values[:, :3], present[:, :3], 3.0)
    together = robust_z(values, present, 3.0)
    np.testing.assert_array_equal(together[:, :3], alone)
    assert together[0, 3] == 0.0


def test_robust_z_of_a_day_without_spread_is_zero() -> None:
    assert not robust_z(np.full((1, 4), 7.0), np.ones((1, 4), dtype=bool), 3.0).any()
