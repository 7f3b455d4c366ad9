"""Swings against the definition in plain Python, made legs, and random walks."""

from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.encoder_schema import RelativityConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.features.relativity import TIE, Swings, average_true_range, find_swings
from tests.features.candle_factories import (
    SHAPES,
    closes,
    make_bars,
    part,
    real_bars,
    relativity_config,
    walk,
)

UP, DOWN, NONE = 1, -1, 0


def atr_of(bars: Bars, period: int = 10) -> np.ndarray:
    return average_true_range(bars.high, bars.low, bars.close, bars.instrument, period)


def swings_of(bars: Bars, config: RelativityConfig | None = None) -> Swings:
    config = config or relativity_config()
    return find_swings(bars.high, bars.low, bars.close, bars.instrument, config)


def slow_atr(bars: Bars, period: int) -> list[float]:
    ranges: list[list[float]] = [[] for _ in bars.instruments]
    result = []
    for t, owner in enumerate(bars.instrument):
        reach = [bars.high[t] - bars.low[t]]
        if ranges[owner]:
            before = bars.close[t - 1]
            reach += [abs(bars.high[t] - before), abs(bars.low[t] - before)]
        ranges[owner].append(max(reach))
        last = ranges[owner][-period:]
        result.append(sum(last) / len(last))
    return result


def slow_swings(bars: Bars, config: RelativityConfig) -> list[tuple[int, int, int]]:
    """Direction, high_row and low_row of each bar; a leg's extreme is searched anew each time."""
    atr = slow_atr(bars, config.atr_period)
    result = []
    leg, last_high, last_low, begin, turn = NONE, -1, -1, 0, 0
    for t in range(len(bars)):
        if t and bars.instrument[t] != bars.instrument[t - 1]:
            leg, last_high, last_low, begin, turn = NONE, -1, -1, t, t
        rows = range(begin, t + 1)  # since the last swing; it began the leg
        top = min(rows, key=lambda row: (-bars.high[row], row))
        bottom = min(rows, key=lambda row: (bars.low[row], row))
        fall, rise = bars.high[top] - bars.close[t], bars.close[t] - bars.low[bottom]
        needed = (atr[t], bars.close[t], config)
        if leg != DOWN and top < t and _is_enough(fall, t - max(top, turn), *needed):
            leg, last_high, begin, turn = DOWN, top, top + 1, t
        elif leg != UP and bottom < t and _is_enough(rise, t - max(bottom, turn), *needed):
            leg, last_low, begin, turn = UP, bottom, bottom + 1, t
        result.append((leg, last_high, last_low))
    return result


def _is_enough(
    retrace: float, age: int, atr: float, close: float, config: RelativityConfig
) -> bool:
    unit = max(atr, config.ohlc_eps * close)
    is_old = age >= config.zigzag_hybrid_confirm_lookback
    needed = config.zigzag_hybrid_min_retrace_atr if is_old else config.zigzag_k
    return retrace + TIE * close >= min(needed, config.zigzag_k) * unit


def test_true_range_reaches_from_the_close_before() -> None:
    # ranges 2, then from 101 up to 105: 4, then from 104 down to 98: 6
    bars = make_bars([100, 103, 100], [102, 105, 101], [100, 103, 98], [101, 104, 99], [3])
    np.testing.assert_array_equal(atr_of(bars), [2, 3, 4])
    np.testing.assert_array_equal(atr_of(bars, period=2), [2, 3, 5])


def test_true_range_restarts_at_an_instrument() -> None:
    bars = make_bars([1, 50, 50], [2, 51, 52], [1, 50, 50], [2, 50, 51], [1, 2])
    np.testing.assert_array_equal(atr_of(bars), [1, 1, 1.5])


def test_true_range_forgets_what_left_its_window() -> None:
    bars = walk("fat", 400, seed=1)
    shifted = part(bars, slice(100, None))
    # the first of ten true ranges reaches back to the close before it
    np.testing.assert_array_equal(atr_of(bars)[110:], atr_of(shifted)[10:])


def test_leg_turns_on_the_later_bar_that_falls_far_enough() -> None:
    swings = swings_of(closes(10, 12, 14, 16, 15, 14, 15, 16))
    # ATR of the true ranges 0, 2, 2, 2, 1, 1, 1, 1: at bar 4 7/5, at bar 5 8/6, at bar 7 10/8.
    # 15 lies 1 below 16, less than 1.2 x 7/5; 14 lies 2 below, more than 1.2 x 8/6; 15 lies 1 above
    # 14, less than 1.2 x 9/7; 16 lies 2 above, more than 1.2 x 10/8
    np.testing.assert_array_equal(swings.direction, [0, 1, 1, 1, 1, -1, -1, 1])
    np.testing.assert_array_equal(swings.high_row, [-1, -1, -1, -1, -1, 3, 3, 3])
    np.testing.assert_array_equal(swings.low_row, [-1, 0, 0, 0, 0, 0, 0, 5])


