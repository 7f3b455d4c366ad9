"""Where windows begin, what they never cross, and which gates refuse them."""

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger

from hrl_sarp.config.encoder_schema import WindowedConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.bars import Bars, read_bars
from hrl_sarp.encoders.windows.cut import (
    DROP_REASONS,
    SPLITS,
    Windows,
    WindowTable,
    bar_spacing,
    cut_stretches,
    cut_windows,
    fit_scaler,
    gather,
    inside_spans,
    number_stretches,
)
from hrl_sarp.errors import DataError
from tests.encoders.window_factories import (
    DAY_1,
    DAY_2,
    DAY_3,
    minutes_of,
    small_windows,
    three_days,
)

END_OF_INSTRUMENT, MISSING_BARS, END_OF_SPLIT, BETWEEN, AFTER = DROP_REASONS


def cut(times: np.ndarray, config: WindowedConfig, instrument: np.ndarray | None = None) -> Windows:
    if instrument is None:
        instrument = np.zeros(len(times), dtype=np.int32)
    return cut_windows(times, instrument, config)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(handler)


def test_windows_start_every_stride_of_a_session() -> None:
    windows = cut(three_days(20), small_windows())
    # 20 bars hold windows of 5 from rows 0, 2, ... 14; 16 and 18 would run past the night
    np.testing.assert_array_equal(windows.train, range(0, 16, 2))
    # the first 5 bars of a split are the gap: the stretch begins at row 25
    np.testing.assert_array_equal(windows.validation, [25, 27, 29, 31, 33, 35])
    np.testing.assert_array_equal(windows.test, [45, 47, 49, 51, 53, 55])
    assert windows.length == 5
    assert windows.counts() == {"train": 8, "validation": 6, "test": 6}


def test_dropped_windows_are_counted_by_reason(log: list[str]) -> None:
    times = np.concatenate([three_days(20), minutes_of(date(2018, 1, 4), 7)])
    windows = cut(times, small_windows())
    assert windows.dropped == {
        # rows 16 and 18; 37 and 39; 57 and 59 of the test run into the night
        MISSING_BARS: 6,
        BETWEEN: 2 * 3,  # 5 bars of gap: rows 0, 2, 4 of each
        AFTER: 4,  # 7 bars: rows 0, 2, 4, 6
    }
    assert log == [
        "windows of 5 bars: train 8, validation 6, test 6; dropped: 6 reach missing bars, "
        "6 lie between splits, 4 lie after the test"
    ]


def test_splits_that_touch_are_one_window_apart() -> None:
    # trading never stops: 3 days of 1,440 minutes
    times = minutes_of(DAY_1, 3 * 1440, first=0)
    windows = cut(times, small_windows(window_length=10, stride=5))
    # rows 0..1439 are day 1; the last window of training starts at 1430 and ends with the day
    assert windows.train[-1] == 1430
    assert windows.validation[0] == 1440 + 10
    assert windows.validation[-1] + 10 <= 2 * 1440
    assert windows.test[0] == 2 * 1440 + 10


def test_gap_is_counted_in_times_of_the_file_not_of_one_instrument() -> None:
    # instrument 1 trades in every minute of day 2, instrument 0 in every other
    sparse = np.concatenate(
        [minutes_of(DAY_1, 40), minutes_of(DAY_2, 40)[::2], minutes_of(DAY_3, 40)]
    )
    dense = three_days(40)
    instrument = np.repeat(np.array([0, 1], dtype=np.int32), [len(sparse), len(dense)])
    windows = cut(np.concatenate([sparse, dense]), small_windows(), instrument)
    # 5 minutes of day 2 are gap for both: 3 bars of the one, 5 of the other
    assert windows.validation[0] == 40 + 3
    assert windows.validation[windows.validation >= len(sparse)][0] == len(sparse) + 40 + 5


