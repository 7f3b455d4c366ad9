"""Files of labelled windows: read as they are, refused by the window that is wrong."""

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.encoder_schema import ExpansionConfig, WindowedConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.bars import Bars
from hrl_sarp.errors import DataError, MissingArtifactError
from hrl_sarp.features.labels import expansion_label
from hrl_sarp.features.relativity import (
    CANDLE_COLUMNS,
    POSITION,
    PRETRAINING_COLUMNS,
    relativity_features,
)
from hrl_sarp.price_action.expansions.windows import (
    LabelledWindows,
    between,
    draw,
    input_columns,
    label_bars,
    overlap_groups,
    read_labelled,
    split_by_group,
    window_features,
)
from tests.price_action.expansions.labelled_factories import (
    LENGTH,
    as_frame,
    labelled,
    walks,
    write,
)

CONFIG = load_config().windowed.feature_config


@pytest.fixture(scope="module")
def windows() -> LabelledWindows:
    return labelled(8)


def test_file_is_read_as_it_was_written(windows: LabelledWindows, tmp_path: Path) -> None:
    found = read_labelled(write(tmp_path / "w.parquet", windows), LENGTH)
    assert found.window_id == windows.window_id
    for name in ("ohlc", "label", "start", "end", "group"):
        np.testing.assert_array_equal(getattr(found, name), getattr(windows, name), err_msg=name)


def test_labels_may_be_numbers_and_features_arrays(
    windows: LabelledWindows, tmp_path: Path
) -> None:
    path = tmp_path / "w.parquet"
    array = pl.Series("features", windows.ohlc)
    as_frame(windows).with_columns(label=windows.label, features=array).write_parquet(path)
    found = read_labelled(path, LENGTH)
    np.testing.assert_array_equal(found.label, windows.label)
    np.testing.assert_array_equal(found.ohlc, windows.ohlc)


def test_names_of_groups_may_be_text(windows: LabelledWindows, tmp_path: Path) -> None:
    names = ["b", "b", "a", "a", "c", "c", "a", "b"]
    as_frame(windows).with_columns(group=pl.Series(names)).write_parquet(tmp_path / "w.parquet")
    found = read_labelled(tmp_path / "w.parquet", LENGTH)
    assert found.group.tolist() == [1, 1, 0, 0, 2, 2, 0, 1]


def test_without_groups_windows_that_share_bars_are_one(
    windows: LabelledWindows, tmp_path: Path
) -> None:
    # 105 bars from every 52nd: neighbours share 53, window 5 follows after a hole
    long = walks(1, seed=3)[0]
    series = np.concatenate([long, long * 1.5, long * 2.0, long * 2.5])
    starts = [0, 52, 104, 156, 208, 313]
    ohlc = np.stack([series[start : start + LENGTH] for start in starts])
    assert overlap_groups(ohlc).tolist() == [0, 0, 0, 0, 0, 1]
    as_frame(windows).drop("group").write_parquet(tmp_path / "w.parquet")
    found = read_labelled(tmp_path / "w.parquet", LENGTH)
    assert len(set(found.group.tolist())) == len(windows)


def _replace_bar(frame: pl.DataFrame, row: int, bar: list[float] | None) -> pl.DataFrame:
    features = frame["features"].to_list()
    features[row] = features[row][:-1] if bar is None else [*features[row][:-1], bar]
    return frame.with_columns(features=pl.Series(features, dtype=pl.List(pl.List(pl.Float64))))


def _set(frame: pl.DataFrame, column: str, row: int, value: object) -> pl.DataFrame:
    values = frame[column].to_list()
    values[row] = value
    return frame.with_columns(pl.Series(column, values))


