"""Expansions: hand-made price paths, a slow reference, and what the yardstick must not read."""

import numpy as np
import pytest

from hrl_sarp.config.encoder_schema import ExpansionConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.features.labels import NOWHERE, expansion_label

RULE = ExpansionConfig(
    min_move_atr=8.0,
    atr_bars=20,
    max_retrace=0.35,
    max_bars=20,
    context_bars=20,
    context_atr=2.0,
    block_days=1,
)
LENGTH = 105
# Bars of these paths reach 0.5 above and below their close, which is also their open: while closes
# move by at most 0.5 a bar, every true range is 1, and so is the ATR; far is 8.
HALF_RANGE = 0.5
LEVEL = 100.0


def path(*steps: tuple[int, float]) -> np.ndarray:
    """One window at LEVEL whose close moves by `step` on each of `n_bars` bars, part by part."""
    moves = np.concatenate([np.full(n_bars, step) for n_bars, step in steps])
    moves = np.append(moves, np.zeros(LENGTH - len(moves)))
    return from_close(LEVEL + np.cumsum(moves))


def from_close(close: np.ndarray) -> np.ndarray:
    bars = np.stack([close, close + HALF_RANGE, close - HALF_RANGE, close], axis=1)
    return bars[None]


def heavy_tailed(n_windows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.001 * rng.standard_t(3, (n_windows, LENGTH)), axis=1))
    opens = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    wick = 1 + 0.0005 * rng.random((2, n_windows, LENGTH))
    high, low = np.maximum(opens, close) * wick[0], np.minimum(opens, close) / wick[1]
    return np.stack([opens, high, low, close], axis=2)


def found(ohlc: np.ndarray, rule: ExpansionConfig = RULE) -> tuple[int, int, int, int, bool]:
    label = expansion_label(ohlc, rule)
    parts = (label.count, label.start, label.end, label.direction)
    return (*(int(part[0]) for part in parts), bool(label.is_retracement[0]))


NOTHING = (0, NOWHERE, NOWHERE, 0, False)


def test_four_bars_of_two_are_one_expansion_out_of_a_consolidation() -> None:
    # base: close 100 of bar 29; bars 30..33 reach 108, and 3 bars or a later base reach 6 only
    assert found(path((30, 0.0), (4, 2.0))) == (1, 30, 33, 1, False)


def test_a_fall_is_the_mirror_image_of_a_rise() -> None:
    assert found(path((30, 0.0), (4, -2.0))) == (1, 30, 33, -1, False)


def test_a_hair_short_of_far_is_no_expansion() -> None:
    assert found(path((30, 0.0), (4, 1.99))) == NOTHING


def test_expansion_ends_where_it_is_far_enough_though_the_move_goes_on() -> None:
    # after four bars of 2 the next bases have wider ranges behind them: ATR of bar 30 is 1.075
    assert found(path((30, 0.0), (4, 2.0), (2, 1.0)))[1:3] == (30, 33)


def test_move_of_more_than_the_longest_run_is_none() -> None:
    # 0.4 a bar: 20 bars give 8, 19 do not
    assert found(path((30, 0.0), (40, 0.4)))[0] > 0
    shorter = RULE.model_copy(update={"max_bars": 19})
    assert found(path((30, 0.0), (40, 0.4)), shorter) == NOTHING


@pytest.mark.parametrize(
    ("setback", "expected"),
    [
        (-3.0, (1, 30, 33, 1, False)),  # 100, 104, 101, 105, 109: falls 3 of 9, a third
        # 3.5 of 8.5 is 41 %; from 100.5 the rise is 8, but true ranges of 4.5 and 4 have raised
        # the ATR there to 26.5 / 20
        (-3.5, NOTHING),
    ],
)
def test_retrace_is_a_share_of_the_move(setback: float, expected: tuple[object, ...]) -> None:
    assert found(path((30, 0.0), (1, 4.0), (1, setback), (2, 4.0))) == expected


def test_expansion_after_a_move_against_it_is_a_retracement() -> None:
    # 103 is 3 ATR above the base, 10 bars before it
    assert found(path((10, 0.0), (10, 0.3), (10, -0.3), (4, 2.0))) == (1, 30, 33, 1, True)


def test_small_or_early_moves_against_it_leave_a_consolidation() -> None:
    # 1.5 ATR; then 3 ATR, but its top lies 25 bars before the base and the rest is flat
    assert found(path((10, 0.0), (10, 0.15), (10, -0.15), (4, 2.0)))[4] is False
    early = path((10, 0.3), (10, -0.3), (20, 0.0), (4, 2.0))
    assert found(early) == (1, 40, 43, 1, False)


