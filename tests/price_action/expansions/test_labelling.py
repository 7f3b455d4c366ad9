"""Labelled windows from bars: inside a block, across no hole, one expansion each, counted."""

import datetime

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.encoder_schema import ExpansionConfig, WindowedConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.bars import Bars
from hrl_sarp.errors import DataError
from hrl_sarp.features.labels import expansion_label
from hrl_sarp.price_action.expansions.labelling import between, draw, label_bars
from tests.price_action.expansions.labelled_factories import LENGTH

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
