"""Series are read whole and adjusted, know their holes, and say when their next bars come."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from loguru import logger

from hrl_sarp.errors import DataError, MissingArtifactError
from hrl_sarp.forecasters.contract import BAR_COLUMNS, CLOSE
from hrl_sarp.forecasters.series import Series, content_hash, next_times, read_series

MONDAY = np.datetime64("2024-03-04T00:00:00", "us")


def _times(unit: str, count: int, step: int = 1) -> np.ndarray:
    return MONDAY + np.arange(count) * np.timedelta64(step, unit)


def _weekdays(times: np.ndarray) -> np.ndarray:
    return times[(times.astype("datetime64[D]").astype(int) + 3) % 7 < 5]


def _series(times: np.ndarray) -> Series:
    return Series("A", times, np.linspace(1.0, 2.0, len(times)), None)


def _frame(times: np.ndarray, seed: int = 0, **columns: object) -> pl.DataFrame:
    close = 50.0 * np.exp(np.random.default_rng(seed).normal(0, 0.01, len(times)).cumsum())
    prices = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close}
    return pl.DataFrame({"date": times, **prices, "volume": 7.0, **columns})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder_gives_every_symbol_of_every_file(tmp_path: Path, suffix: str) -> None:
    times = _weekdays(_times("D", 60))
    two = [_frame(times, seed, symbol=name) for seed, name in enumerate("BA")]
    for name, frame in {"one": pl.concat(two), "two": _frame(times, 3, symbol="C")}.items():
        path = tmp_path / f"{name}.{suffix}"
        frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    (tmp_path / "notes.txt").write_text("no bars")
    found = read_series(tmp_path)
    assert [one.symbol for one in found] == ["A", "B", "C"]
    assert found[0].target == pytest.approx(two[1]["close"].to_numpy())
    assert found[0].bars[:, CLOSE] == pytest.approx(found[0].target)
    amount = dict(zip(BAR_COLUMNS, found[0].bars[3], strict=True))
    assert amount["amount"] == pytest.approx(7.0 * found[0].bars[3, :4].mean())


def test_a_symbol_of_two_files_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="nothing_here"):
        read_series(tmp_path / "nothing_here")
    with pytest.raises(DataError, match="found none"):
        read_series(tmp_path)
    for name in ("one", "two"):
        _frame(_times("D", 9), symbol="A").write_csv(tmp_path / f"{name}.csv")
    with pytest.raises(DataError, match=r"two\.csv: A is also in .*one\.csv"):
        read_series(tmp_path)


def test_adjusted_closes_take_a_split_out_of_prices_and_volumes(tmp_path: Path) -> None:
    times = _weekdays(_times("D", 60))
    plain = _frame(times)
    factor = pl.Series([2.0] * 20 + [1.0] * (len(times) - 20))  # a 2:1 split before row 20
    raw = plain.with_columns(
        *(pl.col(name) * factor for name in ("open", "high", "low", "close")),
        pl.col("volume") / factor,
        adj_close=plain["close"],
    )
    for name, frame in {"plain": plain, "raw": raw}.items():
        frame.with_columns(symbol=pl.lit("A")).write_parquet(tmp_path / f"{name}.parquet")
    found = {name: read_series(tmp_path / f"{name}.parquet")[0] for name in ("plain", "raw")}
    assert found["raw"].bars == pytest.approx(found["plain"].bars, rel=1e-12)


@pytest.mark.parametrize("bad", [None, 0.0, -1.0])
def test_a_missing_adjusted_close_is_refused_by_symbol_and_day(
    tmp_path: Path, bad: float | None
) -> None:
    adjusted = pl.Series([50.0] * 4 + [bad] + [50.0] * 4)
    path = tmp_path / "bars.csv"
    _frame(_times("D", 9), symbol="ABC", adj_close=adjusted).write_csv(path)
    with pytest.raises(DataError, match=r"bars\.csv: ABC, 2024-03-08.*adjusted close above 0"):
        read_series(path)


def test_moves_as_by_a_split_are_named(tmp_path: Path) -> None:
    frame = _frame(_weekdays(_times("D", 60)), symbol="ABC")
    prices = [pl.col(name) * pl.Series([4.0] * 9 + [1.0] * 35) for name in BAR_COLUMNS[:4]]
    frame.with_columns(prices).write_csv(tmp_path / "bars.csv")
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING")
    read_series(tmp_path / "bars.csv")
    logger.remove(sink)
    assert "ABC 2024-03-15" in "".join(lines)


CASES = {
    "1-day bars in sessions": _weekdays(_times("D", 90)),
    "1-day bars around the clock": _times("D", 90),
    "15-minute bars in sessions": _weekdays(_times("m", 4000, 15)),
    "1-minute bars around the clock": _times("m", 20_000),
    "1-week bars around the clock": _times("D", 40, 7),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_kind_follows_from_the_times_and_a_whole_series_has_no_hole(kind: str) -> None:
    series = _series(CASES[kind])
    assert series.kind == kind
    assert series.stretch[-1] == 0


@pytest.mark.parametrize(("kind", "hole"), list(zip(CASES, [8, 5, 600, 5, 3], strict=True)))
def test_a_hole_begins_another_stretch_and_no_history_reaches_across(kind: str, hole: int) -> None:
    times = np.delete(CASES[kind], np.arange(20, 20 + hole))
    series = _series(times)
    assert series.stretch.tolist() == [0] * 20 + [1] * (len(times) - 20)
    history = series.until(24, times[24:26], 64)
    assert history.timestamps.tolist() == times[20:24].tolist()


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("cut", [60, 77, 83])
def test_the_next_times_are_those_that_come(kind: str, cut: int) -> None:
    times = CASES[kind]
    cut = cut if len(times) > 90 else min(cut, len(times) - 8)
    expected = times[cut : cut + 7]
    assert next_times(_series(times[:cut]), 7).tolist() == expected.tolist()


def test_bars_of_months_keep_the_day_of_the_month() -> None:
    months = np.arange("2020-01", "2023-01", dtype="datetime64[M]").astype("datetime64[us]")
    assert next_times(_series(months[:20]), 16).tolist() == months[20:].tolist()
    quarters = months[::3]
    assert next_times(_series(quarters[:8]), 4).tolist() == quarters[8:].tolist()


@pytest.mark.parametrize("day", [28, 29, 30, 31])
@pytest.mark.parametrize("months", [1, 3, 12])
def test_ends_of_months_stay_ends_of_months(day: int, months: int) -> None:
    begins = np.arange("2019-12", "2049-12", months, dtype="datetime64[M]")
    ends = (begins + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    weekdays = np.busday_offset(ends, 0, roll="backward")
    same = np.minimum(begins.astype("datetime64[D]") + np.timedelta64(day - 1, "D"), ends)
    for days in (ends, weekdays, same):
        times = days.astype("datetime64[us]")
        for cut in (14, 26):
            assert next_times(_series(times[:cut]), 4).tolist() == times[cut : cut + 4].tolist()


@pytest.mark.parametrize("minutes", [60, 1440])
@pytest.mark.parametrize("shift", [1, -1])
def test_a_clock_that_was_put_forward_or_back_gives_no_time_twice_a_day(
    minutes: int, shift: int
) -> None:
    days = _weekdays(_times("D", 90))
    opened = np.arange(13 * 60, 20 * 60 if minutes < 1440 else 13 * 60 + 1, minutes)
    times = (days[:, None] + opened * np.timedelta64(1, "m")).ravel()
    n_day = len(opened)
    moved = times + np.where(np.arange(len(times)) < 50 * n_day, 0, shift) * np.timedelta64(1, "h")
    for cut in (51, 55, 60):
        found = next_times(_series(moved[: cut * n_day]), 5 * n_day)
        counts = np.unique(found.astype("datetime64[D]"), return_counts=True)[1]
        assert counts.tolist() == [n_day] * 5
    assert (
        found.tolist() == moved[60 * n_day : 65 * n_day].tolist()
    )  # all days are of the new clock


@pytest.mark.parametrize("n_bars", [30, 500, 1000])
@pytest.mark.parametrize("weekday", range(7))
def test_a_few_hours_that_show_no_night_go_on_around_the_clock(n_bars: int, weekday: int) -> None:
    begin = np.timedelta64(weekday * 24 + 20, "h")
    times = _times("m", n_bars + 10) + begin
    assert next_times(_series(times[:n_bars]), 10).tolist() == times[n_bars:].tolist()


@pytest.mark.parametrize("n_days", [2, 3, 4])
def test_a_few_days_that_show_a_night_keep_their_session(n_days: int) -> None:
    session = np.arange(9 * 60 + 30, 16 * 60, 15) * np.timedelta64(1, "m")
    times = (_weekdays(_times("D", 9))[:, None] + session).ravel()
    n_bars = n_days * len(session)
    ahead = next_times(_series(times[:n_bars]), 2 * len(session))
    assert ahead.tolist() == times[n_bars : n_bars + 2 * len(session)].tolist()


def test_two_days_of_a_week_do_not_close_the_others() -> None:
    days = _weekdays(_times("D", 14))
    assert next_times(_series(days[1:3]), 5).tolist() == days[3:8].tolist()


def test_a_short_day_does_not_shorten_the_days_to_come() -> None:
    session = np.arange(9 * 60 + 30, 16 * 60, 15) * np.timedelta64(1, "m")
    times = (_weekdays(_times("D", 40))[:, None] + session).ravel()
    n_bars = 12 * len(session)
    short = np.delete(times[:n_bars], np.arange(n_bars - 40, n_bars - len(session)))
    ahead = next_times(_series(short), 6 * len(session))
    assert ahead.tolist() == times[n_bars : n_bars + 6 * len(session)].tolist()


def test_one_bar_of_a_symbol_is_refused_by_file_and_time(tmp_path: Path) -> None:
    frame = pl.concat([_frame(_times("D", 9), symbol="A"), _frame(_times("D", 1), symbol="B")])
    frame.write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match=r"bars\.csv: B: expected at least 2 bars.*2024-03-04"):
        read_series(tmp_path / "bars.csv")


@pytest.mark.parametrize("name", ["A.CSV", "A.Parquet"])
def test_endings_of_files_may_be_capitals(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frame = _frame(_times("D", 9), symbol="A")
    frame.write_csv(path) if name.endswith("CSV") else frame.write_parquet(path)
    assert [one.symbol for one in read_series(tmp_path)] == ["A"]


def test_the_hash_tells_values_times_and_symbols_apart() -> None:
    series = _series(CASES["1-day bars around the clock"])
    others = [
        Series("B", series.timestamps, series.target, None),
        Series("A", series.timestamps + np.timedelta64(timedelta(days=1)), series.target, None),
        Series("A", series.timestamps, series.target + 1e-12, None),
    ]
    assert len({content_hash([one]) for one in (series, *others)}) == 4