def test_short_stretch_without_trades_is_crossed_and_a_longer_one_is_not() -> None:
    minutes = np.arange(30)
    quiet = np.delete(minutes, [10, 11, 12])  # 3 missing
    outage = np.delete(minutes, [10, 11, 12, 13])  # 4 missing
    rest = np.concatenate([minutes_of(DAY_2, 20), minutes_of(DAY_3, 20)])
    crossed, kept = (
        cut(np.concatenate([minutes_of(DAY_1, 30)[rows], rest]), small_windows()).train
        for rows in (quiet, outage)
    )
    np.testing.assert_array_equal(crossed, range(0, 23, 2))
    # row 10 is the first after the outage
    np.testing.assert_array_equal(kept, [0, 2, 4, *range(10, 22, 2)])


def test_no_window_holds_two_contracts() -> None:
    # a front-month series rolls at row 13 without a pause
    times = three_days(30)
    instrument = np.zeros(len(times), dtype=np.int32)
    instrument[13:] = 1
    windows = cut(times, small_windows(), instrument)
    np.testing.assert_array_equal(windows.train, [0, 2, 4, 6, 8, *range(13, 26, 2)])
    assert windows.dropped[END_OF_INSTRUMENT] == 2 + 2  # rows 10 and 12; the end of the file


def test_last_bars_of_the_file_are_an_end_of_instrument() -> None:
    windows = cut(three_days(21), small_windows(window_length=5, stride=5))
    # the stretch of the test has 16 bars: rows 0, 5, 10 fit, row 15 does not
    assert windows.dropped[END_OF_INSTRUMENT] == 1


def test_split_that_ends_inside_a_session_is_a_border() -> None:
    night = minutes_of(DAY_1, 24 * 60, first=12 * 60)  # from noon to noon
    windows = cut(np.concatenate([night, minutes_of(DAY_3, 20)]), small_windows(stride=3))
    assert windows.train[-1] + 5 <= 12 * 60
    assert windows.dropped[END_OF_SPLIT] > 0


@pytest.mark.parametrize("seed", range(4))
def test_windows_are_all_that_the_rules_allow(seed: int) -> None:
    times, instrument = random_bars(np.random.default_rng(seed))
    config = small_windows(window_length=6, stride=4)
    windows = cut(times, config, instrument)
    expected, n_candidates = slow_windows(times, instrument, config)
    for name in SPLITS:
        assert getattr(windows, name).tolist() == expected[name], name
    assert sum(windows.counts().values()) + sum(windows.dropped.values()) == n_candidates