@pytest.mark.parametrize(
    ("change", "mentioned"),
    [
        (lambda f: f.drop("label"), "label"),
        (lambda f: f.clear(), "no row"),
        (lambda f: _set(f, "window_id", 1, f["window_id"][0]), "window_id"),
        (lambda f: _replace_bar(f, 2, None), "{2}: expected 105 bars, found 104"),
        (lambda f: _replace_bar(f, 3, [1.0, 1.0, 1.0]), "{3}"),
        (lambda f: _replace_bar(f, 3, [1.0, 1.0, 1.0, np.nan]), "{3}: expected positive prices"),
        (lambda f: _replace_bar(f, 4, [1.0, 1.0, 0.0, 1.0]), "{4}: expected positive prices"),
        (lambda f: _replace_bar(f, 5, [1.0, 0.9, 0.9, 0.9]), "{5}: expected no price above"),
        (lambda f: f.with_columns(features=pl.lit("x")), "features"),
        (lambda f: _set(f, "label", 6, "trend"), "{6}: expected label consolidation"),
        (lambda f: _set(f, "label", 6, None), "{6}: expected label consolidation"),
        (lambda f: f.with_columns(label=pl.lit("retracement")), "retracement only"),
        (lambda f: _set(f, "expansion_end", 7, 3), "{7}: expected 0 <= expansion_start"),
        (lambda f: _set(f, "expansion_end", 7, 105), "to 105"),
        (lambda f: _set(f, "expansion_start", 7, -1), "{7}"),
        (lambda f: _set(f, "expansion_start", 7, None), "{7}: expected a bar's number"),
    ],
)
def test_unusable_file_is_refused_by_what_is_wrong(
    windows: LabelledWindows,
    tmp_path: Path,
    change: Callable[[pl.DataFrame], pl.DataFrame],
    mentioned: str,
) -> None:
    path = tmp_path / "w.parquet"
    change(as_frame(windows)).write_parquet(path)
    with pytest.raises(DataError) as refused:
        read_labelled(path, LENGTH)
    message = str(refused.value)
    names = {str(row): name for row, name in enumerate(windows.window_id)}
    for row, name in names.items():
        mentioned = mentioned.replace(f"{{{row}}}", f"window {name}")
    assert mentioned in message
    assert str(path) in message
    assert "\n" not in message


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"label_expansions\.py"):
        read_labelled(tmp_path / "none.parquet", LENGTH)
    (tmp_path / "text.parquet").write_text("window_id")
    with pytest.raises(DataError, match="parquet"):
        read_labelled(tmp_path / "text.parquet", LENGTH)


def test_features_of_a_window_are_those_of_its_bars_alone() -> None:
    ohlc = walks(3, seed=4)
    table = window_features(ohlc, [*CANDLE_COLUMNS, POSITION], CONFIG)
    bars = Bars(
        np.datetime64("2018-01-01", "us") + np.arange(LENGTH).astype("timedelta64[m]"),
        np.zeros(LENGTH, np.int32),
        ("one",),
        *(ohlc[1, :, column].copy() for column in range(4)),
        None,
        "",
    )
    np.testing.assert_array_equal(table[1, :, :12], relativity_features(bars, CONFIG, LENGTH))
    np.testing.assert_allclose(table[1, :, 12], np.arange(LENGTH) / (LENGTH - 1), rtol=1e-6)


def test_displacements_follow_the_columns_of_a_variant_unless_it_names_them() -> None:
    moves = CONFIG.model_copy(update={"displacement_bars": [4, 8]})
    assert input_columns(PRETRAINING_COLUMNS, CONFIG) == PRETRAINING_COLUMNS
    twelve = input_columns([*CANDLE_COLUMNS[:11], POSITION], moves)
    assert twelve[-3:] == (POSITION, "displacement_4", "displacement_8")
    assert input_columns(["displacement_8", "range_z"], moves) == (
        *("displacement_8", "range_z"),
        "displacement_4",
    )


