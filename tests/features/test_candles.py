"""Candle features against a slow, obvious reference."""

import dataclasses

import numpy as np
import pytest

from hrl_sarp.data.bars import Bars
from hrl_sarp.features.candles import COLUMNS, LEVELS, candle_features, candle_table

N = 320


def random_tables(seed: int = 0, n_columns: int = 2) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(0.01 * rng.normal(size=(N, n_columns)), axis=0))
    open_price = close * (1 + 0.004 * rng.normal(size=close.shape))
    high = np.maximum(open_price, close) * (1 + 0.003 * rng.random(close.shape))
    low = np.minimum(open_price, close) * (1 - 0.003 * rng.random(close.shape))
    return open_price, high, low, close, rng.lognormal(size=close.shape)


def slow_mean(values: list[float], period: int, alpha: float) -> list[float]:
    """Smooth from the plain mean of the first `period` values on; NaN before."""
    result = [float("nan")] * len(values)
    known = [row for row, value in enumerate(values) if not np.isnan(value)]
    mean = sum(values[row] for row in known[:period]) / period
    for count, row in enumerate(known, start=1):
        if count > period:
            mean += alpha * (values[row] - mean)
        if count >= period:
            result[row] = mean
    return result


def slow_features(
    open_price: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray
) -> np.ndarray:
    """Compute the columns of one instrument row by row, as the formulas read."""
    rows = range(len(close))
    nan = float("nan")
    ranges, gains, losses = [], [nan], [nan]
    for t in rows:
        before = close[t - 1] if t else close[t]
        reach = [high[t] - low[t]]
        if t:
            reach += [abs(high[t] - before), abs(low[t] - before)]
            gains.append(max(close[t] - before, 0.0))
            losses.append(max(before - close[t], 0.0))
        ranges.append(max(reach))
    gain, loss = slow_mean(gains, 14, 1 / 14), slow_mean(losses, 14, 1 / 14)
    atr = slow_mean(ranges, 14, 1 / 14)
    fast, slow = (slow_mean(list(close), span, 2 / (span + 1)) for span in (50, 200))
    table = []
    for t in rows:
        last = close[max(0, t - 19) : t + 1]
        middle = last.mean() if t >= 19 else nan
        deviation = last.std(ddof=1) if t >= 19 else nan
        upper, lower = middle + 2 * deviation, middle - 2 * deviation
        strength = 100 * gain[t] / (gain[t] + loss[t])
        candle = [open_price[t], high[t], low[t], close[t], volume[t]]
        bands = [middle, upper, lower, (upper - lower) / middle]
        table.append(
            [
                *candle,
                strength,
                atr[t],
                fast[t],
                slow[t],
                *bands,
                (close[t] - lower) / (4 * deviation),
            ]
        )
    return np.array(table)


def test_table_equals_slow_reference() -> None:
    tables = random_tables()
    found = candle_features(*tables)
    for a in range(2):
        expected = slow_features(*(table[:, a] for table in tables))
        np.testing.assert_allclose(found[:, a], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "row"),
    # RSI needs 14 changes, so 15 closes; the band 20 closes; averages as many as their span
    [
        *(("close", 0), ("rsi_14", 14), ("atr_14", 13), ("ema_50", 49), ("ema_200", 199)),
        *(("bb_middle", 19), ("bb_width", 19), ("bb_percent", 19)),
    ],
)
def test_column_is_known_from_its_first_full_look_back_on(name: str, row: int) -> None:
    values = candle_features(*random_tables())[:, 0, COLUMNS.index(name)]
    assert np.isnan(values[:row]).all()
    assert np.isfinite(values[row:]).all()


def test_later_candles_change_nothing() -> None:
    tables = random_tables()
    whole = candle_features(*tables)
    for cut in (205, 206, 319):
        np.testing.assert_array_equal(
            candle_features(*(table[:cut] for table in tables)), whole[:cut]
        )


def test_prices_times_eight_scale_levels_and_leave_ratios() -> None:
    *prices, volume = random_tables()
    plain = candle_features(*prices, volume)
    scaled = candle_features(*(8.0 * table for table in prices), volume)
    in_price_units = [name in (*LEVELS, "atr_14") for name in COLUMNS]
    # 8 is a power of two, so that every step rounds alike
    np.testing.assert_array_equal(scaled, np.where(in_price_units, 8.0, 1.0) * plain)


def test_band_of_quiet_market_at_high_level_keeps_its_digits() -> None:
    # closes alternate by 0.01 around 1e6: 20 of them deviate by 0.005 x sqrt(20 / 19)
    close = np.where(np.arange(60) % 2, 1e6 + 0.01, 1e6)[:, None]
    row = candle_features(close, close, close, close, None)[-1, 0]
    width = 4 * 0.005 * np.sqrt(20 / 19) / (1e6 + 0.005)
    assert row[COLUMNS.index("bb_width")] == pytest.approx(width, rel=1e-6)


def test_market_that_stands_still_is_in_the_middle_of_everything() -> None:
    close = np.full((210, 1), 0.1)
    last = dict(zip(COLUMNS, candle_features(close, close, close, close, None)[-1, 0], strict=True))
    assert (last["rsi_14"], last["atr_14"]) == (50.0, 0.0)
    assert (last["bb_width"], last["bb_percent"]) == (0.0, 0.5)
    assert last["ema_200"] == pytest.approx(0.1)


def test_missing_candle_is_nan_and_touches_no_other_instrument() -> None:
    tables = random_tables()
    holed = tuple(table.copy() for table in tables)
    for table in holed:
        table[250, 0] = np.nan
    found, whole = candle_features(*holed), candle_features(*tables)
    assert np.isnan(found[250, 0, COLUMNS.index("close")])
    assert np.isfinite(found[251, 0]).sum() >= len(COLUMNS) - 1  # RSI lacks one change, not NaN
    np.testing.assert_array_equal(found[:, 1], whole[:, 1])


def two_instruments(volume: np.ndarray | None) -> Bars:
    """Stack two instruments as a file does."""
    open_price, high, low, close, _ = random_tables()
    hours = np.datetime64("2020-01-01", "us") + np.timedelta64(3600, "s") * np.arange(N)
    return Bars(
        timestamps=np.concatenate([hours, hours]),
        instrument=np.repeat(np.array([0, 1], dtype=np.int32), N),
        instruments=("A", "B"),
        open=open_price.T.ravel(),
        high=high.T.ravel(),
        low=low.T.ravel(),
        close=close.T.ravel(),
        volume=volume,
        content_hash="made",
    )


def test_every_instrument_starts_afresh() -> None:
    *prices, volume = random_tables()
    table = candle_table(two_instruments(volume.T.ravel()))
    np.testing.assert_array_equal(table[:N], candle_features(*prices, volume)[:, 0])
    np.testing.assert_array_equal(table[N:], candle_features(*prices, volume)[:, 1])


def test_bars_without_volume_have_a_column_of_zeros() -> None:
    bars = two_instruments(None)
    table = candle_table(bars)
    assert not table[:, COLUMNS.index("volume")].any()
    some = candle_table(dataclasses.replace(bars, volume=np.ones(2 * N)))
    others = [name != "volume" for name in COLUMNS]
    np.testing.assert_array_equal(table[:, others], some[:, others])