def test_two_expansions_apart_are_told_as_several() -> None:
    count, start, end, *_ = found(path((30, 0.0), (4, 2.0), (30, 0.0), (3, 3.0)))
    assert (count, start, end) == (2, 64, 66)  # the shorter one is reported


def test_no_expansion_starts_before_its_look_back_is_complete() -> None:
    # 20 true ranges need bars 1 to 20, so bar 20 is the first base and bar 21 the first bar
    assert found(path((21, 0.0), (4, 2.0)))[:3] == (1, 21, 24)
    assert found(path((20, 0.0), (4, 2.0))) == NOTHING


def test_price_that_does_not_move_has_no_expansion() -> None:
    close = np.full(LENGTH, 100.0)
    close[50:] = 101.0  # an ATR of zero would make any move far
    still = np.repeat(close[None, :, None], 4, axis=2)
    assert found(still) == NOTHING


def test_window_shorter_than_its_look_back_has_no_expansion() -> None:
    assert found(path((30, 0.0), (4, 2.0))[:, 25:36]) == NOTHING


def test_yardstick_reads_no_bar_of_the_expansion() -> None:
    quiet = path((30, 0.0), (4, 2.0))
    wide = quiet.copy()
    wide[0, 30:, 1] += 50.0
    wide[0, 30:, 2] -= 50.0
    assert found(wide) == found(quiet)


def test_yardstick_reads_the_bars_before_the_expansion() -> None:
    wide = path((30, 0.0), (4, 2.0))
    wide[0, 15, 1] += 0.1 * 20  # the ATR of every base up to bar 34 becomes 1.1
    assert found(wide) == NOTHING


def test_label_does_not_depend_on_the_unit_of_prices() -> None:
    ohlc = heavy_tailed(200, seed=1)
    first, second = (expansion_label(scale * ohlc, RULE) for scale in (1.0, 1024.0))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, vars(second)[name], err_msg=name)


def test_labels_equal_a_slow_reference() -> None:
    ohlc = heavy_tailed(120, seed=2)[:, :60]
    rule = RULE.model_copy(update={"min_move_atr": 6.0, "max_bars": 8})
    label = expansion_label(ohlc, rule)
    expected = [slow_label(window, rule) for window in ohlc]
    columns = (label.count, label.start, label.end, label.direction, label.is_retracement)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    counts = np.bincount(label.count, minlength=3)
    assert counts.min() >= 10, counts  # every case has been compared
    chosen = label.count == 1
    assert 0 < label.is_retracement[chosen].sum() < chosen.sum()


def slow_label(ohlc: np.ndarray, rule: ExpansionConfig) -> tuple[int, int, int, int, bool]:
    """The rule as its docstring says it, run by run."""
    _, high, low, close = ohlc.T
    true_range = [
        max(high[t], close[t - 1]) - min(low[t], close[t - 1]) for t in range(1, len(close))
    ]
    atr = {t: np.mean(true_range[t - rule.atr_bars : t]) for t in range(rule.atr_bars, len(close))}
    first = max(rule.context_bars, rule.atr_bars + 1)
    runs = [
        (start, end, sign)
        for start in range(first, len(close))
        for end in range(start, min(start + rule.max_bars, len(close)))
        for sign in (1, -1)
        if qualifies(sign * close[start - 1 : end + 1], atr[start - 1], rule)
    ]
    spans = {(start, end) for start, end, _ in runs}
    runs = [
        run
        for run in runs
        if not any(run[0] <= s and e <= run[1] and (s, e) != run[:2] for s, e in spans)
    ]
    if not runs:
        return NOTHING
    start, end, sign = min(runs, key=lambda run: (run[1] - run[0], run[1]))
    apart = any(other_end < start or other > end for other, other_end, _ in runs)
    base = start - 1
    past = sign * close[base - rule.context_bars + 1 : base + 1]
    is_retracement = bool(past.max() - past[-1] >= rule.context_atr * atr[base])
    return 2 if apart else 1, start, end, sign, is_retracement


def qualifies(rising: np.ndarray, atr: float, rule: ExpansionConfig) -> bool:
    move = rising[-1] - rising[0]
    falls = [rising[i] - rising[j] for i in range(len(rising)) for j in range(i, len(rising))]
    return move >= rule.min_move_atr * atr and max(falls) <= rule.max_retrace * move


def test_configured_rule_is_the_one_tested_here() -> None:
    assert load_config().encoders.expansion == RULE
