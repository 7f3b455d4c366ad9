"""Windows of candles: which there are, which label each has, how they are split and scaled."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.data.bars import Bars, read_bars
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.errors import DataError
from hrl_sarp.features.candles import COLUMNS, LEVELS
from hrl_sarp.price_action.buys.windows import (
    SPANS,
    CandleWindows,
    cut_candle_windows,
    fit_scaling,
    relate_to_last_close,
)
from tests.price_action.buys.candle_factories import HOUR, noise_bars, small_config

LENGTH = 16
WARM_UP = 199
"""Candles without a 200-candle average."""


def cut(bars: Bars, **task: object) -> CandleWindows:
    return cut_candle_windows(bars, small_config(**task).encoders)


def with_gap(bars: Bars, row: int, n_missing: int) -> Bars:
    """Return bars of which `n_missing` are missing before this row."""
    later = np.where(np.arange(len(bars)) >= row, n_missing, 0) * HOUR
    return dataclasses.replace(bars, timestamps=bars.timestamps + later)


def all_first_rows(windows: CandleWindows) -> np.ndarray:
    return np.sort(np.concatenate(list(windows.first.values())))


def test_every_candle_with_known_features_and_label_begins_a_window() -> None:
    windows = cut(noise_bars(1000))
    first, dropped = all_first_rows(windows), windows.dropped
    assert first[0] == WARM_UP
    # the last window's label looks 4 candles past its last candle
    assert first[-1] + LENGTH - 1 + 4 == 999
    assert dropped["indicators warming up"] == WARM_UP
    assert dropped["label ends across a border"] == 4
    assert dropped["across a border"] == LENGTH - 1  # the end of the file is one
    assert len(first) + sum(dropped.values()) == 1000


def test_window_predicts_the_label_of_its_last_candle() -> None:
    bars = noise_bars(1000)
    windows = cut(bars)
    atr = windows.table[:, COLUMNS.index("atr_14")]
    for span in SPANS:
        for row, label in zip(windows.first[span], windows.labels(span), strict=True):
            last = row + LENGTH - 1
            assert label == int(bars.close[last + 4] - bars.close[last] > 1.5 * atr[last])


def test_fall_is_the_mirrored_rise() -> None:
    bars = noise_bars(1000)
    windows = cut(bars)
    last = windows.targets("test")
    drop = bars.close[last] - bars.close[last + 4]
    atr = windows.table[last, COLUMNS.index("atr_14")]
    np.testing.assert_array_equal(windows.fall[last], (drop > 1.5 * atr).astype(np.int64))


def test_target_offset_moves_the_label_on() -> None:
    bars = noise_bars(1000)
    here, later = cut(bars), cut(bars, target_offset=3)
    assert later.to_target == here.to_target + 3
    row = later.first["train"][5]
    assert later.labels("train")[5] == here.label[row + LENGTH - 1 + 3]


def test_training_labels_end_before_validation_begins_and_those_before_the_test() -> None:
    one = noise_bars(1000)
    two = noise_bars(900, seed=1)
    bars = dataclasses.replace(  # two instruments at the same time
        one,
        **{
            name: np.concatenate([getattr(one, name), getattr(two, name)])
            for name in ("timestamps", "open", "high", "low", "close", "volume")
        },
        instrument=np.repeat(np.array([0, 1], dtype=np.int32), [1000, 900]),
        instruments=("ONE", "TWO"),
    )
    windows = cut(bars)
    times = bars.timestamps
    for before, after in (("train", "validation"), ("validation", "test")):
        known = times[windows.first[before] + windows.to_target + 4]
        begin = times[windows.first[after]]
        assert known.max() < begin.min()
    assert not set(windows.first["train"]) & set(windows.first["validation"])
    # nothing reaches from one instrument into the other
    rows = all_first_rows(windows)
    same = bars.instrument[rows] == bars.instrument[rows + windows.to_target + 4]
    assert same.all()


def test_spans_follow_the_shares() -> None:
    sizes = {span: len(rows) for span, rows in cut(noise_bars(3000)).first.items()}
    total = sum(sizes.values())
    assert sizes["train"] / total == pytest.approx(0.8, abs=0.02)
    assert sizes["validation"] / total == pytest.approx(0.1, abs=0.02)


def test_stride_thins_training_alone() -> None:
    bars = noise_bars(1500)
    whole, thin = cut(bars), cut(bars, train_stride=4)
    kept = whole.first["train"][whole.first["train"] % 4 == 0]
    np.testing.assert_array_equal(thin.first["train"], kept)
    for span in ("validation", "test"):
        np.testing.assert_array_equal(thin.first[span], whole.first[span])


def test_no_label_crosses_a_night_and_windows_do() -> None:
    bars = with_gap(noise_bars(1000), 600, 8)
    windows = cut(bars)
    rows = all_first_rows(windows)
    last = rows + windows.to_target
    assert not ((last < 600) & (last + 4 >= 600)).any()
    assert ((rows < 600) & (last >= 600)).any()
    assert windows.dropped["label ends across a border"] == 4 + 4


def test_no_window_crosses_an_outage() -> None:
    bars = with_gap(noise_bars(1000), 600, 21)
    windows = cut(bars, max_missing_in_window=20)
    rows = all_first_rows(windows)
    assert not ((rows < 600) & (rows + windows.to_target >= 600)).any()
    assert windows.dropped["across a border"] == 2 * (LENGTH - 1)
    assert cut(bars, max_missing_in_window=21).dropped["across a border"] == LENGTH - 1


def test_too_few_windows_are_refused_with_their_number() -> None:
    with pytest.raises(DataError, match=r"300 candles: expected at least 40 windows .*found \d+"):
        cut(noise_bars(300))


def test_file_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match="found 0"):
        cut(noise_bars(10))


def test_label_that_never_occurs_is_refused() -> None:
    with pytest.raises(DataError, match="found 0 of"):
        cut(noise_bars(1000), threshold_atr=1e6)


def test_market_that_stands_still_is_refused_without_nan() -> None:
    bars = noise_bars(1000)
    flat = dict.fromkeys(("open", "high", "low", "close"), np.full(1000, 7.0))
    with pytest.raises(DataError, match="found 0 of"):
        cut(dataclasses.replace(bars, **flat))


def gathered(bars: Bars, rows: list[int]) -> torch.Tensor:
    table = torch.from_numpy(cut(bars).table.astype(np.float32))
    return gather(table, torch.tensor(rows), LENGTH)


def test_relative_windows_do_not_feel_the_unit_of_the_price() -> None:
    bars = noise_bars(1000)
    dearer = dataclasses.replace(
        bars, **{name: 1000 * getattr(bars, name) for name in ("open", "high", "low", "close")}
    )
    rows = [200, 500, 900]
    torch.testing.assert_close(
        relate_to_last_close(gathered(bars, rows)), relate_to_last_close(gathered(dearer, rows))
    )


def test_relative_windows_by_hand() -> None:
    bars = noise_bars(1000)
    raw, row = gathered(bars, [500]), 500
    found = relate_to_last_close(raw)[0].numpy()
    last = bars.close[row + LENGTH - 1]
    assert found[-1, COLUMNS.index("close")] == pytest.approx(1.0)
    assert found[3, COLUMNS.index("high")] == pytest.approx(bars.high[row + 3] / last)
    mean_volume = bars.volume[row : row + LENGTH].mean()
    log_volume = np.log1p(bars.volume[row + 3] / mean_volume)
    assert found[3, COLUMNS.index("volume")] == pytest.approx(log_volume, rel=1e-5)
    untouched = [i for i, n in enumerate(COLUMNS) if n not in (*LEVELS, "atr_14", "volume")]
    np.testing.assert_array_equal(found[:, untouched], raw[0].numpy()[:, untouched])


def test_windows_without_volume_have_none() -> None:
    found = relate_to_last_close(
        gathered(dataclasses.replace(noise_bars(1000), volume=None), [300])
    )
    assert not found[:, :, COLUMNS.index("volume")].any()


@pytest.mark.parametrize("levels", ["relative", "raw"])
def test_scaling_makes_training_windows_standard_normal_in_moments(levels: str) -> None:
    windows = cut(noise_bars(1500))
    table = torch.from_numpy(windows.table.astype(np.float32))
    train = torch.from_numpy(windows.first["train"])
    scaling = fit_scaling(table, train, LENGTH, levels)
    scaled = scaling.apply(gather(table, train, LENGTH)).double()
    torch.testing.assert_close(
        scaled.mean((0, 1)), torch.zeros(14, dtype=torch.float64), rtol=0, atol=2e-3
    )
    torch.testing.assert_close(
        scaled.std((0, 1)), torch.ones(14, dtype=torch.float64), rtol=0, atol=2e-3
    )


def test_raw_scaling_reads_training_windows_only() -> None:
    windows = cut(noise_bars(1500), levels="raw")
    changed = windows.table.copy()
    changed[windows.first["train"].max() + LENGTH :] *= 5.0
    train = torch.from_numpy(windows.first["train"])
    one, other = (
        fit_scaling(torch.from_numpy(table.astype(np.float32)), train, LENGTH, "raw")
        for table in (windows.table, changed)
    )
    np.testing.assert_array_equal(one.scaler.mean, other.scaler.mean)
    np.testing.assert_array_equal(one.scaler.std, other.scaler.std)


def test_column_that_never_moves_is_scaled_to_zero() -> None:
    bars = dataclasses.replace(noise_bars(1000), volume=None)
    windows = cut(bars)
    table = torch.from_numpy(windows.table.astype(np.float32))
    train = torch.from_numpy(windows.first["train"])
    scaling = fit_scaling(table, train, LENGTH, "relative")
    assert scaling.scaler.std[COLUMNS.index("volume")] == 1.0
    scaled = scaling.apply(gather(table, train[:5], LENGTH))
    assert not scaled[:, :, COLUMNS.index("volume")].any()


def test_hourly_index_has_no_label_across_its_daily_break(data_folder: Path) -> None:
    path = data_folder / "index_hourly" / "bars.parquet"
    if not path.is_file():
        pytest.skip("the data folder has no index_hourly")
    bars = read_bars(path, "USATECH")
    windows = cut(bars)
    rows = all_first_rows(windows)
    last = rows + windows.to_target
    assert len(rows) > 20_000
    assert (bars.timestamps[last + 4] - bars.timestamps[last] == 4 * HOUR).all()
    assert 0.05 < windows.labels("train").mean() < 0.25


def test_indicators_and_labels_of_the_file_replace_the_computed_ones() -> None:
    bars = noise_bars(1000)
    rng = np.random.default_rng(7)
    target = rng.integers(0, 2, 1000).astype(float)
    target[500] = np.nan
    own = {"rsi_14": np.full(1000, 12.5), "target": target}
    found, computed = cut(dataclasses.replace(bars, own=own)), cut(bars)
    assert (found.table[:, COLUMNS.index("rsi_14")] == 12.5).all()
    others = [COLUMNS.index(name) for name in COLUMNS if name != "rsi_14"]
    np.testing.assert_array_equal(found.table[:, others], computed.table[:, others])
    for span in SPANS:
        np.testing.assert_array_equal(found.labels(span), target[found.targets(span)])
    assert 500 not in np.concatenate([found.targets(span) for span in SPANS])
    np.testing.assert_array_equal(found.fall, computed.fall)


def test_labels_that_are_no_yes_or_no_are_refused_by_file_and_time() -> None:
    target = np.zeros(1000)
    target[3] = 2.0
    bars = dataclasses.replace(noise_bars(1000), own={"target": target}, file="my.parquet")
    with pytest.raises(DataError, match=r"my\.parquet: column target: .*found 2 in 1 bars.*T03:00"):
        cut(bars)
