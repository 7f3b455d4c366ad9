"""Windows never cross holes, symbols or spans; roots and the holdout are what users were told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger

from hrl_sarp.errors import DataError, UsageError
from hrl_sarp.forecasters.kronos.bars import CLIP, scale_of
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.tasks import KronosBars
from hrl_sarp.forecasters.training.windows import (
    SPANS,
    TEST,
    TRAIN,
    UNSEEN,
    VALIDATION,
    ForecastWindows,
    choose_holdout,
    cut_forecast_windows,
    join_roots,
    split_by_time,
)
from tests.forecasters.training.test_run import request

DAY = np.timedelta64(1, "D")
SHARES = (0.6, 0.2)


def make_series(symbol: str, n_rows: int, begin: int = 0, hole_at: int | None = None) -> Series:
    days = np.datetime64("2020-01-01", "us") + (begin + np.arange(n_rows)) * DAY
    if hole_at is not None:
        days[hole_at:] += 30 * DAY
    close = 100.0 + np.arange(n_rows)
    return Series(symbol, days, close, np.tile(close[:, None], 6))


def _cut(series: list[Series], context: int, horizon: int, holdout: int = 0) -> ForecastWindows:
    left_out = choose_holdout([one.symbol for one in series], holdout, 0)
    split = split_by_time(series, SHARES, left_out)
    return cut_forecast_windows(series, split, context, horizon, {})


@pytest.mark.parametrize("context", [3, 20])
@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize("seed", range(4))
def test_no_window_crosses_a_hole_a_symbol_or_a_span(seed: int, context: int, horizon: int) -> None:
    rng = np.random.default_rng(seed)
    series = [
        make_series(name, int(rng.integers(200, 400)), int(rng.integers(0, 60)), hole)
        for name, hole in zip("ABCDE", (None, 50, 120, None, 7), strict=True)
    ]
    cut = _cut(series, context, horizon, holdout=2)
    rows = {span: starts[:, None] + np.arange(cut.length) for span, starts in cut.first.items()}
    for span in SPANS:
        assert len(rows[span])
        assert (cut.symbol[rows[span]] == cut.symbol[rows[span][:, :1]]).all()
        assert (np.diff(cut.timestamps[rows[span]], axis=1) == DAY).all()
    targets = {span: cut.timestamps[rows[span][:, context:]] for span in SPANS}
    gap = horizon * DAY
    assert targets[TRAIN].max() + gap < targets[VALIDATION].min()
    assert targets[VALIDATION].max() + gap < targets[TEST].min()
    assert cut.timestamps[rows[TRAIN]].max() < targets[VALIDATION].min()
    symbols = {span: set(cut.symbol[starts]) for span, starts in cut.first.items()}
    assert symbols[UNSEEN].isdisjoint(symbols[TRAIN] | symbols[VALIDATION] | symbols[TEST])
    left_out = choose_holdout(cut.symbols, 2, 0)
    assert {cut.symbols[i] for i in symbols[UNSEEN]} <= left_out


def test_every_window_that_fits_is_there() -> None:
    cut = _cut([make_series("A", 100)], context=10, horizon=2)
    # training ends before row 60 and validation before row 80; the embargo is 2 rows
    assert cut.first[TRAIN].tolist() == list(range(60 - 12 + 1))
    assert cut.first[VALIDATION].tolist() == list(range(62 - 10, 80 - 12 + 1))
    assert cut.first[TEST].tolist() == list(range(82 - 10, 100 - 12 + 1))


def test_fewer_windows_are_spread_over_all_symbols_and_times() -> None:
    series = [make_series(name, 300) for name in "ABCD"]
    split = split_by_time(series, SHARES, frozenset())
    every = cut_forecast_windows(series, split, 10, 2, {})
    some = cut_forecast_windows(series, split, 10, 2, {TRAIN: 40})
    assert len(some.first[TRAIN]) == 40
    assert set(some.first[TRAIN]) < set(every.first[TRAIN])
    assert np.bincount(some.symbol[some.first[TRAIN]]).tolist() == [10] * 4
    assert some.first[TEST].tolist() == every.first[TEST].tolist()


def test_series_that_are_too_short_are_refused_with_their_length() -> None:
    with pytest.raises(
        DataError, match=r"windows of 62 bars.*found none in 1 series of .* 50 bars"
    ):
        _cut([make_series("A", 50)], context=60, horizon=2)


def test_a_later_validation_root_continues_the_symbols_and_is_divided_itself() -> None:
    train = [make_series("A", 100), make_series("B", 90)]
    later = [make_series("A", 50, begin=100), make_series("C", 50, begin=100)]
    joined, stops = join_roots(train, later, SHARES)
    by_name = {one.symbol: one for one in joined}
    assert {name: len(one) for name, one in by_name.items()} == {"A": 150, "B": 90, "C": 50}
    assert stops == (later[0].timestamps[0], later[0].timestamps[25])


def test_roots_of_other_symbols_over_the_same_time_are_split_by_time() -> None:
    joined, stops = join_roots([make_series("A", 100)], [make_series("B", 100)], SHARES)
    assert stops is None
    cut = _cut(joined, 10, 2)
    assert set(cut.symbol[cut.first[TRAIN]]) == {0, 1}


def test_a_symbol_twice_at_one_time_is_refused() -> None:
    with pytest.raises(UsageError, match=r"bars of A from 2020-01-01.* in both"):
        join_roots([make_series("A", 100)], [make_series("A", 60)], SHARES)


def test_the_holdout_is_the_same_whatever_symbols_are_beside_it() -> None:
    symbols = [f"S{i}" for i in range(60)]
    fifteen = choose_holdout(symbols, 15, seed=1)
    assert len(fifteen) == 15
    assert fifteen != choose_holdout(symbols, 15, seed=2)
    fewer = [symbol for symbol in symbols if symbol in fifteen or symbol < "S4"]
    assert choose_holdout(fewer, 15, seed=1) == fifteen
    assert choose_holdout(symbols[:29], 15, seed=1) == frozenset()
    assert choose_holdout(symbols, ["S3", "S7"], seed=1) == {"S3", "S7"}
    with pytest.raises(UsageError, match="found no XYZ"):
        choose_holdout(symbols, ["S3", "XYZ"], seed=1)
    with pytest.raises(UsageError, match="no other symbol to train on"):
        choose_holdout(["A"], ["A"], seed=1)


@pytest.mark.parametrize("factor", [1e-9, 1e-5, 1e-3, 1.0])
def test_kronos_learns_from_bars_as_it_is_asked_about_them(factor: float) -> None:
    series = [
        replace(one, bars=one.bars * np.array([*[factor] * 4, 1.0, factor]))
        for one in request("kronos", Path("unused")).source.series
    ]
    asked = request("kronos", Path("unused"))
    windows = replace(asked, source=replace(asked.source, series=series)).windows()
    rows = torch.from_numpy(windows.first["train"][:5])
    found = KronosBars(windows, torch.device("cpu"), CLIP).bars(rows).numpy()
    for bars, row in zip(found, rows.tolist(), strict=True):
        table = windows.table[row : row + windows.length].astype(np.float32)
        scale = scale_of(table[: windows.context])
        assert np.allclose(bars, scale.normalise(table), atol=1e-3)


def test_a_number_of_symbols_that_cannot_be_left_out_is_told() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING")
    assert choose_holdout(list("ABCDE"), 3, 0) == frozenset()
    assert len(choose_holdout(list("ABCDEF"), 3, 0)) == 3
    logger.remove(sink)
    assert len(lines) == 1
    assert "5 symbols are fewer than twice the 3" in lines[0]