def random_bars(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Three instruments over four days, with missing bars of every length."""
    times, owners = [], []
    for owner in range(3):
        minutes = np.cumsum(rng.choice([1, 2, 4, 5, 90], 2_400, p=[0.8, 0.1, 0.05, 0.04, 0.01]))
        minutes = minutes[minutes < 4 * 1440] + rng.integers(0, 200)
        times.append(np.datetime64(DAY_1, "us") + minutes * np.timedelta64(1, "m"))
        owners.append(np.full(len(minutes), owner, dtype=np.int32))
    return np.concatenate(times), np.concatenate(owners)


def slow_windows(
    times: np.ndarray, instrument: np.ndarray, config: WindowedConfig
) -> tuple[dict[str, list[int]], int]:
    """Bar by bar: the windows of each split, and how many starts were considered."""
    splits = config.splits
    bounds = [np.datetime64(day) + 1 for day in (splits.train_end, splits.val_end, splits.test_end)]
    late = [sorted({t for t in times if a <= t < b}) for a, b in pairwise(bounds)]
    opens = [day[config.window_length] for day in late]

    def span_of(time: np.datetime64) -> str:
        if time < bounds[0]:
            return "train"
        if time < bounds[1]:
            return "validation" if time >= opens[0] else "gap 1"
        if time < bounds[2]:
            return "test" if time >= opens[1] else "gap 2"
        return "after"

    def is_border(row: int) -> bool:
        missing = (times[row] - times[row - 1]) / np.timedelta64(1, "m") - 1
        return (
            instrument[row] != instrument[row - 1]
            or missing > config.max_missing_bars
            or span_of(times[row]) != span_of(times[row - 1])
        )

    found: dict[str, list[int]] = {name: [] for name in SPLITS}
    n_candidates, begin = 0, 0
    borders = [row == 0 or is_border(row) for row in range(len(times))]
    for row in range(len(times)):
        begin = row if borders[row] else begin
        if (row - begin) % config.stride:
            continue
        n_candidates += 1
        last = row + config.window_length
        if last <= len(times) and not any(borders[row + 1 : last]) and span_of(times[row]) in found:
            found[span_of(times[row])].append(row)
    return found, n_candidates


def test_later_bars_move_no_earlier_window() -> None:
    times = three_days(40)
    whole, cut_off = cut(times, small_windows()), cut(times[:-17], small_windows())
    np.testing.assert_array_equal(whole.train, cut_off.train)
    np.testing.assert_array_equal(whole.validation, cut_off.validation)
    np.testing.assert_array_equal(whole.test[: len(cut_off.test)], cut_off.test)


def test_gate_of_too_few_windows_names_split_and_finding() -> None:
    with pytest.raises(DataError) as caught:
        cut(three_days(20), small_windows(min_windows=7))
    assert str(caught.value) == (
        "gate min_windows: expected at least 7 windows of 5 bars in each split, found "
        "validation 6, test 6 (dropped: 2 reach the end of an instrument, 4 reach missing bars, "
        "6 lie between splits) in 60 bars from 2018-01-01T10:00:00.000000 to "
        "2018-01-03T10:19:00.000000 with splits that end 2018-01-01, 2018-01-02, 2018-01-03; "
        "give more bars, or change splits, stride, max_missing_bars or the gate (windowed.yaml)"
    )


def test_gate_is_passed_by_exactly_enough_windows() -> None:
    assert cut(three_days(20), small_windows(min_windows=6)).counts()["test"] == 6


def test_gate_of_the_mask_names_what_was_found() -> None:
    with pytest.raises(DataError, match=r"gate max_mask_ratio: expected at most 0\.2 in train, "):
        cut(three_days(20), small_windows(mask_ratio=0.21))
    cut(three_days(20), small_windows(mask_ratio=0.2))


def test_gate_of_valid_bars_names_what_was_found() -> None:
    # 1 of 5 bars is warm-up: 0.8; 2 of 5: 0.6
    cut(three_days(20), small_windows())
    with pytest.raises(DataError) as caught:
        cut(three_days(20), small_windows(warmup_bars=2, mask_ratio=0.9))
    text = str(caught.value)
    assert "gate max_mask_ratio" in text  # both at once
    assert "gate min_valid_ratio: expected at least 0.8 in train, validation and test, " in text
    assert "found 0.6 (2 of 5 bars are warm-up)" in text


@pytest.mark.parametrize(("n_bars", "found"), [(375, "train 0, validation 0"), (1, None)])
def test_single_session_is_refused_in_one_line(n_bars: int, found: str | None) -> None:
    expected = f"found {found}" if found else "expected at least two bars of different times"
    with pytest.raises(DataError, match=expected):
        cut(minutes_of(DAY_3, n_bars), small_windows())


def test_spacing_is_the_most_common_step() -> None:
    times = np.array([0, 15, 30, 45, 100, 115, 121], dtype="datetime64[m]").astype("datetime64[us]")
    assert bar_spacing(times) == np.timedelta64(15, "m")


def test_gathered_windows_are_rows_of_the_table() -> None:
    table = torch.arange(40.0).reshape(20, 2)
    windows = gather(table, torch.tensor([3, 0, 15]), 5)
    assert windows.shape == (3, 5, 2)
    for window, first in zip(windows, (3, 0, 15), strict=True):
        assert torch.equal(window, table[first : first + 5])


def test_stretches_are_numbered_between_borders() -> None:
    ticks = np.array([0, 1, 2, 5, 6, 7])
    key = np.array([0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(number_stretches(ticks, (), 2, spacing=1), [0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(number_stretches(ticks, (), 1, spacing=1), [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(number_stretches(ticks, (key,), 1, 1), [0, 0, 0, 1, 1, 2])


def test_windows_of_a_stretch_begin_at_its_first_row() -> None:
    starts, is_whole = cut_stretches(np.array([0, 0, 0, 1, 1, 1, 1]), length=2, stride=2)
    assert starts.tolist() == [0, 2, 3, 5]
    assert is_whole.tolist() == [True, False, True, True]


def test_windows_across_a_bound_lie_in_no_span() -> None:
    begin, known = np.array([0, 1, 2, 3, 4]), np.array([1, 2, 3, 4, 5])
    first, second = inside_spans(begin, known, [(0, 3), (3, 6)])
    assert first.tolist() == [True, True, False, False, False]
    assert second.tolist() == [False, False, False, True, True]


# Real bars


def real(data_folder: Path, name: str, symbol: str | None = None) -> Bars:
    if not (data_folder / name).is_file():
        pytest.skip(f"the data folder has no {name}")
    return read_bars(data_folder / name, symbol)


def all_windows(bars: Bars, **changes: object) -> tuple[np.ndarray, int]:
    """First rows of the windows of all splits, gates open, and their length."""
    values = load_config().windowed.model_dump()
    values["gates"] = {"min_windows": 1, "max_mask_ratio": 1.0, "min_valid_ratio": 0.0}
    windows = cut(
        bars.timestamps, WindowedConfig.model_validate({**values, **changes}), bars.instrument
    )
    return np.concatenate([windows.train, windows.validation, windows.test]), windows.length


def halves(first: str, last: str) -> dict[str, str]:
    """Splits whose training span holds nearly all bars between two dates."""
    days = np.datetime64(first) + np.arange(0, 10_000)
    end = int(np.flatnonzero(days == np.datetime64(last))[0])
    train_end, val_end = days[int(0.6 * end)], days[int(0.8 * end)]
    return {"train_end": str(train_end), "val_end": str(val_end), "test_end": str(days[end])}


def assert_none_covers(bars: Bars, starts: np.ndarray, length: int, moment: str) -> None:
    """No window holds bars on both sides of a moment."""
    first, last = bars.timestamps[starts], bars.timestamps[starts + length - 1]
    when = np.datetime64(moment)
    assert not ((first < when) & (last > when)).any(), moment


@pytest.fixture(scope="module")
def bitcoin(data_folder: Path) -> Bars:
    return real(data_folder, "crypto_1m/BTCUSD_2016_2018.parquet")


def test_default_windows_of_bitcoin_pass_the_gates(bitcoin: Bars) -> None:
    windows = cut(bitcoin.timestamps, load_config().windowed, bitcoin.instrument)
    # also the counts that windowed.yaml names
    assert windows.counts() == {"train": 20_315, "validation": 2_526, "test": 2_479}
    assert bitcoin.timestamps[windows.train[-1] + 104] < np.datetime64("2018-07-01")
    assert bitcoin.timestamps[windows.validation[-1] + 104] < np.datetime64("2018-10-01")
    day_1 = np.searchsorted(bitcoin.timestamps, np.datetime64("2018-07-01"))
    assert windows.validation[0] == day_1 + 105


def test_no_window_of_bitcoin_crosses_an_outage(bitcoin: Bars) -> None:
    starts, length = all_windows(bitcoin)
    # two months without data, the hack, two short outages
    for moment in ("2016-05-01", "2016-08-06", "2018-06-05T14:00", "2018-10-04T09:00"):
        assert_none_covers(bitcoin, starts, length, moment)
    span = bitcoin.timestamps[starts[:, None] + np.arange(length)]
    assert np.diff(span, axis=1).max() <= np.timedelta64(31, "m")


def test_no_window_of_the_nifty_crosses_a_night_or_the_outage(data_folder: Path) -> None:
    bars = real(data_folder, "index_1m_india/NIFTY_2021.parquet")
    starts, length = all_windows(bars, splits=halves("2021-01-01", "2021-12-31"))
    first, last = bars.timestamps[starts], bars.timestamps[starts + length - 1]
    assert (first.astype("datetime64[D]") == last.astype("datetime64[D]")).all()
    assert_none_covers(bars, starts, length, "2021-02-24T12:00")
    # the evening after Diwali has 63 bars: too few for a window
    assert not (first.astype("datetime64[D]") == np.datetime64("2021-11-04")).any()
    # 378 bars a day hold windows from rows 0, 52, ... 260
    day = np.datetime64("2021-01-04")
    assert (first.astype("datetime64[D]") == day).sum() == 6


def test_windows_of_hours_cross_nights_but_no_weekend_and_no_symbol(data_folder: Path) -> None:
    bars = real(data_folder, "index_hourly/bars.parquet")
    splits = halves("2011-02-17", "2019-12-31")
    starts, length = all_windows(bars, window_length=64, splits=splits)
    assert (bars.instrument[starts] == bars.instrument[starts + length - 1]).all()
    days = bars.timestamps[starts[:, None] + np.arange(length)].astype("datetime64[D]")
    assert (days[:, 0] != days[:, -1]).all()  # 64 hours are more than two days
    assert np.diff(days.astype(int), axis=1).max() <= 2
    assert len(np.unique(bars.instrument[starts])) == 5


def test_quarters_of_stocks_need_the_nights(data_folder: Path) -> None:
    bars = real(data_folder, "index_hourly/stocks_15m.parquet")
    splits = halves("2017-01-27", "2019-12-31")
    with pytest.raises(DataError, match=r"dropped: .* reach missing bars"):
        all_windows(bars, window_length=64, splits=splits)
    starts, length = all_windows(bars, window_length=64, splits=splits, max_missing_bars=100)
    assert len(starts) > 100
    assert_none_covers(bars, starts, length, "2019-03-09")  # a Saturday


def test_no_window_crosses_a_contract_or_a_session_of_the_futures(data_folder: Path) -> None:
    bars = real(data_folder, "us_1m_samples/lean_minute_trades.parquet", "es")
    assert bars.instruments[:2] == ("es 201312", "es 201403")
    splits = {"train_end": "2013-10-31", "val_end": "2013-12-10", "test_end": "2020-12-31"}
    starts, length = all_windows(bars, splits=splits)
    rows = starts[:, None] + np.arange(length)
    assert (np.ptp(bars.instrument[rows], axis=1) == 0).all()
    assert len(np.unique(bars.instrument[starts])) > 1
    assert np.diff(bars.timestamps[rows], axis=1).max() <= np.timedelta64(31, "m")


def windows(train: list[int]) -> Windows:
    others = (np.array([6]), np.array([8]))
    return Windows(np.array(train), *others, length=2, dropped={})


def test_scaler_sees_training_bars_only_and_each_once() -> None:
    column = np.array([1, 2, 6, 99, 99, 99, 99, 99, 99, 99], np.float32)
    features = np.stack([column, np.full(10, 0.1, np.float32)], axis=1)
    scaler = fit_scaler(features, windows([0, 1]))  # bars 0 to 2; bar 1 is in both windows
    # mean 3, squared distances 4 + 1 + 9
    np.testing.assert_allclose(scaler.mean, [3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(scaler.std, [np.sqrt(14 / 3), 1], rtol=1e-6)


def test_table_is_in_standard_deviations_of_the_training_bars() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(5, 3, size=(10, 2)).astype(np.float32)
    cut = windows([0, 2, 4])
    scaler = fit_scaler(features, cut)
    table = WindowTable.place(scaler.apply(features), cut, torch.device("cpu"))
    trained = table.table[:6].double()
    assert torch.allclose(trained.mean(dim=0), torch.zeros(2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(trained.std(dim=0, correction=0), torch.ones(2, dtype=torch.float64))
    assert (table.n_features, table.length, table.test.tolist()) == (2, 2, [8])
    np.testing.assert_allclose(table.table.numpy() * scaler.std + scaler.mean, features, rtol=1e-5)