def test_displacements_of_a_window_begin_in_it() -> None:
    ohlc, moves = walks(3, seed=4), CONFIG.model_copy(update={"displacement_bars": [4]})
    table = window_features(ohlc, ["displacement_4", POSITION], moves)
    assert (table[:, :4, 0] == 0).all()
    assert (table[:, 4:, 0] != 0).mean() > 0.9
    rises = ohlc[:, 4:, 3] - ohlc[:, :-4, 3]
    np.testing.assert_array_equal(np.sign(table[:, 4:, 0]), np.sign(rises))


def test_columns_come_in_the_order_asked_for() -> None:
    ohlc = walks(2, seed=5)
    every = window_features(ohlc, CANDLE_COLUMNS, CONFIG)
    some = window_features(ohlc, ["range_z", "open_norm"], CONFIG)
    np.testing.assert_array_equal(some, every[..., [5, 0]])


def test_unknown_column_is_refused() -> None:
    with pytest.raises(DataError, match="rsi_14"):
        window_features(walks(1, seed=5), ["open_norm", "rsi_14"], CONFIG)


def test_no_group_is_in_two_parts_and_every_window_is_in_one() -> None:
    group = np.repeat(np.arange(40), [1, 9, 3, 7] * 10)
    split = split_by_group(group, 0.2, 0.3, seed=1)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    names = [set(group[part].tolist()) for part in parts]
    assert names[0] & names[1] == names[0] & names[2] == names[1] & names[2] == set()
    # a group may overshoot its part by its own size less one
    shares = [len(part) / 200 for part in parts]
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=8 / 200)