def test_bar_that_makes_the_extreme_never_confirms_it() -> None:
    # bar 2 reaches 200 and closes 90 below it, many ATR: in which order is unknown
    opens, high = [100, 101, 110, 110, 111], [101, 110, 200, 112, 113]
    low, close = [99, 100, 108, 108, 109], [101, 110, 110, 111, 112]
    swings = swings_of(make_bars(opens, high, low, close, [5]))
    np.testing.assert_array_equal(swings.direction[:4], [0, 1, 1, -1])
    assert swings.high_row[3] == 2


def test_old_extreme_is_confirmed_by_the_smaller_retrace() -> None:
    # true ranges of 4; the high of 108 at bar 2 is followed by closes 3 below it: 0.75 ATR
    n_bars = 14
    high, low, close = np.full(n_bars, 107.0), np.full(n_bars, 103.0), np.full(n_bars, 105.0)
    high[:3], low[:3], close[:3] = [100, 104, 108], [96, 100, 104], [100, 104, 107]
    swings = swings_of(make_bars(close, high, low, close, [n_bars]))
    # 0.75 lies between 0.5 and 1.2: the high must have stood for 5 bars, at bar 7. The low after it
    # (bar 3) is then 4 bars old and 0.5 ATR below, but the leg must be known for 5 bars: bar 12
    np.testing.assert_array_equal(swings.direction, [0, *[1] * 6, *[-1] * 5, 1, 1])
    assert (swings.high_row[7], swings.low_row[12]) == (2, 3)


def test_first_of_equal_highs_is_the_swing() -> None:
    assert swings_of(closes(10, 11, 12, 12, 12, 10)).high_row[-1] == 2


def test_new_leg_starts_from_the_lowest_low_since_the_swing() -> None:
    # bar 2 is the high; bar 3 falls deepest but closes near; bar 4 closes far enough below
    opens, high = [100, 104, 108, 109, 107], [104, 108, 112, 109, 107]
    low, close = [99, 103, 107, 95, 96], [104, 108, 111, 109, 97]
    opens, high = [*opens, 97, 99], [*high, 101, 106]
    low, close = [*low, 97, 99], [*close, 99, 106]
    swings = swings_of(make_bars(opens, high, low, close, [7]))
    assert swings.direction[4] == DOWN
    assert (swings.direction[-1], swings.low_row[-1]) == (UP, 3)


@pytest.mark.parametrize("level", [1e-3, 1.0, 1e5])
def test_price_that_does_not_move_has_no_swings(level: float) -> None:
    swings = swings_of(closes(*[level] * 50))
    assert (swings.direction == NONE).all()
    assert (swings.high_row == -1).all()


def test_swings_restart_at_an_instrument() -> None:
    first, second = walk("10 trades", 300, seed=1), walk("wicks", 200, seed=2)
    both = make_bars(
        *(
            np.append(getattr(first, n), getattr(second, n))
            for n in ("open", "high", "low", "close")
        ),
        lengths=[300, 200],
    )
    joined, alone = swings_of(both), swings_of(second)
    np.testing.assert_array_equal(joined.direction[300:], alone.direction)
    expected = np.where(alone.high_row < 0, -1, alone.high_row + 300)
    np.testing.assert_array_equal(joined.high_row[300:], expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_leg_flips_on_few_bars_of_a_random_walk(shape: str, seed: int) -> None:
    direction = swings_of(walk(shape, 20_000, seed)).direction
    flips = np.mean(direction[1:] != direction[:-1])
    # and it does flip: a detector that never confirms would be still
    assert 0.10 < flips < 0.25


@pytest.mark.parametrize("shape", SHAPES)
def test_swings_equal_the_definition_on_walks(shape: str) -> None:
    bars = walk(shape, 800, seed=5)
    bars = make_bars(bars.open, bars.high, bars.low, bars.close, [500, 1, 299])
    assert_as_defined(bars)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("crypto_1m/BTCUSD_2016_2018.parquet", 700_000),
        ("index_1m_india/NIFTY_2021.parquet", 13_000),
    ],
)
def test_swings_equal_the_definition_on_real_bars(data_folder: Path, name: str, first: int) -> None:
    assert_as_defined(real_bars(data_folder, name, first, n_bars=1500))


def assert_as_defined(bars: Bars) -> None:
    config = relativity_config()
    np.testing.assert_array_equal(
        atr_of(bars, config.atr_period), slow_atr(bars, config.atr_period)
    )
    found = swings_of(bars)
    expected = np.array(slow_swings(bars, config))
    np.testing.assert_array_equal(
        np.stack([found.direction, found.high_row, found.low_row], axis=1), expected
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_every_swing_is_older_than_the_bar_that_first_reports_it(shape: str) -> None:
    swings = swings_of(walk(shape, 20_000, seed=9))
    for rows in (swings.high_row, swings.low_row):
        fresh = np.flatnonzero(rows[1:] != rows[:-1]) + 1
        assert (rows[fresh] < fresh).all()
        assert (np.diff(rows[fresh]) > 0).all()
