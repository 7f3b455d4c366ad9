"""What Kronos reads of a history."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrl_sarp.forecasters.kronos.bars import bars_of, scale_of, stamps_of
from tests.forecasters.kronos.tiny import history


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), min_size=1))  # noqa: DTZ001 -- times of an exchange carry no zone here
def test_stamps_are_the_parts_of_times(times: list[datetime]) -> None:
    for unit in ("s", "ns"):
        found = stamps_of(np.array(times, dtype=f"datetime64[{unit}]"))
        wanted = [[t.minute, t.hour, t.weekday(), t.day, t.month] for t in times]
        assert found.tolist() == wanted


def test_days_have_no_hour() -> None:
    found = stamps_of(np.array(["2024-02-29"], dtype="datetime64[D]"))
    assert found.tolist() == [[0, 0, 3, 29, 2]]  # a Thursday


def test_amounts_are_given_or_volumes_times_the_mean_price() -> None:
    whole = history(20, 1)
    assert whole.bars is not None
    with_amounts = whole.bars.copy()
    with_amounts[:, 5] *= 2
    without = whole.bars.copy()
    without[:, 5] = 0.0
    assert np.allclose(bars_of(replace(whole, bars=with_amounts))[:, 5], with_amounts[:, 5])
    assert np.allclose(bars_of(replace(whole, bars=without)), whole.bars, rtol=1e-6)
    without[:, 4] = 0.0
    assert (bars_of(replace(whole, bars=without))[:, 4:] == 0).all()


def test_without_bars_the_target_stands_for_all_prices() -> None:
    closes = replace(history(20, 1), bars=None)
    found = bars_of(closes)
    assert np.allclose(found[:, :4], closes.target[:, None], rtol=1e-6)
    assert (found[:, 4:] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_normalised_bars_have_mean_0_and_deviation_1_and_are_restored(seed: int) -> None:
    bars = bars_of(history(60, 1, seed=seed))
    scale = scale_of(bars)
    normalised = scale.normalise(bars)
    assert normalised.dtype == np.float32
    assert np.allclose(normalised[:, :4].mean(axis=0), 0, atol=1e-3)
    assert np.allclose(normalised[:, :4].std(axis=0), 1, atol=1e-2)
    is_inside = np.abs(normalised) < 5
    assert np.allclose(scale.restore(normalised)[is_inside], bars[is_inside], rtol=1e-4)


@pytest.mark.parametrize("close", [3e-12, 8e-6, 1e-4, 0.01, 0.099, 0.11, 0.5, 1.0, 1e4])
@pytest.mark.parametrize("seed", range(2))
def test_prices_of_any_size_move_alike_and_usual_ones_as_published(close: float, seed: int) -> None:
    bars = bars_of(history(60, 1, seed=seed))
    small = bars.copy()
    small[:, :4] *= close / bars[:, 3].mean(dtype=float)
    scale = scale_of(small)
    found, plain = scale.normalise(small), scale_of(bars).normalise(bars)
    if close < 1.0:  # the floor is at most 1e-4 of a price
        assert np.allclose(found, plain, atol=0.02)
    assert np.allclose(scale.restore(found)[:, :4], small[:, :4], rtol=1e-3)
    if close > 0.1:
        published = (small - scale.mean) / (scale.deviation + np.float32(1e-5))
        assert np.array_equal(found, np.clip(published, -5, 5))


def test_outliers_are_cut_and_constant_columns_are_0() -> None:
    bars = np.zeros((101, 6), dtype=np.float32)
    bars[-1, 0] = 1e6
    normalised = scale_of(bars).normalise(bars)
    assert normalised[-1, 0] == 5.0
    assert (normalised[:, 1:] == 0).all()