def test_split_follows_from_the_seed() -> None:
    group = np.arange(50)
    first, again, other = (split_by_group(group, 0.2, 0.2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test, again.test)
    assert set(first.test.tolist()) != set(other.test.tolist())


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(DataError, match="1 groups"):
        split_by_group(np.zeros(100, np.int64), 0.2, 0.2, seed=0)


RULE = load_config().encoders.expansion
START = np.datetime64("2018-03-01T00:00", "us")
DAY = 24 * 60


def windowed(stride: int = 20) -> WindowedConfig:
    return load_config(overrides={"windowed": {"stride": stride}}).windowed


def series(n_bars: int, seed: int = 0, minutes: np.ndarray | None = None) -> Bars:
    """A heavy-tailed walk on one-minute bars."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.001 * rng.standard_t(3, n_bars)))
    opens = np.append(close[0], close[:-1])
    wick = 1 + 0.0005 * rng.random((2, n_bars))
    minutes = np.arange(n_bars) if minutes is None else minutes
    return Bars(
        timestamps=START + minutes.astype("timedelta64[m]"),
        instrument=np.zeros(n_bars, np.int32),
        instruments=("BTC",),
        open=opens,
        high=np.maximum(opens, close) * wick[0],
        low=np.minimum(opens, close) / wick[1],
        close=close,
        volume=None,
        content_hash="made",
    )


@pytest.fixture(scope="module")
def bars() -> Bars:
    return series(3 * DAY)


@pytest.fixture(scope="module")
def frame(bars: Bars) -> pl.DataFrame:
    return label_bars(bars, windowed(), RULE)[0]


def test_windows_hold_the_bars_that_follow_their_time(bars: Bars, frame: pl.DataFrame) -> None:
    for row in frame.iter_rows(named=True):
        first = int((np.datetime64(row["time"], "us") - START) / np.timedelta64(1, "m"))
        expected = [bars.open, bars.high, bars.low, bars.close]
        part = np.stack([column[first : first + LENGTH] for column in expected], axis=1)
        np.testing.assert_array_equal(np.array(row["features"]), part)
        assert row["window_id"] == f"BTC {np.datetime64(row['time'], 'us')}"


def test_labels_are_those_of_the_rule_on_the_window_alone(frame: pl.DataFrame) -> None:
    label = expansion_label(np.array(frame["features"].to_list()), RULE)
    assert set(label.count.tolist()) == {1}
    assert label.start.tolist() == frame["expansion_start"].to_list()
    assert label.end.tolist() == frame["expansion_end"].to_list()
    names = ["retracement" if after else "consolidation" for after in label.is_retracement]
    assert names == frame["label"].to_list()


def test_no_bar_is_in_two_groups(frame: pl.DataFrame) -> None:
    first, minutes = frame["time"].to_numpy(), np.timedelta64(LENGTH - 1, "m")
    for times in (first, first + minutes):
        days = times.astype("datetime64[D]").astype(str)
        assert days.tolist() == frame["group"].to_list()
    assert frame["group"].n_unique() == 3


def test_groups_are_days_whatever_the_instrument() -> None:
    one = series(2 * DAY)
    two = Bars(
        np.tile(one.timestamps, 2),
        np.repeat(np.arange(2, dtype=np.int32), len(one)),
        ("BTC", "ETH"),
        *(np.tile(column, 2) for column in (one.open, one.high, one.low, one.close)),
        None,
        "made",
    )
    found, rates = label_bars(two, windowed(), RULE)
    alone, _ = label_bars(one, windowed(), RULE)
    assert found["group"].to_list() == 2 * alone["group"].to_list()
    assert rates["groups"] == 2
    assert found["window_id"].n_unique() == 2 * alone.height


def test_no_window_crosses_missing_bars() -> None:
    most = windowed().max_missing_bars
    minutes = np.arange(DAY - 200)
    minutes[600:] += most + 1  # one more than is allowed
    frame, rates = label_bars(series(DAY - 200, minutes=minutes), windowed(1), RULE)
    allowed, other = label_bars(
        series(DAY - 200, minutes=np.where(minutes >= 600, minutes - 1, minutes)), windowed(1), RULE
    )
    assert other["scanned"] == DAY - 200 - LENGTH + 1
    assert rates["scanned"] == other["scanned"] - (LENGTH - 1)
    before = (frame["time"].to_numpy() - START) / np.timedelta64(1, "m")
    assert not ((before > 600 - LENGTH) & (before < 600)).any()
    assert allowed.height >= frame.height


def test_rates_count_what_was_looked_at(bars: Bars, frame: pl.DataFrame) -> None:
    _, rates = label_bars(bars, windowed(), RULE)
    # of each day of 1440 bars: starts 0, 20, ..., 1320
    assert rates["scanned"] == 3 * 67
    assert rates["without"] + rates["several"] + rates["labelled"] == rates["scanned"]
    assert rates["labelled"] == frame.height > 0
    length = frame["expansion_end"] - frame["expansion_start"] + 1
    assert rates["mean_bars"] == pytest.approx(length.mean())
    assert rates["share_inside"] == pytest.approx(length.sum() / (frame.height * LENGTH))
    assert rates["share_retracement"] == pytest.approx((frame["label"] == "retracement").mean())


def test_draw_keeps_the_order_and_follows_the_seed(frame: pl.DataFrame) -> None:
    first, again, other = (draw(frame, 10, seed)["window_id"].to_list() for seed in (1, 1, 2))
    assert first == again != other
    places = [frame["window_id"].to_list().index(name) for name in first]
    assert places == sorted(places)
    assert draw(frame, 10**6, 0).height == frame.height


def test_bars_between_two_days_include_both(bars: Bars) -> None:
    day = datetime.date(2018, 3, 2)
    part = between(bars, day, day)
    assert len(part) == DAY
    assert (part.timestamps[0], part.close[0]) == (bars.timestamps[DAY], bars.close[DAY])
    assert len(between(bars, None, None)) == len(bars)
    with pytest.raises(DataError, match="2019"):
        between(bars, datetime.date(2019, 1, 1), None)


def test_bars_without_a_usable_window_are_refused() -> None:
    with pytest.raises(DataError, match="block_days"):
        label_bars(series(LENGTH - 1), windowed(), RULE)
    impossible = ExpansionConfig(**{**RULE.model_dump(), "min_move_atr": 1e6})
    with pytest.raises(DataError, match="none among"):
        label_bars(series(300), windowed(), impossible)
