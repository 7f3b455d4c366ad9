"""Rolling kernels against worked examples and slow references."""

from collections.abc import Callable

import numpy as np
import pytest

from hrl_sarp.features import technical

# StockCharts' worked RSI example, rounded to cents
RSI_PRICES = "44.34 44.09 44.15 43.61 44.33 44.83 45.10 45.42 45.84 46.08 45.89 46.03 45.61 46.28"


@pytest.fixture
def walk() -> np.ndarray:
    """Prices of 3 stocks over 400 days with 3 % of the bars missing."""
    rng = np.random.default_rng(3)
    prices = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (400, 3)), axis=0))
    prices[rng.random(prices.shape) < 0.03] = np.nan
    return prices


def _rolled(values: np.ndarray, window: int, measure: Callable[..., float]) -> np.ndarray:
    result = np.full(values.shape, np.nan)
    for t, a in np.ndindex(values.shape):
        bars = values[max(0, t - window + 1) : t + 1, a]
        bars = bars[np.isfinite(bars)]
        if len(bars) >= np.ceil(technical.MIN_BARS_SHARE * window):
            result[t, a] = measure(bars)
    return result


def test_rsi_follows_the_worked_example() -> None:
    prices = np.array([float(price) for price in RSI_PRICES.split()] + [46.28, 46.00])[:, None]
    rsi = technical.relative_strength_index(prices, 14)[:, 0]
    assert np.isnan(rsi[:14]).all()
    # gains of the first 14 changes sum to 3.34, losses to 1.40
    assert rsi[14] == pytest.approx(100 * 3.34 / 4.74)
    # then -0.28: the sums decay by 13/14 and the loss joins
    gain, loss = 3.34 * 13 / 14, 1.40 * 13 / 14 + 0.28
    assert rsi[15] == pytest.approx(100 * gain / (gain + loss))


def test_rsi_of_a_flat_price_is_neutral() -> None:
    assert technical.relative_strength_index(np.full((20, 1), 5.0), 14)[-1, 0] == 50.0


def test_macd_equals_a_plain_loop(walk: np.ndarray) -> None:
    prices = np.nan_to_num(walk, nan=50.0)

    def smooth(series: np.ndarray, span: int) -> np.ndarray:
        result = np.full(len(series), np.nan)
        bars = np.flatnonzero(np.isfinite(series))
        result[bars[span - 1]] = series[bars[:span]].mean()
        for before, now in zip(bars[span - 1 :], bars[span:], strict=False):
            result[now] = result[before] + 2 / (span + 1) * (series[now] - result[before])
        return result

    line = smooth(prices[:, 1], 12) - smooth(prices[:, 1], 26)
    expected = line - smooth(line, 9)
    found = technical.macd_histogram(prices, 12, 26, 9)[:, 1]
    assert np.isnan(found[:33]).all()
    assert np.isfinite(found[33:]).all()
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("window", [5, 20, 60])
def test_moments_equal_slow_references(walk: np.ndarray, window: int) -> None:
    returns = technical.difference(np.log(walk), 1)

    def skewness(bars: np.ndarray) -> float:
        return float(((bars - bars.mean()) ** 3).mean() / bars.std() ** 3)

    pairs = [
        (technical.rolling_mean(returns, window), _rolled(returns, window, np.mean)),
        (technical.rolling_std(returns, window), _rolled(returns, window, np.std)),
        (technical.rolling_skewness(returns, window), _rolled(returns, window, skewness)),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("window", [1, 7, 252])
def test_extremes_equal_slow_references(walk: np.ndarray, window: int) -> None:
    for t in range(len(walk)):
        bars = walk[max(0, t - window + 1) : t + 1]
        known = np.isfinite(bars).any(axis=0)
        highs = np.nanmax(np.where(np.isfinite(bars), bars, -np.inf), axis=0)
        found = technical.rolling_max(walk[: t + 1], window)[-1]
        np.testing.assert_array_equal(found[known], highs[known])
        assert np.isnan(found[~known]).all()


def test_cross_moments_use_pairs_only() -> None:
    left = np.array([[1.0], [2.0], [np.nan], [4.0], [7.0]])
    right = np.array([[2.0], [1.0], [9.0], [5.0], [6.0]])
    covariance, left_variance, right_variance = technical.rolling_cross(left, right, 5)
    # pairs (1,2) (2,1) (4,5) (7,6): means 3.5 and 3.5; 4 of 5 bars are enough
    assert covariance[4, 0] == pytest.approx((2 + 2 + 20 + 42) / 4 - 3.5**2)
    assert left_variance[4, 0] == pytest.approx((1 + 4 + 16 + 49) / 4 - 3.5**2)
    assert right_variance[4, 0] == pytest.approx((4 + 1 + 25 + 36) / 4 - 3.5**2)
    assert np.isnan(covariance[:4]).all()


def test_a_price_that_stopped_moving_has_no_deviation() -> None:
    # running sums leave rounding noise behind a large move; it must not look like volatility
    values = np.concatenate([np.array([0.9, -0.7, 0.3]), np.full(40, 1e-4)])[:, None]
    assert technical.rolling_std(values, 20)[-1, 0] == 0.0
    assert np.isnan(technical.rolling_skewness(values, 20)[-1, 0])


def test_wilder_mean_starts_with_the_plain_mean_and_skips_gaps() -> None:
    values = np.array([[1.0], [np.nan], [3.0], [8.0]])
    smoothed = technical.wilder_mean(values, 2)[:, 0]
    assert np.isnan(smoothed[:2]).all()
    assert smoothed[2] == 2.0
    assert smoothed[3] == 5.0  # 2 + (8 - 2) / 2


def test_true_range_reaches_to_the_close_before() -> None:
    high, low, close = np.array([3.0, 9.0, 4.0]), np.array([1.0, 8.0, 3.5]), np.array([2.0, 8.5, 4])
    before = np.array([np.nan, *close[:-1]])
    # its own 2; from 2 up to 9; from 8.5 down to 3.5
    np.testing.assert_allclose(technical.true_range(high, low, before), [2.0, 7.0, 5.0])
    assert np.isnan(technical.true_range(high * np.nan, low, before)).all()
    assert np.isnan(technical.true_range(high, low * np.nan, before)).all()


def test_window_moments_keep_their_digits_on_a_high_level() -> None:
    rng = np.random.default_rng(0)
    level = 1e6 + 1e-3 * rng.normal(size=(60, 1))
    mean, deviation = technical.window_moments(level, 20)
    assert np.isnan(mean[:19]).all()
    assert deviation[-1, 0] == pytest.approx(level[-20:].std(ddof=1), rel=1e-6)


def test_a_column_that_does_not_move_is_only_centred() -> None:
    mean, scale = technical.fitted_scale(np.array([[1.0, 7.0], [3.0, 7.0]]))
    np.testing.assert_array_equal(mean, [2.0, 7.0])
    np.testing.assert_array_equal(scale, [1.0, 1.0])
