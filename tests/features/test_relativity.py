"""Features of bars against the formulas in plain Python, by hand, and for what must not matter."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.bars import Bars
from hrl_sarp.features.relativity import (
    CANDLE_COLUMNS,
    LIMITS,
    POSITION,
    PRETRAINING_COLUMNS,
    relativity_features,
)
from tests.features.candle_factories import (
    SHAPES,
    closes,
    make_bars,
    part,
    real_bars,
    relativity_config,
    scaled,
    walk,
)
from tests.features.test_relativity_swings import slow_atr, slow_swings

LENGTH = 105
BTC = "crypto_1m/BTCUSD_2016_2018.parquet"
NIFTY = "index_1m_india/NIFTY_2021.parquet"


def features(bars: Bars) -> np.ndarray:
    return relativity_features(bars, relativity_config(), LENGTH)


def column(bars: Bars, name: str) -> np.ndarray:
    return features(bars)[:, CANDLE_COLUMNS.index(name)]


def slow_features(bars: Bars) -> np.ndarray:
    config = relativity_config()
    atr, swings = slow_atr(bars, config.atr_period), slow_swings(bars, config)
    alpha = 2.0 / (config.ohlc_ema_range_period + 1.0)
    table, mean = [], 0.0
    for t in range(len(bars)):
        o, h, l, c = (float(p[t]) for p in (bars.open, bars.high, bars.low, bars.close))  # noqa: E741 -- as in the formulas
        is_first = t == 0 or bars.instrument[t] != bars.instrument[t - 1]
        mean = h - l if is_first else mean + alpha * ((h - l) - mean)
        least = config.ohlc_eps * c
        safe, unit = max(h - l, least), max(atr[t], least)
        body = (c - o) / safe
        range_z = _clip((h - l) / max(mean, least), 5)
        leg, high_row, low_row = swings[t]
        to_high = (bars.high[high_row] - c) / unit if high_row >= 0 else 0.0
        to_low = (c - bars.low[low_row]) / unit if low_row >= 0 else 0.0
        since_high = _clip((t - high_row) / LENGTH, 8) if high_row >= 0 else 0.0
        since_low = _clip((t - low_row) / LENGTH, 9) if low_row >= 0 else 0.0
        calm = (1.0 - range_z / 3.0) * (1.0 - abs(body)) * 0.5 * (since_high + since_low)
        row = [(o - l) / safe, (c - l) / safe, body, (h - max(o, c)) / safe]
        row += [(min(o, c) - l) / safe, range_z, to_high, to_low, since_high, since_low]
        table.append([*row, range_z * leg * body, calm])
    clipped = [[_clip(value, i) for i, value in enumerate(row)] for row in table]
    return np.array(clipped, dtype=np.float32)


def _clip(value: float, index: int) -> float:
    least, most = LIMITS[index]
    return min(max(value, least), most)


def test_columns_are_those_that_the_variants_name() -> None:
    variants = load_config().encoders.finetuning.variants
    assert list(CANDLE_COLUMNS) == variants["baseline"].features == variants["stones"].features
    assert [*CANDLE_COLUMNS, POSITION] == variants["position"].features
    assert CANDLE_COLUMNS[:-1] == PRETRAINING_COLUMNS
    assert len(LIMITS) == len(CANDLE_COLUMNS) == 12


def test_bar_by_hand() -> None:
    # opens at 103, closes at 108 of 100 .. 110, the first of its instrument
    found = dict(
        zip(CANDLE_COLUMNS, features(make_bars([103], [110], [100], [108], [1]))[0], strict=True)
    )
    assert found == pytest.approx(
        {
            "open_norm": 0.3,
            "close_norm": 0.8,
            "body_pct": 0.5,
            "upper_wick_pct": 0.2,
            "lower_wick_pct": 0.3,
            "range_z": 1.0,
            **dict.fromkeys(CANDLE_COLUMNS[6:], 0.0),
        }
    )


def test_range_is_compared_with_its_exponential_mean() -> None:
    # ranges 2 and 4: the mean moves from 2 by 2/21 of the difference
    bars = make_bars([100, 100], [101, 102], [99, 98], [100, 100], [2])
    assert column(bars, "range_z")[1] == pytest.approx(4 / (2 + 2 * 2 / 21))


def test_swings_are_measured_in_ranges_and_windows() -> None:
    # the swing high of 16 at bar 3 is known from bar 5 on, where ATR is 8/6: as
    # test_relativity_swings shows
    bars = closes(10, 12, 14, 16, 15, 14, 15, 16)
    assert (column(bars, "dist_to_prev_swing_high")[:5] == 0).all()
    assert column(bars, "dist_to_prev_swing_high")[5] == pytest.approx(2 / (8 / 6))
    assert column(bars, "bars_since_swing_high")[5] == pytest.approx(2 / LENGTH)
    # the low of 10 at bar 0 is known from bar 1 on; bar 4 lies 5 above it, 5 / 1.4 ATR: clipped
    assert column(bars, "dist_to_prev_swing_low")[4] == 3
    assert column(bars, "bars_since_swing_low")[4] == pytest.approx(4 / LENGTH)


def test_expansion_goes_with_the_leg_and_consolidation_is_small_bars_after_swings() -> None:
    bars = walk("10 trades", 400, seed=3)
    table = {name: column(bars, name) for name in CANDLE_COLUMNS}
    direction = np.array([leg for leg, _, _ in slow_swings(bars, relativity_config())])
    product = table["range_z"] * direction * table["body_pct"]
    np.testing.assert_allclose(table["expansion_proxy"], product.clip(-2, 2), atol=1e-6)
    since = (table["bars_since_swing_high"] + table["bars_since_swing_low"]) / 2
    calm = (1 - table["range_z"] / 3) * (1 - np.abs(table["body_pct"])) * since
    np.testing.assert_allclose(table["consolidation_proxy"], calm, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_equal_the_formulas_on_walks(shape: str) -> None:
    bars = walk(shape, 700, seed=7)
    bars = make_bars(bars.open, bars.high, bars.low, bars.close, [400, 1, 299])
    np.testing.assert_array_equal(features(bars), slow_features(bars))


@pytest.mark.parametrize(("name", "first"), [(BTC, 300_000), (NIFTY, 4_000)])
def test_values_equal_the_formulas_on_real_bars(data_folder: Path, name: str, first: int) -> None:
    bars = real_bars(data_folder, name, first, n_bars=1500)
    np.testing.assert_array_equal(features(bars), slow_features(bars))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_stay_within_their_limits(shape: str) -> None:
    bars = walk(shape, 20_000, seed=11)
    # and a bar a thousand times as wide as the others
    high = bars.high.copy()
    high[[0, 5000]] += 5000.0
    assert_within_limits(features(replace(bars, high=high)))


def test_values_of_real_bars_stay_within_their_limits(data_folder: Path) -> None:
    # rows 298,612 and 377,084: January and March 2017 with bars of 22 % and 23 %
    table = features(real_bars(data_folder, BTC, 290_000, n_bars=100_000))
    assert_within_limits(table)
    assert (table.std(axis=0) > 0.01).all()


def assert_within_limits(table: np.ndarray) -> None:
    least, most = np.array(LIMITS, dtype=np.float32).T
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    assert (table >= least).all()
    assert (table <= most).all()


@pytest.mark.parametrize("level", [1e-6, 1.0, 1e6])
def test_price_that_does_not_move_gives_zeros(level: float) -> None:
    np.testing.assert_array_equal(features(closes(*[level] * 60)), 0)


@pytest.mark.parametrize("power", [-20, -1, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_powers_of_two_change_nothing(shape: str, power: int) -> None:
    bars = walk(shape, 2_000, seed=13)
    np.testing.assert_array_equal(features(scaled(bars, 2.0**power)), features(bars))


@pytest.mark.parametrize("factor", [1 / 19_900, 0.01, 3.7, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_scale_of_the_prices_changes_nothing(shape: str, factor: float) -> None:
    bars = walk(shape, 5_000, seed=17)
    np.testing.assert_allclose(features(scaled(bars, factor)), features(bars), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1 / 19_900, 0.01, 3.7, 1e4])
@pytest.mark.parametrize(("name", "first", "n_bars"), [(BTC, 0, 150_000), (NIFTY, 0, 90_000)])
def test_scale_of_real_prices_changes_nothing(
    data_folder: Path, name: str, first: int, n_bars: int, factor: float
) -> None:
    # prices in ticks reach thresholds exactly: rounding must not decide them
    bars = real_bars(data_folder, name, first, n_bars)
    np.testing.assert_allclose(features(scaled(bars, factor)), features(bars), rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [1, 20, 333, 998])
@pytest.mark.parametrize("shape", ["10 trades", "gaps", "coin"])
def test_cutting_off_the_future_changes_nothing(shape: str, t: int) -> None:
    bars = walk(shape, 1_000, seed=19)
    np.testing.assert_array_equal(features(part(bars, slice(t))), features(bars)[:t])


def test_cutting_off_the_future_of_real_bars_changes_nothing(data_folder: Path) -> None:
    bars = real_bars(data_folder, BTC, 1_000_000, n_bars=20_000)
    whole = features(bars)
    for t in (1, 777, 19_999):
        np.testing.assert_array_equal(features(part(bars, slice(t))), whole[:t])


def test_instruments_do_not_know_each_other() -> None:
    first, second = walk("fat", 300, seed=1), walk("gaps", 200, seed=2)
    both = make_bars(
        *(
            np.append(getattr(first, n), getattr(second, n))
            for n in ("open", "high", "low", "close")
        ),
        lengths=[300, 200],
    )
    np.testing.assert_array_equal(
        features(both), np.concatenate([features(first), features(second)])
    )


def test_window_length_is_the_unit_of_time_only() -> None:
    bars, config = walk("10 trades", 500, seed=23), relativity_config()
    one, other = (relativity_features(bars, config, length) for length in (105, 210))
    np.testing.assert_array_equal(one[:, :8], other[:, :8])
    np.testing.assert_allclose(one[:, 8:10], 2 * other[:, 8:10], rtol=1e-6)
