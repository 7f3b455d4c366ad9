"""Tables of any types go in and come back in them; what has no place is refused by row."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.api import LoadedForecaster
from hrl_sarp.forecasters.contract import BAR_COLUMNS
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.evaluation.plan import Vintage
from hrl_sarp.forecasters.frames import Names, find_columns, series_of_table

NAIVE = LoadedForecaster(LastValue(), Vintage("last value", None, "rule"))
USUAL = Names("item_id", "timestamp", "target")
DAYS = pd.bdate_range("2024-01-01", periods=30)


def table(times: pd.DatetimeIndex = DAYS) -> pl.DataFrame:
    parts = [
        pl.DataFrame(
            {"item_id": name, "timestamp": times, "target": np.arange(1.0, len(times) + 1)}
        )
        for name in (7, 3)
    ]
    return pl.concat(parts)


IDS = {
    "whole numbers": pl.Int32,
    "texts": pl.String,
    "categories": pl.Categorical,
    "fractions": pl.Float64,
}
TIMES = {
    "dates": pl.Date,
    "milliseconds": pl.Datetime("ms"),
    "nanoseconds": pl.Datetime("ns"),
    "a zone": pl.Datetime("us", "Asia/Tokyo"),
}


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("times", TIMES)
def test_symbols_and_times_come_back_in_their_types(ids: str, times: str) -> None:
    symbol = pl.col("item_id")
    if ids == "categories":
        symbol = symbol.cast(pl.String)
    moment = pl.col("timestamp")
    if times == "a zone":
        moment = moment.dt.replace_time_zone("Asia/Tokyo")
    frame = table().with_columns(symbol.cast(IDS[ids]), moment.cast(TIMES[times]))
    found = NAIVE.predict_df(frame, 2, (0.5,))
    assert found.schema["item_id"] == frame.schema["item_id"]
    assert found.schema["timestamp"] == frame.schema["timestamp"]
    assert found["item_id"].to_list() == [
        value for value in frame["item_id"][[0, 30]] for _ in "12"
    ]
    expected = [f"2024-02-{day}" for day in (12, 13)] * 2
    assert found["timestamp"].dt.strftime("%Y-%m-%d").to_list() == expected
    # a table that is put below its history is one table
    pl.concat([frame.select("item_id", "timestamp"), found.select("item_id", "timestamp")])


def test_categories_and_zones_of_pandas_come_back() -> None:
    frame = table().to_pandas().astype({"item_id": str}).astype({"item_id": "category"})
    frame["timestamp"] = frame["timestamp"].dt.tz_localize("America/New_York")
    found = NAIVE.predict_df(frame, 2, (0.5,))
    assert found["timestamp"].dtype == frame["timestamp"].dtype
    assert isinstance(found["item_id"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC", "Australia/Sydney"])
def test_a_market_that_closes_keeps_the_clock_of_its_zone_over_the_change_of_the_hour(
    zone: str,
) -> None:
    times = pd.bdate_range("2024-02-20", "2024-04-15", tz=zone) + pd.Timedelta(hours=16)
    for cut in range(15, len(times) - 3):
        found = NAIVE.predict_df(table(times[:cut]), 3, (0.5,))
        assert found["timestamp"].to_list()[:3] == times[cut : cut + 3].to_pydatetime().tolist()


@pytest.mark.parametrize("begin", ["2024-03-28", "2024-10-24"])
def test_a_market_that_never_closes_goes_on_through_the_change_of_the_hour(begin: str) -> None:
    times = pd.date_range(begin, periods=120, freq="1h", tz="UTC").tz_convert("Europe/Berlin")
    for cut in (60, 72, 73, 74, 75, 100):
        found = NAIVE.predict_df(table(times[:cut]), 4, (0.5,))
        assert found["timestamp"].to_list()[:4] == times[cut : cut + 4].to_pydatetime().tolist()


def _without(column: str, row: int) -> Callable[[pl.DataFrame], pl.DataFrame]:
    is_row = pl.int_range(pl.len()) == row
    return lambda frame: frame.with_columns(pl.when(~is_row).then(pl.col(column)).alias(column))


BAD: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], dict[str, str], str]] = {
    "a missing time": (_without("timestamp", 4), {}, "row 4: column timestamp"),
    "a missing symbol": (_without("item_id", 33), {}, "row 33: column item_id"),
    "a symbol that is not a number": (
        lambda f: f.with_columns(pl.col("item_id").cast(pl.Float64).replace(3.0, np.nan)),
        {},
        "row 30: column item_id",
    ),
    "durations": (
        lambda f: f.with_columns(timestamp=pl.lit(timedelta(days=1))),
        {},
        "column timestamp: expected dates or times",
    ),
    "times of day": (
        lambda f: f.with_columns(pl.col("timestamp").dt.time()),
        {},
        "column timestamp: expected dates or times",
    ),
    "another name": (lambda f: f, {"id_column": "ticker"}, "expected a column ticker, found item_"),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_that_belong_nowhere_are_refused(case: str) -> None:
    change, options, message = BAD[case]
    frame = change(table())
    with pytest.raises(ForecastError, match=message):
        NAIVE.predict_df(frame, 2, **options)
    with pytest.raises(ForecastError, match=message):
        NAIVE.predict_df(frame.to_pandas(), 2, **options)


BARS = {"open": 10.0, "high": 12.0, "low": 9.0, "volume": 5.0}


@pytest.mark.parametrize(
    ("target", "has_close", "are_bars"),
    [
        ("close", True, True),
        ("target", False, True),
        ("target", True, False),
        ("volume", True, False),
        ("volume", False, False),
        ("open", True, False),
    ],
)
def test_only_a_close_stands_among_bars(target: str, *, has_close: bool, are_bars: bool) -> None:
    frame = table().with_columns(**{name: pl.lit(value) for name, value in BARS.items()})
    if has_close:
        frame = frame.with_columns(close=pl.lit(11.0))
    series = series_of_table(frame, find_columns(frame, Names("item_id", "timestamp", target)))
    assert [one.bars is not None for one in series] == [are_bars] * 2
    assert series[1].target == pytest.approx(frame[target].to_numpy()[30:])


def test_amounts_of_a_table_are_taken_and_else_made_of_volumes() -> None:
    frame = table().with_columns(**{name: pl.lit(value) for name, value in BARS.items()})
    amount = BAR_COLUMNS.index("amount")
    made = series_of_table(frame, USUAL)[0].bars
    assert made[:, amount] == pytest.approx(5.0 * made[:, :4].mean(axis=1))
    given = series_of_table(frame.with_columns(amount=pl.lit(77.0)), USUAL)[0].bars
    assert given[:, amount] == pytest.approx(77.0)


def test_levels_may_be_an_array_and_a_series_has_one_axis() -> None:
    levels = np.array([0.1, 0.5, 0.9])
    assert NAIVE.predict_df(table(), 2, levels).columns[-3:] == ["0.1", "0.5", "0.9"]
    values = np.arange(1.0, 20.0)
    assert NAIVE.predict_quantiles(values[None], 2, levels)[0].shape == (1, 2, 3)
    with pytest.raises(ForecastError, match="series 0: expected values along one axis"):
        NAIVE.predict_quantiles(values[None, None], 2)
    for steps in (0, -1):
        with pytest.raises(ForecastError, match="at least 1 step"):
            NAIVE.predict_quantiles([values], steps)
