"""How far the close moved, in ATR of the bar where the move began: by hand and against a loop."""

import numpy as np
import pytest

from hrl_sarp.config.encoder_schema import RelativityConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.features.relativity import (
    CANDLE_COLUMNS,
    PRETRAINING_COLUMNS,
    described,
    pretraining_columns,
    pretraining_table,
    relativity_features,
    table_columns,
)
from tests.features.candle_factories import SHAPES, make_bars, part, relativity_config, scaled, walk
from tests.features.test_relativity_swings import slow_atr

LENGTH = 105
SPANS = [4, 8, 16]


def with_moves(spans: list[int] | None = None, atr_bars: int = 20) -> RelativityConfig:
    changes = {"displacement_bars": spans or SPANS, "displacement_atr_bars": atr_bars}
    return relativity_config().model_copy(update=changes)


def moves(bars: Bars, config: RelativityConfig) -> np.ndarray:
    return relativity_features(bars, config, LENGTH)[:, len(CANDLE_COLUMNS) :]


def slow_moves(bars: Bars, config: RelativityConfig) -> np.ndarray:
    atr = slow_atr(bars, config.displacement_atr_bars)
    table = np.zeros((len(bars), len(config.displacement_bars)))
    for t in range(len(bars)):
        for column, k in enumerate(config.displacement_bars):
            if t >= k and bars.instrument[t] == bars.instrument[t - k]:
                unit = max(atr[t - k], config.ohlc_eps * bars.close[t - k])
                move = (bars.close[t] - bars.close[t - k]) / unit
                table[t, column] = min(max(move, -10.0), 10.0)
    return table


def test_move_by_hand() -> None:
    # ranges of 2 and closes that rise by 1: the true ranges are 2, the rise over four bars is 4
    close = 100.0 + np.arange(8)
    bars = make_bars(close, close + 1, close - 1, close, [8])
    np.testing.assert_allclose(moves(bars, with_moves([4]))[:, 0], [0, 0, 0, 0, 2, 2, 2, 2])


def test_range_is_that_before_the_move() -> None:
    # quiet bars of range 1, then a jump of 5 within a range of 6: the jump does not shrink itself
    close = np.array([100.0] * 6 + [105.0])
    high, low = close + 0.5, close - 0.5
    low[6] = 99.5
    bars = make_bars(close, high, low, close, [7])
    assert moves(bars, with_moves([4], atr_bars=3))[6, 0] == pytest.approx(5.0)


def test_far_moves_are_clipped() -> None:
    close = np.array([100.0] * 5 + [200.0, 200.0, 5.0])
    bars = make_bars(close, close + 0.5, close - 0.5, close, [8])
    np.testing.assert_array_equal(moves(bars, with_moves([2]))[5:, 0], [10, 10, -10])


@pytest.mark.parametrize("shape", SHAPES)
def test_moves_equal_a_loop_over_the_bars_of_several_instruments(shape: str) -> None:
    bars = walk(shape, 500, seed=3)
    bars = make_bars(bars.open, bars.high, bars.low, bars.close, [300, 1, 10, 189])
    config = with_moves([1, 4, 16])
    np.testing.assert_allclose(moves(bars, config), slow_moves(bars, config), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("t", [1, 4, 20, 333, 998])
def test_cutting_off_the_future_changes_no_move(t: int) -> None:
    bars = walk("gaps", 1_000, seed=19)
    cut = moves(part(bars, slice(t)), with_moves())
    np.testing.assert_array_equal(cut, moves(bars, with_moves())[:t])


@pytest.mark.parametrize("factor", [1 / 19_900, 0.01, 3.7, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_scale_of_the_prices_changes_no_move(shape: str, factor: float) -> None:
    bars = walk(shape, 2_000, seed=17)
    found = moves(scaled(bars, factor), with_moves())
    np.testing.assert_allclose(found, moves(bars, with_moves()), rtol=0, atol=1e-6)


def test_prices_that_do_not_move_give_zeros_and_longer_spans_than_bars_too() -> None:
    close = np.full(30, 50.0)
    still = make_bars(close, close, close, close, [30])
    np.testing.assert_array_equal(moves(still, with_moves()), 0)
    assert (moves(walk("coin", 10, seed=1), with_moves([10, 40])) == 0).all()


def test_moves_only_follow_the_other_columns() -> None:
    bars = walk("10 trades", 400, seed=5)
    plain = relativity_features(bars, relativity_config(), LENGTH)
    wide = relativity_features(bars, with_moves(), LENGTH)
    np.testing.assert_array_equal(wide[:, :12], plain)
    assert wide.dtype == np.float32
    assert table_columns(with_moves())[12:] == tuple(f"displacement_{k}" for k in SPANS)


def test_pretraining_reads_eleven_columns_and_the_moves() -> None:
    bars, config = walk("10 trades", 400, seed=5), with_moves()
    assert pretraining_columns(relativity_config()) == PRETRAINING_COLUMNS
    names = pretraining_columns(config)
    assert names == (*PRETRAINING_COLUMNS, *(f"displacement_{k}" for k in SPANS))
    table = relativity_features(bars, config, LENGTH)
    found = pretraining_table(table, config)
    for place, name in enumerate(names):
        np.testing.assert_array_equal(found[:, place], table[:, table_columns(config).index(name)])


def test_files_without_moves_are_described_as_before_there_were_any() -> None:
    assert not {name for name in described(relativity_config()) if "displacement" in name}
    assert described(with_moves())["displacement_bars"] == SPANS
    other = relativity_config().model_copy(update={"displacement_atr_bars": 7})
    assert described(other) == described(relativity_config())
